"""`BilevelSearchCV`'s hypergradients against finite differences of scikit-learn's own refits and own predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone, is_classifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.svm import LinearSVC, LinearSVR

from bilevel_hpo import BilevelSearchCV

TIGHT: Any = {"tol": 1e-11, "max_iter": 1_000_000}
STEP = 1e-3
FOLDS = KFold(3, shuffle=True, random_state=0)
CASES: dict[str, tuple[Any, int, Any]] = {
    "ridge": (Ridge(alpha=3), 0, None),
    "lasso": (Lasso(**TIGHT), 0, None),
    "elastic net": (ElasticNet(**TIGHT), 0, None),
    "logistic": (LogisticRegression(C=0.3, **TIGHT), 2, None),
    "multinomial": (LogisticRegression(C=0.3, **TIGHT), 3, None),
    "logistic, l1": (LogisticRegression(C=0.3, l1_ratio=1.0, solver="saga", **TIGHT), 2, None),
    "multinomial, elastic net": (LogisticRegression(C=0.3, l1_ratio=0.5, solver="saga", **TIGHT), 3, None),
    "logistic by liblinear": (LogisticRegression(C=0.3, solver="liblinear", **TIGHT), 2, None),
    "squared hinge": (LinearSVC(C=0.1, **TIGHT), 3, None),
    "hinge": (LinearSVC(C=0.1, loss="hinge", **TIGHT), 2, None),
    "hinge, three classes": (LinearSVC(C=0.1, loss="hinge", **TIGHT), 3, None),
    "squared insensitive": (
        LinearSVR(C=0.05, epsilon=0.2, loss="squared_epsilon_insensitive", **TIGHT),
        0,
        ["C", "epsilon"],
    ),
    "insensitive": (LinearSVR(C=0.05, epsilon=0.2, **TIGHT), 0, ["C", "epsilon"]),
    "kernel ridge": (KernelRidge(kernel="rbf", gamma=0.2), 0, None),
    "kernel ridge, width only": (KernelRidge(kernel="rbf", alpha=2, gamma=0.2), 0, ["gamma"]),
}


def rows(classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 3)) * [1.0, 2.0, 0.5] + [0.0, 1.0, 0.0]
    targets = inputs @ [1.0, -1.0, 0.0] + 0.8 * rng.normal(size=40)
    return inputs, np.digitize(targets, [0.0] if classes == 2 else [-1.0, 0.7]) if classes else targets


def loss(fitted: Any, inputs: np.ndarray, targets: np.ndarray) -> float:
    """What is said to be descended, by what scikit-learn predicts."""
    if isinstance(fitted, LinearSVC):
        scores = fitted.decision_function(inputs).reshape(len(inputs), -1)
        columns = fitted.classes_[1:] if scores.shape[1] == 1 else fitted.classes_
        signs = np.where(targets[:, None] == columns, 1.0, -1.0)
        return float((np.maximum(0.0, 1.0 - signs * scores) ** 2).sum(1).mean())
    if is_classifier(fitted):
        return float(-np.log(fitted.predict_proba(inputs)[np.arange(len(targets)), targets]).mean())
    return float(((fitted.predict(inputs) - targets) ** 2).mean())


@pytest.mark.parametrize("name", CASES)
def test_hypergradient_is_that_of_scikit_learns_refits(name: str) -> None:
    estimator, classes, tuned = CASES[name]
    inputs, targets = rows(classes)
    search = BilevelSearchCV(estimator, tuned, cv=FOLDS, max_iter=0).fit(inputs, targets)
    unit = 1.0 if classes else float(np.var(targets))

    def anew(params: dict[str, Any]) -> Any:
        blank: Any = clone(estimator)
        return blank.set_params(**params)

    def validated(params: dict[str, Any]) -> float:
        parts = [loss(anew(params).fit(inputs[a], targets[a]), inputs[b], targets[b]) for a, b in FOLDS.split(inputs)]
        return float(np.mean(parts)) / unit

    for parameter, value in search.best_params_.items():
        ends: list[float] = []
        for step in (STEP, -STEP):
            odds = value / (1.0 - value) * np.exp(step) if parameter == "l1_ratio" else 0.0
            moved = odds / (1.0 + odds) if parameter == "l1_ratio" else value * np.exp(step)
            ends.append(validated(search.best_params_ | {parameter: moved}))
        expected = (ends[0] - ends[1]) / (2.0 * STEP)
        assert abs(expected) > 1e-5
        assert float(search.hypergradient_[parameter][0]) == pytest.approx(expected, rel=1e-4, abs=1e-8)
