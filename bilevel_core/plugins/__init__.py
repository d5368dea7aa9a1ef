"""The plugin host: what plugins hand over, which hooks there are, and how plugins are found and kept apart.

Imports nothing at package level, so that the command line can list plugins before anything heavy is loaded.
"""
