"""Smoothed hinge losses: within their bound of the hinge, and told apart from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import bilevel_core as bl
from bilevel_core.errors import UsageError
from bilevel_hpo import BilevelSearchCV, TuningProblem
from bilevel_hpo.linear import HingeModel
from bilevel_hpo.smoothed import SmoothedHingeModel

from .tools import MODELS, problem, validated

PAIRS: dict[str, dict[str, Any]] = {"hinge": {"outputs": 3}, "insensitive": {"regression": True, "epsilon": 0.2}}


def pair(kind: str, width: float) -> tuple[SmoothedHingeModel, HingeModel]:
    """A smoothed model, and the same with the hinge itself."""
    smoothed = MODELS[f"smoothed {kind}"]
    assert isinstance(smoothed, SmoothedHingeModel)
    loss: Any = smoothed.loss
    model = HingeModel(loss, smoothed.hyperparameters, units="C", intercept="penalised", **PAIRS[kind])
    return replace(smoothed, width=width), model


def trained(task: TuningProblem) -> tuple[Any, torch.Tensor]:
    x = task.x0.numpy().astype(float)
    return task.x_layout.unflatten(torch.as_tensor(x)), validated(task, x)[1]


@pytest.mark.parametrize("kind", PAIRS)
def test_the_smoothed_optimum_is_within_the_bound_of_the_hinges(kind: str) -> None:
    gaps: list[float] = []
    far: list[float] = []
    for width in (1.0, 0.1, 0.01):
        model, exact = pair(kind, width)
        task, sharp = problem(model), problem(exact)
        rows = task.folds[0].train
        x, weights = trained(task)
        _, dual = trained(sharp)
        told = model.remarks(x, weights, rows)
        assert told["smoothing_bound"] == model.bound(x)
        # Strong duality: the hinge's optimal value is minus that of its dual, in these units.
        best = -rows.unit * float(exact.objective(x, dual, sharp.folds[0].train))
        gap = told["hinge_objective"] - best
        assert -1e-8 * abs(best) <= gap <= model.bound(x)
        assert 0.0 <= told["smoothed_objective"] - told["hinge_objective"] <= model.bound(x)
        gaps.append(gap)
        found, expected = (m.coefficients(x, w, rows)[0] for m, w in ((model, weights), (exact, dual)))
        far.append(float((found - expected).abs().max()))
    assert gaps[2] < 0.1 * gaps[0]
    assert far[2] < 0.1 * far[0]
    assert far[2] < 0.05


def test_the_bound_is_reached_at_the_kink() -> None:
    model, _ = pair("insensitive", 0.5)
    task = problem(model)
    x = task.x_layout.unflatten(task.x0)
    rows = task.folds[0].train
    epsilon = 0.2 / rows.unit
    at = rows.targets[:, None] + epsilon
    above = model.mean_loss(x, at, rows, model.width) - model.mean_loss(x, at, rows, 0.0)
    # In the units of squared losses; see `LinearModel.objective`.
    assert float(above) * rows.unit**2 == pytest.approx(model.bound(x), rel=1e-9)


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), float("inf"), True, "0.1"])
def test_bad_widths_are_refused(width: Any) -> None:
    with pytest.raises(UsageError, match="width of the smoothing as a positive number"):
        pair("hinge", width)
    svm = pytest.importorskip("sklearn.svm")
    search = BilevelSearchCV(svm.LinearSVC(loss="hinge"), smoothing=width, cv=2)
    with pytest.raises(ValueError, match="smoothing: Expected the width"):
        search.fit(np.arange(8.0).reshape(8, 1), [0, 0, 0, 0, 1, 1, 1, 1])


def test_smoothing_has_to_have_an_effect() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    search = BilevelSearchCV(linear_model.Ridge(), smoothing=0.1, cv=2)
    with pytest.raises(ValueError, match=r"no effect on Ridge\(\)"):
        search.fit(np.arange(8.0).reshape(8, 1), np.arange(8.0))
    from bilevel_hpo import library

    with pytest.raises(UsageError, match="smoothing is for loss=hinge"):
        library.svm(loss="squared-hinge", smoothing=0.1)


def test_the_search_validates_and_hands_over_the_smoothed_model() -> None:
    svm = pytest.importorskip("sklearn.svm")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 3))
    labels = (inputs @ [1.0, -1.0, 0.0] + 0.5 * rng.normal(size=60) > 0.0).astype(int)
    exact = svm.LinearSVC(loss="hinge", tol=1e-8, max_iter=100_000)
    search = BilevelSearchCV(exact, smoothing=0.5, cv=2, max_iter=4).fit(inputs, labels)
    assert search.best_score_ > search.cv_results_["mean_test_score"][0]
    again = svm.LinearSVC(loss="hinge", tol=1e-8, max_iter=100_000, **search.best_params_).fit(inputs, labels)
    assert np.abs(search.best_estimator_.coef_ - again.coef_).max() > 1e-3
    fine = BilevelSearchCV(exact, smoothing=1e-3, cv=2, max_iter=0).fit(inputs, labels)
    again.set_params(**fine.best_params_).fit(inputs, labels)
    np.testing.assert_allclose(fine.best_estimator_.coef_, again.coef_, atol=1e-2)
    details = search.result_.details
    assert details["smoothing"] == 0.5
    assert 0.0 < details["smoothed_objective"] - details["hinge_objective"] <= details["smoothing_bound"]


def test_the_registered_problem_is_smoothed_and_says_so() -> None:
    pytest.importorskip("sklearn")
    from bilevel_hpo import library

    task = library.svm(dataset="iris", smoothing=0.2, compare=False, test=0.5)
    result = bl.solve(task, options={"tolerance": 1e-2, "max_iterations": 4}, verify=False)
    details = result.details
    assert details["smoothing_bound"] == pytest.approx(3 * 0.2 * np.log(2.0))
    assert 0.0 < details["smoothed_objective"] - details["hinge_objective"] <= details["smoothing_bound"]
