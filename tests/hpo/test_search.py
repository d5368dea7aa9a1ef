"""`BilevelSearchCV`: scikit-learn's own checks, its habits, and its outcomes against scikit-learn's fits."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, LinearSVC, LinearSVR
from sklearn.utils.estimator_checks import check_estimator

from bilevel_hpo import BilevelSearchCV, OvertuningWarning

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(60, 5)) * [1.0, 3.0, 0.5, 1.0, 1.0]
TARGETS = INPUTS @ [2.0, 0.0, -1.0, 0.5, 0.0] + RNG.normal(size=60) + 4.0
LABELS = np.array(["low", "mid", "high"])[np.digitize(TARGETS, np.quantile(TARGETS, [0.33, 0.66]))]
FOLDS = KFold(3, shuffle=True, random_state=0)


@pytest.mark.parametrize(("estimator", "steps"), [(Ridge(), 1), (LogisticRegression(max_iter=1000), 0)])
@pytest.mark.filterwarnings("ignore::bilevel_hpo.search.OvertuningWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_scikit_learns_own_checks(estimator: Any, steps: int) -> None:
    found = check_estimator(BilevelSearchCV(estimator, cv=2, max_iter=steps), on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in found if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in found) > 40


def test_one_number_is_as_good_as_a_fine_grid() -> None:
    ours = BilevelSearchCV(Ridge(), cv=FOLDS, tol=1e-6).fit(INPUTS, TARGETS)
    alphas = {"alpha": ours.best_params_["alpha"] * np.logspace(-0.5, 0.5, 51)}
    grid = GridSearchCV(Ridge(), alphas, cv=FOLDS, scoring="neg_mean_squared_error").fit(INPUTS, TARGETS)
    assert ours.best_score_ >= grid.best_score_ - 1e-9
    assert ours.best_params_["alpha"] == pytest.approx(grid.best_params_["alpha"], rel=0.03)
    far = GridSearchCV(Ridge(), {"alpha": np.logspace(-3, 5, 25)}, cv=FOLDS, scoring="neg_mean_squared_error")
    assert ours.best_score_ >= far.fit(INPUTS, TARGETS).best_score_
    np.testing.assert_allclose(ours.predict(INPUTS), Ridge(**ours.best_params_).fit(INPUTS, TARGETS).predict(INPUTS))
    assert ours.n_lower_solves_ < 30


@pytest.mark.parametrize(
    ("estimator", "scoring", "labels"),
    [
        (Ridge(fit_intercept=False), "neg_mean_squared_error", False),
        (ElasticNet(max_iter=100_000, tol=1e-8), "neg_mean_squared_error", False),
        (KernelRidge(kernel="rbf"), "neg_mean_squared_error", False),
        (LinearSVR(loss="squared_epsilon_insensitive", tol=1e-8, max_iter=100_000), "neg_mean_squared_error", False),
        (LogisticRegression(tol=1e-8, max_iter=10_000), "neg_log_loss", True),
    ],
)
def test_the_score_is_that_of_scikit_learns_fits(estimator: Any, scoring: str, labels: bool) -> None:
    targets = LABELS if labels else TARGETS
    found = BilevelSearchCV(estimator, cv=FOLDS, max_iter=2).fit(INPUTS, targets)
    again = clone(estimator).set_params(**found.best_params_)
    assert cross_val_score(again, INPUTS, targets, cv=FOLDS, scoring=scoring).mean() == pytest.approx(
        found.best_score_, rel=2e-4
    )
    assert found.best_score_ > found.cv_results_["mean_test_score"][0]


@pytest.mark.parametrize(
    ("estimator", "scope", "labels"),
    [
        (Ridge(), {"alpha": "feature"}, False),
        (Lasso(), {"alpha": ("feature", 1e-3, 1.0)}, False),
        (LinearSVR(), {"C": "feature"}, False),
        (LogisticRegression(), {"C": "class"}, True),
        (LogisticRegression(l1_ratio=0.5, solver="saga"), {"C": "free", "l1_ratio": "single"}, True),
        (LinearSVC(), {"C": "class"}, True),
        (LinearSVC(loss="hinge"), {"C": "group"}, True),
    ],
)
def test_many_hyperparameters_and_written_coefficients(estimator: Any, scope: Any, labels: bool) -> None:
    targets = LABELS if labels else TARGETS
    rows, targets = INPUTS[:36], targets[:36]
    search = BilevelSearchCV(estimator, scope, cv=FOLDS, max_iter=2, feature_groups=list("aabbb"))
    search.fit(rows, targets)
    name = next(iter(scope))
    assert np.ndim(search.best_params_[name]) == 1
    assert search.hypergradient_[name].shape == search.best_params_[name].shape
    assert search.best_score_ > search.cv_results_["mean_test_score"][0]
    assert type(search.best_estimator_) is type(estimator)
    assert search.score(rows, targets) > 0.5


def test_a_scale_for_each_feature_is_ridge_on_scaled_columns() -> None:
    search = BilevelSearchCV(Ridge(), {"alpha": "feature"}, cv=FOLDS, max_iter=4).fit(INPUTS, TARGETS)
    scaled = INPUTS / np.sqrt(search.best_params_["alpha"])
    expected = Ridge(alpha=1.0).fit(scaled, TARGETS).predict(scaled)
    np.testing.assert_allclose(search.predict(INPUTS), expected, rtol=1e-5)


def test_pipelines_fit_their_steps_on_each_fold() -> None:
    pipe = make_pipeline(StandardScaler(), Ridge())
    search = BilevelSearchCV(pipe, cv=FOLDS, max_iter=5).fit(INPUTS, TARGETS)
    again = clone(pipe).set_params(**search.best_params_)
    expected = cross_val_score(again, INPUTS, TARGETS, cv=FOLDS, scoring="neg_mean_squared_error").mean()
    assert search.best_score_ == pytest.approx(expected, rel=1e-6)
    many = BilevelSearchCV(pipe, {"alpha": "feature"}, cv=FOLDS, max_iter=2).fit(INPUTS, TARGETS)
    assert many.best_params_["ridge__alpha"].shape == (5,)
    assert many.score(INPUTS, TARGETS) > 0.5


def test_choices_each_have_a_descent() -> None:
    choices = {"fit_intercept": [True, False]}
    search = BilevelSearchCV(Ridge(), choices=choices, cv=FOLDS, max_iter=2).fit(INPUTS, TARGETS)
    assert search.best_params_["fit_intercept"] is True
    assert set(search.cv_results_["param_fit_intercept"]) == {True, False}
    few = BilevelSearchCV(Ridge(), choices=choices, n_choices=1, cv=FOLDS, max_iter=2).fit(INPUTS, TARGETS)
    assert len(set(few.cv_results_["param_fit_intercept"])) == 1


def test_scoring_picks_on_the_path() -> None:
    search = BilevelSearchCV(LogisticRegression(), cv=FOLDS, scoring="accuracy", max_iter=4).fit(INPUTS, LABELS)
    results = search.cv_results_
    assert search.best_score_ == results["mean_test_score"].max()
    assert results["rank_test_score"][search.best_index_] == 1
    again = LogisticRegression(tol=1e-8, max_iter=10_000, **search.best_params_)
    assert cross_val_score(again, INPUTS, LABELS, cv=FOLDS).mean() == pytest.approx(search.best_score_)
    assert search.score(INPUTS, LABELS) == np.mean(search.predict(INPUTS) == LABELS)


def test_early_stopping_answers_with_the_best_on_rows_of_its_own() -> None:
    search = BilevelSearchCV(
        Ridge(), {"alpha": "feature"}, cv=FOLDS, early_stopping=0.2, patience=2, max_iter=15, random_state=1
    ).fit(INPUTS, TARGETS)
    assert "Stopped early" in search.result_.message
    assert search.result_.claim == "feasible"
    assert np.isfinite(search.result_.details["stopping_loss"])
    np.testing.assert_allclose(np.exp(search.result_.x["log_alpha"]), search.best_params_["alpha"], rtol=1e-12)


def test_joint_tuning_is_as_good() -> None:
    joint, other = (
        BilevelSearchCV(Ridge(), cv=FOLDS, solver=s).fit(INPUTS, TARGETS) for s in ("auxiliary", "hypergradient")
    )
    assert joint.result_.solver == "auxiliary"
    assert joint.best_score_ == pytest.approx(other.best_score_, rel=1e-6)
    assert joint.best_params_["alpha"] == pytest.approx(other.best_params_["alpha"], rel=0.02)


@pytest.mark.parametrize("estimator", [Ridge(), Lasso()])
def test_newtons_method_is_as_good(estimator: Any) -> None:
    exact, other = (
        BilevelSearchCV(estimator, {"alpha": "feature"}, cv=FOLDS, max_iter=30, **how).fit(INPUTS, TARGETS)
        for how in ({"solver": "trust-region", "solver_options": {"hessian": "exact"}}, {"solver": "hypergradient"})
    )
    assert exact.result_.options["hessian"] == "exact"
    assert exact.best_score_ >= other.best_score_ - 1e-3 * abs(other.best_score_)


def test_options_that_have_a_name_of_their_own_are_not_given_twice() -> None:
    with pytest.raises(ValueError, match="max_iterations are given by max_iter and tol"):
        BilevelSearchCV(Ridge(), solver_options={"max_iterations": 3}).fit(INPUTS, TARGETS)


def test_the_core_checks_when_asked() -> None:
    search = BilevelSearchCV(Ridge(), cv=FOLDS, max_iter=3, verify=True).fit(INPUTS, TARGETS)
    assert search.result_.certificate is not None
    assert search.result_.certificate.verdict == "verified"


def test_too_many_hyperparameters_are_warned_of() -> None:
    with pytest.warns(OvertuningWarning, match="5 hyperparameters were fitted to 8 validation rows"):
        BilevelSearchCV(Ridge(), {"alpha": "feature"}, cv=2, max_iter=1).fit(INPUTS[:8], TARGETS[:8])


def test_it_is_cloned_and_pickled() -> None:
    search = BilevelSearchCV(Ridge(), {"alpha": "feature"}, cv=FOLDS, max_iter=1)
    assert clone(search).get_params()["hyperparameters"] == {"alpha": "feature"}
    search.fit(INPUTS, TARGETS)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(INPUTS), search.predict(INPUTS))


def test_without_refit_there_is_no_estimator() -> None:
    search = BilevelSearchCV(Ridge(), cv=FOLDS, max_iter=1, refit=False).fit(INPUTS, TARGETS)
    assert search.best_params_["alpha"] > 0
    with pytest.raises(NotFittedError, match="refit=False"):
        search.predict(INPUTS)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (BilevelSearchCV(KNeighborsRegressor()), r"no hypergradient for KNeighborsRegressor.*Ridge"),
        (BilevelSearchCV(SVR()), r"no hypergradient for SVR"),
        (BilevelSearchCV(Ridge(), ["alfa"]), r"no hyperparameter named 'alfa'.*alpha"),
        (BilevelSearchCV(Ridge(), {"alpha": "column"}), r"no scope 'column'"),
        (BilevelSearchCV(Ridge(), {"alpha": "group"}), r"group of each of the 5 features"),
        (BilevelSearchCV(Ridge(), {"alpha": ("single", 2.0, 1.0)}), r"expected 0 < low"),
        (BilevelSearchCV(Ridge(), {"alpha": ("single", 2.0)}), r"expected a scope or \(scope, low, high\)"),
        (BilevelSearchCV(Ridge(), {}), r"Nothing to tune"),
        (BilevelSearchCV(Ridge(positive=True)), r"Ridge\(positive=True\).*Expected positive = False"),
        (BilevelSearchCV(KernelRidge(kernel="linear")), r"kernel='linear'.*'rbf'"),
        (BilevelSearchCV(Ridge(), choices={"solvers": ["svd"]}), r"no parameter 'solvers'"),
        (BilevelSearchCV(Ridge(), choices={"solver": "svd"}), r"expected a list of values"),
        (BilevelSearchCV(KernelRidge(kernel="rbf", alpha=0.0), ["gamma"]), r"a positive number for alpha, got 0\.0"),
        (BilevelSearchCV(KernelRidge(kernel="rbf", gamma=-1.0), ["alpha"]), r"a positive number for gamma, got -1\.0"),
        (BilevelSearchCV(LinearSVR(C=-1.0), ["epsilon"]), r"a positive number for C, got -1\.0"),
        (BilevelSearchCV(LinearSVR(epsilon=-1.0)), r"at least 0 for epsilon, got -1\.0"),
        (BilevelSearchCV(ElasticNet(l1_ratio=1.5), ["alpha"]), r"from 0 to 1 for l1_ratio, got 1\.5"),
        (BilevelSearchCV(Ridge(), early_stopping=1.5), r"early_stopping as a share"),
    ],
)
def test_what_cannot_be_is_named(search: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search.fit(INPUTS, TARGETS)
