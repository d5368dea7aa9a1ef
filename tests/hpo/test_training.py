"""The torch face: any module with named hyperparameters, each checked by refits, and meta-learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import bilevel_core as bl
from bilevel_core.errors import ModelError, UsageError
from bilevel_core.lower import LowerSettings, respond
from bilevel_core.oracles import make_oracle
from bilevel_hpo import (
    Augmentation,
    LabelSmoothing,
    LossMixing,
    SampleWeights,
    TrainingProblem,
    WeightDecay,
    meta_problem,
)

ROWS = 24
CROSS = torch.nn.CrossEntropyLoss(reduction="none")
DECAY = WeightDecay(start=0.05)
BRIER: Any = lambda o, t: ((o.softmax(1) - torch.nn.functional.one_hot(t, 3)) ** 2).sum(1)  # noqa: E731
KNOBS: dict[str, list[Any]] = {
    "decay by tensor": [DECAY],
    "one decay": [WeightDecay("single", start=0.05)],
    "decay by weight": [WeightDecay("weight", start=0.05)],
    "row weights": [DECAY, SampleWeights(ROWS)],
    "smoothing": [DECAY, LabelSmoothing()],
    "mixing": [DECAY, LossMixing({"brier": BRIER})],
    "augmentation": [DECAY, Augmentation(lambda a, s: a + s * torch.tanh(a))],
}


def batches(seed: int, rows: bool = True, size: int = ROWS) -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(ROWS, 3, generator=generator, dtype=torch.float64)
    targets = (inputs[:, 0] + 0.7 * torch.randn(ROWS, generator=generator) > 0.0).long() + (inputs[:, 1] > 0.8).long()
    numbers = torch.arange(ROWS)
    parts = (inputs, targets, numbers) if rows else (inputs, targets)
    return list(zip(*(p.split(size) for p in parts), strict=True))


def problem(knobs: list[Any], module: torch.nn.Module | None = None, **options: Any) -> TrainingProblem:
    torch.manual_seed(0)
    module = module or torch.nn.Linear(3, 3).double()
    return TrainingProblem(module, CROSS, batches(0), batches(1), knobs, **options)


def validated(task: bl.TorchProblem, x: np.ndarray, near: Any = None) -> tuple[float, Any]:
    oracle = make_oracle(task)
    answer = respond(oracle, x, near, LowerSettings(tolerance=1e-11))
    return oracle.upper(x, answer.y), answer.y


def check_by_refits(task: bl.TorchProblem, x: np.ndarray, count: int = 6) -> None:
    _, weights = validated(task, x)
    a, b = task.x_layout.values(torch.as_tensor(x)), task.y_layout.values(weights)
    found = bl.hypergradient(task, a, b)
    slope = task.x_layout.flatten(found.value).numpy()
    picked = np.linspace(0, len(x) - 1, min(count, len(x))).astype(int)
    for k in picked:
        ends: list[float] = []
        for sign in (1.0, -1.0):
            moved = x.copy()
            moved[k] += sign * 1e-5
            ends.append(validated(task, moved, weights)[0])
        assert slope[k] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=2e-4, abs=2e-4 * np.abs(slope).max())
    assert np.abs(slope).max() > 1e-5


@pytest.mark.parametrize("name", KNOBS)
def test_hypergradient_is_that_of_refits(name: str) -> None:
    task = problem(KNOBS[name])
    x = task.x0.numpy() + np.random.default_rng(0).normal(size=task.x0.numel()) * 0.1
    check_by_refits(task, x)


def test_hypergradients_of_all_knobs_together_through_a_network_and_minibatches() -> None:
    torch.manual_seed(0)
    knobs = [
        WeightDecay("tensor", start=0.05),
        SampleWeights(ROWS),
        LabelSmoothing(),
        LossMixing({"brier": BRIER}),
        Augmentation(lambda a, s: a + s * torch.randn_like(a)),
    ]
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 3)).double()
    task = TrainingProblem(module, CROSS, batches(0, size=12), batches(1), knobs, prior=0.3)
    x = task.x0.numpy() + np.random.default_rng(0).normal(size=task.x0.numel()) * 0.1
    check_by_refits(task, x, count=3)


def test_a_run_improves_reports_and_loads() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    before = [p.clone() for p in module.parameters()]
    task = problem([DECAY, LabelSmoothing()], module, test=batches(2, rows=False), prior=0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    result = bl.solve(task, "hypergradient", {"max_iterations": 4, "tolerance": 1e-2}, verify=False)
    first = result.trace[0]["objective"]
    assert first is not None
    assert result.upper_objective < first
    details = result.details
    assert details["test_rows"] == ROWS
    names = [row["name"] for row in details["hyperparameters"]]
    tensors = ("0.weight", "0.bias", "2.weight", "2.bias")
    assert names == [*(f"weight_decay[{n}]" for n in tensors), "label_smoothing"]
    task.load(result)
    ((inputs, targets),) = batches(2, rows=False)
    assert CROSS(module(inputs), targets).mean().item() == pytest.approx(details["test_loss"], rel=1e-9)


@pytest.mark.parametrize(
    ("solver", "options"), [("hypergradient", {"max_iterations": 4}), ("sample.random", {"lower_solves": 6})]
)
def test_every_solver_leaves_the_path_of_both_losses(solver: str, options: dict[str, Any]) -> None:
    task = problem([DECAY], test=batches(2))
    heard: list[Any] = []

    def hear(event: bl.Event) -> None:
        if event.kind == "incumbent":
            heard.append(event.data["figures"])

    result = bl.solve(task, solver, options, callbacks=[hear], verify=False)
    assert len(result.trace) > 1
    assert [{k: row[k] for k in ("validation_loss", "test_loss")} for row in result.trace] == heard
    assert [row["validation_loss"] for row in result.trace] == pytest.approx([row["objective"] for row in result.trace])
    assert result.trace[-1]["test_loss"] == pytest.approx(result.details["test_loss"])
    assert bl.Result.from_json(result.to_json()).trace == result.trace


def test_minibatches_are_one_objective() -> None:
    whole = problem([DECAY])
    torch.manual_seed(0)
    parts = TrainingProblem(torch.nn.Linear(3, 3).double(), CROSS, batches(0, size=5), batches(1, size=7), [DECAY])
    x = whole.x0.numpy()
    assert validated(whole, x)[0] == pytest.approx(validated(parts, x)[0], rel=1e-9)


def test_many_hyperparameters_are_warned_of() -> None:
    result = bl.solve(problem([DECAY, SampleWeights(ROWS)]), "hypergradient", {"max_iterations": 1}, verify=False)
    assert "26 hyperparameters were fitted to 24 validation rows" in result.details["warning"]


def test_wrong_uses_are_named() -> None:
    linear = torch.nn.Linear(3, 3).double()
    with pytest.raises(ModelError, match="row numbers"):
        TrainingProblem(linear, CROSS, batches(0, rows=False), batches(1), [SampleWeights(ROWS)])
    with pytest.raises(ModelError, match="one loss a row"):
        TrainingProblem(linear, torch.nn.CrossEntropyLoss(), batches(0), batches(1), [DECAY])
    with pytest.raises(ModelError, match="Nothing to tune"):
        TrainingProblem(linear, CROSS, batches(0), batches(1), [])
    with pytest.raises(ModelError, match="'log_weight_decay'"):
        TrainingProblem(linear, CROSS, batches(0), batches(1), [DECAY, WeightDecay("single")])
    with pytest.raises(ModelError, match="train: expected batches"):
        TrainingProblem(linear, CROSS, [torch.zeros(2)], batches(1), [DECAY])
    with pytest.raises(UsageError, match="single, tensor or weight"):
        TrainingProblem(linear, CROSS, batches(0), batches(1), [WeightDecay("layer")])  # type: ignore[arg-type]


def tasks(count: int) -> list[tuple[torch.Tensor, ...]]:
    """Lines with slopes near 2 and intercepts near -1: three rows to learn from, ten to be judged by."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    found: list[tuple[torch.Tensor, ...]] = []
    for _ in range(count):
        slope, level = 2.0 + 0.1 * draw(1), -1.0 + 0.1 * draw(1)
        a, b = draw(3, 1), draw(10, 1)
        found.append((a, slope * a + level + 0.3 * draw(3, 1), b, slope * b + level))
    return found


def test_meta_learning_finds_the_common_start() -> None:
    module = torch.nn.Linear(1, 1).double()
    task = meta_problem(module, torch.nn.MSELoss(), tasks(5), strength=2.0)
    check_by_refits(task, task.x0.numpy().astype(float))
    result = bl.solve(task, "hypergradient", {"tolerance": 1e-4})
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
    assert float(result.x["weight"].squeeze()) == pytest.approx(2.0, abs=0.35)
    assert float(result.x["bias"].squeeze()) == pytest.approx(-1.0, abs=0.35)
    with pytest.raises(ModelError, match="at least one task"):
        meta_problem(module, torch.nn.MSELoss(), [])
