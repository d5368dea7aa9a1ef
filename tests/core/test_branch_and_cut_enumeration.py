"""Branch and cut against trying every point, on small random programs with leader's constraints on the follower."""

from __future__ import annotations

from typing import Any

import pytest

import bilevel_core as bl
from bilevel_core.program import INF

from .enumerated import enumerate_all, problem, random_program

SEEDS, BATCH = 500, 50


def agrees(seed: int, response: str, known: float, **options: Any) -> None:
    options = {"response": response} | options
    result = bl.solve(problem(random_program(seed)), solver="branch-and-cut", options=options, verify=False)
    where = f"seed {seed}, {response}"
    if known == INF:
        assert result.termination in ("infeasible", "lower-infeasible"), where
        assert not result.has_point, where
    else:
        assert result.upper_objective == pytest.approx(known, abs=1e-6), where
        assert result.claim == "global", where
        assert result.bound == pytest.approx(known, abs=1e-5), where


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_optimistic_and_pessimistic_values_are_those_of_enumeration(first: int) -> None:
    differing = 0
    for seed in range(first, first + BATCH):
        program = random_program(seed)
        best, worst = enumerate_all(program), enumerate_all(program, pessimistic=True)
        differing += best != worst
        agrees(seed, "optimistic", best)
        agrees(seed, "pessimistic", worst)
    assert differing >= 5  # else the two cases are not told apart


def test_branching_alone_comes_to_the_same_values() -> None:
    """Without cuts the search has nothing but branching on bilevel-free sets."""
    for seed in range(40):
        agrees(seed, "optimistic", enumerate_all(random_program(seed)), cuts=False)


@pytest.mark.parametrize("seed", [1, 5, 6, 10, 22, 31])
def test_answers_are_verified(seed: int) -> None:
    program = random_program(seed)
    for response in ("optimistic", "pessimistic"):
        result = bl.solve(problem(program), options={"response": response})
        if result.has_point:
            assert result.status == "optimal", result.certificate
