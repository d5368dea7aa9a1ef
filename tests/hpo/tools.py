"""Small tuning problems of every kind, and their derivatives by refits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bilevel_core.lower import LowerSettings, respond
from bilevel_core.oracles import make_oracle
from bilevel_hpo.hyperparameters import Hyperparameter, index_of
from bilevel_hpo.linear import HingeModel, LinearModel
from bilevel_hpo.models import Model
from bilevel_hpo.other_models import CleaningModel, KernelRidgeModel, NetworkModel
from bilevel_hpo.problem import TuningProblem, fold_of
from bilevel_hpo.smoothed import SmoothedHingeModel

FEATURES, CLASSES, ROWS = 4, 3, 30


def tuned(
    name: str, low: float, high: float, start: float, scope: str, outputs: int, scale: Any = "log"
) -> Hyperparameter:
    names = tuple(f"f{k}" for k in range(FEATURES)), tuple(f"c{k}" for k in range(outputs))
    index, labels = index_of(scope, *names, groups=["a", "a", "b", "b"])
    return Hyperparameter(name, low, high, start, scale, index, labels)


def c(scope: str, outputs: int = 1, start: float = 0.7) -> tuple[Hyperparameter, ...]:
    return (tuned("C", 1e-3, 1e3, start, scope, outputs),)


RATIO = Hyperparameter("l1_ratio", 0.01, 0.99, 0.6, "logit")
MODELS: dict[str, Model] = {
    "ridge, single": LinearModel("squared", (tuned("alpha", 1e-3, 1e3, 2.0, "single", 1),)),
    "ridge, group": LinearModel("squared", (tuned("alpha", 1e-3, 1e3, 2.0, "group", 1),)),
    "ridge without intercept": LinearModel(
        "squared", (tuned("alpha", 1e-3, 1e3, 2.0, "feature", 1),), intercept="none"
    ),
    "lasso": LinearModel("squared", (tuned("alpha", 1e-4, 9.0, 0.1, "feature", 1),), units="mean", l1_ratio=1.0),
    "elastic net": LinearModel("squared", (tuned("alpha", 1e-4, 9.0, 0.2, "feature", 1), RATIO), units="mean"),
    "l1 and l2": LinearModel(
        "squared", (tuned("l1", 1e-4, 9.0, 0.1, "feature", 1), tuned("l2", 1e-4, 9.0, 0.1, "feature", 1)), units="mean"
    ),
    "insensitive": LinearModel(
        "squared-insensitive",
        (*c("single"), Hyperparameter("epsilon", 1e-3, 9.0, 0.2)),
        units="C",
        intercept="penalised",
    ),
    "softmax, class": LinearModel("softmax", c("class", CLASSES), outputs=CLASSES, units="C"),
    "softmax, free": LinearModel("softmax", c("free", CLASSES), outputs=CLASSES, units="C"),
    "softmax, l1": LinearModel("softmax", (*c("single", CLASSES), RATIO), outputs=CLASSES, units="C"),
    "logistic": LinearModel("logistic", c("feature"), units="C"),
    "squared hinge": LinearModel("squared-hinge", c("class", 3), outputs=3, units="C", intercept="penalised"),
    "hinge": HingeModel("squared-hinge", c("feature", start=0.05), units="C", intercept="penalised"),
    "insensitive, first power": HingeModel(
        "squared-insensitive",
        (*c("single"), Hyperparameter("epsilon", 1e-3, 9.0, 0.2)),
        units="C",
        intercept="penalised",
        regression=True,
    ),
    "smoothed hinge": SmoothedHingeModel(
        "squared-hinge", c("class", 3, start=0.3), outputs=3, units="C", intercept="penalised", width=0.3
    ),
    "smoothed insensitive": SmoothedHingeModel(
        "squared-insensitive",
        (*c("single"), Hyperparameter("epsilon", 1e-3, 9.0, 0.2)),
        units="C",
        intercept="penalised",
        regression=True,
        width=0.5,
    ),
    "kernel ridge": KernelRidgeModel(
        (Hyperparameter("alpha", 1e-3, 9.0, 0.3), Hyperparameter("gamma", 1e-3, 9.0, 0.2))
    ),
    "row weights": CleaningModel(
        (Hyperparameter("weight", 1e-3, 1.0 - 1e-3, 0.5, "logit", np.arange(20), tuple(f"r{k}" for k in range(20))),),
        CLASSES,
        0.01,
    ),
    "network": NetworkModel(
        (
            Hyperparameter("weight_decay", 1e-4, 1.0, 0.05, index=np.arange(2), labels=("first", "second")),
            Hyperparameter("label_smoothing", 1e-3, 0.5, 0.1, "logit"),
        ),
        3,
        CLASSES,
    ),
}


def data(model: Model, rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random rows for a model; columns of different sizes."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(rows, FEATURES)) * [1.0, 2.0, 0.5, 1.0] + [0.0, 1.0, 0.0, -1.0]
    raw = inputs @ np.array([1.0, -0.5, 0.0, 0.3]) + 0.8 * rng.normal(size=rows)
    if not model.classifies:
        return inputs, 3.0 * raw + 5.0
    outputs = getattr(model, "outputs", 1)
    edges = np.quantile(raw, np.linspace(0, 1, max(2, outputs) + 1)[1:-1])
    return inputs, np.searchsorted(edges, raw).astype(np.int64)


def problem(model: Model, folds: int = 1, seed: int = 0, **options: Any) -> TuningProblem:
    """Two thirds for training, the rest for validation, in each fold."""
    inputs, targets = data(model, seed=seed)
    unit = 1.0 if model.classifies else float(np.std(targets))
    order = np.random.default_rng(seed).permutation(ROWS)
    parts = [np.roll(order, 10 * k) for k in range(folds)]
    return TuningProblem(model, [fold_of(model, inputs, targets, p[:20], p[20:], unit) for p in parts], **options)


def validated(task: TuningProblem, x: np.ndarray, start: Any = None) -> tuple[float, Any]:
    """The leader's objective at x with the weights trained anew, and the weights."""
    oracle = make_oracle(task)
    answer = respond(oracle, x, start, LowerSettings(tolerance=1e-12))
    return oracle.upper(x, answer.y), answer.y


def some(task: TuningProblem, count: int = 4) -> np.ndarray:
    """A few entries of the leader's variables, the first and the last among them."""
    return np.unique(np.linspace(0, task.x0.numel() - 1, count).astype(int))


def by_refits(task: TuningProblem, x: np.ndarray, entries: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of the leader's objective by some entries of x, each from a refit."""
    _, near = validated(task, x)
    slopes = np.zeros(len(entries))
    for place, k in enumerate(entries):
        ends: list[float] = []
        for sign in (1.0, -1.0):
            moved = x.copy()
            moved[k] += sign * step
            ends.append(validated(task, moved, near)[0])
        slopes[place] = (ends[0] - ends[1]) / (2.0 * step)
    return slopes


def start_of(task: TuningProblem, seed: int = 0) -> np.ndarray:
    """The problem's start, moved a little so that no entry equals another."""
    x = task.x0.numpy().astype(float)
    return x + np.random.default_rng(seed).normal(size=x.size) * 0.1


def as_tensors(task: TuningProblem, x: np.ndarray, y: Any) -> tuple[Any, Any]:
    return task.x_layout.unflatten(torch.as_tensor(x)), task.y_layout.unflatten(y)
