"""`MpsProblem`: a bilevel problem read from a file in MPS (or LP) format with its auxiliary file, and `read_mps`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.problems.base import AlgebraicProblem, Group, Residuals
from bilevel_core.problems.mps_auxiliary import Auxiliary, parse_auxiliary, resolve
from bilevel_core.problems.mps_file import LinearFile, Source, open_text
from bilevel_core.problems.mps_interdiction import expand
from bilevel_core.problems.mps_lp import check_all_used, parse_lp
from bilevel_core.problems.mps_parse import parse_mps
from bilevel_core.program import BilevelProgram, Level, Row, Variable, linear

SUFFIXES = (".mps", ".mps.gz", ".lp", ".lp.gz")
"""Endings of files that hold both levels' variables and rows; an auxiliary file ends with .aux."""


class MpsProblem(AlgebraicProblem):
    """A bilevel mixed-integer linear problem as a pair of files states it; made by `read_mps`.

    Every column of the file is a variable of its own name. Bounds and integrality of the follower's columns are the
    follower's constraints; rows that are not named as the follower's are the leader's.

    Args:
        file: variables, rows and the leader's objective.
        columns: numbers of the follower's columns.
        rows: numbers of the follower's rows.
        costs: the follower's objective, one number for each of ``columns``, in the follower's sense.
        maximise: the follower's sense.
        name: what to call the problem.
    """

    def __init__(
        self,
        file: LinearFile,
        columns: Sequence[int],
        rows: Sequence[int],
        costs: Sequence[float],
        *,
        maximise: bool = False,
        name: str = "problem",
    ) -> None:
        self.name = name
        self.file = file
        self._columns = np.array(columns, dtype=int)
        self._rows = frozenset(rows)
        self._costs = np.array(costs, dtype=float)
        self._maximise = maximise
        self._program = self._make_program()
        self._groups = tuple(
            tuple(Group(file.columns[j].name, (), (j,)) for j in level.columns)
            for level in (self._program.leader, self._program.followers[0])
        )

    def program(self) -> BilevelProgram:
        """See `AlgebraicProblem.program`; columns are numbered as in the file."""
        return self._program

    def groups(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        """One group a column, of its own name."""
        upper, lower = self._groups
        return upper, lower

    def evaluate(self, values: np.ndarray) -> Residuals:
        """Objectives and residuals from the files' numbers."""
        file = self.file
        terms = file.entry_values * values[file.entry_columns]
        activity = np.bincount(file.entry_rows, weights=terms, minlength=len(file.rows))
        scale = np.ones(len(file.rows))
        np.maximum.at(scale, file.entry_rows, np.abs(terms))
        for side in (file.lower, file.upper):
            scale = np.maximum(scale, np.where(np.isfinite(side), np.abs(side), 0.0))
        violation = np.maximum(0.0, np.maximum(file.lower - activity, activity - file.upper))
        sides: tuple[list[tuple[str, float, float]], ...] = ([], [])
        for k, row in enumerate(zip(file.rows, violation.tolist(), scale.tolist(), strict=True)):
            sides[k in self._rows].append(row)
        own = set(self._columns.tolist())
        for j, (column, value) in enumerate(zip(file.columns, values.tolist(), strict=True)):
            sides[j in own].append(_bound_residual(column, value))
        return Residuals(
            float(file.constant + file.costs @ values),
            (float(self._costs @ values[self._columns]),),
            tuple(sides[0]),
            tuple(sides[1]),
        )

    def _make_program(self) -> BilevelProgram:
        file = self.file
        coefficients: list[dict[int, float]] = [{} for _ in file.rows]
        for i, j, value in zip(
            file.entry_rows.tolist(), file.entry_columns.tolist(), file.entry_values.tolist(), strict=True
        ):
            coefficients[i][j] = value
        sides: tuple[list[Row], list[Row]] = ([], [])
        for k, (name, low, high) in enumerate(zip(file.rows, file.lower.tolist(), file.upper.tolist(), strict=True)):
            sides[k in self._rows].append(Row(name, linear(coefficients[k]), low, high))
        upper = linear(dict(enumerate(file.costs.tolist())), file.constant)
        lower = linear(dict(zip(self._columns.tolist(), self._costs.tolist(), strict=True)))
        own = set(self._columns.tolist())
        leading = tuple(j for j in range(len(file.columns)) if j not in own)
        leader = Level("leader", -upper if file.maximise else upper, tuple(sides[0]), leading, file.maximise)
        follower = Level(
            "follower", -lower if self._maximise else lower, tuple(sides[1]), tuple(sorted(own)), self._maximise
        )
        return BilevelProgram(file.columns, leader, (follower,), name=self.name)


def _bound_residual(column: Variable, value: float) -> tuple[str, float, float]:
    violation = max(0.0, column.lower - value, value - column.upper)
    if column.integer and math.isfinite(value):
        violation = max(violation, abs(value - round(value)))
    return column.name, violation, max([1.0, *(abs(b) for b in (column.lower, column.upper) if math.isfinite(b))])


def read_mps(path: Path | str, aux: Path | str | None = None) -> MpsProblem:
    """Read a bilevel problem from an MPS file (or an LP file) and its auxiliary file; see docs/files.md for dialects.

    Args:
        path: the file with variables and rows; files compressed by gzip are unpacked. Or the auxiliary file: then the
            other is the one that it names by ``@MPS`` or ``@LP``, or the one of its own name beside it.
        aux: the auxiliary file; by default the one beside ``path`` with its name: for ``a.mps``, ``a.aux`` or
            ``a.mps.aux``.

    Raises:
        UsageError: a file is missing or malformed; the message gives file, line and reason.
        MissingError: an LP file, and highspy is not installed.
    """
    path = Path(path)
    if aux is not None:
        found = parse_auxiliary(open_text(Path(aux), "auxiliary file"))
    elif _stem(path, (".aux", ".aux.gz")) is not None:
        found = parse_auxiliary(open_text(path, "auxiliary file"))
        path = _file_of(found)
    else:
        source = open_text(path, "file")  # whether it is there comes first
        found = parse_auxiliary(open_text(_auxiliary_of(path), "auxiliary file"))
        return _assemble(found, source)
    return _assemble(found, open_text(path, "file"))


def load(path: Path, *, aux: str = "") -> MpsProblem:
    """The loader of the command line.

    Args:
        path: the file, as for `read_mps`.
        aux: the auxiliary file; the one beside PATH by default.
    """
    return read_mps(path, aux or None)


def _assemble(found: Auxiliary, source: Source) -> MpsProblem:
    is_lp = _stem(source.path, (".lp", ".lp.gz")) is not None
    file = parse_lp(source) if is_lp else parse_mps(source)
    name = found.name or file.name or _name(source.path)
    if found.interdiction:
        whole = expand(found, file)
        return MpsProblem(whole.file, whole.columns, whole.rows, whole.costs, maximise=found.maximise, name=name)
    columns, rows = resolve(found, file)
    if not columns:
        raise found.source.fault(0, "the follower has no columns: this is no bilevel problem.")
    if is_lp:
        check_all_used(source, file, columns)
    return MpsProblem(file, columns, rows, found.costs, maximise=found.maximise, name=name)


def _stem(path: Path, suffixes: Sequence[str]) -> str | None:
    """The name of a file without one of these endings; None where it has none of them."""
    for suffix in suffixes:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return None


def _name(path: Path) -> str:
    return _stem(path, SUFFIXES) or path.stem


def _auxiliary_of(path: Path) -> Path:
    plain = path.name.removesuffix(".gz")
    names = [_name(path) + ".aux", plain + ".aux"]
    for candidate in (path.with_name(n + more) for n in names for more in ("", ".gz")):
        if candidate.is_file():
            return candidate
    raise UsageError(
        f"There is no auxiliary file beside {str(path)!r}, which says what is the follower's: looked for "
        f"{' and '.join(names)}. Name it: -p aux=FILE, or bl.read_mps(path, aux=FILE)."
    )


def _file_of(found: Auxiliary) -> Path:
    """The file that an auxiliary file belongs to. The path in it may be another machine's."""
    folder, own = found.source.path.parent, found.source.path.name
    stem = own.removesuffix(".gz").removesuffix(".aux")
    stated = found.mps or found.lp
    names = [n for n in (stated, Path(stated.replace("\\", "/")).name if stated else "") if n]
    names += [stem, *(stem + s for s in SUFFIXES)]
    for candidate in (folder / (n + more) for n in names for more in ("", ".gz")):
        if candidate.is_file() and _stem(candidate, SUFFIXES) is not None:
            return candidate
    named = f"{stated!r}, which it names" if stated else f"{stem}.mps"
    raise UsageError(
        f"{found.source.path}: there is no file {named}, beside it. Give both: bl.read_mps(path, aux=FILE)."
    )
