"""`kkt` with ``response=pessimistic``: the worst of the followers' optimal answers, for linear followers.

The reduction `Pessimistic` (Zeng 2020) makes an optimistic problem of it, which `kkt` solves with the same options; at
the x found the followers are then solved again, and the worst of their optimal answers is what is reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bilevel_core.backends import SolveSettings, SolveStatus
from bilevel_core.backends.face import natural_scale, optimal_face
from bilevel_core.errors import RefusedError
from bilevel_core.problems.base import AlgebraicProblem, Group, Residuals
from bilevel_core.program import BilevelProgram, Function, Program, Row, Variable
from bilevel_core.reductions.pessimistic import Pessimistic, attained, matters, unique
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.assemble import with_point, without_point
from bilevel_core.solvers.base import Refused
from bilevel_core.solvers.single_level import pick
from bilevel_core.traits import derive_traits

if TYPE_CHECKING:
    from bilevel_core.solvers.kkt.solver import KKT

AGREEMENT = 1e-5
"""Relative difference between the search's value and the worst answer's at its x that is put down to tolerances."""
NEARLY = 1e-6
"""Answers whose objectives differ by this, relative to its largest term over all x, are hardly told apart."""
JUMP = 1e-3
"""Where nearly optimal answers are worse for the leader by more than this (relative), its value rests on a hair."""
EXACT = 1e-8
"""An answer this close to optimal, relative to the objective's largest term, is kept as it is."""

_INFIMUM = (
    "Coefficients of the followers' variables vary with the leader's, so its worst value may jump, and its infimum "
    "need not be attained"
)


class ReducedProblem(AlgebraicProblem):
    """A bilevel program without a user's model behind it; columns appear as one array for each level."""

    def __init__(self, program: BilevelProgram) -> None:
        self._program = program
        self.name = program.name

    def program(self) -> BilevelProgram:
        """See `AlgebraicProblem.program`."""
        return self._program

    def groups(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        """One group for the leader, one for each follower."""

        def group(name: str, columns: tuple[int, ...]) -> Group:
            return Group(name, (len(columns),), columns)

        program = self._program
        followers = tuple(group(f"answer{k}", f.columns) for k, f in enumerate(program.followers))
        return (group("x", program.leader.columns),), followers

    def evaluate(self, values: np.ndarray) -> Residuals:
        """Objectives and residuals of the program."""
        program = self._program

        def rows(level_rows: tuple[Row, ...], columns: tuple[int, ...]) -> list[tuple[str, float, float]]:
            out = [(r.name, r.violation(values), r.function.scale(values)) for r in level_rows]
            for i in columns:
                c, value = program.columns[i], float(values[i])
                out.append((c.name, max(0.0, c.lower - value, value - c.upper), max(1.0, abs(value))))
            return out

        lower = [r for f in program.followers for r in rows(f.rows, f.columns)]
        return Residuals(
            program.leader.in_users_sense(program.leader.objective.evaluate(values)),
            tuple(f.in_users_sense(f.objective.evaluate(values)) for f in program.followers),
            tuple(rows(program.leader.rows, program.leader.columns)),
            tuple(lower),
        )


def run_pessimistic(options: KKT, problem: AlgebraicProblem, context: RunContext) -> Result:
    """Solve a problem for a leader who expects the worst of the followers' optimal answers.

    Args:
        options: of `kkt`; all but ``response`` hold for the search.
        problem: one with linear followers, or followers whose answers are known to be unique.
        context: of the run.

    Returns:
        A result whose y is the answer that is worst for the leader among the optimal ones at x. ``global`` is claimed
        where the search claims it and the worst answer at its x, found apart from it, gives the same value.

    Raises:
        RefusedError: the followers are no linear programs, or the leader depends on them in a way that is not taken.
    """
    plain = replace(options, response="optimistic")
    program = problem.program()
    reduction = Pessimistic(problem.hidden_columns())
    if not matters(program) and not program.duals:
        return plain.run(problem, context)  # all answers are alike to the leader
    if unique(program):
        return _unique(plain, problem, context)
    reason = reduction.accepts(program)
    if reason is not None:
        raise RefusedError(
            f"kkt with response=pessimistic does not take this problem: {reason}. The worst response at a point is "
            "reported by the check of an optimistic result (worst_response in its certificate)."
        )
    derived = ReducedProblem(reduction.apply(program))
    verdict = plain.accepts(derive_traits(derived))
    if isinstance(verdict, Refused):
        raise RefusedError(f"The pessimistic problem's single-level form is refused: {verdict.reason}.")
    context.report("phase", message="pessimistic: an adversary chooses among the followers' optimal answers")
    found = plain.run(derived, context)
    if not found.has_point:
        return _pointless(program, derived.program(), found, context)
    values = reduction.invert(derived.vector(found.x, found.y))
    worst = _worst_answer(program, values, context)
    if worst is None:
        return replace(
            without_point(
                Termination.LOWER_UNBOUNDED,
                context,
                "At the x that the search ended at a follower has no optimal answer: bound the followers' variables.",
            ),
            counts=found.counts,
            versions=found.versions,
        )
    return _result(problem, worst, found, context)


def _unique(plain: KKT, problem: AlgebraicProblem, context: RunContext) -> Result:
    """Where answers are unique, pessimists and optimists have one solution."""
    verdict = plain.accepts(derive_traits(problem))
    if isinstance(verdict, Refused):
        raise RefusedError(f"kkt with response=pessimistic does not take this problem: {verdict.reason}.")
    found = plain.run(problem, context)
    note = "The followers are strictly convex, so their answers are unique: the worst is the best."
    return replace(found, message=f"{note} {found.message}".strip()) if found.has_point else found


def _result(problem: AlgebraicProblem, worst: _Worst, found: Result, context: RunContext) -> Result:
    program = problem.program()
    leader = program.leader
    value = leader.objective.evaluate(worst.values)
    assert found.upper_objective is not None
    searched = leader.in_users_sense(found.upper_objective)
    claim, notes = found.claim, [found.message] if found.message else []
    if abs(value - searched) > AGREEMENT * max(1.0, abs(value)):
        claim = min(claim, Claim.FEASIBLE, key=lambda c: c.rank)
        notes.append(
            f"The search ended at {leader.in_users_sense(searched):.6g}, but at its x the worst optimal answer gives "
            f"{leader.in_users_sense(value):.6g}."
        )
        if not attained(program):
            notes.append(f"{_INFIMUM}: values close to {leader.in_users_sense(searched):.6g} may be reached nearby.")
    elif not attained(program) and not abs(worst.nearly - value) <= JUMP * max(1.0, abs(value)):
        claim = min(claim, Claim.FEASIBLE, key=lambda c: c.rank)
        notes.append(
            f"{_INFIMUM}: the value here rests on the followers' telling apart answers whose objectives differ by less "
            f"than {NEARLY:g}; among those the worst gives {leader.in_users_sense(worst.nearly):.6g}."
        )
    return with_point(
        problem,
        worst.values,
        context,
        termination=found.termination,
        claim=claim,
        bound=None if found.bound is None else leader.in_users_sense(found.bound),
        counts=found.counts,
        versions=found.versions,
        message=" ".join(notes),
    )


@dataclass(frozen=True)
class _Worst:
    """The point with the followers' answer that is worst for the leader, and the leader's value (minimised) at an
    answer that costs the followers next to nothing more (`NEARLY`).
    """

    values: np.ndarray
    nearly: float


def _worst_answer(program: BilevelProgram, values: np.ndarray, context: RunContext) -> _Worst | None:
    """The worst optimal answer at the x of a point; None where a follower has no optimal answer.

    The answer given is kept where it is optimal for the followers and as bad for the leader.
    """
    position = {c: k for k, c in enumerate(program.lower_columns)}
    exact: list[Row] = []
    nearly: list[Row] = []
    optimal = True
    for k in range(len(program.followers)):
        alone, own = program.follower_at(k, values)
        best = pick(alone).solve(alone, SolveSettings(time_limit=context.remaining()))
        if best.values is None or not best.solved:
            if best.status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
                return None
            return _Worst(values, math.nan)  # cut short, or infeasible within rounding: the check has the last word
        excess = alone.objective.evaluate(values[list(own)]) - best.objective
        optimal = optimal and excess <= EXACT * natural_scale(alone.objective, best.values)
        unit = 1.0 / (_unit(program, k, values, best.values) or 1.0)
        room = Row("nearly", alone.objective.scaled(unit), upper=unit * best.objective + NEARLY)
        to = {mine: position[c] for mine, c in enumerate(own)}
        for rows, last in ((exact, optimal_face(alone, best.objective, best.values)), (nearly, (room,))):
            rows += [replace(r, function=r.function.renumbered(to)) for r in (*alone.rows, *last)]
    answer = _worst_within(program, values, exact, context)
    if answer is None:
        return _Worst(values, math.nan)
    here, there = program.leader.objective.evaluate(values), program.leader.objective.evaluate(answer)
    kept = values if optimal and math.isclose(here, there, rel_tol=1e-7, abs_tol=1e-7) else answer
    close = _worst_within(program, values, nearly, context)
    return _Worst(kept, math.nan if close is None else program.leader.objective.evaluate(close))


def _unit(program: BilevelProgram, k: int, values: np.ndarray, answer: np.ndarray) -> float:
    """The largest term with own variables of a follower's objective, in whatever unit that counts.

    Every variable is taken at its value or, where that is larger, at 1 or the largest bound below: at an x where a
    coefficient nearly vanishes the follower is nearly indifferent, which must not make the term small.
    """
    follower = program.followers[k]
    own = dict(zip(follower.columns, np.abs(answer).tolist(), strict=True))
    reach: dict[int, float] = {}
    for i in follower.objective.columns:
        bound = max(abs(program.columns[i].lower), abs(program.columns[i].upper))
        reach[i] = max(abs(float(values[i])), own.get(i, 0.0), min(1.0, bound))
    f = follower.objective
    terms = [abs(c) * reach[i] for i, c in f.linear.items() if i in own]
    terms += [abs(c) * reach[i] * reach[j] for (i, j), c in f.quadratic.items() if i in own or j in own]
    if f.nonlinear is not None:
        terms.append(abs(f.evaluate(values)))
    return max(terms, default=0.0)


def _worst_within(
    program: BilevelProgram, values: np.ndarray, rows: list[Row], context: RunContext
) -> np.ndarray | None:
    """The answers within rows over the lower columns that are worst for the leader, put into a point."""
    lower = program.lower_columns
    position = {c: k for k, c in enumerate(lower)}
    f = program.leader.objective
    at_x = f.fix({i: float(values[i]) for i in f.columns if i not in position}).renumbered(position)
    goal = Program(tuple(program.columns[i] for i in lower), -at_x, tuple(rows))
    found = pick(goal).solve(goal, SolveSettings(time_limit=context.remaining()))
    if found.values is None:
        return None
    out = values.copy()
    out[list(lower)] = found.values
    return out


def _pointless(program: BilevelProgram, derived: BilevelProgram, found: Result, context: RunContext) -> Result:
    """The end of the search in terms of the user's problem."""
    termination, message = found.termination, found.message
    if termination in (Termination.INFEASIBLE, Termination.LOWER_UNBOUNDED):
        if _never_answered(program, derived, context):
            termination = Termination.LOWER_UNBOUNDED
            message = (
                "A follower is unbounded wherever it is feasible: its objective has no optimum over its constraints."
            )
        else:
            endless = termination is Termination.LOWER_UNBOUNDED
            termination = Termination.INFEASIBLE
            message = (
                "Whatever the leader does, among the followers' optimal answers are some that make its objective worse "
                "without end, or break its constraints."
                if endless
                else "No choice of the leader's satisfies its constraints at every optimal answer of the followers, or "
                "the followers have no optimal answer together with the leader's own constraints."
            )
    elif termination is Termination.UNBOUNDED:
        message = "The leader's objective improves without end, even with the worst of the followers' optimal answers."
    return replace(
        without_point(termination, context, message, counts=found.counts), versions=found.versions, claim=found.claim
    )


def _never_answered(program: BilevelProgram, derived: BilevelProgram, context: RunContext) -> bool:
    """Whether the followers have feasible answers at some x of the leader's, but never optimal ones: the reduced
    problem's leader has no point although there is one without the rows that say that no follower is unbounded.
    """
    lower = set(program.lower_columns)
    adversaries = {i for level in derived.followers for i in level.columns}
    plain = [r for r in program.leader.rows if r.function.columns.isdisjoint(lower)]
    plain += [r for f in program.followers for r in f.rows]
    bounded = [r for r in derived.leader.rows if r.function.columns.isdisjoint(adversaries)]

    def empty(columns: tuple[Variable, ...], rows: list[Row]) -> bool | None:
        goal = Program(columns, Function(), tuple(rows))
        found = pick(goal).solve(goal, SolveSettings(time_limit=context.remaining()))
        if found.values is not None:
            return False
        return True if found.status is SolveStatus.INFEASIBLE else None

    return empty(program.columns, plain) is False and empty(derived.columns, bounded) is True
