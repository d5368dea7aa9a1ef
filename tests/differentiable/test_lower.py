"""Lower-level solves of differentiable problems: every method, schedules, bounds, constraints, failures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.lower import LowerFailedError, LowerSettings, respond  # noqa: E402
from bilevel_core.lower.optimiser import OPTIMISERS  # noqa: E402
from bilevel_core.result import Termination  # noqa: E402

from .tools import oracle_of  # noqa: E402

F64 = torch.float64
HESSIAN = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=F64)
X = np.array([1.0, -2.0, 0.5])
ANSWER = np.linalg.solve(HESSIAN.numpy(), X)


def strongly_convex(dtype: Any = F64, **more: Any) -> bl.TorchProblem:
    h = HESSIAN.to(dtype)
    return bl.TorchProblem(
        lambda x, y: y.sum() + x.sum(),
        lambda x, y: 0.5 * y @ h @ y - x @ y,
        torch.tensor(X, dtype=dtype),
        torch.zeros(3, dtype=dtype),
        **more,
    )


def solved(problem: bl.TorchProblem, x: Any = X, **settings: Any) -> Any:
    return respond(oracle_of(problem), np.asarray(x, dtype=float), None, LowerSettings(**settings))


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("auto", {}),
        ("newton-cg", {}),
        ("lbfgs", {}),
        ("sgd", {"learning_rate": 0.3}),
        ("sgd", {"learning_rate": 0.1, "momentum": 0.8}),
        ("sgd", {"learning_rate": 0.3, "schedule": "linear"}),
        ("adam", {"learning_rate": 0.3, "schedule": "cosine", "max_iterations": 600, "tolerance": 1e-5}),
        ("rprop", {"max_iterations": 600, "tolerance": 1e-5}),
        ("nadam", {"learning_rate": 0.05, "max_iterations": 3000, "schedule": "cosine", "tolerance": 1e-5}),
    ],
)
def test_methods_end_at_the_gradient_norm(method: str, more: dict[str, Any]) -> None:
    settings = {"tolerance": 1e-8, "max_iterations": 2000} | more
    found = solved(strongly_convex(), method=method, **settings)
    assert found.converged
    assert found.message == ""
    assert found.residual <= settings["tolerance"]
    assert found.iterations < settings["max_iterations"], "it must stop by itself"
    assert found.y.numpy() == pytest.approx(ANSWER, abs=10.0 * settings["tolerance"])
    assert found.value == pytest.approx(-0.5 * float(X @ ANSWER))


@pytest.mark.parametrize("method", sorted(OPTIMISERS))
def test_every_optimiser_of_torch_runs(method: str) -> None:
    if method == "adadelta":
        # Its steps grow from almost nothing: the rate stands for a factor, not a length.
        found = solved(strongly_convex(), method=method, learning_rate=30.0, max_iterations=300)
    else:
        found = solved(strongly_convex(), method=method, learning_rate=0.05, max_iterations=300)
    oracle = oracle_of(strongly_convex())
    assert found.value < 0.8 * oracle.lower(X, torch.tensor(ANSWER)), "most of the way from 0"
    assert found.residual == pytest.approx(float(oracle.lower_gradient(X, found.y)[1].norm()), rel=1e-12)
    if found.iterations < 300:
        assert found.residual <= 1e-8
        assert found.converged
        assert found.message == ""
    else:
        assert found.residual > 1e-8, "else it should have stopped by itself"
        assert not found.converged
        assert "stopped after 300 steps" in found.message


def test_schedules_end_at_zero() -> None:
    """One step of SGD from 0 moves by rate * x: the schedule is what is left of it."""
    problem = bl.TorchProblem(
        lambda x, y: y.sum(), lambda x, y: (x * y).sum(), torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
    )
    for schedule, total in (("constant", 4.0), ("linear", 2.5), ("cosine", 2.5)):
        found = solved(problem, [1.0], method="sgd", schedule=schedule, learning_rate=1.0, max_iterations=4)
        assert float(found.y) == pytest.approx(-total)
    halves = [solved(problem, [1.0], method="sgd", schedule=s, max_iterations=4).y for s in ("linear", "cosine")]
    assert float(halves[0]) == pytest.approx(float(halves[1]))
    with pytest.raises(bl.UsageError, match="no schedule 'step'"):
        solved(problem, [1.0], method="sgd", schedule="step")


def test_momentum_and_decay_reach_the_optimiser() -> None:
    problem = bl.TorchProblem(
        lambda x, y: y.sum(), lambda x, y: (x * y).sum(), torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
    )
    rest = {"method": "sgd", "learning_rate": 1.0, "max_iterations": 2}
    assert float(solved(problem, [1.0], momentum=0.5, **rest).y) == pytest.approx(-2.5)
    assert float(solved(problem, [1.0], weight_decay=0.5, **rest).y) == pytest.approx(-1.5)


def test_newton_on_an_ill_conditioned_valley() -> None:
    problem = bl.TorchProblem(
        lambda x, y: y.sum(),
        lambda x, y: (x[0] - y[0]) ** 2 + 100.0 * (y[1] - y[0] ** 2) ** 2,
        torch.ones(1, dtype=F64),
        torch.tensor([-1.2, 1.0], dtype=F64),
    )
    for method in ("newton-cg", "lbfgs"):
        found = solved(problem, [1.0], method=method)
        assert found.converged, method
        assert found.y.numpy() == pytest.approx([1.0, 1.0], abs=1e-6)


def test_negative_curvature_is_followed_downhill() -> None:
    """From the maximum between two minima a Newton step would stay there."""
    problem = bl.TorchProblem(
        lambda x, y: y.sum(),
        lambda x, y: (y**4 / 4 - y**2 / 2 - x * y).sum(),
        torch.zeros(1, dtype=F64),
        torch.zeros(1, dtype=F64),
    )
    found = solved(problem, [1e-3])
    assert found.converged
    assert float(found.y) == pytest.approx(1.0005, abs=1e-3)


def test_the_start_is_used_and_left_alone() -> None:
    oracle = oracle_of(strongly_convex())
    start = torch.tensor(ANSWER)
    for method in ("newton-cg", "lbfgs", "adam"):
        found = respond(oracle, X, start, LowerSettings(method=method))
        assert found.iterations == 0, method
        moved = respond(oracle, X + 1.0, start, LowerSettings(method=method, max_iterations=3))
        assert not torch.equal(moved.y, start)
        assert torch.equal(start, torch.tensor(ANSWER))


def test_stopped_in_a_hurry() -> None:
    for method in ("newton-cg", "sgd"):
        found = solved(strongly_convex(), method=method, hurry=lambda: True)
        assert not found.converged
        assert found.iterations == 0


# Bounds and constraints.


def active_set_answer(low: float, high: float) -> np.ndarray:
    from scipy.optimize import minimize

    h = HESSIAN.numpy()
    best = minimize(
        lambda v: 0.5 * v @ h @ v - X @ v,
        np.zeros(3),
        jac=lambda v: h @ v - X,
        bounds=[(low, high)] * 3,
        method="trust-constr",
        options={"gtol": 1e-12, "xtol": 1e-14, "maxiter": 3000},
    )
    return np.asarray(best.x)


def test_bounds() -> None:
    found = solved(strongly_convex(y_bounds=(-0.8, 0.6)))
    y = found.y.numpy()
    assert found.converged
    assert y == pytest.approx(active_set_answer(-0.8, 0.6), abs=1e-4)
    gradient = HESSIAN.numpy() @ y - X
    assert found.at_lower - found.at_upper == pytest.approx(gradient, abs=1e-8)
    assert (found.at_lower * (y + 0.8) == 0.0).all()
    assert (found.at_upper * (0.6 - y) == 0.0).all()
    assert (found.at_lower + found.at_upper > 1e-3).any()
    assert ((y >= -0.8) & (y <= 0.6)).all()


def test_a_large_bounded_lower_level() -> None:
    n = 2000
    problem = bl.TorchProblem(
        lambda x, y: y.sum(),
        lambda x, y: ((y - x) ** 2).sum() + 5.0 * ((y[1:] - y[:-1]) ** 2).sum() + (y**4).sum(),
        torch.linspace(-2.0, 2.0, n, dtype=F64),
        torch.zeros(n, dtype=F64),
        y_bounds=(-0.5, 0.25),
    )
    found = respond(oracle_of(problem), oracle_of(problem).x_start)
    assert found.converged
    assert found.residual <= 1e-8
    assert int((found.at_lower > 0).sum()) > 100
    assert int((found.at_upper > 0).sum()) > 100


def test_variables_fixed_by_their_bounds() -> None:
    low = torch.tensor([0.3, -5.0, -5.0], dtype=F64)
    high = torch.tensor([0.3, 5.0, 5.0], dtype=F64)
    found = solved(strongly_convex(y_bounds=(low, high)))
    assert found.converged
    h = HESSIAN.numpy()
    rest = np.linalg.solve(h[1:, 1:], X[1:] - 0.3 * h[1:, 0])
    assert found.y.numpy() == pytest.approx([0.3, *rest], abs=1e-8)


def test_inequality_and_equality() -> None:
    """Multipliers by hand: H y - x + lam a + mu b = 0."""
    a, b = torch.tensor([1.0, 1.0, 0.0], dtype=F64), torch.tensor([0.0, 1.0, -1.0], dtype=F64)
    problem = strongly_convex(lower_inequality=lambda x, y: a @ y + 1.0, lower_equality=lambda x, y: b @ y - 0.2)
    found = solved(problem)
    k = np.zeros((5, 5))
    k[:3, :3], k[:3, 3], k[:3, 4] = HESSIAN.numpy(), a.numpy(), b.numpy()
    k[3, :3], k[4, :3] = a.numpy(), b.numpy()
    expected = np.linalg.solve(k, [*X, -1.0, 0.2])
    assert expected[3] > 0.0
    assert found.converged
    assert found.y.numpy() == pytest.approx(expected[:3], abs=1e-8)
    assert found.inequality == pytest.approx([expected[3]], abs=1e-7)
    assert found.equality == pytest.approx([expected[4]], abs=1e-7)


def test_a_curved_inequality() -> None:
    """min |y - x|^2 in the unit disc: y = x / |x|, multiplier |x| - 1."""
    problem = bl.TorchProblem(
        lambda x, y: y.sum(),
        lambda x, y: ((y - x) ** 2).sum(),
        torch.tensor([3.0, 4.0], dtype=F64),
        torch.zeros(2, dtype=F64),
        lower_inequality=lambda x, y: y @ y - 1.0,
    )
    found = solved(problem, [3.0, 4.0])
    assert found.y.numpy() == pytest.approx([0.6, 0.8], abs=1e-9)
    assert found.inequality == pytest.approx([4.0], abs=1e-6)


# Failures.


def failure(problem: bl.TorchProblem, x: Any, **settings: Any) -> LowerFailedError:
    with pytest.raises(LowerFailedError) as caught:
        solved(problem, x, **settings)
    return caught.value


def test_infeasible() -> None:
    problem = bl.TorchProblem(
        lambda x, y: y.sum(),
        lambda x, y: (y * y).sum(),
        torch.ones(1, dtype=F64),
        torch.zeros(1, dtype=F64),
        lower_inequality=lambda x, y: torch.cat([y - 1.0, x - y + 1.0]),
    )
    assert solved(problem, [-1.0]).converged
    error = failure(problem, [2.0])
    assert error.termination is Termination.LOWER_INFEASIBLE
    assert "satisfies the lower constraints" in str(error)


UNBOUNDED = {
    "linear": (lambda x, y: (x * y).sum(), {}),
    "concave": (lambda x, y: (x * y - y**2).sum(), {}),
    "cubic": (lambda x, y: (x * y + y**3).sum(), {}),
    "linear with one bound": (lambda x, y: (x * y).sum(), {"y_bounds": (None, 3.0)}),
    "linear with a row": (lambda x, y: (x * y).sum(), {"lower_inequality": lambda x, y: y - 3.0}),
}


@pytest.mark.parametrize("case", UNBOUNDED)
def test_unbounded_below(case: str) -> None:
    lower, more = UNBOUNDED[case]
    problem = bl.TorchProblem(lambda x, y: y.sum(), lower, torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64), **more)
    error = failure(problem, [1.0])
    assert error.termination is Termination.LOWER_UNBOUNDED
    assert "no minimum" in str(error)


def test_single_precision_ends_where_rounding_decides() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(40, 20, generator=g), torch.randn(40, generator=g)
    problem = bl.TorchProblem(
        lambda x, y: y.sum(),
        lambda x, y: ((a @ y - b) ** 2).sum() * 100.0 + 1e4 + x.sum(),
        torch.ones(1),
        torch.zeros(20),
    )
    for method in ("newton-cg", "lbfgs"):
        found = solved(problem, [1.0], method=method, max_iterations=200)
        assert found.iterations < 100, f"{method} must not go on without an end"
        exact = torch.linalg.lstsq(a.double(), b.double().unsqueeze(1)).solution.squeeze(1)
        assert torch.allclose(found.y.double(), exact, atol=1e-3), method
        # The gradient has terms of about 1e4, so 1e-8, and 20 units of rounding as well, are out of reach.
        assert not found.converged, method
        assert found.residual < 1e-4 * 1e4, method
        assert "gradient norm" in found.message, method
        assert f"{found.residual:.2g}" in found.message, method


def test_single_precision_bounds_and_rows() -> None:
    for more in ({"y_bounds": (-0.8, 0.6)}, {"lower_inequality": lambda x, y: y[0] + y[1] + 1.0}):
        single, double = strongly_convex(torch.float32, **more), strongly_convex(**more)
        found, expected = solved(single), solved(double)
        assert found.y.dtype == torch.float32
        assert found.y.double().numpy() == pytest.approx(expected.y.numpy(), abs=1e-4)


def test_too_many_variables_with_rows() -> None:
    problem = bl.TorchProblem(
        lambda x, y: y.sum(),
        lambda x, y: (y * y).sum(),
        torch.ones(1, dtype=F64),
        torch.zeros(600, dtype=F64),
        lower_inequality=lambda x, y: y.sum() - 1.0,
    )
    assert "up to 500" in str(failure(problem, [1.0]))


# Time limits.


def counted(limit: int, **more: Any) -> tuple[bl.TorchProblem, Any, list[int]]:
    """An ill-conditioned problem that counts the calls of its functions; time is up after ``limit`` of them."""
    calls = [0]
    scale = torch.logspace(0, 4, 30, dtype=F64)

    def lower(x: Any, y: Any) -> Any:
        calls[0] += 1
        return 0.5 * (scale * y * y).sum() - x.sum() * y.sum() + (y**4).sum()

    problem = bl.TorchProblem(lambda x, y: y.sum(), lower, torch.ones(1, dtype=F64), torch.ones(30, dtype=F64), **more)
    calls[0] = 0
    return problem, lambda: calls[0] >= limit, calls


CUT = {
    "lbfgs": ({"method": "lbfgs"}, {}),
    "bounds": ({}, {"y_bounds": (-0.5, 2.0)}),
    "row": ({}, {"lower_inequality": lambda x, y: 1.0 - y.sum()}),
    "rows and bounds": ({}, {"lower_equality": lambda x, y: y.sum() - 1.0, "y_bounds": (-0.5, 2.0)}),
}


@pytest.mark.parametrize("limit", [1, 4, 9])
@pytest.mark.parametrize("case", CUT)
def test_a_solve_ends_within_one_evaluation_of_the_time_limit(case: str, limit: int) -> None:
    settings, more = CUT[case]
    free, _, calls = counted(10**9, **more)
    oracle = oracle_of(free)
    start = calls[0]
    assert respond(oracle, np.ones(1), None, LowerSettings(**settings)).residual < 1e-5
    assert calls[0] - start > 12, "the limit must fall into the solve"
    problem, hurry, calls = counted(limit, **more)
    oracle = oracle_of(problem)
    assert oracle.lower_scale == 1.0  # once a problem, by one evaluation
    calls[0] = 0
    found = respond(oracle, np.ones(1), None, LowerSettings(**settings, hurry=hurry))
    assert calls[0] <= limit + 1
    assert not found.converged
    assert found.message != ""
    assert found.value == pytest.approx(oracle.lower(np.ones(1), found.y), rel=1e-14)


def test_the_newton_phase_at_bounds_ends_in_time_too() -> None:
    """Products and searches count as well: whichever evaluation the limit falls on, there is one more at most."""
    free, _, calls = counted(10**9, y_bounds=(-0.5, 0.01))
    oracle = oracle_of(free)
    calls[0] = 0
    whole = respond(oracle, np.ones(1), None, LowerSettings(tolerance=1e-11))
    total = calls[0]
    for limit in range(total - 6, total - 1):
        problem, hurry, calls = counted(limit, y_bounds=(-0.5, 0.01))
        oracle = oracle_of(problem)
        calls[0] = 0
        found = respond(oracle, np.ones(1), None, LowerSettings(tolerance=1e-11, hurry=hurry))
        assert calls[0] <= limit + 1
        assert found.value <= whole.value + 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_bounds_that_single_precision_cannot_hold(dtype: Any) -> None:
    """0.1 is not the same number in float32: the multiplier of the bound must not be lost."""
    for more in ({}, {"lower_inequality": lambda x, y: y.sum() - 100.0}):
        for low, high, x in ((0.1, None, -2.0), (None, 0.7, 3.0), (0.1, 0.7, -2.0), (0.1, 0.7, 3.0)):
            problem = bl.TorchProblem(
                lambda x, y: y.sum(),
                lambda x, y: ((y - x) ** 2).sum(),
                torch.zeros(1, dtype=dtype),
                torch.zeros(2, dtype=dtype),
                y_bounds=(low, high),
                **more,
            )
            found = solved(problem, [x])
            at = low if x < 0.0 else high
            multiplier = found.at_lower if x < 0.0 else found.at_upper
            assert found.converged
            assert found.y.double().numpy() == pytest.approx(at, abs=1e-7)
            assert multiplier == pytest.approx(2.0 * abs(x - at), rel=1e-6)
