"""Tests of differentiable problems. The folder is not called torch: that would hide the library of that name."""
