"""What a running solve shows on stderr: one line that is rewritten, or one line an event."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from bilevel_core.report import number
from bilevel_core.run import Event

EVERY = 0.2
KNOWN = ("start", "iteration", "objective", "best", "bound", "nodes", "message")
"""Entries of an event that have a place of their own in the line; other numbers are a method's figures."""


class Progress:
    """Shows events. Usable as a callback.

    Args:
        mode: ``bar`` (one line, rewritten), ``log`` (a line each), ``none``, or ``auto``: ``bar`` on a terminal.
        stream: where to; stderr by default.
    """

    def __init__(self, mode: str, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        if mode == "auto":
            mode = "bar" if self.stream.isatty() else "none"
        self.mode = mode
        self._last = 0.0
        self._width = 0
        self._incumbent = ""

    def __call__(self, event: Event) -> None:
        """Show one event; those that come fast are thinned out, incumbents and phases are not."""
        if self.mode == "none" or event.kind in ("start", "end"):
            return
        now = time.monotonic()
        if event.kind == "iteration" and now - self._last < EVERY:
            return
        self._last = now
        text = self._text(event)
        if self.mode == "log":
            print(text, file=self.stream, flush=True)
        else:
            print("\r" + text.ljust(self._width)[:110], end="", file=self.stream, flush=True)
            self._width = len(text)

    def close(self) -> None:
        """Wipe the line."""
        if self.mode == "bar" and self._width:
            print("\r" + " " * min(self._width, 110) + "\r", end="", file=self.stream, flush=True)
            self._width = 0

    def _text(self, event: Event) -> str:
        data = event.data
        parts = [f"{event.time:8.1f} s"]
        if "message" in data:
            parts.append(str(data["message"]))
        steps = event.kind == "iteration" and "iteration" in data
        if steps:
            parts.append((f"start {data['start']}  " if data.get("start") else "") + f"iteration {data['iteration']}")
        # In a method that goes step by step the current point is not the best one; in a search the two are the same.
        shown: dict[str, str] = {}
        for key, label in (("best", "best"), ("objective", "now" if steps else "best"), ("bound", "bound")):
            if data.get(key) is not None:
                shown[label] = number(float(data[key]))
        parts += [f"{label} {text}" for label, text in shown.items()]
        if steps or data.get("gap") is not None:
            parts += [f"{k.replace('_', ' ')} {_short(v)}" for k, v in data.items() if k not in KNOWN and _is_number(v)]
        if data.get("nodes"):
            parts.append(f"nodes {data['nodes']}")
        if event.kind == "incumbent":
            parts.append("*")
        return "  ".join(parts)


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
