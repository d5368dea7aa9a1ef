"""Folds evaluated together, and weights by formula, against one fold after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bilevel_core.lower import LowerSettings, respond
from bilevel_core.oracles import make_oracle
from bilevel_hpo import TuningProblem
from bilevel_hpo.linear import LinearModel
from bilevel_hpo.models import Model, Rows, Tensors
from bilevel_hpo.problem import fold_of

from .tools import MODELS, ROWS, data, problem, start_of

STACKED = tuple(name for name in MODELS if name != "row weights")  # a weight a row: one fold only
SOLVABLE = ("ridge, single", "ridge, group", "ridge without intercept", "kernel ridge")


def uneven(name: str) -> TuningProblem:
    """Seven folds of thirty rows: five of 26 training rows, and two of 25."""
    model = MODELS[name]
    inputs, targets = data(model)
    unit = 1.0 if model.classifies else float(np.std(targets))
    everyone = np.random.default_rng(0).permutation(ROWS)
    parts = np.array_split(everyone, 7)
    return TuningProblem(model, [fold_of(model, inputs, targets, np.setdiff1d(everyone, p), p, unit) for p in parts])


@pytest.mark.parametrize("name", STACKED)
def test_together_is_one_after_the_other(name: str) -> None:
    task = uneven(name)
    assert sorted(len(stack.places) for stack in task.stacks) == [2, 5]
    x = task.x_layout.unflatten(torch.as_tensor(start_of(task)).requires_grad_(True))
    rng = np.random.default_rng(1)
    y: dict[str, Any] = {
        n: torch.tensor(rng.uniform(0.1, 0.9, size=task.model.start(f.train).numel()), requires_grad=True)
        for n, f in zip(task.names, task.folds, strict=True)
    }
    folds = list(zip(task.names, task.folds, strict=True))
    lower = torch.stack([task.model.objective(x, y[n], f.train) for n, f in folds]).sum()
    upper = torch.stack(
        [
            task.model.validation(task.model.scores(x, y[n], f.train, f.validation), f.validation.targets)
            for n, f in folds
        ]
    ).mean()
    leaves = [*y.values(), *x.values()]
    for together, single in ((task.lower(x, y), lower), (task.objective(x, y), upper)):
        torch.testing.assert_close(together, single, rtol=1e-12, atol=1e-12)
        found, expected = (
            torch.autograd.grad(v, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
            for v in (together, single)
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", SOLVABLE)
@pytest.mark.parametrize("folds", [1, 3])
def test_weights_by_formula_are_those_of_a_search(name: str, folds: int) -> None:
    task = problem(MODELS[name], folds=folds)
    x = start_of(task)
    found = task.closed_form(task.x_layout.unflatten(torch.as_tensor(x)))
    assert found is not None
    searched = respond(make_oracle(task), x, None, LowerSettings(method="lbfgs", tolerance=1e-10))
    np.testing.assert_allclose(task.y_layout.flatten(found), searched.y, rtol=1e-6, atol=1e-7)
    oracle = make_oracle(task)
    answer = respond(oracle, x)
    assert answer.converged
    assert answer.iterations == 0
    assert oracle.counts["hessian_products"] == 0


def test_there_is_no_formula_for_other_losses_nor_for_kinks() -> None:
    for name in ("elastic net", "softmax, class", "insensitive"):
        task = problem(MODELS[name])
        assert task.closed_form(task.x_layout.unflatten(task.x0)) is None


def test_convexity_is_promised_where_it_is_known() -> None:
    assert not problem(MODELS["network"]).lower_convex
    assert not Model.convex
    assert {name for name in MODELS if not MODELS[name].convex} == {"network"}


CALLS: list[int] = []


class Counted(LinearModel):
    def objective(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        CALLS.append(len(rows))
        return super().objective(x, weights, rows)


def test_folds_of_one_size_are_one_evaluation() -> None:
    (alpha,) = MODELS["ridge, group"].hyperparameters
    model = Counted("squared", (alpha,))
    inputs, targets = data(model)
    everyone = np.arange(ROWS)
    task = TuningProblem(
        model, [fold_of(model, inputs, targets, np.setdiff1d(everyone, [k]), np.array([k])) for k in everyone]
    )
    CALLS.clear()
    task.lower(task.x_layout.unflatten(task.x0), task.y_layout.unflatten(task.y0))
    assert CALLS == [ROWS - 1]


class Unruly(LinearModel):
    """Decides in Python by a number, which no batch of folds can."""

    def objective(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        total = super().objective(x, weights, rows)
        return total if float(total.detach()) >= 0.0 else 2.0 * total


def test_models_that_cannot_be_batched_are_evaluated_fold_by_fold() -> None:
    plain = MODELS["ridge, group"]
    inputs, targets = data(plain)
    everyone = np.arange(ROWS)
    values: list[torch.Tensor] = []
    for kind in (Unruly, LinearModel):
        model = kind("squared", plain.hyperparameters)
        folds = [fold_of(model, inputs, targets, np.setdiff1d(everyone, p), p) for p in np.split(everyone, 3)]
        task = TuningProblem(model, folds)
        assert len(task.stacks) == (3 if kind is Unruly else 1)
        x, y = task.x_layout.unflatten(task.x0), task.y_layout.unflatten(task.y0 + 0.3)
        formula = task.closed_form(x)
        assert formula is not None
        values += [task.lower(x, y), task.objective(x, y), task.y_layout.flatten(formula)]
    for a, b in zip(values[:3], values[3:], strict=True):
        torch.testing.assert_close(a, b)


def test_a_penalised_intercept_has_no_moments() -> None:
    plain = MODELS["ridge, group"]
    model = LinearModel("squared", plain.hyperparameters, intercept="penalised")
    task = problem(model)
    assert task.closed_form(task.x_layout.unflatten(task.x0)) is None
    assert respond(make_oracle(task), start_of(task)).converged
