"""The hooks of hyperparameter tuning. None yet: the plugin is listed, and offers nothing."""

from __future__ import annotations

BILEVEL_HOOK_API = 1
