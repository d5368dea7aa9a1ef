"""What an MPS or LP file says, as arrays, and the opening of text files whose faults are named by line.

One level only: which columns and rows are a follower's, the auxiliary file says (`mps_auxiliary`).
"""

from __future__ import annotations

import difflib
import gzip
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.program import INF, Variable

HUGE = 1e20
"""A bound or side of at least this size is none, as readers of these formats agree."""


@dataclass(frozen=True)
class Source:
    """A text file, opened: its lines count from 1."""

    path: Path
    lines: tuple[str, ...]

    def fault(self, line: int, text: str) -> UsageError:
        """The error for a fault in a line; line 0 stands for the file as a whole."""
        return UsageError(f"{self.path}:{line}: {text}" if line else f"{self.path}: {text}")


class Fault(Exception):
    """A fault in a line (0 for the file as a whole), before it is known which file that is."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line, self.text = line, text


def open_text(path: Path, what: str) -> Source:
    """Read a text file, compressed by gzip or not. Text that is no UTF-8 is taken for ISO 8859-1.

    Raises:
        UsageError: there is no such file, or it is no text.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise UsageError(f"There is no {what} {str(path)!r}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"The {what} {str(path)!r} cannot be read: {error}.") from error
    if b"\0" in content:
        raise UsageError(f"The {what} {str(path)!r} holds binary data, not text.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("iso-8859-1")
    # Not splitlines(): a name may contain characters that it takes for ends of lines.
    return Source(path, tuple(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")))


def as_number(text: str) -> float | None:
    """The number that a text is, infinities included and Fortran's ``1.5D3`` too; None where it is none."""
    try:
        value = float(text)
    except ValueError:
        try:
            value = float(text.replace("D", "E").replace("d", "e"))
        except ValueError:
            return None
    # Python takes 1_000 for a number; no other reader does.
    return None if math.isnan(value) or "_" in text else value


def as_bound(value: float) -> float:
    """A bound or a side; from `HUGE` on there is none."""
    return value if abs(value) < HUGE else math.copysign(INF, value)


def bounded(name: str, lower: float, upper: float, *, integer: bool) -> Variable:
    """A column with its bounds; those of an integer are rounded inwards, and may then cross."""
    if integer:
        lower = float(math.ceil(lower - 1e-9)) if math.isfinite(lower) else lower
        upper = float(math.floor(upper + 1e-9)) if math.isfinite(upper) else upper
    return Variable(name, lower, upper, integer)


def crossing(name: str, lower: float, upper: float) -> str:
    """What is wrong with the bounds of a column that has no value between them."""
    if lower <= upper:
        return f"there is no integer between the bounds {lower:g} and {upper:g} of {name!r}."
    return f"the lower bound {lower:g} of {name!r} lies above the upper one, {upper:g}."


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at a known name that is like this one; "" where there is none."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class LinearFile:
    """A mixed-integer linear program as a file states it.

    Attributes:
        path: the file.
        name: what the file calls itself; may be empty.
        columns: the variables, in the file's order.
        costs: objective coefficients, shape (columns,), in the file's own sense.
        constant: the objective's constant.
        maximise: the file's sense.
        rows: names of the constraints, in the file's order; objective and free rows are not among them.
        lower, upper: sides of the constraints, shape (rows,), infinite where absent.
        entry_rows, entry_columns, entry_values: the coefficients other than zero, shape (entries,) each.
        dropped: names of rows that are no constraints, and why.
    """

    path: Path
    name: str
    columns: tuple[Variable, ...]
    costs: np.ndarray
    constant: float
    maximise: bool
    rows: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    entry_rows: np.ndarray
    entry_columns: np.ndarray
    entry_values: np.ndarray
    dropped: Mapping[str, str]
