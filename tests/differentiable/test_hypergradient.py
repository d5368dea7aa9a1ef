"""Hypergradients against differences of the re-solved reduced objective, in every mode and kind of lower level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import pyomo.environ as pyo  # noqa: E402

import bilevel_core as bl  # noqa: E402
from bilevel_core.lower import respond  # noqa: E402
from bilevel_core.oracles import make_oracle  # noqa: E402

from .tools import TIGHT, answer, close, differences, flat, hypergradient, oracle_of, resolved  # noqa: E402

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(5)
INPUTS = torch.randn(30, 4, generator=GENERATOR, dtype=F64)
TARGETS = torch.randn(30, generator=GENERATOR, dtype=F64)


def smooth(**more: Any) -> bl.TorchProblem:
    """Logistic-like lower level, not quadratic, coupled to x in several ways."""

    def lower(x: Any, y: Any) -> Any:
        loss = torch.nn.functional.softplus(-TARGETS.sign() * (INPUTS @ y)).mean()
        return loss + 0.5 * (torch.exp(x) * y * y).sum() + 0.3 * torch.sin(x) @ y

    return bl.TorchProblem(
        lambda x, y: ((INPUTS @ y - TARGETS) ** 2).mean() + 0.1 * x @ y + 0.05 * (x * x).sum(),
        lower,
        torch.tensor([-1.0, 0.3, 0.8, -0.2], dtype=F64),
        torch.zeros(4, dtype=F64),
        **more,
    )


EXACT = [
    ("cg", {}),
    ("minres", {}),
    ("dense", {}),
    ("nystrom", {"rank": 4}),
    ("nystrom", {"rank": 2}),
    ("neumann", {"steps": 500}),
    ("fixed-point", {"max_iterations": 1000}),
    ("unroll", {"steps": 300}),
    ("unroll", {"steps": 400, "truncate": 300}),
]


@pytest.mark.parametrize(("mode", "options"), EXACT)
def test_unconstrained(mode: str, options: dict[str, Any]) -> None:
    problem = smooth()
    found = hypergradient(problem, mode, **options)
    close(flat(problem, found.value), differences(resolved(problem), answer(problem)[0]))
    assert "sign" not in found.message
    if mode != "unroll":
        assert found.residual <= 1e-8


@pytest.mark.parametrize("mode", ["cg", "minres", "dense", "neumann", "nystrom", "fixed-point"])
def test_bounds_on_y(mode: str) -> None:
    problem = smooth(y_bounds=(-0.12, torch.tensor([0.3, 1.0, 1.0, 1.0], dtype=F64)))
    x, response = answer(problem)
    at = response.at_lower + response.at_upper
    assert 0 < (at > 1e-3).sum() < 4, "some bounds must be active"
    options = {"neumann": {"steps": 500}, "nystrom": {"rank": 4}}.get(mode, {})
    found = hypergradient(problem, mode, **options)
    close(flat(problem, found.value), differences(resolved(problem), x, 1e-4))
    assert found.strict


@pytest.mark.parametrize("mode", ["cg", "minres", "dense"])
def test_rows_with_x_in_them(mode: str) -> None:
    problem = smooth(
        lower_inequality=lambda x, y: torch.stack([y[0] * y[0] + y[1] + 0.3 * torch.exp(x[0]), y[2] - 5.0 - x[3]]),
        lower_equality=lambda x, y: y.sum() + 0.2 * x[1] * x[2],
    )
    x, response = answer(problem)
    assert response.inequality[0] > 1e-3
    assert response.inequality[1] == 0.0
    assert abs(response.equality[0]) > 1e-3
    close(flat(problem, hypergradient(problem, mode).value), differences(resolved(problem), x, 1e-4))


def test_rows_and_bounds_together() -> None:
    problem = smooth(
        lower_equality=lambda x, y: y.sum() + 0.2 * x[1] * x[2], y_bounds=(torch.full((4,), -0.06, dtype=F64), None)
    )
    x, response = answer(problem)
    assert (response.at_lower > 1e-3).any()
    close(flat(problem, hypergradient(problem).value), differences(resolved(problem), x, 1e-4))


@pytest.mark.parametrize("mode", ["unroll", "finite-difference", "neumann", "nystrom", "fixed-point"])
def test_modes_that_take_no_rows_say_what_does(mode: str) -> None:
    problem = smooth(lower_equality=lambda x, y: y.sum() + 0.2 * x[1] * x[2])
    with pytest.raises(bl.UsageError, match="use 'cg'"):
        hypergradient(problem, mode)


def test_structures() -> None:
    """Nested dictionaries, lists and tuples, at both levels; scalars and matrices among the leaves."""

    def lower(x: Any, y: Any) -> Any:
        first, (second, scale) = y["w"], y["rest"]
        value = ((INPUTS @ first[0] + second - TARGETS) ** 2).mean() + torch.exp(x["reg"][0]) * (first**2).sum()
        return value + (second - x["reg"][1].sum()) ** 2 + (scale - x["c"]) ** 2 + 0.1 * scale**4 + 0.1 * scale * second

    problem = bl.TorchProblem(
        lambda x, y: (y["w"] ** 2).sum() * 3.0 + (y["rest"][0] - 1.0) ** 2 + y["rest"][1] * x["c"],
        lower,
        {
            "reg": [torch.tensor(-0.5, dtype=F64), torch.tensor([[0.1, 0.2]], dtype=F64)],
            "c": torch.tensor(0.7, dtype=F64),
        },
        {"w": torch.zeros(1, 4, dtype=F64), "rest": (torch.tensor(0.0, dtype=F64), torch.tensor(0.0, dtype=F64))},
    )
    x, _ = answer(problem)
    found = hypergradient(problem)
    assert found.value["reg"][1].shape == (1, 2)
    assert found.value["c"].shape == ()
    close(flat(problem, found.value), differences(resolved(problem), x))
    # The same through the user's own structures.
    y_tree = problem.y_layout.unflatten(answer(problem)[1].y)
    again = bl.hypergradient(problem, problem.x_layout.unflatten(problem.x0), y_tree)
    assert torch.equal(again.value["c"], found.value["c"])


def net(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)).double()


def test_module_as_y() -> None:
    module = net()

    def lower(x: Any, y: Any) -> Any:
        fit = ((y(INPUTS).squeeze(1) - TARGETS) ** 2).mean()
        return fit + torch.exp(x).sum() * sum((p**2).sum() for p in y.parameters()) + 0.1 * x[0] * y["2.bias"].sum()

    problem = bl.TorchProblem(
        lambda x, y: (y.eval()(INPUTS[:10]).squeeze(1) - TARGETS[:10]).abs().pow(3).mean(),
        lower,
        torch.tensor([-2.0, -3.0], dtype=F64),
        module,
    )
    before = {k: v.clone() for k, v in module.state_dict().items()}
    x, _ = answer(problem)
    found = hypergradient(problem)
    close(flat(problem, found.value), differences(resolved(problem), x))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_module_as_x() -> None:
    """The leader's variables are a network's weights (a meta-network that weighs examples)."""
    problem = bl.TorchProblem(
        lambda x, y: ((INPUTS[:10] @ y - TARGETS[:10]) ** 2).mean(),
        lambda x, y: (torch.sigmoid(x(INPUTS).squeeze(1)) * (INPUTS @ y - TARGETS) ** 2).mean() + 0.1 * (y**2).sum(),
        net(1),
        torch.zeros(4, dtype=F64),
    )
    x, _ = answer(problem)
    found = hypergradient(problem)
    assert set(found.value) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert found.value["0.weight"].shape == (3, 4)
    close(flat(problem, found.value), differences(resolved(problem), x))


def batched(size: int | None) -> bl.TorchProblem:
    """The same problem in one piece (None) or in batches at both levels; 30 and 17 examples leave uneven last ones."""

    def pieces(n: int) -> list[Any]:
        if size is None:
            return [(INPUTS[:n], TARGETS[:n])]
        return [(INPUTS[k : min(n, k + size)], TARGETS[k : min(n, k + size)]) for k in range(0, n, size)]

    def lower(x: Any, y: Any, batch: Any) -> Any:
        fit = torch.nn.functional.softplus(-batch[1].sign() * (batch[0] @ y)).mean()
        return fit + 0.5 * (torch.exp(x) * y * y).sum()

    return bl.TorchProblem(
        lambda x, y, batch: ((batch[0] @ y - batch[1]) ** 2).mean(),
        lower,
        torch.tensor([-1.0, 0.3, 0.8, -0.2], dtype=F64),
        torch.zeros(4, dtype=F64),
        upper_data=pieces(17),
        lower_data=pieces(30),
    )


@pytest.mark.parametrize("mode", ["cg", "minres", "dense", "nystrom", "unroll"])
def test_batches_are_weighted_by_their_sizes(mode: str) -> None:
    problem = batched(7)
    options = {"unroll": {"steps": 300}, "nystrom": {"rank": 4}}.get(mode, {})
    found = hypergradient(problem, mode, **options)
    close(flat(problem, found.value), differences(resolved(batched(None)), answer(problem)[0]))


def test_a_shuffling_loader_gives_the_whole_objective() -> None:
    data = torch.utils.data.TensorDataset(INPUTS, TARGETS)
    whole = batched(None)
    problem = bl.TorchProblem(
        whole.upper,
        whole.lower,
        whole.x0,
        whole.y0,
        upper_data=torch.utils.data.DataLoader(torch.utils.data.Subset(data, range(17)), batch_size=5, shuffle=True),
        lower_data=torch.utils.data.DataLoader(data, batch_size=7, shuffle=True),
    )
    state = torch.random.get_rng_state()
    found = hypergradient(problem)
    close(flat(problem, found.value), differences(resolved(whole), answer(whole)[0]))
    assert torch.equal(torch.random.get_rng_state(), state)


# Modes that approximate, against their own formulas.


def test_first_order_is_the_direct_part() -> None:
    problem = smooth()
    _, response = answer(problem)
    found = hypergradient(problem, "first-order")
    x = problem.x0.clone().requires_grad_(True)
    problem.upper(x, response.y).backward()
    assert torch.allclose(found.value, x.grad, rtol=1e-14)
    assert "first order" in found.message


def test_finite_difference_is_taken_around_y_itself() -> None:
    """DARTS, equations 7 and 8: F at the step's end, the difference of f_x around the unstepped y."""
    problem, xi = smooth(), 0.07
    y = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=F64)

    def grad(function: Any, x: Any, y: Any, by: str) -> Any:
        leaves = {"x": x.clone().requires_grad_(True), "y": y.clone().requires_grad_(True)}
        return torch.autograd.grad(function(leaves["x"], leaves["y"]), leaves[by])[0]

    x = problem.x0
    ahead = y - xi * grad(problem.lower, x, y, "y")
    p = grad(problem.upper, x, ahead, "y")
    eps = 0.01 / p.norm()
    slope = (grad(problem.lower, x, y + eps * p, "x") - grad(problem.lower, x, y - eps * p, "x")) / (2 * eps)
    expected = grad(problem.upper, x, ahead, "x") - xi * slope
    around_the_end = grad(problem.upper, x, ahead, "x") - xi * (
        grad(problem.lower, x, ahead + eps * p, "x") - grad(problem.lower, x, ahead - eps * p, "x")
    ) / (2 * eps)
    found = bl.hypergradient(problem, x, y, "finite-difference", step=xi)
    assert torch.allclose(found.value, expected, rtol=1e-11)
    assert (found.value - around_the_end).abs().max() > 1e-5


def test_truncated_unrolling_is_what_autograd_through_the_last_steps_gives() -> None:
    problem, step = smooth(), 0.2
    y0 = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=F64)
    x = problem.x0.clone().requires_grad_(True)
    y = y0
    for k in range(7):
        y = y.detach() if k == 4 else y
        leaf = y if y.requires_grad else y.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(problem.lower(x, leaf), leaf, create_graph=True)
        y = leaf - step * g
    (expected,) = torch.autograd.grad(problem.upper(x, y), x)
    found = bl.hypergradient(problem, problem.x0, y0, "unroll", steps=7, truncate=3, step=step)
    assert torch.allclose(found.value, expected, rtol=1e-12)


# Algebraic problems.


def exponential() -> bl.PyomoProblem:
    m = pyo.ConcreteModel()
    m.x = pyo.Var([0, 1], bounds=(0.1, 5.0), initialize=1.0)
    m.obj = pyo.Objective(expr=0.0)
    m.f = bl.Follower()
    m.f.y = pyo.Var([0, 1], bounds=(0.01, 10.0), initialize=1.0)
    m.f.obj = pyo.Objective(
        expr=pyo.exp(m.f.y[0]) - m.x[0] * m.f.y[0] - m.x[1] * pyo.log(m.f.y[1]) + m.f.y[1] + 0.1 * m.f.y[0] * m.f.y[1]
    )
    m.del_component(m.obj)
    m.obj = pyo.Objective(
        expr=(m.f.y[0] - 0.5) ** 2 + pyo.log(m.x[0]) * m.f.y[1] + 0.1 * m.x[1] ** 2, sense=pyo.minimize
    )
    return bl.PyomoProblem(m)


@pytest.mark.parametrize("mode", ["cg", "minres", "dense", "nystrom", "fixed-point"])
def test_algebraic_with_exponentials_and_logarithms(mode: str) -> None:
    problem = exponential()
    oracle = make_oracle(problem)
    x = np.array([2.0, 1.5])

    def phi(at: np.ndarray) -> float:
        return oracle.upper(at, respond(oracle, at, None, TIGHT).y)

    x_values, y_values = oracle.point(x, respond(oracle, x, None, TIGHT).y)
    found = bl.hypergradient(problem, x_values, y_values, mode)
    close(np.asarray(found.value["x"]), differences(phi, x))


# What the user is told.


def test_far_from_the_answer_the_sign_may_be_wrong_and_is() -> None:
    """Beyond the leader's target its slope turns round, and the follower's answer lies before the target."""
    problem = bl.TorchProblem(
        lambda x, y: (y - 1.0).pow(2).sum(),
        lambda x, y: (0.5 * y * y - x * y).sum(),
        torch.tensor([0.0], dtype=F64),
        torch.tensor([0.0], dtype=F64),
    )
    wrong = bl.hypergradient(problem, torch.tensor([0.0]), torch.tensor([3.0]))
    right = hypergradient(problem)
    assert float(right.value) == pytest.approx(-2.0)
    assert float(wrong.value) == pytest.approx(4.0)
    assert "wrong sign" in wrong.message
    assert wrong.stationarity == pytest.approx(3.0)
    assert right.message == ""


def test_the_estimated_bias_is_that_of_the_objective() -> None:
    """To first order p.L_y is F(x, y) - F(x, y(x))."""
    problem = smooth()
    oracle = oracle_of(problem)
    x, response = answer(problem)
    near = response.y + 1e-5 * torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=F64)
    found = bl.hypergradient(problem, problem.x0, near)
    assert found.bias == pytest.approx(oracle.upper(x, near) - oracle.upper(x, response.y), rel=1e-3)


def test_the_point_is_not_moved() -> None:
    problem = smooth()
    x, y = problem.x0.clone(), torch.ones(4, dtype=F64)
    found = bl.hypergradient(problem, x, y)
    assert found.upper == pytest.approx(float(problem.upper(x, y)), rel=1e-14)
    assert torch.equal(y, torch.ones(4, dtype=F64))
    assert torch.equal(x, problem.x0)


def test_weakly_active_bounds_are_said() -> None:
    problem = bl.TorchProblem(
        lambda x, y: y.sum(),
        lambda x, y: 0.5 * ((y - x) ** 2).sum(),
        torch.zeros(1, dtype=F64),
        torch.zeros(1, dtype=F64),
        y_bounds=(0.0, None),
    )
    found = bl.hypergradient(problem, torch.zeros(1), torch.zeros(1))
    assert not found.strict


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mode": "newton"}, "hypergradient mode"),
        ({"curvature": "fisher"}, "curvature"),
        ({"dampening": 1.0}, "damping"),
        ({"damping": -1.0}, "damping"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"mode": "unroll", "steps": 5, "truncate": 6}, "truncate"),
        ({"step": 0.0}, "step"),
    ],
)
def test_wrong_options(options: dict[str, Any], word: str) -> None:
    problem = smooth()
    with pytest.raises(bl.UsageError, match=word):
        bl.hypergradient(problem, problem.x0, problem.y0, **options)


def test_values_that_do_not_fit() -> None:
    problem = smooth()
    with pytest.raises(bl.UsageError, match=r"x\['x'\]"):
        bl.hypergradient(problem, torch.zeros(3), problem.y0)
    with pytest.raises(bl.UsageError, match=r"y\['y'\]"):
        bl.hypergradient(problem, problem.x0, torch.zeros(2, 2))
    plain = bl.hypergradient(problem, [-1.0, 0.3, 0.8, -0.2], [0.1, 0.2, 0.3, 0.4])
    tensor = bl.hypergradient(problem, problem.x0, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64))
    assert torch.equal(plain.value, tensor.value)
