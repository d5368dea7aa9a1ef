"""A bilevel program in the terms of these files: one leader, one follower, everything linear, names that fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bilevel_core.errors import UsageError
from bilevel_core.problems.mps_names import fitting_names
from bilevel_core.program import BilevelProgram, Function, Level, Row, Variable, total


@dataclass(frozen=True)
class Flat:
    """What is to be written.

    Attributes:
        columns: all variables, with the names that they get.
        upper: the leader's objective, minimised.
        lower: the follower's objective, minimised, in its own columns only.
        maximise: whether the follower was stated as maximising.
        rows: the leader's rows, then the follower's, with the names that they get.
        follower_columns: numbers of the follower's columns.
        first_follower_row: number of the follower's first row.
        objective: the name of the objective row.
        renamed: old name -> new name, of columns and rows whose names do not fit.
        notes: what the files do not hold, in sentences for people.
    """

    columns: tuple[Variable, ...]
    upper: Function
    lower: Function
    maximise: bool
    rows: tuple[Row, ...]
    follower_columns: tuple[int, ...]
    first_follower_row: int
    objective: str
    renamed: dict[str, str]
    notes: tuple[str, ...]


def flatten(program: BilevelProgram, *, fixed: bool) -> Flat:
    """Bring a program into this form.

    Independent followers become one: the sum of their objectives is minimal where each of them is.

    Raises:
        UsageError: multipliers, a game among followers, terms that are not linear, or a row or column that nothing can
            satisfy; the message names the part.
    """
    if program.duals:
        raise UsageError("The leader uses a follower's multipliers, which these files cannot hold.")
    if program.is_game:
        raise UsageError("The followers play a game among themselves; these files hold one follower.")
    for level in (program.leader, *program.followers):
        _check_linear(level)
    for c in program.columns:
        if c.lower > c.upper:
            raise UsageError(f"The bounds {c.lower:g} and {c.upper:g} of {c.name!r} cross.")
    notes: list[str] = []
    if program.leader.maximise:
        notes.append("The leader maximises; the file holds the negative objective, as a minimisation.")
    if len(program.followers) > 1:
        notes.append(f"The {len(program.followers)} followers are written as one, with the sum of their objectives.")
    own = frozenset(program.lower_columns)
    objective = total(f.objective for f in program.followers)
    lost = [program.columns[i].name for i in objective.linear if i not in own]
    if lost or objective.constant:
        what = [f"its terms in {', '.join(lost)}"] if lost else []
        what += [f"its constant {objective.constant:g}"] if objective.constant else []
        notes.append(f"The follower's objective is written without {' and '.join(what)}, which change no answer.")
    rows = [r for level in (program.leader, *program.followers) for r in level.rows]
    leading = len(program.leader.rows)
    free = [k for k, r in enumerate(rows) if r.lower == -math.inf and r.upper == math.inf]
    if free:
        notes.append(f"Rows without sides are left out: {', '.join(rows[k].name for k in free)}.")
        leading -= sum(k < leading for k in free)
        rows = [r for k, r in enumerate(rows) if k not in set(free)]
    names = fitting_names([c.name for c in program.columns], "C", fixed=fixed)
    row_names = fitting_names([r.name for r in rows], "R", fixed=fixed)
    renamed = {c.name: n for c, n in zip(program.columns, names, strict=True) if c.name != n}
    renamed |= {r.name: n for r, n in zip(rows, row_names, strict=True) if r.name != n}
    return Flat(
        columns=tuple(Variable(n, c.lower, c.upper, c.integer) for n, c in zip(names, program.columns, strict=True)),
        upper=program.leader.objective,
        lower=Function(linear={i: v for i, v in objective.linear.items() if i in own}),
        maximise=len(program.followers) == 1 and program.followers[0].maximise,
        rows=tuple(_without_constant(r, n) for r, n in zip(rows, row_names, strict=True)),
        follower_columns=tuple(sorted(own)),
        first_follower_row=leading,
        objective=next(n for n in _objective_names() if n not in row_names),
        renamed=renamed,
        notes=tuple(notes),
    )


def _check_linear(level: Level) -> None:
    for where, f in (
        (f"The objective of {level.name!r}", level.objective),
        *((f"Row {r.name!r}", r.function) for r in level.rows),
    ):
        if f.degree > 1:
            raise UsageError(f"{where} is not linear; these files hold linear problems only.")
    for r in level.rows:
        if math.inf in (r.lower, -r.upper):
            raise UsageError(f"Row {r.name!r} has an infinite side that nothing can meet.")


def _without_constant(row: Row, name: str) -> Row:
    c = row.function.constant
    return Row(name, Function(linear=row.function.linear), row.lower - c, row.upper - c)


def _objective_names() -> list[str]:
    return ["OBJ", *(f"OBJ{k}" for k in range(10_000))]
