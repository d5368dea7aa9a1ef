"""Modules with dropout and batch normalisation: frozen randomness, untouched global state, buffers kept apart."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.lower import LowerSettings, respond  # noqa: E402
from bilevel_core.oracles import NonFiniteError  # noqa: E402

from .tools import answer, close, differences, flat, hypergradient, oracle_of, resolved  # noqa: E402

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(11)
INPUTS = 1.0 + 2.0 * torch.randn(24, 3, generator=GENERATOR, dtype=F64)
TARGETS = torch.randn(24, 1, generator=GENERATOR, dtype=F64)


def normalised() -> Any:
    torch.manual_seed(2)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 3, bias=False), torch.nn.BatchNorm1d(3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
    ).double()


def dropped(p: float = 0.5) -> Any:
    torch.manual_seed(2)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Dropout(p), torch.nn.Linear(8, 1)
    ).double()


def problem_of(module: Any, *, evaluate: bool = False, **more: Any) -> bl.TorchProblem:
    """Weight decay per parameter group by the leader; the upper level sees evaluation mode, or the training mode."""

    def lower(x: Any, y: Any) -> Any:
        decay = torch.exp(x)
        penalty = decay[0] * (y["0.weight"] ** 2).sum() + decay[1] * sum((p**2).sum() for p in y.parameters())
        return ((y(INPUTS) - TARGETS) ** 2).mean() + penalty

    def upper(x: Any, y: Any) -> Any:
        model = y.eval() if evaluate else y
        return ((model(INPUTS[:9]) - TARGETS[:9]) ** 2).mean() + 0.01 * x.sum()

    return bl.TorchProblem(upper, lower, torch.tensor([-2.0, -2.5], dtype=F64), module, **more)


def snapshot(module: Any) -> dict[str, Any]:
    return {k: v.clone() for k, v in module.state_dict().items()} | {"mode": torch.tensor(module.training)}


def same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(torch.equal(before[k], after[k]) for k in before)


# Batch normalisation.


def test_batch_statistics_in_training_mode() -> None:
    module = normalised()
    before = snapshot(module)
    problem = problem_of(module)
    x, _ = answer(problem)
    found = hypergradient(problem)
    close(flat(problem, found.value), differences(resolved(problem), x), 1e-5)
    assert same(before, snapshot(module))


@pytest.mark.parametrize("mode", ["cg", "dense", "unroll"])
def test_no_forward_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward mode through batch normalisation in training mode is wrong in torch; nothing here may use it."""
    problem = problem_of(normalised())
    x, response = answer(problem)
    values = oracle_of(problem).point(x, response.y)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("forward mode")

    expected = bl.hypergradient(problem, *values, "cg").value
    monkeypatch.setattr(torch.func, "jvp", refuse)
    monkeypatch.setattr(torch.func, "jacfwd", refuse)
    monkeypatch.setattr(torch.func, "linearize", refuse)
    monkeypatch.setattr(torch.autograd.forward_ad, "make_dual", refuse)
    monkeypatch.setattr(torch.autograd.forward_ad, "dual_level", refuse)
    found = bl.hypergradient(problem, *values, mode, **({"steps": 20} if mode == "unroll" else {}))
    if mode != "unroll":
        assert torch.allclose(found.value, expected, rtol=1e-6)
    oracle = oracle_of(problem)
    curvature = oracle.curvature(x, response.y)
    q, d = torch.randn(oracle.ny, dtype=F64), np.array([0.3, -1.0])
    assert float(q @ curvature.mixed_y(d)) == pytest.approx(float(curvature.mixed_x(q) @ d), rel=1e-9)


def test_running_statistics_belong_to_the_result() -> None:
    module = normalised()
    before = snapshot(module)
    problem = problem_of(module, evaluate=True)
    result = bl.solve(problem, "hypergradient", {"max_iterations": 2}, verify=False)
    assert same(before, snapshot(module))
    assert not np.allclose(result.y["1.running_mean"], 0.0)
    assert "running_mean" in result.message
    problem.load(result)
    assert np.allclose(module[1].running_mean.numpy(), result.y["1.running_mean"])
    assert int(module[1].num_batches_tracked) == int(result.y["1.num_batches_tracked"]) > 0
    assert np.allclose(module[0].weight.detach().numpy(), result.y["0.weight"])
    assert module.training
    # What stands in the module now is what the result claims.
    module.eval()
    value = ((module(INPUTS[:9]) - TARGETS[:9]) ** 2).mean().item() + 0.01 * float(result.x["x"].sum())
    assert value == pytest.approx(result.upper_objective, rel=1e-9)


def test_a_results_statistics_are_used_in_its_hypergradient() -> None:
    problem = problem_of(normalised(), evaluate=True)
    result = bl.solve(problem, "hypergradient", {"max_iterations": 1}, verify=False)
    found = bl.hypergradient(problem, result.x, result.y)
    assert found.upper == pytest.approx(result.upper_objective, rel=1e-9)
    parameters = {k: v for k, v in result.y.items() if "running" not in k and "num_" not in k}
    assert bl.hypergradient(problem, result.x, parameters).upper != pytest.approx(result.upper_objective, rel=1e-3)


def test_statistics_depend_on_the_point_only() -> None:
    """Else the objective would drift while a line search compares its values."""
    problem = problem_of(normalised(), evaluate=True)
    oracle = oracle_of(problem)
    x = oracle.x_start
    first = oracle.upper(x, respond(oracle, x, None).y)
    respond(oracle, x + 1.0, None)
    assert oracle.upper(x, respond(oracle, x, None).y) == pytest.approx(first, rel=1e-9)
    inner = oracle.terms.y_buffers["1.running_mean"]
    weight = problem.y_layout.split(respond(oracle, x, None).y)["0.weight"]
    assert torch.allclose(inner, (INPUTS @ weight.T).mean(0), rtol=1e-6)
    # A layer that was put into evaluation mode by the user keeps its own.
    module = normalised()
    module[1].running_mean.fill_(0.3)
    frozen = problem_of(module.eval(), evaluate=True)
    oracle = oracle_of(frozen)
    respond(oracle, x, None)
    assert oracle.terms.y_buffers["1.running_mean"].tolist() == [0.3] * 3
    assert module[1].momentum == 0.1


def test_evaluation_mode_does_not_stick() -> None:
    module = normalised()
    modes: list[bool] = []
    module.register_forward_pre_hook(lambda m, _: modes.append(m.training))
    bl.hypergradient(p := problem_of(module, evaluate=True), p.x0, dict(module.named_parameters()))
    assert {True, False} <= set(modes)
    assert module.training
    assert module[1].training


def test_frozen_parameters_stay_as_they_are() -> None:
    module = normalised()
    module[3].weight.requires_grad_(False)
    problem = problem_of(module)
    assert problem.y_layout.size == sum(p.numel() for p in module.parameters() if p.requires_grad)
    x, _ = answer(problem)
    close(flat(problem, hypergradient(problem).value), differences(resolved(problem), x), 1e-5)


# Dropout.


@pytest.mark.parametrize("mode", ["cg", "dense", "unroll", "finite-difference", "nystrom", "neumann"])
def test_dropout_is_frozen_within_a_hypergradient(mode: str) -> None:
    problem = problem_of(dropped())
    oracle = oracle_of(problem)
    x, response = answer(problem)
    values = oracle.point(x, response.y)
    torch.manual_seed(1)
    first = bl.hypergradient(problem, *values, mode)
    torch.manual_seed(2)
    torch.rand(3)
    second = bl.hypergradient(problem, *values, mode)
    assert torch.equal(first.value, second.value)
    assert "random numbers" in first.message


def test_the_hypergradient_is_that_of_the_frozen_function() -> None:
    problem = problem_of(dropped())
    x, _ = answer(problem)
    found = hypergradient(problem, "dense")
    assert not found.negative_curvature
    close(flat(problem, found.value), differences(resolved(problem), x), 1e-5)


def test_frozen_products_are_linear_and_symmetric() -> None:
    oracle = oracle_of(problem_of(dropped()))
    u, v = torch.randn(2, oracle.ny, dtype=F64, generator=torch.Generator().manual_seed(0))
    x, y = oracle.x_start, oracle.y_start()
    first, second = oracle.curvature(x, y), oracle.curvature(x, y)
    assert float(u @ first.product(v)) == pytest.approx(float(v @ second.product(u)), rel=1e-11)
    assert torch.allclose(first.product(u + 2.0 * v), first.product(u) + 2.0 * second.product(v), rtol=1e-9)


def test_another_draw_is_another_function() -> None:
    oracle = oracle_of(problem_of(dropped()))
    x, y = oracle.x_start, oracle.y_start()
    first = oracle.lower(x, y)
    assert oracle.lower(x, y) == first
    oracle.advance()
    assert oracle.lower(x, y) != first
    assert oracle_of(problem_of(dropped()), seed=1).lower(x, y) != first


def test_dropout_is_found_where_values_hide_it() -> None:
    """All weights zero at the start: the mask does not show in the value there."""
    module = dropped()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    oracle = oracle_of(problem_of(module))
    y = torch.linspace(-1.0, 1.0, oracle.ny, dtype=F64)
    values = {oracle.lower(oracle.x_start, y) for _ in range(3)}
    assert len(values) == 1


def test_no_dropout_no_note() -> None:
    assert "random" not in hypergradient(problem_of(dropped(0.0).eval())).message


class Augmented(torch.utils.data.Dataset):
    """Examples with noise from the global generator."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, k: int) -> Any:
        return INPUTS[k] + 0.1 * torch.randn(3, dtype=F64), TARGETS[k]


def loaded(**more: Any) -> bl.TorchProblem:
    def value(x: Any, y: Any, batch: Any) -> Any:
        return ((y(batch[0]) - batch[1]) ** 2).mean() + x.exp()[0] * sum((p**2).sum() for p in y.parameters())

    loader = torch.utils.data.DataLoader(Augmented(), batch_size=4, shuffle=True)
    return bl.TorchProblem(
        value, value, torch.tensor([-2.0], dtype=F64), dropped(), upper_data=loader, lower_data=loader, **more
    )


SHORT = {"max_iterations": 1, "lower_iterations": 2, "hypergradient_iterations": 3}
CALLS = {
    "hypergradient": lambda p: bl.hypergradient(p, p.x0, p.y_layout.values(p.y0), max_iterations=5),
    "unroll": lambda p: bl.hypergradient(p, p.x0, p.y_layout.values(p.y0), "unroll", steps=2),
    "solve": lambda p: bl.solve(p, "hypergradient", {**SHORT, "lower_method": "lbfgs"}, verify=False),
    "auxiliary": lambda p: bl.solve(p, "auxiliary", {**SHORT, "lower_method": "lbfgs"}, verify=False),
    "adam": lambda p: bl.solve(p, "hypergradient", {**SHORT, "lower_method": "adam"}, verify=False),
    "classify": bl.classify,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("make", [loaded, lambda: problem_of(dropped())], ids=["loaders", "full"])
def test_global_random_state_is_left_alone(call: str, make: Any) -> None:
    problem = make()
    torch.manual_seed(77)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    CALLS[call](problem)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_global_random_state_is_left_alone_by_errors() -> None:
    """The error keeps the frames alive that iterate the loader: the state must be back all the same."""
    calls = [0]

    def breaking(x: Any, y: Any, batch: Any) -> Any:
        calls[0] += 1
        return (y**2).sum() * (float("nan") if calls[0] > 4 else 1.0)

    def raising(x: Any, y: Any, batch: Any) -> Any:
        raise ZeroDivisionError

    loader = torch.utils.data.DataLoader(Augmented(), batch_size=4, shuffle=True)
    for lower, kind in ((breaking, NonFiniteError), (raising, ZeroDivisionError)):
        problem = bl.TorchProblem(
            lambda x, y: y.sum(), lower, torch.zeros(1, dtype=F64), torch.zeros(1, dtype=F64), lower_data=loader
        )
        torch.manual_seed(77)
        before = torch.random.get_rng_state()
        with pytest.raises(kind) as caught:
            bl.hypergradient(problem, problem.x0, problem.y0)
        assert torch.equal(torch.random.get_rng_state(), before)
        del caught


def test_augmented_loaders_are_frozen_too() -> None:
    problem = loaded()
    oracle = oracle_of(problem)
    y = oracle.y_start()
    assert oracle.lower(oracle.x_start, y) == oracle.lower(oracle.x_start, y)
    a, b = (bl.hypergradient(problem, problem.x0, problem.y_layout.values(y)) for _ in range(2))
    assert torch.equal(a.value, b.value)


def test_minibatches_shuffle_anew_each_epoch() -> None:
    oracle = oracle_of(loaded())
    epochs: list[list[int]] = [[], []]
    batches = oracle.terms.batches()
    for epoch in epochs:
        for _ in range(3):
            epoch += [int(torch.argmin((TARGETS[:10] - value).abs())) for value in next(batches)[1]]
    batches.close()
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_steps_on_minibatches_draw_new_masks() -> None:
    """With one mask for a whole solve dropout would be a fixed smaller network."""
    oracle = oracle_of(loaded())
    before = oracle.terms.draw
    respond(oracle, oracle.x_start, None, LowerSettings(method="sgd", learning_rate=0.01, max_iterations=5))
    assert oracle.terms.draw == before + 5
