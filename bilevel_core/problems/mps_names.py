"""Names and numbers as MPS files take them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bilevel_core.errors import UsageError
from bilevel_core.problems.mps_parse import KEYWORDS

WIDTH = 8
"""Most characters of a name in fixed format."""
NUMBER_WIDTH = 12
"""Most characters of a number in fixed format."""


def fitting_names(names: Sequence[str], letter: str, *, fixed: bool) -> list[str]:
    """The names themselves where they can be written; else names of their kind that can.

    In free format only blanks must go, a leading ``@`` or ``*``, and names that are names of sections. In fixed format,
    once one name is too long all become a letter and their number, as in ``C0000012``: that is easier to read than a
    mixture.
    """
    if fixed and any(not n or len(n) > WIDTH or not n.isascii() or n != _plain(n) for n in names):
        return [f"{letter}{k:07d}" for k in range(len(names))]
    taken = {n for n in names if n == _plain(n)}
    if len(taken) == len(names):
        return list(names)
    out: list[str] = []
    used: set[str] = set()
    for name in names:
        wanted = plain = _plain(name)
        k = 2
        while wanted in used or (wanted in taken and wanted != name):
            wanted, k = f"{plain}_{k}", k + 1
        used.add(wanted)
        out.append(wanted)
    return out


def _plain(name: str) -> str:
    """A name without what a reader would take for an end, a keyword or a comment."""
    text = "".join("_" if c.isspace() or not c.isprintable() else c for c in name)
    return "_" + text if not text or text[0] in "@*" or text.upper() in KEYWORDS else text


def number_text(value: float, what: str, *, fixed: bool) -> str:
    """The shortest text that reads back as the same number.

    Raises:
        UsageError: it does not fit the fixed format.
    """
    value = float(value)
    short = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if fixed and len(short) > NUMBER_WIDTH:
        raise UsageError(
            f"{what} is {short}: fixed format has {NUMBER_WIDTH} characters for a number. "
            "Use layout='free', or round it."
        )
    return short


def span_of(lower: float, upper: float) -> tuple[str, float, float]:
    """A row with two sides as type, right-hand side and range, such that reading gives back both sides.

    Where rounding allows that for neither type (sides of opposite sign, and even then rarely), the last digit of one
    side is lost.
    """
    guess = upper - lower
    for kind, side, other in (("G", lower, upper), ("L", upper, lower)):
        for span in (guess, math.nextafter(guess, 0.0), math.nextafter(guess, math.inf)):
            if (side + span if kind == "G" else side - span) == other:
                return kind, side, span
    return "L", upper, guess
