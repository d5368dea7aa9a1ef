"""The algebraic penalty methods: one step is one weight, then the point found is made exact and its surroundings
searched.

- ``duality-gap``: leader's objective + weight x duality gap over both levels' constraints and dual feasibility, solved
  locally in all variables at once (White and Anandalingam 1993; Anandalingam and White 1990). Exact for a finite weight
  where followers are linear programs.
- ``alternating``: the same penalty, minimised in (x, y) and in the dual variables by turns (Kleinert and Schmidt 2021).
- ``double``: stationarity of the follower's objective + barrier of its constraints as a constraint, and the leader's
  rows penalised, both with rising weights (Ishizuka and Aiyoshi 1992).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from bilevel_core.backends.base import SolveSettings
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.errors import BackendError
from bilevel_core.lower import LowerFailedError
from bilevel_core.oracles import NonFiniteError, Oracle
from bilevel_core.program import INF, Program, Row, Variable, append_columns, linear, total
from bilevel_core.result import Claim, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.iterative import Candidate, CutShortError, State, Stop
from bilevel_core.solvers.penalty.alternating import alternate
from bilevel_core.solvers.penalty.candidate import answered, claimed
from bilevel_core.solvers.penalty.system import EXACT, System, product, search_around, solve, system_of
from bilevel_core.solvers.second_order import stationary_claim
from bilevel_core.solvers.single_level import polish

CLEAN = 1e-7
"""Violation of the optimality system up to which a point counts as one of its points."""


@dataclass
class GapState(State):
    """Where an algebraic penalty method stands.

    Attributes:
        phase: ``penalty``, ``exact``, ``search`` or ``done``.
        weight: of the penalty, in units of the problem.
        values: the point, one number per column of the optimality system.
        first: the starting point, made exact; None where it could not be.
        pending: other points to search around.
        local: the best point around which no better one was found; None before the first.
        checked: whether that was shown there.
        gap: sum of the products of multipliers and slacks.
        stop: what to say at the end.
        ended: why it ended.
    """

    phase: str = "penalty"
    weight: float = 1.0
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    first: np.ndarray | None = None
    pending: list[np.ndarray] = field(default_factory=list[np.ndarray])
    local: np.ndarray | None = None
    checked: bool = False
    gap: float = math.inf
    stop: str = ""
    ended: Termination = Termination.CONVERGED


@dataclass(frozen=True)
class Weights:
    """How weights rise: from ``first`` by ``growth`` until the gap is at most ``tolerance`` or up to ``most``."""

    first: float
    growth: float
    most: float
    tolerance: float


def gap_init(oracle: Oracle, x0: np.ndarray, context: RunContext, weights: Weights) -> GapState:
    """The follower's answer at x0 with its multipliers, made exact on its piece.

    Raises:
        LowerFailedError: the lower level has no answer at x0, nor at the nearest x where both levels' rows hold.
    """
    system = system_of(oracle)
    try:
        candidate, _ = answered(oracle, x0)
    except LowerFailedError as failure:
        if failure.termination is Termination.LOWER_UNBOUNDED:
            raise
        nearest = _nearest(system, x0)
        if nearest is None:
            raise
        candidate, _ = answered(oracle, nearest)
    values = system.lift(candidate.x, candidate.y)
    first = _exact(system, values, context)
    state = GapState(candidate=candidate, weight=weights.first * system.unit(), values=values, first=first)
    if first is not None:
        state.candidate = _best(oracle, candidate, first, system)
    return state


def gap_step(oracle: Oracle, state: GapState, context: RunContext, weights: Weights, method: str) -> GapState:
    """One weight, or one move to a better piece; see the module.

    Raises:
        CutShortError: the time limit passed during the step, whose backends may have been cut short by it.
        NonFiniteError: a value is not finite.
    """
    system = system_of(oracle)
    if state.phase == "penalty":
        new = _raise_weight(oracle, system, state, context, weights, method)
    elif state.phase == "exact":
        new = _make_exact(oracle, system, state, context)
    else:
        new = _search(oracle, system, state, context)
    if context.expired:
        raise CutShortError("The time limit passed during a step of the penalty method.")
    return new


def gap_done(state: GapState) -> Stop | None:
    """Ends when the pieces around the point hold nothing better."""
    return Stop(state.ended, state.stop) if state.phase == "done" else None


def _raise_weight(
    oracle: Oracle, system: System, state: GapState, context: RunContext, weights: Weights, method: str
) -> GapState:
    solver: Callable[[System, np.ndarray, float, float | None], np.ndarray | None]
    solver = {"duality-gap": _jointly, "alternating": alternate, "double": _double}[method]
    values = solver(system, state.values, state.weight, context.remaining())
    # Weights below the exact one may leave the penalised program unbounded: the next weight starts where this did.
    values = state.values if values is None else values
    gap = sum(product(m).evaluate(values) for m in system.multipliers)
    relative = gap / max(1.0, sum(abs(f.objective.evaluate(values)) for f in system.program.followers))
    last = state.weight >= weights.most * system.unit()
    # The double penalty's gap is prescribed, (number of pairs) / weight: it only says that the weight has been reached.
    ends = relative <= weights.tolerance or last
    x, _ = system.split(values)
    return replace(
        state,
        phase="exact" if ends else "penalty",
        weight=state.weight if ends else min(state.weight * weights.growth, weights.most * system.unit()),
        values=values,
        gap=gap,
        candidate=_passing(oracle, x, state.candidate),
        figures={"weight": state.weight, "gap": gap},
    )


def _make_exact(oracle: Oracle, system: System, state: GapState, context: RunContext) -> GapState:
    """The best of the starting point and the penalty's point, each on its piece with exact complementarity."""
    points = [p for p in (_exact(system, state.values, context), state.first) if p is not None]
    assert state.candidate is not None
    lifted = _exact(system, system.lift(state.candidate.x, state.candidate.y), context)
    if lifted is not None:
        points.append(lifted)
    candidate = state.candidate
    for point in points:
        candidate = _best(oracle, candidate, point, system)
    candidate = _on_bounds(oracle, candidate)
    if not points:
        text = "No multipliers make the point found exact, so nothing is known of its stationarity."
        return replace(state, phase="done", candidate=candidate, stop=text)
    points.sort(key=system.target.objective.evaluate)
    distinct = [p for k, p in enumerate(points) if not any(np.allclose(p, q) for q in points[:k])]
    return replace(state, phase="search", values=distinct[0], pending=distinct[1:], candidate=candidate, gap=0.0)


def _search(oracle: Oracle, system: System, state: GapState, context: RunContext) -> GapState:
    """Move to a better neighbouring piece; where there is none, go on from the next point, or end."""
    around = search_around(system, state.values, context.remaining)
    assert state.candidate is not None
    objective = system.target.objective.evaluate
    if around.values is not None:
        candidate = _best(oracle, state.candidate, around.values, system)
        figures = {"objective_of_piece": objective(around.values)}
        return replace(state, values=around.values, candidate=candidate, figures=figures)
    if around.unbounded:
        text = "The leader's objective improves without end on a piece of bilevel feasible points."
        return replace(state, phase="done", stop=text, ended=Termination.ERROR)
    if state.local is None or objective(state.values) < objective(state.local):
        state = replace(state, local=state.values, checked=around.checked)
    if state.pending:
        return replace(state, values=state.pending[0], pending=state.pending[1:])
    assert state.local is not None
    return _concluded(oracle, state, objective(state.local))


def _concluded(oracle: Oracle, state: GapState, value: float) -> GapState:
    """The end, with what is known of the candidate; ``value`` is the objective of the best local point."""
    assert state.candidate is not None
    agrees = abs(state.candidate.objective - value) <= 1e-6 * max(1.0, abs(value))
    if not state.checked:
        return replace(state, phase="done", stop="Whether the point is stationary was not shown.")
    if not agrees or not state.candidate.feasible:
        text = "The optimality conditions lead to another point than the one reported, whose stationarity is not known."
        return replace(state, phase="done", stop=text)
    candidate, response = answered(oracle, state.candidate.x)
    text = "No piece of the followers' optimality conditions around the point holds a better one."
    claim = stationary_claim(oracle, candidate.x, response)
    if claim is Claim.LOCAL:
        text += " Differences of hypergradients show it to be a local optimum."
    return replace(state, phase="done", candidate=claimed(candidate, claim), stop=text)


def _exact(system: System, values: np.ndarray, context: RunContext) -> np.ndarray | None:
    found = polish(system.target, values, context.remaining())
    if found is None or found.values is None or system.target.violation(found.values) > CLEAN:
        return None
    return found.values


def _answer(oracle: Oracle, x: np.ndarray, other: Candidate | None) -> Candidate | None:
    """The candidate at x, or the other one where the lower level has no answer there, or values are not finite."""
    try:
        return answered(oracle, x)[0]
    except (LowerFailedError, NonFiniteError):
        return other


def _passing(oracle: Oracle, x: np.ndarray, other: Candidate | None) -> Candidate | None:
    """The candidate at x, unless it owes its objective to the tolerance on the leader's constraints: a penalty comes
    to them from outside, and such a point would be preferred to the exact one.
    """
    found = _answer(oracle, x, other)
    tolerated = found is not None and found.feasible and found.violation > EXACT
    return other if tolerated else found


def _best(oracle: Oracle, candidate: Candidate, values: np.ndarray, system: System) -> Candidate:
    found = _answer(oracle, system.split(values)[0], None)
    return found if found is not None and found.better(candidate) else candidate


def _on_bounds(oracle: Oracle, candidate: Candidate) -> Candidate:
    """The candidate with x put on bounds that it nearly touches, if that is better.

    Where the answer is infinitely steep at a bound (y = sqrt(x)), no multipliers exist there, and a penalty method only
    comes near.
    """
    x = candidate.x
    for bound in (oracle.x_lower, oracle.x_upper):
        there = np.where(np.isfinite(bound), bound, x)
        x = np.where(np.abs(x - there) <= 1e-3 * np.maximum(1.0, np.abs(there)), there, x)
    if np.array_equal(x, candidate.x):
        return candidate
    found = _answer(oracle, x, None)
    return found if found is not None and found.better(candidate) else candidate


def _nearest(system: System, x0: np.ndarray) -> np.ndarray | None:
    """x of the point nearest to x0 at which all rows of both levels hold."""
    relaxed = system.program.high_point()
    away = [linear({i: 1.0}, -float(v)) for i, v in zip(system.x_columns, x0, strict=True)]
    start = np.zeros(len(relaxed.columns))
    start[list(system.x_columns)] = x0
    found = solve(replace(relaxed, objective=total(a.times(a) for a in away)), start)
    return None if found is None or found.values is None else found.values[list(system.x_columns)]


def _jointly(system: System, values: np.ndarray, weight: float, seconds: float | None) -> np.ndarray | None:
    """A local minimiser of leader's objective + weight x gap in all variables."""
    relaxed = system.relaxed
    return _local(replace(relaxed, objective=relaxed.objective + system.gap.scaled(weight)), values, seconds)


def _double(system: System, values: np.ndarray, weight: float, seconds: float | None) -> np.ndarray | None:
    """Ishizuka and Aiyoshi's two penalties at one weight.

    The stationarity of ``f - (1/weight) sum log(slack)`` is the optimality system with each pair's product equal to
    1/weight; the leader's rows get nonnegative excess columns that cost ``weight`` each.
    """
    relaxed = system.relaxed
    leaders = len(system.program.leader.rows)  # which come first among the system's
    rows: list[Row] = []
    excess: list[int] = []
    width = len(relaxed.columns)
    for number, row in enumerate(relaxed.rows):
        if number < leaders:
            for bound, sign in ((row.upper, -1.0), (row.lower, 1.0)):
                if math.isfinite(bound):
                    excess.append(width + len(excess))
                    function = row.function + linear({excess[-1]: sign})
                    rows.append(Row(row.name, function, *((-INF, bound) if sign < 0.0 else (bound, INF))))
        else:
            rows.append(row)
    rows += [Row(f"pair{k}", product(m), 1.0 / weight, 1.0 / weight) for k, m in enumerate(system.multipliers)]
    columns = append_columns(relaxed.columns, [Variable(f"excess{k}", 0.0) for k in range(len(excess))])
    cost = linear(dict.fromkeys(excess, weight))
    start = np.concatenate([values, np.zeros(len(excess))])
    for m in system.multipliers:  # a pair at zero has no barrier: it starts at the products' common value
        for k in (m.column, m.slack_column):
            start[k] = max(start[k], 0.1 / math.sqrt(weight))
    found = _local(Program(columns, relaxed.objective + cost, tuple(rows)), start, seconds)
    return None if found is None else found[:width]


def _local(program: Program, start: np.ndarray, seconds: float | None) -> np.ndarray | None:
    try:
        found = Ipopt().solve(program, SolveSettings(start=start, time_limit=seconds))
    except BackendError:
        return None
    return found.values if found.solved else None
