"""Tests of the toll plugin."""
