"""The leader's side of a bilevel feasible point: are there optimal answers of the followers that give it another value?

Optimistic points must hold the answer that is best for the leader, pessimistic ones the worst.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevel_core.problems.base import AlgebraicProblem, Residuals
from bilevel_core.result import Certificate, Claim, Verdict
from bilevel_core.verification.alternatives import Choice, best_for_leader, worst_for_leader
from bilevel_core.verification.response import Answer, Deadline, is_polyhedral

if TYPE_CHECKING:
    from bilevel_core.verification.verify import Tolerances

WIDE = 100.0
"""A gap beyond so many times what counts as no difference makes no claim of an optimum."""

_FINE = "Feasible at both levels, and the follower's answer is optimal."
_MUST_EXPECT = (
    "Another optimal answer of the follower at this x leaves the leader with {:.6g}, worse than {:.6g}: a pessimistic "
    "leader must expect it"
)
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
    deadline: Deadline

    @property
    def choice(self) -> Choice:
        """What the followers may choose at this x."""
        return Choice(self.problem.program(), self.values, self.answers, self.problem.hidden_columns(), self.deadline)

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


def weigh(point: Point, claim: Claim, gap: float, known: dict[str, Any]) -> Certificate:
    """The verdict on an optimistic point, which by the claim is at most ``gap`` from optimal."""
    program = point.problem.program()
    leader, here, allowed = program.leader, point.here, point.allowed
    if program.is_game:
        return Certificate(Verdict.VERIFIED, reason=_NASH, **known)
    unique = known["response"] == "unique"
    if unique and not program.duals:
        return Certificate(Verdict.VERIFIED, reason=_FINE, **known)
    if not unique:
        known |= _risk(point)
    best = best_for_leader(point.choice, here - allowed)
    if best is not None and best.limit > here + allowed:
        return _refuted(
            f"At the follower's optimal answers the leader's objective is at best "
            f"{leader.in_users_sense(best.limit):.6g}, not {point.residuals.upper_objective:.6g}",
            known,
        )
    what = "optimal answers" if not unique else "valid multipliers"
    if best is None or best.shown >= here - allowed:
        reason = _FINE
        if known["response"] == "ties":
            reason += f" The follower has other {what}"
            reason += "; none is better for the leader." if best is not None and best.limit >= here - allowed else "."
        if best is None and point.deadline.over:
            reason += f" Whether others are better for the leader was not settled within {point.deadline.limit:g} s."
        return Certificate(Verdict.VERIFIED, reason=reason, **known)
    better = leader.in_users_sense(best.shown)
    known["better_response"] = better
    what = "Another optimal answer" if not unique else "Another valid multiplier"
    if claim is Claim.GLOBAL and best.shown < here - max(allowed, min(gap, WIDE * allowed)):
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
    worst = worst_for_leader(point.choice)
    seen = _at_the_answers(point)
    if seen > point.here + point.allowed and (worst is None or worst.shown < seen):
        known["worst_response"] = leader.in_users_sense(seen)
        return _refuted(_MUST_EXPECT.format(known["worst_response"], point.residuals.upper_objective), known)
    if worst is None:
        reason = f"{_FINE} Which of its optimal answers is worst for the leader could not be found"
        reason += f" within {point.deadline.limit:g} s." if point.deadline.over else "."
        return Certificate(Verdict.UNVERIFIABLE, reason=reason, **known)
    if worst.limit - worst.shown <= point.allowed or worst.shown == worst.limit:
        known["worst_response"] = leader.in_users_sense(worst.shown)
    if worst.shown > point.here + point.allowed:
        known["worst_response"] = leader.in_users_sense(worst.shown)
        return _refuted(_MUST_EXPECT.format(known["worst_response"], point.residuals.upper_objective), known)
    if worst.limit < point.here - point.allowed:
        return _refuted(
            f"At the follower's optimal answers the leader's objective is at worst "
            f"{leader.in_users_sense(worst.limit):.6g}, not {point.residuals.upper_objective:.6g}",
            known,
        )
    if worst.limit > point.here + point.allowed:
        reason = f"{_FINE} Whether another one is worse for the leader cannot be told from the tolerance on optimality."
        return Certificate(Verdict.UNVERIFIABLE, reason=reason, **known)
    broken = _broken_row(point)
    if broken is not None:
        return Certificate(broken[0], reason=broken[1], **known)
    return Certificate(
        Verdict.VERIFIED, reason=f"{_FINE} None of its optimal answers is worse for the leader.", **known
    )


def _at_the_answers(point: Point) -> float:
    """The leader's objective (minimised) at the re-solved answers, which are optimal answers as good as any."""
    values = point.values.copy()
    for k, found in enumerate(point.answers):
        values[list(point.problem.program().followers[k].columns)] = found.values
    if point.problem.program().is_game or point.problem.program().duals:
        return -math.inf
    there = point.problem.evaluate(point.problem.complete(values)).upper_objective
    return point.problem.program().leader.in_users_sense(there) if math.isfinite(there) else -math.inf


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
            most = worst_for_leader(point.choice, row.function.scaled(sign))
            if most is not None and most.shown - sign * bound > point.tolerances.feasibility * scale:
                return Verdict.REFUTED, (
                    f"Another optimal answer of the follower at this x violates the leader's {row.name} by "
                    f"{most.shown - sign * bound:.6g}: a pessimistic leader must expect it."
                )
            if most is None or most.limit - sign * bound > point.tolerances.feasibility * scale:
                return Verdict.UNVERIFIABLE, (
                    f"{_FINE} Whether all its optimal answers satisfy the leader's {row.name} could not be found."
                )
    return None


def _risk(point: Point) -> dict[str, Any]:
    """The leader's worst value, where the followers are linear or convex quadratic programs."""
    choice = point.choice
    if not all(is_polyhedral(p) for p in choice.alone):
        return {}
    worst = worst_for_leader(choice)
    return {} if worst is None else {"worst_response": choice.program.leader.in_users_sense(worst.shown)}


def _refuted(reason: str, known: dict[str, Any]) -> Certificate:
    return Certificate(Verdict.REFUTED, reason=reason + ".", **known)
