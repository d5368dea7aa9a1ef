"""Second derivatives of the reduced objective, against differences of hypergradients at lower levels solved anew; and
`trust-region` with `hessian=exact`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.errors import RefusedError, UsageError  # noqa: E402
from bilevel_core.hypergradients import HypergradientSettings, ReducedHessian, reduced_gradient  # noqa: E402
from bilevel_core.hypergradients import hessian as hessian_module  # noqa: E402

from .tools import answer, oracle_of  # noqa: E402

F64 = torch.float64
SETTINGS = HypergradientSettings(tolerance=1e-12)
rng = np.random.default_rng(5)
INPUTS = torch.tensor(rng.normal(size=(30, 4)), dtype=F64)
TARGETS = torch.sin(INPUTS[:, 0]) + 0.3 * torch.tensor(rng.normal(size=30), dtype=F64)
OTHERS = torch.tensor(rng.normal(size=(20, 4)), dtype=F64)
AIMS = torch.sin(OTHERS[:, 0])


def ridge(**more: Any) -> bl.TorchProblem:
    """A log-penalty for each weight."""
    return bl.TorchProblem(
        lambda x, y: ((OTHERS @ y - AIMS) ** 2).mean() + 0.01 * (x**2).sum(),
        lambda x, y: ((INPUTS @ y - TARGETS) ** 2).mean() + (torch.exp(x) * y**2).sum(),
        torch.tensor([-1.0, 0.5, 0.0, -2.0], dtype=F64),
        torch.zeros(4, dtype=F64),
        **more,
    )


def logistic() -> bl.TorchProblem:
    """Third derivatives of the lower objective by y do not vanish."""
    signs = torch.sign(TARGETS)
    return bl.TorchProblem(
        lambda x, y: torch.nn.functional.softplus(-torch.sign(AIMS) * (OTHERS @ y)).mean() + (x * y).sum() ** 2,
        lambda x, y: torch.nn.functional.softplus(-signs * (INPUTS @ y)).mean() + (torch.exp(x) * torch.cosh(y)).sum(),
        torch.tensor([-1.0, -2.0, -3.0, -1.5], dtype=F64),
        torch.zeros(4, dtype=F64),
    )


def network() -> bl.TorchProblem:
    """Six weights of a hidden layer of three, strongly enough decayed that the minimum is a strict one."""

    def out(y: Any, inputs: Any) -> Any:
        return torch.tanh(inputs[:, :2] @ y[:6].reshape(2, 3)) @ y[6:]

    return bl.TorchProblem(
        lambda x, y: ((out(y, OTHERS) - AIMS) ** 2).mean(),
        lambda x, y: ((out(y, INPUTS) - TARGETS) ** 2).mean() + 0.1 * torch.exp(x[0]) * (y**2).sum() + x[1] * y[0],
        torch.tensor([-1.0, 0.2], dtype=F64),
        torch.full((9,), 0.5, dtype=F64),
    )


def batches() -> bl.TorchProblem:
    """The lower level as a mean over batches, the last one smaller."""
    data = [(INPUTS[:12], TARGETS[:12]), (INPUTS[12:24], TARGETS[12:24]), (INPUTS[24:], TARGETS[24:])]
    return bl.TorchProblem(
        lambda x, y: ((OTHERS @ y - AIMS) ** 2).mean(),
        lambda x, y, batch: ((batch[0] @ y - batch[1]) ** 2).mean() + (torch.exp(x) * torch.cosh(y)).sum(),
        torch.tensor([-1.0, 0.5, 0.0, -2.0], dtype=F64),
        torch.zeros(4, dtype=F64),
        lower_data=data,
    )


def bounded() -> bl.TorchProblem:
    """The second weight is held at its bound."""
    low = torch.tensor([-np.inf, 0.5, -np.inf, -np.inf], dtype=F64)
    return ridge(y_bounds=(low, torch.full((4,), np.inf, dtype=F64)))


def by_differences(problem: bl.TorchProblem) -> np.ndarray:
    def slope(x: np.ndarray) -> np.ndarray:
        oracle = oracle_of(problem)
        return reduced_gradient(oracle, x, answer(problem, x)[1], SETTINGS).value

    x = answer(problem)[0]
    h = 1e-4
    columns = [(slope(x + h * e) - slope(x - h * e)) / (2.0 * h) for e in np.eye(x.size)]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("make", [ridge, logistic, network, batches, bounded])
def test_products_are_those_of_the_hessian(
    make: Callable[[], bl.TorchProblem], dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hessian_module, "DENSE", 500 if dense else 0)
    problem = make()
    oracle = oracle_of(problem)
    x, response = answer(problem)
    adjoint = reduced_gradient(oracle, x, response, SETTINGS).adjoint
    hessian = ReducedHessian(oracle, x, response, adjoint, SETTINGS)
    found = np.stack([hessian.product(e) for e in np.eye(x.size)], axis=1)
    expected = by_differences(problem)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_allclose(found, found.T, atol=1e-8 * np.abs(found).max())
    assert oracle.counts["third_derivative_products"] == x.size
    assert oracle.counts["lower_solves"] == 0


def test_fewer_lower_solves_than_by_quasi_newton() -> None:
    counts: dict[str, int] = {}
    values: dict[str, float] = {}
    for hessian in ("exact", "quasi-newton"):
        trail: list[float] = []

        def note(event: Any, trail: list[float] = trail) -> None:
            if event.kind == "iteration":
                trail.append(event.data["objective"])

        result = bl.solve(logistic(), "trust-region", {"hessian": hessian}, callbacks=[note], verify=False)
        assert result.claim.value in ("local", "stationary")
        values[hessian] = float(result.upper_objective or 0.0)
        counts[hessian] = next(k for k, v in enumerate(trail) if v <= min(trail) + 1e-9)
    assert values["exact"] == pytest.approx(values["quasi-newton"], abs=1e-8)
    assert counts["exact"] < counts["quasi-newton"]


def test_what_cannot_have_it_is_refused() -> None:
    rows = ridge(lower_inequality=lambda x, y: y.sum() - 100.0)
    with pytest.raises(RefusedError, match="hessian=exact takes lower bounds, but no lower constraints"):
        bl.solve(rows, "trust-region", {"hessian": "exact"})
    oracle = oracle_of(rows)
    x, response = answer(rows)
    with pytest.raises(UsageError, match="no lower constraints: leave out hessian=exact"):
        ReducedHessian(oracle, x, response, response.y)
    with pytest.raises(UsageError, match="memory"):
        bl.solve(ridge(), "trust-region", {"hessian": "exact", "memory": 5})


class Cube(torch.autograd.Function):
    """A backward that autograd may not go through again."""

    @staticmethod
    def forward(ctx: Any, y: Any) -> Any:
        ctx.save_for_backward(y)
        return y**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Any) -> Any:
        return 3.0 * ctx.saved_tensors[0] ** 2 * grad


def test_a_layer_without_second_derivatives_is_named() -> None:
    problem = bl.TorchProblem(
        lambda x, y: (y**2).sum(),
        lambda x, y: ((y - x) ** 2).sum() + 0.1 * (Cube.apply(y) * y).sum(),
        torch.tensor([1.0, 2.0], dtype=F64),
        torch.tensor([1.0, 1.0], dtype=F64),
    )
    with pytest.raises(UsageError, match="leave out hessian=exact"):
        bl.solve(problem, "trust-region", {"hessian": "exact"})
