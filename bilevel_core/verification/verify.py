"""The check of one point: residuals, each follower re-solved at the fixed x, the gap, and the leader's alternatives.

What decides is the user's own model (`AlgebraicProblem.evaluate`) and a solve that is globally valid for the
follower's class; nothing comes from the solver that produced the point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bilevel_core.backends import SolveStatus
from bilevel_core.errors import UsageError
from bilevel_core.problems.base import AlgebraicProblem, Residuals
from bilevel_core.program import BilevelProgram, Function
from bilevel_core.result import Certificate, Claim, Verdict
from bilevel_core.verification.multipliers import judge_duals
from bilevel_core.verification.response import Answer, Deadline, Task, answer, hinges_on_tolerance, natural_scale
from bilevel_core.verification.weigh import Point, weigh, weigh_worst

Map = Callable[[Callable[[Task], Answer], Sequence[Task]], list[Answer]]

ROUNDED = 1e-12
"""How exactly the leader's variables are taken to be known, relative to their size (at least 1)."""


@dataclass(frozen=True)
class Tolerances:
    """What counts as zero.

    Attributes:
        feasibility: violation of a row, bound or integrality, relative to the row's scale.
        gap: difference between a follower's objective and its optimal value, relative to the largest term of that
            objective (see `natural_scale`): constants and other people's terms do not widen it.
        objective: difference between two values of the leader's objective, relative to its largest term, at least 1.
        multiplier: error of a follower's multipliers in its optimality conditions, relative to the largest term.
    """

    feasibility: float = 1e-6
    gap: float = 1e-6
    objective: float = 1e-4
    multiplier: float = 1e-5


CHECK_LIMIT = 60.0
"""Seconds that a check may take unless another limit is given."""


def check(
    problem: AlgebraicProblem,
    values: np.ndarray,
    *,
    claim: Claim = Claim.NONE,
    gap: float = 0.0,
    tolerances: Tolerances | None = None,
    run: Map | None = None,
    response: str = "optimistic",
    time_limit: float | None = CHECK_LIMIT,
) -> Certificate:
    """Check a point (one number per column of the problem's program).

    Args:
        problem: the problem.
        values: the point.
        claim: what its finder says of it; a claim ``global`` is refuted also by a better answer at the same x.
        gap: how far from the optimal value the leader's objective may still be by that claim: by no more than this,
            and no more than 100 times the tolerance, can an answer at the same x be better without contradicting it.
        tolerances: what counts as zero.
        run: maps a function over tasks, possibly in parallel; in order, here, by default.
        response: ``optimistic``, or ``pessimistic``: then the point must hold the optimal answer that is worst for the
            leader, and every optimal answer must satisfy the leader's constraints.
        time_limit: seconds for the whole check; None for no limit. What is not settled then is unverifiable, or is
            said to be not settled.

    Raises:
        UsageError: another word for ``response``.
    """
    if response not in ("optimistic", "pessimistic"):
        raise UsageError(f"Expected response optimistic or pessimistic, got {response!r}.")
    tol = tolerances or Tolerances()
    deadline = Deadline.after(time_limit)
    residuals = problem.evaluate(values)
    upper, upper_row = _worst(residuals.upper)
    lower, lower_row = _worst(residuals.lower)
    known: dict[str, Any] = {"upper_violation": upper, "lower_violation": lower}
    if not (math.isfinite(upper) and math.isfinite(residuals.upper_objective)):
        return _refuted(f"{upper_row or 'The objective'} of the leader is not defined at this point", known)
    if not (math.isfinite(lower) and all(math.isfinite(f) for f in residuals.lower_objectives)):
        return _refuted(f"{lower_row or 'The objective'} of a follower is not defined at this point", known)
    program = problem.program()
    reading = _misread(program, values, residuals)
    if reading:
        return Certificate(Verdict.UNVERIFIABLE, reason=reading, **known)
    tasks = _tasks(problem, values, deadline)
    answers = run(answer, tasks) if run is not None else [answer(t) for t in tasks]
    answers = [_within_rounding(program, k, a, residuals, values, tol, tasks[k]) for k, a in enumerate(answers)]
    known |= _summary(program, residuals, answers)
    if upper > tol.feasibility:
        return _refuted(f"The leader's {upper_row} is violated by {upper:.3g} relative to its scale", known)
    if lower > tol.feasibility:
        return _refuted(f"The follower's {lower_row} is violated by {lower:.3g} relative to its scale", known)
    for k, found in enumerate(answers):
        bad = _judge(program, k, found, _gap(program, residuals, k, found), tol, tasks[k])
        if bad is None:
            bad = judge_duals(program, k, values, found, tasks[k], tol.multiplier)
        if bad is not None:
            return Certificate(bad[0], reason=bad[1], **known)
    point = Point(problem, values, residuals, answers, tol, deadline)
    moved = point.moved() if known["response"] == "unique" and not program.is_game else ""
    if moved:
        return _refuted(moved, known)
    return weigh_worst(point, known) if response == "pessimistic" else weigh(point, claim, gap, known)


def _tasks(problem: AlgebraicProblem, values: np.ndarray, deadline: Deadline) -> list[Task]:
    program, hidden = problem.program(), problem.hidden_columns()
    tasks: list[Task] = []
    for k in range(len(program.followers)):
        alone, columns = program.follower_at(k, values)
        tasks.append(Task(alone, deadline, frozenset(n for n, c in enumerate(columns) if c in hidden)))
    return tasks


def _worst(rows: Sequence[tuple[str, float, float]]) -> tuple[float, str]:
    worst, name = 0.0, ""
    for row, violation, scale in rows:
        if math.isnan(violation):
            return math.nan, row
        if violation / scale > worst:
            worst, name = violation / scale, row
    return worst, name


def _refuted(reason: str, known: dict[str, Any]) -> Certificate:
    return Certificate(Verdict.REFUTED, reason=reason + ".", **known)


def _misread(program: BilevelProgram, values: np.ndarray, residuals: Residuals) -> str:
    """The algebraic form must say what the user's model says; else nothing that uses it can be trusted."""
    told = [residuals.upper_objective, *residuals.lower_objectives]
    for level, value in zip((program.leader, *program.followers), told, strict=True):
        mine = level.in_users_sense(level.objective.evaluate(values))
        # Large terms that cancel leave their rounding.
        rounding = 1e-12 * level.objective.scale(values)
        if not abs(mine - value) <= 1e-6 * max(1.0, abs(value)) + rounding:
            return (
                f"The objective of {level.name!r} is {value:.9g} in the model and {mine:.9g} in its algebraic form: "
                "the model was changed after it was read, or read wrongly."
            )
    return ""


def _gap(program: BilevelProgram, residuals: Residuals, k: int, found: Answer) -> float:
    """A follower's objective at the point minus its optimal value, both minimised."""
    return program.followers[k].in_users_sense(residuals.lower_objectives[k]) - found.value


def _summary(program: BilevelProgram, residuals: Residuals, answers: Sequence[Answer]) -> dict[str, Any]:
    gaps = [_gap(program, residuals, k, a) for k, a in enumerate(answers)]
    worst = max(gaps, key=abs) if all(map(math.isfinite, gaps)) else math.nan
    optima = tuple(f.in_users_sense(a.value) for f, a in zip(program.followers, answers, strict=True))
    responses = {a.response for a in answers}
    response = "ties" if "ties" in responses else "unknown" if "unknown" in responses else "unique"
    return {
        "lower_gap": worst,
        "lower_value": optima[0] if len(optima) == 1 else optima,
        "lower_scope": "local" if any(a.scope == "local" for a in answers) else "global",
        "response": response,
    }


def _within_rounding(
    program: BilevelProgram,
    k: int,
    found: Answer,
    residuals: Residuals,
    values: np.ndarray,
    tol: Tolerances,
    task: Task,
) -> Answer:
    """The point's own answer as another optimal one, where the leader's variables rounded otherwise would make it so.

    Where the coefficient of an answer vanishes at x, as in x y at x = 0 or where terms cancel, the last digit of x
    decides what is optimal, and the coefficient itself is no measure of what counts as zero.
    """
    gap = _gap(program, residuals, k, found)
    if (
        found.values is None
        or not math.isfinite(gap)
        or abs(gap) <= tol.gap * natural_scale(task.program.objective, found.values)
    ):
        return found
    level = program.followers[k]
    there = values.copy()
    there[list(level.columns)] = found.values
    rounding = 0.0
    for i in level.objective.columns.intersection(program.leader.columns):
        try:
            slope = level.objective.partial(i)
        except ValueError:  # abs() of a leader's variable
            return found
        rounding += ROUNDED * max(1.0, abs(float(values[i]))) * abs(slope.evaluate(values) - slope.evaluate(there))
    if not abs(gap) <= rounding:
        return found
    return replace(found, value=found.value + gap, values=values[list(level.columns)], response="ties")


def _judge(
    program: BilevelProgram, k: int, found: Answer, gap: float, tol: Tolerances, task: Task
) -> tuple[Verdict, str] | None:
    """What speaks against follower k's part of the point; None when nothing does."""
    name = program.followers[k].name
    if found.status is SolveStatus.UNBOUNDED:
        return Verdict.REFUTED, f"Follower {name!r} is unbounded at this x: it has no optimal answer."
    if found.status is SolveStatus.INFEASIBLE and _feasible_within(task, tol):
        return Verdict.UNVERIFIABLE, (
            f"Follower {name!r} has feasible answers at this x only within the tolerance of {tol.feasibility:g}."
        )
    if found.status is SolveStatus.INFEASIBLE:
        return Verdict.REFUTED, f"Follower {name!r} has no feasible answer at this x."
    if found.values is None and found.status is SolveStatus.TIME_LIMIT:
        return Verdict.UNVERIFIABLE, (
            f"Follower {name!r} could not be re-solved at this x within the check's {task.deadline.limit:g} s."
        )
    if found.values is None:
        why = found.message or f"it ended {found.status}"
        return Verdict.UNVERIFIABLE, f"Follower {name!r} could not be re-solved at this x: {why}."
    allowed = tol.gap * natural_scale(task.program.objective, found.values)
    if gap > allowed:
        if hinges_on_tolerance(task, found, found.value + gap, allowed):
            return Verdict.UNVERIFIABLE, (
                f"The optimal value of follower {name!r} at this x cannot be told from rounding: its constraints have "
                "no interior there (no constraint qualification holds)."
            )
        return Verdict.REFUTED, (
            f"Follower {name!r} can do better at this x: its objective is {gap:.6g} worse than its optimal value "
            f"{program.followers[k].in_users_sense(found.value):.6g}."
        )
    if gap < -allowed:
        # A local re-solve may end above the point's own value: then that value stands unchallenged.
        if found.scope == "local":
            return Verdict.UNVERIFIABLE, f"Follower {name!r} was re-solved locally and came out worse than the point."
        return Verdict.REFUTED, (
            f"The point beats the optimal value of follower {name!r} by {-gap:.6g}: it leans on violated constraints."
        )
    return None


def _feasible_within(task: Task, tol: Tolerances) -> bool:
    """Whether a follower's constraints can be met once each row may be violated by the tolerance."""
    rows = tuple(
        replace(r, lower=r.lower - tol.feasibility, upper=r.upper + tol.feasibility) for r in task.program.rows
    )
    loose = replace(task.program, rows=rows, objective=Function())
    return answer(replace(task, program=loose)).values is not None
