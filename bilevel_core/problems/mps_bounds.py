"""The section BOUNDS of an MPS file, and the variables that come of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bilevel_core.problems.mps_file import Fault, as_bound, as_number, bounded, crossing, nearest
from bilevel_core.program import INF, Variable

WITH_VALUE = ("UP", "LO", "FX", "LI", "UI")
WITHOUT_VALUE = ("FR", "MI", "PL", "BV")


class Bounds:
    """Collects bounds.

    Args:
        columns: name -> number, complete once the first bound comes.
        integers: whether each column is integer; bounds of type LI, UI and BV make it so.
    """

    def __init__(self, columns: Mapping[str, int], integers: list[bool]) -> None:
        self._columns = columns
        self._integers = integers
        self._lower: dict[int, float] = {}
        self._upper: dict[int, float] = {}
        self._lines: dict[int, dict[str, int]] = {}

    def take(self, fields: Sequence[str], line: int, *, fixed: bool) -> str:
        """Read one line, split into fields; the name of the set it belongs to, which may be empty.

        Raises:
            Fault: an unknown type or column, a number that is missing or none, a bound twice.
        """
        kind = fields[0].upper() if fields else ""
        if kind in ("SC", "SI"):
            raise Fault(line, "semi-continuous columns are not read: state them with a binary column.")
        if kind not in WITH_VALUE + WITHOUT_VALUE:
            known = ", ".join(WITH_VALUE + WITHOUT_VALUE)
            raise Fault(line, f"there is no type of bound {kind!r}. Expected one of {known}.")
        owner, name, text = self._named(fields, kind, line, fixed=fixed)
        j = self._columns[name]
        given = self._lines.setdefault(j, {})
        if kind in given:
            raise Fault(line, f"column {name!r} has two bounds of type {kind}: leave one of them.")
        given[kind] = line
        value = self._value(kind, name, text, line)
        if kind in ("LI", "UI", "BV"):
            self._integers[j] = True
        if kind in ("LO", "LI", "FX"):
            self._lower[j] = value
        elif kind in ("FR", "MI", "BV"):
            self._lower[j] = 0.0 if kind == "BV" else -INF
        if kind in ("UP", "UI", "FX"):
            self._upper[j] = value
        elif kind in ("FR", "PL", "BV"):
            self._upper[j] = 1.0 if kind == "BV" else INF
        return owner

    def variables(self) -> tuple[Variable, ...]:
        """All columns with their bounds, those of integers rounded inwards.

        Raises:
            Fault: bounds that cross, or have no integer between them.
        """
        out: list[Variable] = []
        for name, j in self._columns.items():
            integer, given = self._integers[j], self._lines.get(j)
            if given is None:
                out.append(Variable(name, 0.0, 1.0 if integer else INF, integer))
                continue
            low, high = self._lower.get(j, 0.0), self._upper.get(j, INF)
            column = bounded(name, low, high, integer=integer)
            if column.lower > column.upper:
                implied = low > high and j not in self._lower
                raise Fault(max(given.values()), _below_zero(name, high) if implied else crossing(name, low, high))
            out.append(column)
        return tuple(out)

    def _named(self, fields: Sequence[str], kind: str, line: int, *, fixed: bool) -> tuple[str, str, str]:
        """Set, column and the text of the number. In free format the set may be left out."""
        owner = name = text = ""
        if fixed or len(fields) == 4:
            owner, name, text = (*fields[1:4], "", "", "")[:3]
        elif len(fields) == 3 and kind in WITH_VALUE and fields[2] not in self._columns:
            name, text = fields[1:]
        elif len(fields) == 3 and (fields[2] in self._columns or fields[1] not in self._columns):
            owner, name = fields[1:]
        elif len(fields) in (2, 3):
            name = fields[1]
        if not name or (kind in WITH_VALUE and not text):
            raise Fault(line, f"expected a name of the set, a column and a number after {kind}, got {fields[1:]}.")
        if name not in self._columns:
            raise Fault(line, f"there is no column {name!r} in section COLUMNS.{nearest(name, self._columns)}")
        return owner, name, text

    def _value(self, kind: str, name: str, text: str, line: int) -> float:
        if kind not in WITH_VALUE:
            return 0.0
        value = as_number(text)
        if value is None:
            raise Fault(line, f"expected a number for the bound of {name!r}, got {text!r}.")
        value = as_bound(value)
        impossible = {"LO": value == INF, "LI": value == INF, "UP": value == -INF, "UI": value == -INF}
        if impossible.get(kind, math.isinf(value)):
            raise Fault(line, f"column {name!r} can have no value within the bound {text}.")
        return value


def _below_zero(name: str, upper: float) -> str:
    return (
        f"the upper bound {upper:g} of {name!r} lies below 0, the lower bound where none is given. Some readers drop "
        "that lower bound and some keep it: state it, with MI for none or LO for a number."
    )
