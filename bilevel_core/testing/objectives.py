"""The objectives that the user's own statement has at a point, for problems of every form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel_core.problems.base import AlgebraicProblem, Problem
from bilevel_core.problems.nested import Call, NestedProblem
from bilevel_core.testing.check import NotApplicable

ROUNDINGS = 1e3
"""How many units of rounding values of one point, computed in two ways, may differ by."""
EXACT = 1e-8
"""And by how much at least, relative to max(1, |value|)."""


@dataclass(frozen=True)
class Objectives:
    """Both levels' objectives at a point, in the user's sense.

    Attributes:
        upper: the leader's, the first of several.
        lower: each follower's.
        tolerance: how far the same value computed otherwise may be off, relative to max(1, |value|).
    """

    upper: float
    lower: tuple[float, ...]
    tolerance: float = EXACT


def objectives_at(problem: Problem, x: Mapping[str, Any], y: Mapping[str, Any]) -> Objectives:
    """Evaluate the user's own statement; no solver has a part in it.

    Raises:
        NotApplicable: it draws random numbers, or values of a point cannot be had.
    """
    if isinstance(problem, AlgebraicProblem):
        found = problem.evaluate(problem.vector(x, y))
        return Objectives(found.upper_objective, found.lower_objectives)
    if isinstance(problem, NestedProblem):
        return _of_nested(problem, x, y)
    if problem.form == "differentiable" and hasattr(problem, "x_layout"):
        return _of_tensors(problem, x, y)
    raise NotApplicable(f"objectives of problems of type {type(problem).__name__} are not evaluated by the kit")


def _of_tensors(problem: Any, x: Mapping[str, Any], y: Mapping[str, Any]) -> Objectives:
    from bilevel_core.oracles.torch import TorchOracle

    oracle = TorchOracle(problem)
    if oracle.is_random:
        raise NotApplicable("the objectives draw random numbers: values hold for one draw only")
    flat_x = problem.x_layout.read(x).double().cpu().numpy()
    flat_y = problem.y_layout.read(y).to(oracle.device)
    oracle.terms.take_buffers(x, y)
    upper, lower = oracle.upper(flat_x, flat_y), oracle.lower(flat_x, flat_y)
    return Objectives(upper, (lower,), max(EXACT, ROUNDINGS * oracle.precision))


def _of_nested(problem: NestedProblem, x: Mapping[str, Any], y: Mapping[str, Any]) -> Objectives:
    point = problem.point(x)
    if problem.evaluate is not None:
        values: Any = {name: np.asarray(value, dtype=float) for name, value in y.items()}
        found = problem.checked(problem.evaluate(problem.space.values(point), values), "evaluate")
    else:
        found = problem.ask(point, Call())
        same = set(found.y) == set(y) and all(np.array_equal(found.y[k], y[k]) for k in y)
        if not same:
            raise NotApplicable("the follower answers otherwise when it is asked again, and there is no evaluate()")
    upper = found.upper if isinstance(found.upper, tuple) else (found.upper,)
    return Objectives(upper[0], (found.lower,))
