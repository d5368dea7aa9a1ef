"""`global` on 100 random small polynomial bilevel programs, against a fine grid."""

from __future__ import annotations

import math

import pytest

import bilevel_core as bl
from bilevel_core.solvers.pessimistic import ReducedProblem

from .polynomials import grid_optimum, random_case

TOLERANCE = 0.03
"""For coefficients of at most 1 the leader's value moves by no more between points of the grid."""


@pytest.mark.parametrize("seed", range(100))
def test_optimum_is_that_of_a_grid(seed: int) -> None:
    case = random_case(seed)
    result = bl.solve(ReducedProblem(case.program()), solver="global")
    step = 0.005 if sum(case.sizes) == 2 else 0.02
    value, _ = grid_optimum(case, step=step, slack=0.0)
    if math.isinf(value):
        assert result.termination == "infeasible"
        return
    assert result.status == "optimal", f"{result.message} {result.certificate}"
    # Between points of the grid the follower may answer otherwise: within the slack the leader has at least as much.
    _, least = grid_optimum(case, step=step, slack=2.0 * step)
    assert result.upper_objective is not None
    assert least - TOLERANCE <= result.upper_objective <= value + TOLERANCE
