"""The MPS format, fixed and free, read line by line so that every fault is named by its line.

HiGHS and SCIP read this format too, but a coefficient that is no number or stands in an unknown row passes there
without an error (HiGHS 1.16.0), and what is refused is refused without its line.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bilevel_core.problems.mps_bounds import Bounds
from bilevel_core.problems.mps_file import Fault, LinearFile, Source, as_bound, as_number, nearest
from bilevel_core.program import INF

_SENSES = {
    **dict.fromkeys(("MAX", "MAXIMIZE", "MAXIMISE", "MAXIMUM"), True),
    **dict.fromkeys(("MIN", "MINIMIZE", "MINIMISE", "MINIMUM"), False),
}
_SECTIONS = ("NAME", "OBJSENSE", "OBJNAME", "OBJECT", "ROWS", "COLUMNS", "RHS", "RANGES", "BOUNDS", "ENDATA")
_BEYOND = {
    **dict.fromkeys(("QUADOBJ", "QMATRIX", "QSECTION", "QCMATRIX"), "quadratic terms"),
    **dict.fromkeys(("SOS", "SOS1", "SOS2", "SETS"), "special ordered sets"),
    **dict.fromkeys(("INDICATORS", "GENCONS", "PWLOBJ", "CSECTION"), "constraints that are not linear"),
    **dict.fromkeys(("LAZYCONS", "USERCUTS"), "lazy constraints"),
}
KEYWORDS = frozenset((*_SECTIONS, *_BEYOND, *_SENSES, "MARKER"))
"""HiGHS 1.16.0 takes these for the beginnings of sections also where a column of this name begins a line."""
_FIXED_FIELDS = ((1, 3), (4, 12), (14, 22), (24, 36), (39, 47), (49, 61))
"""First column and the one after the last, counted from 0."""


def parse_mps(source: Source) -> LinearFile:
    """Read an MPS file: as free format, and where that fails (names with blanks), by the columns of the fixed format.

    Integer columns without any bound are in [0, 1], as in the format's older readers; with any bound given, the rest
    are as for other columns. A right-hand side of the objective is its negative constant.

    Raises:
        UsageError: by file and line: whatever is missing, unknown, given twice, no number, or beyond a mixed-integer
            linear program; bounds that cross; a file without its last line ``ENDATA``.
    """
    faults: list[tuple[int, Fault]] = []
    for by_columns in (False, True):
        parser = _Parser(source, fixed=by_columns)
        try:
            return parser.run()
        except Fault as fault:
            faults.append((parser.line, fault))
    (free_end, free), (fixed_end, fixed) = faults
    if fixed_end <= free_end:
        raise source.fault(free.line, free.text)
    # Which of the two formats was meant shows in how far it was understood, but not for certain.
    other = f"by the columns of fixed format; in free format line {free.line}: {free.text}"
    raise source.fault(fixed.line, f"{fixed.text} ({other})")


class _Parser:
    """One attempt at a file."""

    def __init__(self, source: Source, *, fixed: bool) -> None:
        self.source = source
        self.fixed = fixed
        self.line = 0
        self.name = ""
        self.maximise: bool | None = None
        self.wanted = ""
        self.objective = ""
        self.row_types: dict[str, str] = {}
        self.rows: list[str] = []
        self.row_number: dict[str, int] = {}
        self.columns: dict[str, int] = {}
        self.integers: list[bool] = []
        self.integer = False
        self.costs: list[float] = []
        self.entries: tuple[list[int], list[int], list[float]] = ([], [], [])
        self.in_column: set[str] = set()
        self.sides: dict[str, float] = {}
        self.ranges: dict[str, float] = {}
        self.sets: dict[str, str] = {}
        self.bounds = Bounds(self.columns, self.integers)

    def run(self) -> LinearFile:
        take: dict[str, Callable[[str], None]] = {
            "OBJSENSE": lambda line: self._sense(line.strip()),
            "OBJNAME": lambda line: self._choose(line.strip()),
            "OBJECT": lambda line: self._choose(line.strip()),
            "ROWS": self._row,
            "COLUMNS": self._column,
            "RHS": self._side,
            "RANGES": self._range,
            "BOUNDS": self._bound,
        }
        section, seen = "", set[str]()
        for number, line in enumerate(self.source.lines, 1):
            self.line = number
            if not line or line[0] == "*" or not line.strip():
                continue
            if line[0].isspace():
                if section not in take:
                    raise self._fault(f"expected a section such as ROWS, got {line.strip()!r}. Is this an MPS file?")
                take[section](line)
                continue
            word, *more = line.split(None, 1)
            rest = more[0].strip() if more else ""
            if section == "OBJSENSE" and self.maximise is None and word.upper() in _SENSES:
                self._sense(word)
                continue
            section = self._enter(word.upper(), rest, seen)
            if section == "ENDATA":
                return self._finish()
        self.line = len(self.source.lines)
        raise self._fault("the file ends without ENDATA: it is cut off.", whole=True)

    def _fault(self, text: str, *, whole: bool = False) -> Fault:
        return Fault(0 if whole else self.line, text)

    def _enter(self, word: str, rest: str, seen: set[str]) -> str:
        if word in _BEYOND:
            raise self._fault(f"section {word}: {_BEYOND[word]} are not read; state the problem as linear rows.")
        if word not in _SECTIONS:
            hint = nearest(word, _SECTIONS)
            raise self._fault(f"there is no section {word!r}.{hint} Lines of data begin with a blank.")
        if word in seen:
            raise self._fault(f"section {word} is there twice: join them.")
        for needed in {"COLUMNS": ("ROWS",), "ENDATA": ("ROWS", "COLUMNS")}.get(word, ()):
            if needed not in seen:
                raise self._fault(f"section {word} before {needed}.")
        if word in ("RHS", "RANGES", "BOUNDS") and "COLUMNS" not in seen:
            raise self._fault(f"section {word} before COLUMNS.")
        if word in ("OBJNAME", "OBJECT") and "ROWS" in seen:
            raise self._fault(f"section {word} after ROWS: put it before.")
        seen.add(word)
        if word == "NAME":
            self.name = rest
        elif word == "OBJSENSE" and rest:
            self._sense(rest)
        elif rest and word in ("OBJNAME", "OBJECT"):
            self._choose(rest)
        return word

    def _sense(self, word: str) -> None:
        if word.upper() not in _SENSES:
            raise self._fault(f"expected MIN or MAX for OBJSENSE, got {word!r}.")
        if self.maximise is not None:
            raise self._fault("OBJSENSE is given twice: leave one of them out.")
        self.maximise = _SENSES[word.upper()]

    def _choose(self, name: str) -> None:
        if self.wanted:
            raise self._fault("OBJNAME is given twice: leave one of them out.")
        self.wanted = name

    # Fields of a line.

    def _split(self, line: str) -> list[str]:
        """Fields; in fixed format those of the six places, empty ones at the end left out."""
        if not self.fixed:
            return line.split()
        if "\t" in line:
            raise self._fault("a tab has no place in fixed format: put blanks in its place.")
        fields = [line[a:b].strip() for a, b in _FIXED_FIELDS]
        while fields and not fields[-1]:
            fields.pop()
        return fields

    def _number(self, text: str, what: str) -> float:
        value = as_number(text)
        if value is None:
            raise self._fault(f"expected a number for {what}, got {text!r}.")
        return value

    def _known_row(self, name: str) -> str:
        kind = self.row_types.get(name)
        if kind is None:
            raise self._fault(f"there is no row {name!r} in section ROWS.{nearest(name, self.row_types)}")
        return kind

    # Sections.

    def _row(self, line: str) -> None:
        fields = self._split(line)
        if len(fields) != 2:
            raise self._fault(f"expected a type and a name of a row, got {line.strip()!r}.")
        kind, name = fields[0].upper(), fields[1]
        if kind not in ("N", "L", "G", "E"):
            raise self._fault(f"row {name!r} has type {fields[0]!r}. Expected N (objective), L, G or E.")
        if name in self.row_types:
            raise self._fault(f"row {name!r} is there twice.")
        self.row_types[name] = kind
        if kind != "N":
            self.row_number[name] = len(self.rows)
            self.rows.append(name)
        elif not self.objective and self.wanted in ("", name):
            self.objective = name

    def _column(self, line: str) -> None:
        fields = self._split(line)
        if self.fixed:
            fields = fields[1:]
        if len(fields) > 2 and fields[1].strip("'\"").upper() == "MARKER":
            self._marker(fields[-1].strip("'\"").upper())
            return
        if len(fields) not in (3, 5) or (self.fixed and not fields[0]):
            raise self._fault(
                f"expected a column, then one or two pairs of row and number, got {line.strip()!r}. "
                "Names with blanks need fixed format."
            )
        name = fields[0]
        j = len(self.columns) - 1
        if self.columns.get(name) != j or j < 0:
            if name in self.columns:
                raise self._fault(f"column {name!r} goes on after other columns: put its lines together.")
            j += 1
            self.columns[name] = j
            self.integers.append(self.integer)
            self.costs.append(0.0)
            self.in_column.clear()
        for row, text in zip(fields[1::2], fields[2::2], strict=True):
            kind = self._known_row(row)
            if row in self.in_column:
                raise self._fault(f"column {name!r} has two coefficients in row {row!r}: leave one of them.")
            self.in_column.add(row)
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not abs(value) < INF or "_" in text:
                value = self._number(text, f"column {name!r} in row {row!r}")
                if math.isinf(value):
                    raise self._fault(f"column {name!r} has an infinite coefficient in row {row!r}.")
            if kind != "N":
                if value != 0.0:
                    rows, columns, values = self.entries
                    rows.append(self.row_number[row])
                    columns.append(j)
                    values.append(value)
            elif row == self.objective:
                self.costs[j] = value

    def _marker(self, word: str) -> None:
        if word not in ("INTORG", "INTEND"):
            raise self._fault(f"expected 'INTORG' or 'INTEND' after 'MARKER', got {word!r}.")
        if self.integer == (word == "INTORG"):
            state = "begin twice" if self.integer else "end, but none have begun"
            raise self._fault(f"integer columns {state}: every 'INTORG' needs its 'INTEND'.")
        self.integer = word == "INTORG"

    def _pairs(self, line: str, section: str) -> list[tuple[str, float]]:
        fields = self._split(line)
        if self.fixed:
            fields = fields[1:]
        elif len(fields) % 2 == 0:
            fields.insert(0, "")  # the set has no name
        if len(fields) not in (3, 5):
            raise self._fault(f"expected a name of the set, then pairs of row and number, got {line.strip()!r}.")
        self._one_set(section, fields[0])
        return [(r, self._number(v, f"row {r!r}")) for r, v in zip(fields[1::2], fields[2::2], strict=True)]

    def _one_set(self, section: str, name: str) -> None:
        first = self.sets.setdefault(section, name)
        if first != name:
            raise self._fault(f"section {section} has a second set {name!r} beside {first!r}: leave one of them.")

    def _side(self, line: str) -> None:
        for row, value in self._pairs(line, "RHS"):
            self._known_row(row)
            if row in self.sides:
                raise self._fault(f"row {row!r} has two right-hand sides: leave one of them.")
            if row == self.objective and math.isinf(value):
                raise self._fault(f"the objective {row!r} has an infinite constant.")
            self.sides[row] = value

    def _range(self, line: str) -> None:
        for row, value in self._pairs(line, "RANGES"):
            if self._known_row(row) == "N":
                raise self._fault(f"row {row!r} is no constraint: it has no range.")
            if row in self.ranges:
                raise self._fault(f"row {row!r} has two ranges: leave one of them.")
            self.ranges[row] = value

    def _bound(self, line: str) -> None:
        self._one_set("BOUNDS", self.bounds.take(self._split(line), self.line, fixed=self.fixed))

    # The whole.

    def _finish(self) -> LinearFile:
        if self.integer:
            raise self._fault("integer columns begin ('INTORG') and do not end: add the marker 'INTEND'.")
        if not self.objective:
            wanted = f" named {self.wanted!r}" if self.wanted else ""
            raise self._fault(f"there is no row of type N{wanted}: the objective is missing.")
        if not self.columns:
            raise self._fault("section COLUMNS is empty.")
        dropped = {n: "has type N and is not the objective" for n, k in self.row_types.items() if k == "N"}
        dropped[self.objective] = "is the objective"
        lower, upper = self._row_sides()
        rows, columns, values = self.entries
        return LinearFile(
            path=self.source.path,
            name=self.name,
            columns=self.bounds.variables(),
            costs=np.array(self.costs),
            constant=0.0 - self.sides.get(self.objective, 0.0),
            maximise=bool(self.maximise),
            rows=tuple(self.rows),
            lower=lower,
            upper=upper,
            entry_rows=np.array(rows, dtype=int),
            entry_columns=np.array(columns, dtype=int),
            entry_values=np.array(values, dtype=float),
            dropped=dropped,
        )

    def _row_sides(self) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = np.full(len(self.rows), -INF), np.full(len(self.rows), INF)
        for k, row in enumerate(self.rows):
            kind = self.row_types[row]
            side, span = as_bound(self.sides.get(row, 0.0)), self.ranges.get(row)
            if kind != "L":
                lower[k] = side
            if kind != "G":
                upper[k] = side
            if span is None:
                continue
            span = as_bound(span)
            if kind == "G" or (kind == "E" and span > 0):
                upper[k] = side + abs(span)
            else:
                lower[k] = side - abs(span)
        for k in np.flatnonzero((lower == INF) | (upper == -INF)):
            raise self._fault(f"row {self.rows[k]!r} has an infinite side that nothing can meet.", whole=True)
        return lower, upper
