"""Errors a user can meet. Each message names the part at fault and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BilevelError(Exception):
    """Base of every error that `bilevel` raises on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(BilevelError):
    """The input is wrong: an unknown name, a bad option, a file that cannot be read."""

    exit_code = 2


class ModelError(UsageError):
    """The problem as written is not a bilevel problem that the core can read."""


class RefusedError(UsageError):
    """A solver does not take this class of problem; the message says why and what could."""


class MissingError(BilevelError):
    """A plugin or a backend that is needed is not installed, or is broken."""

    exit_code = 6


class BackendError(BilevelError):
    """A backend failed, or returned something that contradicts itself."""


def unknown(kind: str, name: str, known: Iterable[str], *, see: str = "") -> UsageError:
    """The error for a name that is not among the known ones, with the nearest of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if not close and len(names) > 12:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    text = f"There is no {kind} named {name!r}."
    if close:
        text += f" Did you mean {' or '.join(repr(c) for c in close)}?"
    elif names and len(names) <= 12:
        text += f" Known: {', '.join(names)}."
    if see:
        text += f" {see}"
    return UsageError(text)
