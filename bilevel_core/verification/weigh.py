"""The leader's side of a bilevel feasible point: are there optimal answers of the followers that give it another value?

Optimistic points must hold the answer that is best for the leader, pessimistic ones the worst.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevel_core.backends.highs import Highs
from bilevel_core.problems.base import AlgebraicProblem, Residuals
from bilevel_core.result import Certificate, Claim, Verdict
from bilevel_core.verification.alternatives import best_for_leader, worst_for_leader
from bilevel_core.verification.response import Answer

if TYPE_CHECKING:
    from bilevel_core.verification.verify import Tolerances

_FINE = "Feasible at both levels, and the follower's answer is optimal."
_NASH = (
    "Feasible at both levels, and each follower's answer is optimal given the others' (a Nash equilibrium). Whether "
    "another equilibrium suits the leader better is not checked."
)


@dataclass(frozen=True)
class Point:
    """A point that passed the checks of both levels, with the followers' answers re-solved at its x."""

    problem: AlgebraicProblem
    values: np.ndarray
    residuals: Residuals
    answers: Sequence[Answer]
    tolerances: Tolerances

    @property
    def here(self) -> float:
        """The leader's objective at the point, minimised."""
        return self.problem.program().leader.in_users_sense(self.residuals.upper_objective)

    @property
    def allowed(self) -> float:
        """What difference of the leader's objective counts as none."""
        return self.tolerances.objective * self.problem.program().leader.objective.scale(self.values)

    def moved(self) -> str:
        """What is wrong with the leader's value, where the followers' answers are unique; empty when nothing is."""
        program = self.problem.program()
        exact = self.values.copy()
        for k, found in enumerate(self.answers):
            exact[list(program.followers[k].columns)] = found.values
        there = self.problem.evaluate(exact).upper_objective
        if abs(there - self.residuals.upper_objective) <= self.allowed:
            return ""
        return (
            f"The follower's optimal answer is unique, and there the leader's objective is {there:.6g}, not "
            f"{self.residuals.upper_objective:.6g}"
        )


def weigh(point: Point, claim: Claim, known: dict[str, Any]) -> Certificate:
    """The verdict on an optimistic point."""
    program = point.problem.program()
    leader, here, allowed = program.leader, point.here, point.allowed
    time_limit = point.tolerances.time_limit
    if program.is_game:
        return Certificate(Verdict.VERIFIED, reason=_NASH, **known)
    unique = known["response"] == "unique"
    if unique and not program.duals:
        return Certificate(Verdict.VERIFIED, reason=_FINE, **known)
    if not unique:
        known |= _risk(point)
    best = best_for_leader(program, point.values, point.answers, time_limit)
    if best is not None and best > here + allowed:
        return _refuted(
            f"At the follower's optimal answers the leader's objective is at best {leader.in_users_sense(best):.6g}, "
            f"not {point.residuals.upper_objective:.6g}",
            known,
        )
    if best is not None and best < here - allowed:
        # How much of that is owed to the tolerance on the follower's optimality? It grows with it, the rest does not.
        wider = best_for_leader(program, point.values, point.answers, time_limit, loosened=10.0)
        best = None if wider is None else best + (best - wider) / 9.0
        if best is not None and best < here - allowed:
            best = best_for_leader(program, point.values, point.answers, time_limit, settle=True)
    what = "optimal answers" if not unique else "valid multipliers"
    if best is None or best >= here - allowed:
        reason = _FINE
        if known["response"] == "ties":
            reason += f" The follower has other {what}"
            reason += "; none is better for the leader." if best is not None else "."
        return Certificate(Verdict.VERIFIED, reason=reason, **known)
    better = leader.in_users_sense(best)
    known["better_response"] = better
    what = "Another optimal answer" if not unique else "Another valid multiplier"
    if claim is Claim.GLOBAL:
        return _refuted(f"{what} of the follower at this x gives the leader {better:.6g}", known)
    return Certificate(
        Verdict.VERIFIED, reason=f"{_FINE} {what} at this x would give the leader {better:.6g}.", **known
    )


def weigh_worst(point: Point, known: dict[str, Any]) -> Certificate:
    """The verdict on a pessimistic point: no optimal answer of the follower may be worse for the leader, in its
    objective or in its constraints.
    """
    program = point.problem.program()
    leader = program.leader
    if known["response"] == "unique" and not program.is_game and not program.duals:
        reason = f"{_FINE} It is the only one."
        return Certificate(Verdict.VERIFIED, reason=reason, worst_response=point.residuals.upper_objective, **known)
    time_limit = point.tolerances.time_limit
    worst = worst_for_leader(program, point.values, point.answers, time_limit)
    if worst is not None and worst > point.here + point.allowed:
        worst = worst_for_leader(program, point.values, point.answers, time_limit, settle=True)
    if worst is None:
        reason = f"{_FINE} Which of its optimal answers is worst for the leader could not be found."
        return Certificate(Verdict.UNVERIFIABLE, reason=reason, **known)
    known["worst_response"] = leader.in_users_sense(worst)
    if worst > point.here + point.allowed:
        return _refuted(
            f"Another optimal answer of the follower at this x leaves the leader with {known['worst_response']:.6g}, "
            f"worse than {point.residuals.upper_objective:.6g}: a pessimistic leader must expect it",
            known,
        )
    if worst < point.here - point.allowed:
        return _refuted(
            f"At the follower's optimal answers the leader's objective is at worst {known['worst_response']:.6g}, not "
            f"{point.residuals.upper_objective:.6g}",
            known,
        )
    broken = _broken_row(point)
    if broken is not None:
        return Certificate(broken[0], reason=broken[1], **known)
    return Certificate(
        Verdict.VERIFIED, reason=f"{_FINE} None of its optimal answers is worse for the leader.", **known
    )


def _broken_row(point: Point) -> tuple[Verdict, str] | None:
    """A constraint of the leader's that some optimal answer violates."""
    program = point.problem.program()
    lower = set(program.lower_columns)
    for row in program.leader.rows:
        if row.function.columns.isdisjoint(lower):
            continue
        scale = row.function.scale(point.values)
        for bound, sign in ((row.upper, 1.0), (row.lower, -1.0)):
            if not math.isfinite(bound):
                continue
            limit, goal = point.tolerances.time_limit, row.function.scaled(sign)
            most = worst_for_leader(program, point.values, point.answers, limit, goal)
            if most is not None and most - sign * bound > point.tolerances.feasibility * scale:
                most = worst_for_leader(program, point.values, point.answers, limit, goal, settle=True)
            if most is None:
                return Verdict.UNVERIFIABLE, (
                    f"{_FINE} Whether all its optimal answers satisfy the leader's {row.name} could not be found."
                )
            if most - sign * bound > point.tolerances.feasibility * scale:
                return Verdict.REFUTED, (
                    f"Another optimal answer of the follower at this x violates the leader's {row.name} by "
                    f"{most - sign * bound:.6g}: a pessimistic leader must expect it."
                )
    return None


def _risk(point: Point) -> dict[str, Any]:
    """The leader's worst value, where the followers are linear or convex quadratic programs."""
    program = point.problem.program()
    for k in range(len(program.followers)):
        if Highs().accepts(program.follower_at(k, point.values)[0]) is not None:
            return {}
    worst = worst_for_leader(program, point.values, point.answers, point.tolerances.time_limit)
    return {} if worst is None else {"worst_response": program.leader.in_users_sense(worst)}


def _refuted(reason: str, known: dict[str, Any]) -> Certificate:
    return Certificate(Verdict.REFUTED, reason=reason + ".", **known)
