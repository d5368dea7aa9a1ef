"""Saddles of the follower's objective: left where they can be, and never called stationary or optimal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.linear.spectrum import smallest_eigenvalue  # noqa: E402
from bilevel_core.lower import LowerSettings, Response, respond  # noqa: E402
from bilevel_core.result import Claim  # noqa: E402
from bilevel_core.solvers.second_order import local_evidence, lower_is_minimum, stationary_claim  # noqa: E402

from .tools import oracle_of  # noqa: E402

F64 = torch.float64
SOLVERS = ("hypergradient", "auxiliary", "trust-region")
Function = Callable[[Any, Any], Any]


def double_well(tail: Any = (), **more: Any) -> bl.TorchProblem:
    """The follower's y_1 = 0 is a saddle that the leader cannot see; minima at -1 and 1. ``tail``: curvatures of
    further variables, along directions off the axes.
    """
    weights = torch.as_tensor(np.asarray(tail, dtype=float))
    rotation = torch.linalg.qr(torch.randn(len(weights), len(weights), generator=torch.Generator().manual_seed(0)))[0]
    rotation = rotation.double()

    def upper(x: Any, y: Any) -> Any:
        return (y[0] - 1) ** 2 + 0.1 * (x[0] - 1) ** 2

    def lower(x: Any, y: Any) -> Any:
        rest = 0.5 * (weights * (rotation @ y[2:]) ** 2).sum()
        return (y[0] - x[0]) ** 2 + (y[1] ** 2 - 1) ** 2 + rest

    n = 2 + len(weights)
    return bl.TorchProblem(upper, lower, torch.zeros(1, dtype=F64), torch.zeros(n, dtype=F64), **more)


TAILS = {"none": (), "ill-conditioned": np.logspace(0, 9, 60), "many": np.linspace(1.0, 10.0, 300)}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_start_on_a_saddle_is_left(solver: str, tail: str) -> None:
    r = bl.solve(double_well(TAILS[tail]), solver, verify=False)
    assert abs(r.y["y"][1]) == pytest.approx(1.0, abs=1e-6)
    assert r.claim is Claim.LOCAL


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_saddle_where_the_search_stays_is_claimed_feasible_at_most(solver: str, tail: str) -> None:
    # L-BFGS starts with a gradient of exactly zero along y_1, and stays there.
    options = {"lower_method": "lbfgs", "lower_tolerance": 1e-4} if tail == "ill-conditioned" else {}
    r = bl.solve(double_well(TAILS[tail]), solver, {"lower_method": "lbfgs", **options}, verify=False)
    assert r.y["y"][1] == 0.0
    assert r.claim <= Claim.FEASIBLE
    if r.termination is bl.Termination.CONVERGED and tail != "ill-conditioned":
        assert "saddle" in r.message


def test_bounds_do_not_hide_a_saddle() -> None:
    r = bl.solve(double_well(y_bounds=(-5.0, 5.0)), "trust-region", verify=False)
    assert r.claim <= Claim.FEASIBLE if r.y["y"][1] == 0.0 else abs(r.y["y"][1]) == pytest.approx(1.0, abs=1e-6)


def at(lower: Function, y: list[float], **more: Any) -> tuple[Any, np.ndarray, Response]:
    """An oracle with a follower, and the response that says ``y`` is its answer at x = 0."""
    n = len(y)
    start = torch.zeros(n, dtype=F64)
    problem = bl.TorchProblem(lambda x, y: (y[0] - x[0]) ** 2, lower, torch.zeros(1, dtype=F64), start, **more)
    oracle, point = oracle_of(problem), torch.tensor(y, dtype=F64)
    x = np.zeros(1)
    sizes = oracle.lower_rows(x, point)
    response = Response(point, oracle.lower(x, point), np.zeros(sizes.g.size), np.zeros(sizes.h.size))
    return oracle, x, response


@pytest.mark.parametrize(
    ("name", "lower", "y", "more", "expected"),
    [
        ("minimum", lambda x, y: (y**2).sum() + x[0], [0.0, 0.0], {}, True),
        ("saddle off the axes", lambda x, y: y[0] * y[1] + 0 * x[0], [0.0, 0.0], {}, False),
        ("maximum", lambda x, y: -(y**2).sum() + x[0], [0.0], {}, False),
        ("tiny beside the largest", lambda x, y: 1e9 * y[0] ** 2 - y[1] ** 2 + x[0], [0.0, 0.0], {}, False),
        ("flat", lambda x, y: (y[0] - y[1]) ** 2 + x[0], [0.0, 0.0], {}, None),
        ("large minimum", lambda x, y: (y**2).sum() + x[0], [0.0] * 300, {}, True),
        ("large saddle", lambda x, y: (y**2).sum() - 3 * y[7] ** 2 + x[0], [0.0] * 300, {}, False),
        ("an equality that excludes it", lambda x, y: y[0] ** 2 - y[1] ** 2 + x[0], [0.0, 0.0],
         {"lower_equality": lambda x, y: y[1:]}, True),
        ("an equality that does not", lambda x, y: y[0] ** 2 - y[1] ** 2 + x[0], [0.0, 0.0],
         {"lower_equality": lambda x, y: y[:1]}, False),
        ("a bound without a multiplier", lambda x, y: y[0] ** 2 - y[1] ** 2 + x[0], [0.0, 0.0],
         {"y_bounds": (0.0, None)}, False),
        ("a cone that may exclude it", lambda x, y: y[0] ** 2 + y[1] ** 2 + 4 * y[0] * y[1] + x[0], [0.0, 0.0],
         {"y_bounds": (0.0, None)}, None),
        ("a row without a multiplier", lambda x, y: y[0] ** 2 - y[1] ** 2 + x[0], [0.0, 0.0],
         {"lower_inequality": lambda x, y: -y[1:]}, False),
    ],
)  # fmt: skip
def test_what_is_a_minimum(name: str, lower: Function, y: list[float], more: dict[str, Any], expected: Any) -> None:
    oracle, x, response = at(lower, y, **more)
    assert lower_is_minimum(oracle, x, response) is expected, name
    claim = stationary_claim(oracle, x, response)
    if expected is not True:
        assert not local_evidence(oracle, x, response)
        assert claim <= (Claim.FEASIBLE if expected is False else Claim.STATIONARY)


def test_a_rough_hypergradient_says_nothing() -> None:
    weights = torch.logspace(0, 3, 20, dtype=F64)
    problem = bl.TorchProblem(
        lambda x, y: ((y - 1) ** 2).sum() + 0.01 * (x**2).sum(),
        lambda x, y: 0.5 * (weights * y**2).sum() - (x * y).sum(),
        torch.zeros(20, dtype=F64),
        torch.zeros(20, dtype=F64),
    )
    r = bl.solve(problem, "trust-region", {"hypergradient_tolerance": 0.9}, verify=False)
    assert r.claim <= Claim.FEASIBLE
    assert bl.solve(problem, "trust-region", verify=False).claim >= Claim.STATIONARY


def test_single_precision_does_not_take_rounding_for_curvature() -> None:
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(40, 60, generator=generator)
    problem = bl.TorchProblem(
        lambda x, y: (y**2).sum(), lambda x, y: ((a @ y - x.sum()) ** 2).mean(), torch.ones(1), torch.zeros(60)
    )
    oracle = oracle_of(problem)
    response = respond(oracle, np.ones(1))
    assert response.converged
    # Rank 40 of 60: flat, and not bent.
    assert lower_is_minimum(oracle, np.ones(1), response) is None


def test_what_looking_for_negative_curvature_costs() -> None:
    n = 5000
    problem = bl.TorchProblem(
        lambda x, y: (y**2).sum(), lambda x, y: ((y - x.sum()) ** 2).sum(), torch.ones(1, dtype=F64),
        torch.zeros(n, dtype=F64),
    )  # fmt: skip
    oracle = oracle_of(problem)
    response = respond(oracle, np.ones(1))
    first = oracle.counts["hessian_products"]
    assert first <= 5
    # At the answer already, and not at the problem's own start: nothing is spent.
    respond(oracle, np.ones(1), response.y)
    assert oracle.counts["hessian_products"] == first


def test_a_minimum_that_turns_into_a_saddle_is_left() -> None:
    problem = bl.TorchProblem(
        lambda x, y: (y**2).sum() + x[0],
        lambda x, y: (y**4 / 4 - x[0] * y**2 / 2).sum(),
        torch.full((1,), -1.0, dtype=F64),
        torch.full((1,), 0.0, dtype=F64),
    )
    oracle = oracle_of(problem)
    before = respond(oracle, np.array([-1.0]), torch.tensor([1e-3], dtype=F64), LowerSettings(tolerance=1e-12))
    assert abs(float(before.y[0])) < 1e-10
    after = respond(oracle, np.array([1.0]), torch.zeros(1, dtype=F64) + 0.0)
    assert abs(float(after.y[0])) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("n", [1, 5, 300])
def test_the_smallest_eigenvalue(kind: str, n: int) -> None:
    rng = np.random.default_rng(n)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = np.linspace(1.0, 9.0, n)
    for lowest in (1.0, -0.5):
        values[0] = lowest
        a = basis @ np.diag(values) @ basis.T
        like: Any = np.zeros(n)
        matrix: Any = a
        if kind == "torch":
            like, matrix = torch.zeros(n, dtype=F64), torch.as_tensor(a)
        found = smallest_eigenvalue(lambda v, m=matrix: m @ v, like, iterations=60)
        if lowest > 0:
            assert found.vector is None
            assert found.value >= lowest - 1e-9
            assert found.value == pytest.approx(lowest, abs=0.1)
            assert found.exact is (n < 300)
            if found.exact:
                assert found.value == pytest.approx(lowest)
        else:
            assert found.vector is not None
            v = np.asarray(found.vector)
            assert np.linalg.norm(v) == pytest.approx(1.0)
            assert v @ a @ v == pytest.approx(found.value)
            assert found.value < 0.0


def test_the_smallest_eigenvalue_of_nothing() -> None:
    assert smallest_eigenvalue(lambda v: v, np.zeros(0)).value == np.inf
