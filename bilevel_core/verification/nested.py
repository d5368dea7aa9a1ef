"""The check of a point of a `NestedProblem`: the lower level is solved once more, from the beginning, and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bilevel_core.errors import BilevelError, UsageError
from bilevel_core.problems.nested import Call, NestedProblem
from bilevel_core.result import Certificate, Values, Verdict

TOLERANCE = 1e-6


def check_nested(problem: NestedProblem, x: Mapping[str, Any], y: Mapping[str, Any]) -> Certificate:
    """Check a point: is y what the follower answers at x, and do the leader's constraints hold?

    By value where the problem has ``evaluate``; else the answer must come out as the same y again. The re-solve is the
    problem's own method, so the scope is ``global`` only where the problem says that it is exact.

    Raises:
        UsageError: x is no point of the space.
    """
    point = problem.point(x)
    given = Values({name: np.asarray(value, dtype=float) for name, value in y.items()})
    scope = "global" if problem.exact else "local"
    try:
        again = problem.ask(point, Call())
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a user's function raises
        return Certificate(
            Verdict.UNVERIFIABLE, lower_scope=scope, reason=f"The lower level could not be solved again: {error}"
        )
    known: dict[str, Any] = {"lower_scope": scope, "lower_value": again.lower, "lower_violation": 0.0}
    if not math.isfinite(again.lower):
        return Certificate(Verdict.REFUTED, reason="The follower has no answer at this x.", **known)
    if problem.evaluate is None:
        return _by_answer(given, again.y, again.violation, known)
    try:
        here = problem.checked(problem.evaluate(problem.space.values(point), given), "evaluate")
    except BilevelError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a user's function raises
        return Certificate(Verdict.UNVERIFIABLE, reason=f"The point could not be evaluated: {error}", **known)
    known |= {"upper_violation": here.violation, "lower_gap": here.lower - again.lower}
    if not math.isfinite(here.lower):
        return Certificate(Verdict.REFUTED, reason="y is no answer that the follower can give at this x.", **known)
    allowed = TOLERANCE * max(1.0, abs(again.lower))
    if here.violation > TOLERANCE:
        reason = f"The leader's constraints are violated by {here.violation:.3g}."
        return Certificate(Verdict.REFUTED, reason=reason, **known)
    if here.lower - again.lower > allowed:
        reason = f"The follower can do better at this x: by {here.lower - again.lower:.6g}."
        return Certificate(Verdict.REFUTED, reason=reason, **known)
    if again.lower - here.lower > allowed:
        reason = "Solving the lower level again came out worse than the point."
        return Certificate(Verdict.UNVERIFIABLE, reason=reason, **known)
    better = again.upper[0] if isinstance(again.upper, tuple) else again.upper
    mine = here.upper[0] if isinstance(here.upper, tuple) else here.upper
    if better < mine - 1e-4 * max(1.0, abs(mine)) and again.violation <= TOLERANCE:
        known |= {"better_response": better, "response": "ties"}
    reason = "The lower level was solved again from the beginning, and the point is as good for the follower."
    return Certificate(Verdict.VERIFIED, reason=reason, **known)


def _by_answer(given: Values, again: Mapping[str, Any], violation: float, known: dict[str, Any]) -> Certificate:
    known |= {"upper_violation": violation}
    if violation > TOLERANCE:
        return Certificate(
            Verdict.REFUTED, reason=f"The leader's constraints are violated by {violation:.3g}.", **known
        )
    same = set(given) == set(again) and all(
        given[name].shape == np.shape(value)
        and np.allclose(given[name], np.asarray(value, dtype=float), TOLERANCE, 1e-9)
        for name, value in again.items()
    )
    if same:
        reason = "The lower level was solved again from the beginning, with the same answer."
        return Certificate(Verdict.VERIFIED, lower_gap=0.0, reason=reason, **known)
    reason = (
        "Solving the lower level again gave another answer, and the problem has no evaluate() that says whether it is "
        "as good."
    )
    return Certificate(Verdict.UNVERIFIABLE, reason=reason, **known)
