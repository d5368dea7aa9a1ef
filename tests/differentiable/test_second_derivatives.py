"""Products with the lower Hessian: zero, NaN, indefinite, overwritten weights, layers without second derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.oracles import NonFiniteError  # noqa: E402

from .tools import answer, close, differences, flat, hypergradient, oracle_of, resolved  # noqa: E402

F64 = torch.float64
IMPLICIT = ["cg", "minres", "dense", "nystrom", "neumann", "fixed-point"]


def t(*values: float) -> Any:
    return torch.tensor(values, dtype=F64)


def quadratic(hessian: Any, upper: Any = None, dtype: Any = F64) -> bl.TorchProblem:
    """f = y'Hy/2 - x'y."""
    n = hessian.shape[0]
    return bl.TorchProblem(
        upper or (lambda x, y: y.sum()),
        lambda x, y: 0.5 * y @ hessian @ y - x @ y,
        torch.zeros(n, dtype=dtype),
        torch.zeros(n, dtype=dtype),
    )


@pytest.mark.parametrize("mode", IMPLICIT)
def test_a_hessian_that_one_step_solves(mode: str) -> None:
    """f = |y + x|^2 has Hessian 2 I and y(x) = -x: the gradient of sum y(x) is -1, and must not be lost."""
    problem = bl.TorchProblem(lambda x, y: y.sum(), lambda x, y: ((y + x) ** 2).sum(), t(1.0, 2.0), t(-1.0, -2.0))
    found = bl.hypergradient(problem, problem.x0, problem.y0, mode)
    assert found.value.tolist() == pytest.approx([-1.0, -1.0], rel=1e-9)


def test_one_product_is_enough_there() -> None:
    problem = bl.TorchProblem(lambda x, y: y.sum(), lambda x, y: ((y + x) ** 2).sum(), t(1.0, 2.0), t(-1.0, -2.0))
    found = bl.hypergradient(problem, problem.x0, problem.y0, max_iterations=1)
    assert found.value.tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("mode", [*IMPLICIT, "unroll", "finite-difference"])
def test_a_leader_who_does_not_look_at_y(mode: str) -> None:
    problem = bl.TorchProblem(
        lambda x, y: (x**3).sum() + 0.0 * y.sum(), lambda x, y: ((y - x) ** 2).sum(), t(1.0, 2.0), t(1.0, 2.0)
    )
    found = bl.hypergradient(problem, problem.x0, problem.y0, mode)
    assert found.value.tolist() == pytest.approx([3.0, 12.0], rel=1e-14)
    assert found.message == ""


@pytest.mark.parametrize("mode", IMPLICIT)
def test_an_indefinite_hessian_is_reported(mode: str) -> None:
    problem = quadratic(torch.diag(t(2.0, -1.0)))
    options = {"rank": 2} if mode == "nystrom" else {}
    found = bl.hypergradient(problem, problem.x0, problem.y0, mode, **options)
    assert found.negative_curvature
    if mode in ("cg", "minres", "dense"):
        # The stationary point moves as H^-1 says, whatever it is.
        assert found.value.tolist() == pytest.approx([0.5, -1.0], rel=1e-8)
    assert "not positive definite" in found.message


def test_definite_ones_are_not() -> None:
    for mode in IMPLICIT:
        problem = quadratic(torch.diag(t(2.0, 1e-3)))
        found = bl.hypergradient(problem, problem.x0, problem.y0, mode, **({"rank": 2} if mode == "nystrom" else {}))
        assert not found.negative_curvature, mode


@pytest.mark.parametrize("mode", ["cg", "minres", "dense"])
def test_no_damping_is_left_behind(mode: str) -> None:
    """A tiny but definite Hessian: any floor of damping would swamp it."""
    problem = quadratic(torch.diag(t(1e-9, 3e-9)))
    found = bl.hypergradient(problem, problem.x0, problem.y0, mode)
    assert found.value.tolist() == pytest.approx([1e9, 1e9 / 3], rel=1e-9)
    damped = bl.hypergradient(problem, problem.x0, problem.y0, mode, damping=1e-9)
    assert damped.value.tolist() == pytest.approx([0.5e9, 0.25e9], rel=1e-9)


def test_a_singular_hessian_is_not_passed_over() -> None:
    problem = quadratic(torch.diag(t(1.0, 0.0)))
    for mode in ("cg", "minres", "dense", "fixed-point"):
        found = bl.hypergradient(problem, problem.x0, problem.y0, mode)
        assert found.residual > 0.1
        assert found.message != "", mode


# NaN: an error that names the term, in every place where one may come up.


class _Second(torch.autograd.Function):
    """y^2 / 2 whose second derivative is NaN."""

    @staticmethod
    def forward(ctx: Any, y: Any) -> Any:
        ctx.save_for_backward(y)
        return 0.5 * y * y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (y,) = ctx.saved_tensors
        return g * _First.apply(y)


class _First(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Any) -> Any:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * float("nan")


def good(x: Any, y: Any) -> Any:
    return ((y["b"] - x) ** 2).sum() + (y["a"] ** 2).sum()


NANS = {
    "lower value": (good, lambda x, y: good(x, y) + y["b"].sum().log(), r"lower\(x, y\) is not finite"),
    "upper value": (lambda x, y: (y["b"] - 1.0).log().sum(), good, r"upper\(x, y\) is not finite"),
    "lower gradient": (
        good,
        lambda x, y: good(x, y) + (y["b"] * 0.0).sqrt().sum(),
        r"gradient of lower by y\['b'\] is not finite",
    ),
    "upper gradient by y": (
        lambda x, y: good(x, y) + (y["b"] * 0.0).sqrt().sum(),
        good,
        r"gradient of upper by y\['b'\] is not finite",
    ),
    "upper gradient by x": (
        lambda x, y: good(x, y) + (x * 0.0).sqrt().sum(),
        good,
        r"gradient of upper by x is not finite",
    ),
    "product": (
        good,
        lambda x, y: good(x, y) + _Second.apply(y["b"]).sum(),
        r"Hessian-vector product of lower at y\['b'\] is not finite",
    ),
    "mixed": (
        good,
        lambda x, y: good(x, y) + (y["b"] * _First.apply(x)).sum(),
        r"mixed second derivatives of lower at x is not finite",
    ),
}


@pytest.mark.parametrize("place", NANS)
@pytest.mark.parametrize("mode", ["cg", "dense", "nystrom", "unroll"])
def test_nan_is_named(place: str, mode: str) -> None:
    upper, lower, words = NANS[place]
    problem = bl.TorchProblem(upper, lower, t(-1.0, -2.0), {"a": t(0.5), "b": t(-1.0, -2.5)})
    with pytest.raises(NonFiniteError, match=words):
        bl.hypergradient(problem, problem.x0, {"a": t(0.5), "b": t(-1.0, -2.5)}, mode)


def test_infinity_is_named_too() -> None:
    problem = bl.TorchProblem(
        lambda x, y: y.exp().sum(), lambda x, y: ((y - x) ** 2).sum(), t(0.0), torch.full((1,), 1e3, dtype=F64)
    )
    with pytest.raises(NonFiniteError, match=r"upper\(x, y\).*inf"):
        bl.hypergradient(problem, problem.x0, problem.y0)


# Points whose storage is written over.


def test_weights_overwritten_after_the_graph_was_made() -> None:
    problem = bl.TorchProblem(
        lambda x, y: y.sum(), lambda x, y: (y**4).sum() + (x * y * y).sum(), t(1.0, 2.0), t(1.0, 2.0)
    )
    oracle = oracle_of(problem)
    x, y = oracle.x_start.copy(), t(1.0, -0.5)
    curvature = oracle.curvature(x, y)
    v = t(1.0, 2.0)
    expected = (12 * y**2 + 2 * torch.as_tensor(x)) * v
    assert torch.allclose(curvature.product(v), expected)
    mixed = curvature.mixed_x(v)
    y.fill_(7.0)
    x.fill(9.0)
    assert torch.allclose(curvature.product(v), expected)
    assert np.array_equal(curvature.mixed_x(v), mixed)


def test_the_starting_point_is_a_copy() -> None:
    module = torch.nn.Linear(2, 1).double()
    problem = bl.TorchProblem(
        lambda x, y: y(t(1.0, 1.0)).sum(), lambda x, y: (y["weight"] ** 2).sum() + (y["bias"] - x) ** 2, t(1.0), module
    )
    start = oracle_of(problem).y_start().clone()
    with torch.no_grad():
        module.weight.fill_(9.0)
    assert torch.equal(oracle_of(problem).y_start(), start)


def test_products_are_linear_and_symmetric() -> None:
    torch.manual_seed(0)
    a, u, v = torch.randn(5, 5, dtype=F64), torch.randn(5, dtype=F64), torch.randn(5, dtype=F64)
    problem = bl.TorchProblem(
        lambda x, y: y.sum(),
        lambda x, y: torch.logsumexp(a @ y + x, 0) + (y**4).sum(),
        torch.ones(5, dtype=F64),
        torch.ones(5, dtype=F64),
    )
    oracle = oracle_of(problem)
    c = oracle.curvature(oracle.x_start, oracle.y_start())
    assert float(u @ c.product(v)) == pytest.approx(float(v @ c.product(u)), rel=1e-13)
    assert torch.allclose(c.product(2.0 * u - v), 2.0 * c.product(u) - c.product(v), rtol=1e-12)
    full = torch.autograd.functional.hessian(lambda y: problem.lower(problem.x0, y), problem.y0)
    assert np.allclose(c.dense(), full.numpy(), rtol=1e-12)
    # Both ways of the mixed derivative, and the dense one.
    assert float(u @ c.mixed_y(v.numpy())) == pytest.approx(float(c.mixed_x(u) @ v.numpy()), rel=1e-12)
    assert np.allclose(c.dense_mixed() @ v.numpy(), c.mixed_y(v.numpy()).numpy(), rtol=1e-12)


# Layers without a second derivative.


class _Once(torch.autograd.Function):
    """exp(y), with a backward that can be differentiated no further."""

    @staticmethod
    def forward(ctx: Any, y: Any) -> Any:
        out = y.exp()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.saved_tensors[0]


class _Numpy(torch.autograd.Function):
    """exp(y) in NumPy both ways: the backward's result carries no graph, and autograd takes it for constant."""

    @staticmethod
    def forward(ctx: Any, y: Any) -> Any:
        out = torch.from_numpy(np.exp(y.detach().numpy()))
        ctx.out = out.numpy().copy()
        return out

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return torch.from_numpy(g.detach().numpy() * ctx.out)


def layered(layer: Any, *, mixed: bool = True) -> bl.TorchProblem:
    """f = sum exp(y) - x'y (+ a part whose second derivatives are there): y(x) = log x without it."""

    def lower(x: Any, y: Any) -> Any:
        value = layer(y).sum()
        return value - x @ y + (0.5 * (y**2).sum() if mixed else 0.0)

    return bl.TorchProblem(lambda x, y: ((y - 0.7) ** 2).sum(), lower, t(2.0, 3.0), t(0.1, 0.2))


@pytest.mark.parametrize("layer", [_Once.apply, _Numpy.apply], ids=["once-differentiable", "numpy"])
@pytest.mark.parametrize("mixed", [True, False], ids=["with other terms", "alone"])
@pytest.mark.parametrize("mode", ["cg", "dense", "nystrom"])
def test_layers_without_second_derivatives(layer: Any, mixed: bool, mode: str) -> None:
    exact = layered(torch.exp, mixed=mixed)
    x, response = answer(exact)
    options: dict[str, Any] = {} if mode == "dense" else {"tolerance": 1e-7}
    if mode == "nystrom":
        options["rank"] = 2
    found = bl.hypergradient(layered(layer, mixed=mixed), exact.x0, response.y, mode, **options)
    close(flat(exact, found.value), differences(resolved(exact), x), 1e-4)
    assert "no second derivative" in found.message


@pytest.mark.parametrize("layer", [_Once.apply, _Numpy.apply], ids=["once-differentiable", "numpy"])
def test_a_coupling_that_has_no_graph(layer: Any) -> None:
    """Only the mixed derivative is lost: y(x) = exp(x)."""
    problem = bl.TorchProblem(
        lambda x, y: ((y - 0.7) ** 2).sum(),
        lambda x, y: 0.5 * (y**2).sum() - (layer(x) * y).sum(),
        t(0.5, -0.3),
        t(0.5, -0.3).exp(),
    )
    found = bl.hypergradient(problem, problem.x0, problem.y0)
    e = t(0.5, -0.3).exp()
    close(found.value.numpy(), (2 * (e - 0.7) * e).numpy(), 1e-4)


def test_a_custom_function_with_a_proper_backward_stays_exact() -> None:
    class Proper(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Any) -> Any:
            ctx.save_for_backward(y)
            return y**3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 3.0 * ctx.saved_tensors[0] ** 2 * g

    exact, own = layered(lambda y: y**3 + y), layered(lambda y: Proper.apply(y) + y)
    x, response = answer(exact)
    found = bl.hypergradient(own, exact.x0, response.y)
    close(flat(exact, found.value), differences(resolved(exact), x))
    assert found.message == ""


def test_gauss_newton_through_a_layer_without_second_derivatives() -> None:
    """Its forward products need a derivative of the backward: they fall back as well, and say so."""
    for layer in (_Once.apply, _Numpy.apply):
        problem = bl.TorchProblem(
            lambda x, y: ((y - 0.7) ** 2).sum(),
            lambda x, y, z: z.sum() - x @ y + 0.5 * (y**2).sum(),
            t(2.0, 3.0),
            t(0.1, 0.2),
            outputs=lambda x, y, f=layer: f(y),
        )
        exact = layered(torch.exp)
        x, response = answer(exact)
        found = bl.hypergradient(problem, exact.x0, response.y, curvature="gauss-newton")
        close(flat(exact, found.value), differences(resolved(exact), x), 1e-4)
        assert "no second derivative" in found.message


def test_a_linear_lower_level_with_bounds_needs_no_fallback() -> None:
    """Zero second derivatives that are truly zero are not mistaken for lost ones."""
    problem = bl.TorchProblem(
        lambda x, y: (x - 1.0).pow(2).sum() + y.sum(),
        lambda x, y: (x * y).sum(),
        t(2.0, 3.0),
        t(0.0, 0.0),
        y_bounds=(-1.0, 1.0),
    )
    found = hypergradient(problem)
    assert found.value.tolist() == pytest.approx([2.0, 4.0])
    assert "second derivative" not in found.message
