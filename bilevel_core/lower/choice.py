"""Which of a follower's optimal answers the leader gets: the best for the leader (optimistic).

For linear programs and convex quadratic ones the optimal answers are a polyhedron: the feasible points at which the
constraints with positive multipliers stay active and the objective's gradient stays what it is (Mangasarian 1988). It
is written down exactly, without a tolerance on the objective, so what is chosen is as optimal as what was found.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bilevel_core.backends import Backend, Solution, SolveSettings
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import BackendError
from bilevel_core.program import BilevelProgram, Function, Program, Row, Variable, linear, total

TIE = 1e-6
"""How far optimal answers must lie apart, relative to their size, to count as several."""
SECONDS = 10.0
DEPENDENT = 1e-7
"""Rows whose derivatives are this near to a combination of others', relative, say nothing of their own."""


def face(program: Program, y: np.ndarray, held: np.ndarray, at_lower: np.ndarray, at_upper: np.ndarray) -> Program:
    """The optimal answers of a linear or convex quadratic program as a program's feasible set (objective unchanged).

    Args:
        program: a follower's problem at fixed x, over its own columns.
        y: an optimal answer, shape (columns,).
        held: mask over its rows: those with a positive multiplier.
        at_lower, at_upper: masks over its columns: bounds with a positive multiplier.
    """
    columns = tuple(
        replace(c, lower=c.lower, upper=c.lower)
        if at_lower[i]
        else replace(c, lower=c.upper, upper=c.upper)
        if at_upper[i]
        else c
        for i, c in enumerate(program.columns)
    )
    rows: list[Row] = []
    for k, row in enumerate(program.rows):
        if not held[k] or row.equality:
            rows.append(row)
            continue
        value = row.function.evaluate(y)
        side = row.upper if abs(value - row.upper) <= abs(value - row.lower) else row.lower
        rows.append(replace(row, lower=side, upper=side))
    f = program.objective
    for i in sorted({i for pair in f.quadratic for i in pair}):
        slope = replace(f.partial(i), constant=0.0)
        value = slope.evaluate(y)
        # A hair of room: with several dependent equations rounding alone would make them contradict each other.
        room = 1e-10 * max(1.0, slope.scale(y))
        rows.append(Row(f"slope of {program.columns[i].name}", slope, value - room, value + room))
    return replace(program, columns=columns, rows=tuple(rows))


def lagrangian_face(
    program: Program, y: np.ndarray, row_multipliers: np.ndarray, at_lower: np.ndarray, at_upper: np.ndarray
) -> Program:
    """As `face`, for any smooth program: the feasible points at which the constraints with positive multipliers stay
    active and the Lagrangian's gradient stays what it is.

    Of a convex program these are all its optimal answers; of another one, candidates whose value has to be compared.

    Args:
        program: a follower's problem at fixed x, over its own columns.
        y: an optimal answer, shape (columns,).
        row_multipliers: of its rows, positive at the upper side, negative at the lower, shape (rows,).
        at_lower, at_upper: masks over its columns: bounds with a positive multiplier.

    Raises:
        ValueError: a function has no derivative.
    """
    held = row_multipliers != 0.0
    there = face(replace(program, objective=Function()), y, held, at_lower, at_upper)
    parts = [r.function.scaled(float(m)) for r, m in zip(program.rows, row_multipliers, strict=True) if m != 0.0]
    lagrangian = total([program.objective, *parts])
    others = [r for r in there.rows if not r.equality]
    equations = [r for r in there.rows if r.equality]
    slopes: list[Row] = []
    for i, c in enumerate(there.columns):
        slope = lagrangian.partial(i)
        if slope.degree > 0 and not c.fixed:
            value = slope.evaluate(y)
            slopes.append(Row(f"slope of {c.name}", slope, value, value))
    return replace(there, objective=program.objective, rows=(*others, *_independent(equations, slopes, y)))


def _independent(equations: list[Row], slopes: list[Row], y: np.ndarray) -> list[Row]:
    """Rows enough to say what all say near y, if their rank is the same there. A backend takes no more equations than
    columns, and of a slope that is constant by theory only rounding is left.
    """
    from scipy.linalg import qr

    first, second = _jacobian(equations, y), _jacobian(slopes, y)
    norms = np.linalg.norm(first, axis=1, keepdims=True)
    # Slopes have one unit, so that one which hardly changes shows as small beside the others.
    size = float(np.abs(second).max(initial=0.0))
    together = np.vstack([first / np.where(norms > 0.0, norms, 1.0), second / (size or 1.0)])
    if not together.size:
        return [*equations, *slopes]
    found: Any = qr(together.T, mode="r", pivoting=True)
    r, order = found
    diagonal = np.abs(np.diag(r))
    rank = int((diagonal > DEPENDENT * diagonal[0]).sum()) if diagonal[0] > 0.0 else 0
    kept = set(order[:rank].tolist())
    return [row for k, row in enumerate([*equations, *slopes]) if k in kept]


def _jacobian(rows: list[Row], y: np.ndarray) -> np.ndarray:
    found = np.zeros((len(rows), len(y)))
    for k, row in enumerate(rows):
        for j in row.function.columns:
            found[k, j] = row.function.partial(j).evaluate(y)
    return found


def is_single(face_program: Program, y: np.ndarray) -> bool | None:
    """Whether a face is one point: its extent along one random direction. None where that cannot be found out."""
    direction = np.random.default_rng(20_240_607).uniform(0.5, 1.5, len(y))
    scale = TIE * max(1.0, float(np.abs(y).max(initial=0.0)))
    # A box around y keeps unbounded faces from being unbounded programs.
    columns = tuple(
        replace(c, lower=max(c.lower, y[i] - 1e3 * scale), upper=min(c.upper, y[i] + 1e3 * scale))
        for i, c in enumerate(face_program.columns)
        if c.lower <= y[i] + 1e3 * scale and c.upper >= y[i] - 1e3 * scale
    )
    if len(columns) != len(y):
        return None
    for sign in (1.0, -1.0):
        along = linear({i: sign * float(d) for i, d in enumerate(direction)})
        end = solve_first(replace(face_program, columns=columns, objective=along), (Highs(),))
        if end is None or end.values is None or not end.solved:
            return None
        if float(np.abs(end.values - y).max()) > scale:
            return False
    return True


def best_for_leader(
    program: BilevelProgram, values: np.ndarray, faces: dict[int, Program]
) -> tuple[np.ndarray, str] | None:
    """The answers of some followers that suit the leader best, everything else fixed.

    Args:
        program: the bilevel problem.
        values: one number per column: x, and the followers' answers so far.
        faces: for each follower with several optimal answers, these as `face` writes them.

    Returns:
        The values with those followers' columns replaced, and what is known of the choice: ``best``, ``local`` (the
        leader's objective is not convex), ``least violation`` (none of the answers satisfies the leader's
        constraints). None where the leader does not care or no choice was found.
    """
    chosen = [c for k in faces for c in program.followers[k].columns]
    position = {c: n for n, c in enumerate(chosen)}

    def here(f: Function) -> Function:
        return f.fix({i: float(values[i]) for i in f.columns if i not in position}).renumbered(position)

    wishes = [replace(r, function=here(r.function)) for r in program.leader.rows if r.function.columns & set(chosen)]
    objective = here(program.leader.objective)
    if not wishes and objective.degree == 0:
        return None
    columns = tuple(c for k in faces for c in faces[k].columns)
    rows: list[Row] = []
    for k in faces:
        to = {own: position[c] for own, c in enumerate(program.followers[k].columns)}
        rows += [replace(r, function=r.function.renumbered(to)) for r in faces[k].rows]
    start = values[chosen]
    goal = Program(columns, objective, (*rows, *wishes))
    solution = solve_first(goal, (Highs(), Ipopt(), Scip()), start)
    known = "best" if Highs().accepts(goal) is None else "local"
    if wishes and (solution is None or solution.values is None or not solution.solved):
        goal = _elastic(columns, rows, wishes)
        solution = solve_first(goal, (Highs(), Ipopt(), Scip()), np.append(start, np.zeros(2 * len(wishes))))
        known = "least violation"
    if solution is None or solution.values is None or not solution.solved:
        return None
    out = values.copy()
    out[chosen] = solution.values[: len(chosen)]
    return out, known


def _elastic(columns: tuple[Variable, ...], rows: list[Row], wishes: list[Row]) -> Program:
    """Minimise the sum of the wishes' violations: one new column above and one below each."""
    extra: list[Variable] = []
    softened: list[Row] = []
    for wish in wishes:
        above = len(columns) + len(extra)
        extra += [Variable(f"excess {wish.name}", 0.0), Variable(f"lack {wish.name}", 0.0)]
        softened.append(replace(wish, function=wish.function + linear({above: -1.0, above + 1: 1.0})))
    objective = linear({len(columns) + k: 1.0 for k in range(len(extra))})
    return Program((*columns, *extra), objective, (*rows, *softened))


def solve_first(program: Program, backends: tuple[Backend, ...], start: np.ndarray | None = None) -> Solution | None:
    """The solution of the first backend that takes the program and does not fail; None where none does."""
    for backend in backends:
        if backend.accepts(program) is not None or not backend.available().available:
            continue
        try:
            solution = backend.solve(program, SolveSettings(time_limit=SECONDS, start=start))
        except BackendError:
            continue  # the next one may manage
        if solution.status != "error":
            return solution
    return None
