"""Gauss-Newton products: the formula, what they need, and constraints, whose curvature is kept whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402

from .tools import close, differences, flat, hypergradient, oracle_of, resolved  # noqa: E402

F64 = torch.float64


def t(*values: float) -> Any:
    return torch.tensor(values, dtype=F64)


def regression(**more: Any) -> bl.TorchProblem:
    torch.manual_seed(3)
    inputs, targets = torch.randn(12, 3, dtype=F64), torch.randn(12, 2, dtype=F64)

    def outputs(x: Any, y: Any) -> Any:
        return torch.tanh(inputs @ y["w"]) @ y["v"]

    def lower(x: Any, y: Any, z: Any) -> Any:
        return (
            torch.nn.functional.huber_loss(z, targets)
            + 0.5 * torch.exp(x[0]) * (y["w"] ** 2).sum()
            + x[1] ** 2 * (y["v"] ** 4).sum()
        )

    return bl.TorchProblem(
        lambda x, y: (y["w"] ** 2).sum() + y["v"].sum(),
        lower,
        t(-1.0, 0.4),
        {"w": 0.3 * torch.randn(3, 2, dtype=F64), "v": torch.randn(2, 2, dtype=F64)},
        outputs=outputs,
        **more,
    )


def test_gauss_newton_is_the_formula() -> None:
    problem = regression()
    oracle = oracle_of(problem)
    x, y = oracle.x_start, oracle.y_start()
    layout, x0 = problem.y_layout, problem.x0

    def z_of(flat_y: Any) -> Any:
        return problem.outputs(x0, layout.unflatten(flat_y)).reshape(-1)

    z = z_of(y).detach()
    jacobian = torch.autograd.functional.jacobian(z_of, y)
    shape = problem.outputs(x0, layout.unflatten(y)).shape
    inner = torch.autograd.functional.hessian(lambda s: problem.lower(x0, layout.unflatten(y), s.reshape(shape)), z)
    own = torch.autograd.functional.hessian(lambda q: problem.lower(x0, layout.unflatten(q), z.reshape(shape)), y)
    expected = jacobian.T @ inner @ jacobian + own
    found = oracle.curvature(x, y, gauss_newton=True).dense()
    assert np.allclose(found, expected.numpy(), rtol=1e-11, atol=1e-13)
    full = oracle.curvature(x, y).dense()
    assert not np.allclose(found, full, rtol=1e-2)
    # And through the public function.
    g = bl.hypergradient(problem, x0, layout.unflatten(y), curvature="gauss-newton", mode="dense")
    p = np.linalg.solve(expected.numpy(), oracle.upper_gradients(x, y)[2].numpy())
    assert np.allclose(g.value.numpy(), oracle.upper_gradients(x, y)[1] - oracle.curvature(x, y).mixed_x(p_of(p)))


def p_of(p: np.ndarray) -> Any:
    return torch.as_tensor(p)


def test_gauss_newton_needs_outputs() -> None:
    problem = bl.TorchProblem(lambda x, y: y.sum(), lambda x, y: ((y - x) ** 2).sum(), t(0.0, 0.0), t(0.0, 0.0))
    with pytest.raises(bl.UsageError, match="outputs="):
        bl.hypergradient(problem, problem.x0, problem.y0, curvature="gauss-newton")


def test_outputs_do_not_change_the_exact_hypergradient() -> None:
    problem = regression()
    joined = bl.TorchProblem(
        problem.upper,
        lambda x, y: problem.lower(x, y, problem.outputs(x, y)),
        problem.x0,
        problem.y_layout.unflatten(problem.y0),
    )
    y = problem.y_layout.unflatten(problem.y0)
    a, b = (bl.hypergradient(p, problem.x0, y, "dense") for p in (problem, joined))
    assert torch.allclose(a.value, b.value, rtol=1e-12)


@pytest.mark.parametrize("mode", ["cg", "dense"])
def test_curvature_of_constraints_is_not_left_out(mode: str) -> None:
    """With outputs linear in y the products are exact in f; the follower moves on a curved row, or on two."""

    def lower(x: Any, y: Any, z: Any) -> Any:
        return ((z - torch.stack([x[0], torch.ones_like(x[0]), x[1]])) ** 2).sum() + 0.1 * x[0] * y[2]

    for more in (
        {"lower_inequality": lambda x, y: (y**2).sum() - 1.0},
        {"lower_equality": lambda x, y: (y[0] ** 2 + y[1] ** 4 - torch.exp(0.1 * x[1])).reshape(1)},
        {
            "lower_inequality": lambda x, y: y[0] ** 2 + y[2] ** 2 - 0.7,
            "lower_equality": lambda x, y: torch.sinh(y[1]) + y[2] - 0.3 * x[0],
        },
    ):
        problem = bl.TorchProblem(
            lambda x, y: y[0] + 0.3 * y[1] ** 2 - y[2],
            lower,
            t(2.0, 0.5),
            t(0.5, 0.5, 0.1),
            outputs=lambda x, y: y,
            **more,
        )
        found = hypergradient(problem, mode, curvature="gauss-newton")
        joined = bl.TorchProblem(
            problem.upper, lambda x, y: lower(x, y, y), problem.x0, problem.y_layout.unflatten(problem.y0), **more
        )
        close(flat(problem, found.value), differences(resolved(joined), problem.x0.numpy(), 1e-4))
