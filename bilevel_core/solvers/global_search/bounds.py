"""`global`: bounds for variables that have none, derived from constraints, known answers and a known point."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from bilevel_core.backends import Solution, SolveStatus
from bilevel_core.errors import RefusedError
from bilevel_core.program import INF, BilevelProgram, Function, Program, Row, Variable, linear
from bilevel_core.reductions.value_function import Answer, ValueFunction
from bilevel_core.solvers.global_search.answers import answers_at
from bilevel_core.solvers.global_search.followers import CutShortError, Followers, Optimal, fenced

SECONDS = 5.0
LARGEST = 1e7
"""A bound beyond this is none: intervals and tolerances say nothing with it."""
MARGIN = 1e-3


class LowerUnboundedError(Exception):
    """A follower has no optimal answer at some x, and that is why nothing bounds its variables."""


def bounded_columns(
    program: BilevelProgram, followers: Followers, worth: Callable[[Optimal], float]
) -> tuple[Variable, ...]:
    """The columns with finite bounds that hold at every point which can be optimal.

    Tried in turn: the constraints of both levels; with them, that no follower answers worse than it could; and that
    the leader does not do worse than at a point known. Bounds so derived hold for bilevel points, not for the
    followers' own problems.

    Args:
        program: the problem.
        followers: its followers.
        worth: what an x is worth to the leader (minimised), given the followers' optimal answers there.

    Raises:
        CutShortError: the time was over, or the run was stopped, before bounds were found.
        LowerUnboundedError: bounds cannot be derived, and a follower was met without an optimal answer.
        RefusedError: a variable's bounds cannot be derived; it is named.
    """
    relaxed = program.high_point()
    columns = _derived(relaxed, relaxed.columns, followers)
    if not _missing(columns):
        return columns
    with_cuts = _with_known_points(program, replace(relaxed, columns=columns), followers, worth)
    for _ in range(2):
        narrower = replace(with_cuts, columns=(*columns, *with_cuts.columns[len(columns) :]))
        columns = _derived(narrower, columns, followers)
        if not _missing(columns):
            return columns
    if followers.context.stopped or followers.context.expired:
        raise CutShortError("The bounds of the variables were not all found.")
    if followers.unbounded:
        raise LowerUnboundedError(followers.unbounded)
    name = columns[_missing(columns)[0][0]].name
    raise RefusedError(
        f"Variable {name!r} has no finite bounds, and none can be derived from the constraints: a global search needs "
        "them. Bound it."
    )


def _missing(columns: Sequence[Variable]) -> list[tuple[int, str]]:
    out: list[tuple[int, str]] = []
    for i, c in enumerate(columns):
        out += [(i, side) for side, value in (("lower", c.lower), ("upper", c.upper)) if not math.isfinite(value)]
    return out


def _derived(program: Program, columns: Sequence[Variable], followers: Followers) -> tuple[Variable, ...]:
    """The columns with the bounds that a program implies for them; ``columns`` are its first."""
    out = list(columns)
    for i, side in _missing(columns):
        sign = 1.0 if side == "lower" else -1.0
        current = replace(program, columns=(*out, *program.columns[len(out) :]), objective=linear({i: sign}))
        found = followers.solve(current, seconds=SECONDS, gap=MARGIN, absolute=MARGIN)
        limit = _limit(found)
        if limit is not None:
            room = MARGIN * max(1.0, abs(limit))
            value = sign * (limit - room)
            if out[i].integer:
                value = math.ceil(value - 1e-6) if side == "lower" else math.floor(value + 1e-6)
            out[i] = replace(out[i], lower=value) if side == "lower" else replace(out[i], upper=value)
    return tuple(out)


def _limit(found: Solution) -> float | None:
    """A proven bound on a minimum; None where there is none. An empty program has any."""
    if found.status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED, SolveStatus.ERROR):
        return None
    if found.status is SolveStatus.INFEASIBLE:
        return 0.0
    bound = found.bound
    if found.solved and not math.isfinite(bound):
        bound = found.objective
    return bound if math.isfinite(bound) and abs(bound) <= LARGEST else None


def _with_known_points(
    program: BilevelProgram, relaxed: Program, followers: Followers, worth: Callable[[Optimal], float]
) -> Program:
    """The relaxation with cuts from the followers' answers at a few x, and without points worse than the best there."""
    answers: list[Answer] = []
    best = INF
    for point in _points(program, relaxed, followers):
        try:
            optimal = followers.optimal(point)
            if optimal is None:
                continue
            answers += [a for k in range(len(program.followers)) for a in answers_at(program, k, optimal.point)]
            if optimal.attained:
                best = min(best, worth(optimal))
        except CutShortError:
            continue
    box = {i: (c.lower, c.upper) for i, c in enumerate(relaxed.columns)}
    cut = ValueFunction(answers, box).apply(program)
    if math.isinf(best):
        return cut
    worst = Row("no worse than known", program.leader.objective, -INF, best + MARGIN * max(1.0, abs(best)))
    return replace(cut, rows=(*cut.rows, worst))


def _points(program: BilevelProgram, relaxed: Program, followers: Followers) -> Iterator[np.ndarray]:
    """Points of the relaxation: the leader's best, or any; far out in the directions that have no bound yet; and, where
    followers turn out to have no optimal answers, others all over the leader's variables.
    """
    within = replace(relaxed, columns=fenced(relaxed.columns))

    def points(goals: Iterator[Function]) -> Iterator[np.ndarray]:
        for goal in goals:
            found = followers.solve(replace(within, objective=goal), seconds=SECONDS, gap=MARGIN, absolute=MARGIN)
            if found.values is not None:
                yield found.values

    far = (linear({i: 1.0 if side == "lower" else -1.0}) for i, side in _missing(relaxed.columns))
    yield from points(itertools.chain([relaxed.objective], far))
    if followers.unbounded:
        yield from points(linear({i: sign}) for i in program.leader.columns for sign in (1.0, -1.0))
