"""Multipliers of a follower at its answer: which values are valid, and whether reported ones are among them.

For a convex follower the multipliers that satisfy its optimality conditions are the same at every optimal answer, and
they are its subgradients with respect to right-hand sides (Rockafellar 1970, sections 28 and 29). At a fixed answer the
conditions are linear in them: one linear program decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bilevel_core.backends import SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.program import INF, BilevelProgram, Dual, Function, Program, Row, Variable, linear
from bilevel_core.result import Verdict
from bilevel_core.verification.response import Answer, Deadline, Task, solve

ACTIVE = 1e-6
"""A constraint this close to its side, relative to its largest term, may have a multiplier."""

HAIR = 1e-9
"""By how much stationarity may fail, relative, where the answer is exact."""


@dataclass
class MultiplierSystem:
    """Columns and stationarity rows; column numbers begin at ``first``.

    Attributes:
        columns: the multipliers of active constraints and bounds, signs as bounds.
        rows: stationarity, each relative to its largest term.
        worth: by row of the follower, what each multiplier contributes to that row's dual value (see `Dual`).
        size: the largest slope of the follower's objective, or 1 where it is flat: what a dual value is relative to.
    """

    first: int
    columns: list[Variable] = field(default_factory=list[Variable])
    rows: list[Row] = field(default_factory=list[Row])
    worth: dict[int, dict[int, float]] = field(default_factory=dict[int, dict[int, float]])
    size: float = 1.0


def multiplier_system(alone: Program, at: np.ndarray, *, maximise: bool, first: int = 0) -> MultiplierSystem:
    """The optimality conditions of one follower at one of its optimal answers, as conditions on multipliers.

    Args:
        alone: the follower's program (see `BilevelProgram.follower_at`), minimised.
        at: the answer, one number per column.
        maximise: the follower's own sense.
        first: the number of the first multiplier's column.
    """
    out = MultiplierSystem(first)
    sense = -1.0 if maximise else 1.0
    own = [i for i, c in enumerate(alone.columns) if not c.fixed]
    terms: dict[int, dict[int, float]] = {i: {} for i in own}

    def new(name: str, lower: float, gradient: dict[int, float]) -> int:
        column = first + len(out.columns)
        out.columns.append(Variable(name, lower))
        for i, slope in gradient.items():
            if i in terms and slope:
                terms[i][column] = slope
        return column

    for number, row in enumerate(alone.rows):
        f = row.function
        out.worth[number] = {}
        if f.columns.isdisjoint(own):
            continue
        gradient = {i: f.partial(i).evaluate(at) for i in f.columns}
        if row.equality:
            out.worth[number][new(row.name, -INF, gradient)] = -sense
            continue
        value = f.evaluate(at)
        for bound, sign in ((row.upper, 1.0), (row.lower, -1.0)):
            if math.isfinite(bound) and sign * (bound - value) <= ACTIVE * max(f.scale(at), abs(bound)):
                column = new(row.name, 0.0, {i: sign * g for i, g in gradient.items()})
                out.worth[number][column] = -sense * sign
    for i in own:
        c = alone.columns[i]
        for bound, sign in ((c.upper, 1.0), (c.lower, -1.0)):
            if math.isfinite(bound) and sign * (bound - at[i]) <= ACTIVE * max(1.0, abs(bound)):
                new(c.name, 0.0, {i: sign})
    slopes = {i: alone.objective.partial(i).evaluate(at) for i in own}
    out.size = max((abs(s) for s in slopes.values()), default=0.0) or 1.0
    for i in own:
        scale = max([abs(slopes[i]), *(abs(c) for c in terms[i].values())]) or 1.0
        target = -slopes[i] / scale
        out.rows.append(Row(alone.columns[i].name, linear(terms[i]).scaled(1.0 / scale), target, target))
    return out


def answer_for(program: BilevelProgram, k: int, alone: Program, found: Answer, values: np.ndarray) -> np.ndarray:
    """The answer at which multipliers are judged: the re-solved one where all answers share their multipliers, else
    the point's own.
    """
    if found.values is not None and Highs().accepts(alone) is None:
        return found.values
    return values[list(program.followers[k].columns)]


def judge_duals(
    program: BilevelProgram, k: int, values: np.ndarray, found: Answer, task: Task, tolerance: float
) -> tuple[Verdict, str] | None:
    """What speaks against the dual values reported for follower ``k``; None when nothing does, or there are none.

    Args:
        program: the bilevel program.
        k: the follower.
        values: the point, dual values included.
        found: the follower's answer, re-solved.
        task: its program and deadline.
        tolerance: of stationarity and dual values, relative to their largest terms.
    """
    duals = [d for d in program.duals if d.follower == k]
    if not duals:
        return None
    name = program.followers[k].name
    if task.program.has_integers:
        return Verdict.UNVERIFIABLE, f"Follower {name!r} has integer variables, so its constraints have no multipliers."
    at = answer_for(program, k, task.program, found, values)
    system = multiplier_system(task.program, at, maximise=program.followers[k].maximise)
    for d in duals:
        if not math.isfinite(values[d.column]):
            return Verdict.REFUTED, f"The multiplier {program.columns[d.column].name!r} has no value."
    if _distance(system, _ties(system, duals, values), task.deadline) <= tolerance:
        return None
    if not _distance(system, [], task.deadline) <= tolerance:
        return Verdict.UNVERIFIABLE, (
            f"Follower {name!r} has no multipliers at its answer, as far as can be told: no constraint qualification "
            "holds there."
        )
    for d in duals:
        low, high = _range(system, d, tolerance, task.deadline)
        slack = tolerance * max(system.size, abs(values[d.column]))
        if not low - slack <= values[d.column] <= high + slack:
            valid = f"{low:.6g}" if high - low <= slack else f"between {low:.6g} and {high:.6g}"
            return Verdict.REFUTED, (
                f"The multiplier {program.columns[d.column].name!r} is {values[d.column]:.6g}, but valid values are "
                f"{valid}."
            )
    return Verdict.REFUTED, f"The multipliers of follower {name!r} are valid one by one, but not together."


def _ties(system: MultiplierSystem, duals: Sequence[Dual], values: np.ndarray) -> list[Row]:
    rows: list[Row] = []
    for d in duals:
        scale = max(system.size, abs(values[d.column]))
        target = float(values[d.column]) / scale
        rows.append(Row(f"dual{d.column}", linear(system.worth[d.row]).scaled(1.0 / scale), target, target))
    return rows


def _distance(system: MultiplierSystem, ties: Sequence[Row], deadline: Deadline) -> float:
    """How far, at least, the worst of stationarity and ties is from holding; infinite where that cannot be found."""
    t = len(system.columns)
    rows: list[Row] = []
    for row in (*system.rows, *ties):
        rows.append(Row(row.name, row.function - linear({t: 1.0}), upper=row.upper))
        rows.append(Row(row.name, row.function + linear({t: 1.0}), lower=row.lower))
    goal = Program((*system.columns, Variable("distance", 0.0)), linear({t: 1.0}), tuple(rows))
    solution, _ = solve(goal, deadline)
    return solution.objective if solution.values is not None and solution.solved else INF


def _range(system: MultiplierSystem, dual: Dual, tolerance: float, deadline: Deadline) -> tuple[float, float]:
    """The least and largest valid value of one dual; infinite where there is no limit or none was found."""
    worth: Function = linear(system.worth[dual.row])
    ends = [-INF, INF]
    for room in (HAIR, tolerance):
        rows = tuple(Row(r.name, r.function, r.lower - room, r.upper + room) for r in system.rows)
        for k, sign in enumerate((1.0, -1.0)):
            solution, _ = solve(Program(tuple(system.columns), worth.scaled(sign), rows), deadline)
            if solution.values is not None and solution.solved:
                ends[k] = sign * solution.objective
            elif solution.status is SolveStatus.INFEASIBLE:
                break  # the answer is not exact: its conditions hold within the tolerance only
        else:
            return ends[0], ends[1]
    return ends[0], ends[1]
