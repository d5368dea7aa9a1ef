"""Writing a bilevel problem as an MPS file and its auxiliary file, in any of the dialects that `read_mps` takes."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bilevel_core.errors import UsageError
from bilevel_core.problems.base import AlgebraicProblem, as_problem
from bilevel_core.problems.mps_flat import Flat, flatten
from bilevel_core.problems.mps_names import number_text, span_of
from bilevel_core.problems.mps_shrink import own_function, shrink
from bilevel_core.program import Function, Row, Variable

Dialect = Literal["names", "indices", "interdiction"]
Layout = Literal["free", "fixed"]


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        files: the MPS file and the auxiliary file.
        renamed: old name -> new name, of columns and rows whose names the format does not take.
        notes: what the files do not hold, in sentences for people.
    """

    files: tuple[Path, Path]
    renamed: Mapping[str, str]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [str(f) for f in self.files]
        if self.renamed:
            shown = list(self.renamed.items())[:3]
            more = f" and {len(self.renamed) - 3} more" if len(self.renamed) > 3 else ""
            lines.append("New names: " + ", ".join(f"{n} for {old}" for old, n in shown) + more + ".")
        return "\n".join([*lines, *self.notes])


def write_mps(problem: Any, path: Path | str, *, dialect: Dialect = "names", layout: Layout = "free") -> Written:
    """Write a problem as ``path`` and, beside it, its auxiliary file.

    Both hold minimisations, since MibS reads no sense of the leader's; only the index-based dialects keep that of a
    follower. Numbers are written so that they read back exactly. Files that are there are replaced.

    Args:
        problem: a problem with linear objectives and constraints, or a Pyomo model with ``Follower`` blocks.
            Independent followers are written as one.
        path: where to, ending with ``.mps`` or ``.mps.gz``.
        dialect: ``names`` (MibS, BOBILib), ``indices`` (MibS, older), or ``interdiction`` (MibS, older: the leader's
            part is implied by costs and a budget; taken only where it is).
        layout: ``free``, or ``fixed``: names have at most 8 characters and numbers at most 12, as MibS needs.

    Raises:
        UsageError: what the format cannot hold, by name; or the file cannot be written.
    """
    path = Path(path)
    _check_choices(dialect, layout)
    name = path.name.removesuffix(".gz")
    if not name.endswith(".mps"):
        raise UsageError(f"Expected a file that ends with .mps or .mps.gz, got {str(path)!r}.")
    problem = as_problem(problem)
    if not isinstance(problem, AlgebraicProblem):
        raise UsageError(f"{problem.name!r} is given by functions, not by expressions: MPS files hold linear problems.")
    flat = flatten(problem.program(), fixed=layout == "fixed")
    title = "_".join(problem.name.split()) or "problem"
    notes = flat.notes
    if dialect == "interdiction":
        if flat.renamed:
            shrink(flatten(problem.program(), fixed=False))  # for its words, which then have the user's names
        text, auxiliary = _interdiction(flat, title, fixed=layout == "fixed")
        notes = (
            *notes,
            "The leader's variables are implied; read back, they are called take_ and the follower's name.",
        )
    else:
        objective = (flat.objective, flat.upper)
        text = _mps(title, objective, flat.columns, flat.rows, fixed=layout == "fixed")
        auxiliary = _by_name(flat, problem.name, name) if dialect == "names" else _by_index(flat)
    aux = path.with_name(name.removesuffix(".mps") + ".aux")
    for file, content in ((path, text), (aux, auxiliary)):
        data = content.encode("utf-8")
        try:
            # Without a time in it, so that the same problem gives the same file.
            file.write_bytes(gzip.compress(data, mtime=0) if file.name.endswith(".gz") else data)
        except OSError as error:
            raise UsageError(f"{str(file)!r} cannot be written: {error.strerror}.") from error
    return Written((path, aux), flat.renamed, notes)


def export(problem: Any, path: Path, *, dialect: Dialect = "names", layout: Layout = "free") -> str:
    """The exporter of the command line.

    Args:
        problem: the problem.
        path: where to.
        dialect: names, indices or interdiction.
        layout: free, or fixed: names of at most 8 characters, as MibS needs.
    """
    return str(write_mps(problem, path, dialect=dialect, layout=layout))


def _check_choices(dialect: str, layout: str) -> None:
    for what, value, known in (
        ("dialect", dialect, ("names", "indices", "interdiction")),
        ("layout", layout, ("free", "fixed")),
    ):
        if value not in known:
            raise UsageError(f"Expected {what} {', '.join(known[:-1])} or {known[-1]}, got {value!r}.")


# The MPS file. Fields stand in the columns of the fixed format; with longer names they merely keep their order.


def _card(kind: str, first: str, second: str = "", value: str = "") -> str:
    return f" {kind:<2} {first:<8}  {second:<8}  {value:>12}".rstrip()


def _mps(
    name: str, objective: tuple[str, Function], columns: Sequence[Variable], rows: Sequence[Row], *, fixed: bool
) -> str:
    label, goal = objective
    lines = [f"NAME          {name}", "ROWS", f" N  {label}"]
    sides: list[str] = []
    ranges: list[str] = []
    entries: list[list[tuple[str, float]]] = [[] for _ in columns]
    for j, value in goal.linear.items():
        entries[j].append((label, value))
    if goal.constant:
        sides.append(_card("", "RHS", label, number_text(-goal.constant, "The constant", fixed=fixed)))
    for row in rows:
        kind, side, span = _sides(row)
        lines.append(f" {kind}  {row.name}")
        if side:
            sides.append(_card("", "RHS", row.name, number_text(side, f"The side of {row.name!r}", fixed=fixed)))
        if span is not None:
            ranges.append(_card("", "RNG", row.name, number_text(span, f"The range of {row.name!r}", fixed=fixed)))
        for j, value in row.function.linear.items():
            entries[j].append((row.name, value))
    lines.append("COLUMNS")
    integer, markers = False, 0
    for column, own in zip(columns, entries, strict=True):
        if column.integer != integer:
            integer, markers = column.integer, markers + 1
            lines.append(_marker(markers, integer))
        for row, value in own or [(label, 0.0)]:
            what = f"The coefficient of {column.name!r} in {row!r}"
            lines.append(_card("", column.name, row, number_text(value, what, fixed=fixed)))
    if integer:
        lines.append(_marker(markers + 1, False))
    lines += ["RHS", *sides, *(["RANGES", *ranges] if ranges else []), "BOUNDS"]
    for column in columns:
        lines += _bounds(column, fixed=fixed)
    return "\n".join([*lines, "ENDATA", ""])


def _marker(number: int, begins: bool) -> str:
    return f"    {f'M{number}':<8}  'MARKER'                 {chr(39)}{'INTORG' if begins else 'INTEND'}{chr(39)}"


def _sides(row: Row) -> tuple[str, float, float | None]:
    if row.equality:
        return "E", row.upper, None
    if row.lower == -math.inf:
        return "L", row.upper, None
    if row.upper == math.inf:
        return "G", row.lower, None
    return span_of(row.lower, row.upper)


def _bounds(column: Variable, *, fixed: bool) -> list[str]:
    """All that readers may take differently is stated: 0 below a negative bound, nothing above an integer."""
    lower, upper, name = column.lower, column.upper, column.name

    def card(kind: str, value: float | None = None) -> str:
        text = "" if value is None else number_text(value, f"The bound of {name!r}", fixed=fixed)
        return _card(kind, "BND", name, text)

    if lower == upper:
        return [card("FX", lower)]
    if lower == -math.inf and upper == math.inf:
        return [card("FR")]
    out: list[str] = []
    if lower == -math.inf:
        out.append(card("MI"))
    elif lower != 0.0:
        out.append(card("LO", lower))
    if upper != math.inf:
        out.append(card("UP", upper))
    elif column.integer:
        out.append(card("PL"))
    return out


# The auxiliary file.


def _by_name(flat: Flat, name: str, mps: str) -> str:
    rows = flat.rows[flat.first_follower_row :]
    lines = ["@NUMVARS", str(len(flat.follower_columns)), "@NUMCONSTRS", str(len(rows)), "@VARSBEGIN"]
    lines += [f"{flat.columns[j].name} {_cost(flat.lower, j)}" for j in flat.follower_columns]
    lines += ["@VARSEND", "@CONSTRSBEGIN", *(r.name for r in rows), "@CONSTRSEND"]
    title = " ".join(name.split()) or "problem"
    return "\n".join([*lines, "@NAME", title if title[0] not in "@*" else f"_{title}", "@MPS", mps, ""])


def _by_index(flat: Flat) -> str:
    rows = range(flat.first_follower_row, len(flat.rows))
    lines = [f"N {len(flat.follower_columns)}", f"M {len(rows)}"]
    lines += [*(f"LC {j}" for j in flat.follower_columns), *(f"LR {k}" for k in rows)]
    return "\n".join([*lines, *_objective(flat, flat.follower_columns), ""])


def _objective(flat: Flat, columns: Sequence[int]) -> list[str]:
    lower = -flat.lower if flat.maximise else flat.lower
    return [*(f"LO {_cost(lower, j)}" for j in columns), f"OS {-1 if flat.maximise else 1}"]


def _cost(f: Function, j: int) -> str:
    return number_text(f.linear.get(j, 0.0), "", fixed=False)


def _interdiction(flat: Flat, title: str, *, fixed: bool) -> tuple[str, str]:
    found = shrink(flat)
    n, m = len(found.columns), len(found.rows)
    position = {j: k for k, j in enumerate(found.columns)}
    goal = Function(-flat.upper.constant, own_function(flat.lower, position).linear)
    rows = [Row(r.name, own_function(r.function, position), r.lower, r.upper) for r in found.rows]
    text = _mps(title, (flat.objective, goal), [flat.columns[j] for j in found.columns], rows, fixed=fixed)
    lines = [f"N {n}", f"M {m + n}", *(f"LC {n + k}" for k in range(n)), *(f"LR {k}" for k in range(1, 1 + m + n))]
    lines += _objective(flat, found.columns)
    lines += [f"IC {number_text(v, '', fixed=False)}" for v in found.takes]
    return text, "\n".join([*lines, f"IB {number_text(found.budget, '', fixed=False)}", ""])
