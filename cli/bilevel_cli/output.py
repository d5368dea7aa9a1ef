"""Printing: results on stdout, warnings on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from bilevel_core.plugins.registry import get_registry


def echo(text: str) -> None:
    """Text on stdout."""
    print(text, flush=True)


def echo_json(data: Any, *, indent: int | None = 2) -> None:
    """One JSON value on stdout."""
    print(json.dumps(data, indent=indent, allow_nan=False), flush=True)


def echo_warnings() -> None:
    """What went wrong with plugins since the last call, on stderr."""
    for text in get_registry().new_warnings():
        print(f"bilevel: warning: {text}", file=sys.stderr)
