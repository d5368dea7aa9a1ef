"""What a check is: a function that raises `Failed`, with the version of the kit that it came in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Failed(AssertionError):
    """A check found a fault. The message says what was expected, what was got, and what to do."""


class NotApplicable(Exception):
    """A check has nothing to look at here; the message says why."""


def since(version: str) -> Callable[[F], F]:
    """Mark a check with the version that it came in.

    Args:
        version: ``"0.1"``.
    """

    def mark(function: F) -> F:
        function.since = version  # type: ignore[attr-defined]
        return function

    return mark


def version_of(function: Any) -> str:
    """The version that a check came in.

    Raises:
        AttributeError: it is not marked.
    """
    return str(function.since)


def later(version: str, limit: str) -> bool:
    """Whether a check of this version is newer than an author has asked for; "" asks for all."""
    if not limit:
        return False
    parts = [tuple(int(p) for p in text.split(".")) for text in (version, limit)]
    return parts[0] > parts[1]


def expect(holds: bool, message: str) -> None:
    """Fail with a message unless something holds.

    Raises:
        Failed: it does not.
    """
    if not holds:
        raise Failed(message)
