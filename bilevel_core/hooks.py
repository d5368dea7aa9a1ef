"""The marker that plugins put on their hooks, and the version of the hooks. Imports pluggy and nothing else."""

from __future__ import annotations

import pluggy

HOOK_API = 1
"""Raised when a hook changes in a way that breaks plugins. A plugin may state ``BILEVEL_HOOK_API = 1``."""

PROJECT = "bilevel"
"""The pluggy project name, and the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
