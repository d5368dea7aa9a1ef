"""Every model's hypergradient against central differences of refits, and its training against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import bilevel_core as bl
from bilevel_hpo.hyperparameters import Hyperparameter
from bilevel_hpo.linear import HingeModel, LinearModel
from bilevel_hpo.models import Model
from bilevel_hpo.other_models import KernelRidgeModel, NetworkModel
from bilevel_hpo.smoothed import SmoothedHingeModel

from .tools import MODELS, as_tensors, by_refits, c, data, problem, some, start_of, tuned, validated

THREE: Any = {"outputs": 3, "units": "C", "intercept": "penalised"}
FURTHER: dict[str, Model] = {
    "squared, penalised intercept": LinearModel(
        "squared", (tuned("alpha", 1e-3, 1e3, 2.0, "feature", 1),), intercept="penalised"
    ),
    "softmax, group": LinearModel("softmax", c("group", 3), outputs=3, units="C"),
    "softmax without intercept, l1 each": LinearModel(
        "softmax", (tuned("l1", 1e-4, 9.0, 0.02, "free", 3),), outputs=3, units="C", intercept="none"
    ),
    "logistic, l1 and ratio": LinearModel(
        "logistic", (*c("feature"), Hyperparameter("l1_ratio", 0.01, 0.99, 0.3, "logit")), units="C"
    ),
    "one against the rest": LinearModel("logistic", c("class", 3), **THREE),
    "hinge, free": HingeModel("squared-hinge", c("free", 3, start=0.05), **THREE),
    "smoothed hinge, feature": SmoothedHingeModel("squared-hinge", c("feature"), units="C", intercept="none"),
    "kernel ridge, width": KernelRidgeModel((Hyperparameter("gamma", 1e-3, 9.0, 0.2),), alpha=0.3),
    "network of numbers": NetworkModel(
        (Hyperparameter("weight_decay", 1e-4, 1.0, 0.05, index=np.arange(2), labels=("first", "second")),), 3, 1
    ),
}


@pytest.mark.parametrize("name", [*MODELS, *FURTHER])
def test_hypergradient_is_that_of_refits(name: str) -> None:
    task = problem((MODELS | FURTHER)[name])
    x = start_of(task)
    _, weights = validated(task, x)
    a, b = as_tensors(task, x, weights)
    found = bl.hypergradient(task, a, b)
    entries = some(task)
    slope = task.x_layout.flatten(found.value).numpy()[entries]
    expected = by_refits(task, x, entries)
    assert np.linalg.norm(expected) > 1e-6
    np.testing.assert_allclose(slope, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["elastic net", "ridge, group", "kernel ridge", "hinge", "smoothed hinge"])
def test_folds_and_prior_are_part_of_the_hypergradient(name: str) -> None:
    task = problem(MODELS[name], folds=3, prior=2.0)
    x = start_of(task)
    _, weights = validated(task, x)
    found = bl.hypergradient(task, *as_tensors(task, x, weights))
    entries = some(task)
    expected = by_refits(task, x, entries)
    slope = task.x_layout.flatten(found.value).numpy()[entries]
    np.testing.assert_allclose(slope, expected, atol=2e-4 * np.abs(expected).max())


ALPHA = tuned("alpha", 1e-3, 1e3, 2.0, "single", 1)
BINARY = (tuned("C", 1e-3, 1e3, 0.7, "single", 1),)
MANY = (tuned("C", 1e-3, 1e3, 0.7, "single", 3),)
RATIO = Hyperparameter("l1_ratio", 0.01, 0.99, 0.6, "logit")
SMALL = tuned("alpha", 1e-4, 9.0, 0.1, "single", 1)


def peers() -> dict[str, tuple[LinearModel, Any]]:
    linear = pytest.importorskip("sklearn.linear_model")
    svm = pytest.importorskip("sklearn.svm")
    tight = {"tol": 1e-10, "max_iter": 100_000}
    return {
        "ridge": (LinearModel("squared", (ALPHA,)), linear.Ridge(alpha=2.0)),
        "lasso": (LinearModel("squared", (SMALL,), units="mean", l1_ratio=1.0), linear.Lasso(alpha=0.1, **tight)),
        "elastic net": (
            LinearModel("squared", (SMALL, RATIO), units="mean"),
            linear.ElasticNet(alpha=0.1, l1_ratio=0.6, **tight),
        ),
        "softmax": (LinearModel("softmax", MANY, outputs=3, units="C"), linear.LogisticRegression(C=0.7, **tight)),
        "logistic": (LinearModel("logistic", BINARY, units="C"), linear.LogisticRegression(C=0.7, **tight)),
        "squared hinge": (
            LinearModel("squared-hinge", BINARY, units="C", intercept="penalised"),
            svm.LinearSVC(C=0.7, **tight),
        ),
        "hinge": (
            HingeModel("squared-hinge", BINARY, units="C", intercept="penalised"),
            svm.LinearSVC(C=0.7, loss="hinge", **tight),
        ),
        "insensitive": (
            LinearModel("squared-insensitive", BINARY, units="C", intercept="penalised", epsilon=0.3),
            svm.LinearSVR(C=0.7, epsilon=0.3, loss="squared_epsilon_insensitive", **tight),
        ),
        "insensitive, first power": (
            HingeModel("squared-insensitive", BINARY, units="C", intercept="penalised", epsilon=0.3, regression=True),
            svm.LinearSVR(C=0.7, epsilon=0.3, **tight),
        ),
    }


PEERS = (
    "ridge",
    "lasso",
    "elastic net",
    "softmax",
    "logistic",
    "squared hinge",
    "hinge",
    "insensitive",
    "insensitive, first power",
)


@pytest.mark.parametrize("name", PEERS)
def test_training_is_scikit_learns(name: str) -> None:
    model, peer = peers()[name]
    task = problem(model)
    x = task.x0.numpy().astype(float)
    _, weights = validated(task, x)
    inputs, targets = data(model)
    train = np.random.default_rng(0).permutation(30)[:20]
    peer.fit(inputs[train], targets[train])
    found, bias = model.coefficients(task.x_layout.unflatten(torch.as_tensor(x)), weights, task.folds[0].train)
    np.testing.assert_allclose(found.numpy().T, np.atleast_2d(peer.coef_), atol=3e-4)
    np.testing.assert_allclose(bias.numpy(), np.atleast_1d(peer.intercept_), atol=3e-4)


def test_kernel_ridge_is_scikit_learns() -> None:
    kernel_ridge = pytest.importorskip("sklearn.kernel_ridge")
    model = KernelRidgeModel((Hyperparameter("alpha", 1e-3, 9.0, 0.3), Hyperparameter("gamma", 1e-3, 9.0, 0.2)))
    task = problem(model)
    x = task.x0.numpy().astype(float)
    value, _ = validated(task, x)
    inputs, targets = data(model)
    order = np.random.default_rng(0).permutation(30)
    peer = kernel_ridge.KernelRidge(alpha=0.3, gamma=0.2, kernel="rbf").fit(inputs[order[:20]], targets[order[:20]])
    errors = peer.predict(inputs[order[20:]]) - targets[order[20:]]
    assert value * np.std(targets) ** 2 == pytest.approx(float(np.mean(errors**2)), rel=1e-6)
