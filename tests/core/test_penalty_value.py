"""The penalty solver's value-function method: first derivatives only, known gradients, precision, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.result import Claim, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.iterative import CutShortError
from bilevel_core.solvers.penalty.minimise import minimise
from bilevel_core.solvers.penalty.solver import Penalty

torch = pytest.importorskip("torch")

from bilevel_core.problems.torch import TorchProblem  # noqa: E402 - needs torch


def ridge(dtype: object = torch.float64, **more: object) -> tuple[TorchProblem, object]:
    """A weight exp(x) of a ridge regression tuned on other data, with an optimum inside; and the true gradient."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(8, 6, dtype=torch.float64, generator=generator)
    truth = torch.randn(6, dtype=torch.float64, generator=generator)
    b = a @ truth + 2.0 * torch.randn(8, dtype=torch.float64, generator=generator)
    c = torch.randn(40, 6, dtype=torch.float64, generator=generator)
    d = c @ truth

    def upper(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((c.to(y) @ y - d.to(y)) ** 2).mean()

    def lower(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((a.to(y) @ y - b.to(y)) ** 2).mean() + torch.exp(x).sum() * (y**2).sum()

    def gradient(x: np.ndarray) -> np.ndarray:
        t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        hessian = a.T @ a / 8 + torch.exp(t).sum() * torch.eye(6, dtype=torch.float64)
        upper(t, torch.linalg.solve(hessian, a.T @ b / 8)).backward()
        return t.grad.numpy()

    x0, y0 = torch.zeros(1, dtype=dtype), torch.zeros(6, dtype=dtype)
    return TorchProblem(upper, lower, x0, y0, **more), gradient


def test_reaches_the_true_stationary_point_without_second_derivatives() -> None:
    problem, gradient = ridge()
    result = bl.solve(problem, "penalty")
    assert result.termination is Termination.CONVERGED
    assert result.claim is Claim.STATIONARY
    start = np.linalg.norm(gradient(np.zeros(1)))
    assert start > 1e-2
    assert np.linalg.norm(gradient(result.x["x"])) <= 1e-5 * max(1.0, start)
    assert result.counts.get("hessian_products", 0) == 0
    assert result.counts.get("mixed_products", 0) == 0
    assert "1/rho" in result.message


def test_the_bias_falls_as_one_over_the_weight_and_faster_with_extrapolation() -> None:
    problem, gradient = ridge()

    def bias(weight: float, *, extrapolate: bool) -> float:
        options = {"max_weight": weight, "extrapolate": extrapolate, "tolerance": 1e-8, "lower_tolerance": 1e-11}
        return float(np.linalg.norm(gradient(bl.solve(problem, "penalty", options).x["x"])))

    plain, tenth = bias(30.0, extrapolate=False), bias(300.0, extrapolate=False)
    assert plain / tenth == pytest.approx(10.0, rel=0.3)
    assert bias(300.0, extrapolate=True) < 0.1 * tenth


def test_a_bias_that_is_too_large_leaves_stationarity_open() -> None:
    problem, gradient = ridge()
    result = bl.solve(problem, "penalty", {"max_weight": 1000.0, "extrapolate": False})
    assert result.claim is Claim.FEASIBLE
    assert "raise max_weight" in result.message
    told = float(result.message.split("by comparison of weights ")[1].split(". ")[0])
    assert told == pytest.approx(float(np.linalg.norm(gradient(result.x["x"]))), rel=0.3)


def test_stays_within_bounds_of_x() -> None:
    problem, gradient = ridge(x_bounds=(-6.0, -5.0))
    result = bl.solve(problem, "penalty")
    x = result.x["x"]
    slope = gradient(x)
    assert x[0] == (-5.0 if slope[0] < 0 else -6.0)


def test_single_precision_with_a_large_weight_is_warned_of() -> None:
    problem, _ = ridge(torch.float32)
    loud = bl.solve(problem, "penalty", {"max_weight": 1e5, "tolerance": 1e-2, "max_iterations": 30})
    assert "cancellation" in loud.message
    quiet = bl.solve(problem, "penalty", {"tolerance": 1e-2, "max_iterations": 30})
    assert "cancellation" not in quiet.message
    double, _ = ridge()
    assert "cancellation" not in bl.solve(double, "penalty", {"max_weight": 1e5, "max_iterations": 3}).message


def test_the_leaders_pull_may_leave_no_minimum_at_small_weights() -> None:
    """F falls without end in y, faster than f rises until the weight exceeds 4."""

    def upper(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - 1.0).pow(2).sum() - 2.0 * (y - x).pow(2).sum() + y.sum()

    def lower(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * (y - x).pow(2).sum()

    start = torch.zeros(2, dtype=torch.float64)
    result = bl.solve(TorchProblem(upper, lower, start, start.clone()), "penalty")
    assert result.claim is Claim.STATIONARY
    assert result.x["x"] == pytest.approx(0.5, abs=1e-5)  # y = x: (x - 1)^2 + x
    assert result.y["y"] == pytest.approx(result.x["x"], abs=1e-7)


def test_constraints_are_refused() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (y - x).pow(2).sum()

    start = torch.zeros(2, dtype=torch.float64)
    cases = (
        {"y_bounds": (0.0, None)},
        {"lower_inequality": lambda x, y: y - 1.0},
        {"upper_inequality": lambda x, y: x - y},
    )
    for more in cases:
        with pytest.raises(bl.RefusedError, match=r"penalty.*constraints"):
            bl.solve(TorchProblem(f, f, start, start.clone(), **more), "penalty")


def test_algebraic_methods_refuse_callables() -> None:
    problem, _ = ridge()
    with pytest.raises(bl.RefusedError, match="callables"):
        bl.solve(problem, "penalty", {"method": "double"})


def test_minimise_finds_minima_of_either_kind_of_vector() -> None:
    def rosenbrock(v: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = v
        return 100 * (b - a * a) ** 2 + (1 - a) ** 2, np.array(
            [-400 * a * (b - a * a) - 2 * (1 - a), 200 * (b - a * a)]
        )

    found = minimise(rosenbrock, np.array([-1.2, 1.0]), tolerance=1e-9, max_iterations=500, precision=2.3e-16)
    assert found.converged
    assert found.point == pytest.approx([1.0, 1.0], abs=1e-8)

    scale = torch.logspace(0, 4, 30, dtype=torch.float64)
    quadratic = minimise(
        lambda v: (0.5 * float((scale * v) @ v) - float(v.sum()), scale * v - 1.0),
        torch.zeros(30, dtype=torch.float64),
        tolerance=1e-8,
        max_iterations=2000,
        precision=2.3e-16,
    )
    assert quadratic.converged
    assert torch.allclose(quadratic.point, 1.0 / scale, atol=1e-8)


def test_minimise_says_when_it_did_not_get_there() -> None:
    found = minimise(
        lambda v: (float(v @ v), v * 2.0), np.full(3, 5.0), tolerance=1e-12, max_iterations=1, precision=2.3e-16
    )
    assert not found.converged
    assert found.residual > 1e-12
    assert math.isfinite(found.value)


def test_a_stopped_run_keeps_its_point() -> None:
    problem, _ = ridge()
    evaluations = 0

    def stop(event: bl.Event) -> bool:
        nonlocal evaluations
        evaluations += event.kind == "iteration"
        return evaluations >= 2

    result = bl.solve(problem, "penalty", callbacks=[stop])
    assert result.termination is Termination.STOPPED_BY_USER
    assert result.has_point
    assert result.claim is Claim.FEASIBLE
    timed = bl.solve(problem, "penalty", time_limit=1e-9)
    assert timed.termination is Termination.TIME_LIMIT


def test_a_stop_inside_an_inner_minimisation_gives_the_step_up() -> None:
    problem, _ = ridge()
    context = RunContext()
    solver = Penalty()
    oracle = solver.make_oracle(problem, context)
    state = solver.init(oracle, np.zeros(1), context)
    context.stop()
    with pytest.raises(CutShortError):
        solver.step(oracle, state, context)
