"""`BilevelSearchCV`: the scikit-learn face, with the habits of ``GridSearchCV`` and hypergradients inside."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import indexable
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

import bilevel_core as bl
from bilevel_hpo.candidates import Candidates, Task, candidates_of, prepared, results_table
from bilevel_hpo.families import TuningError, model_of, write
from bilevel_hpo.problem import NEAR


class OvertuningWarning(UserWarning):
    """There are so many hyperparameters that the validation loss says little about new rows."""


def _has(method: str) -> Any:
    def check(self: Any) -> bool:
        getattr(getattr(self, "best_estimator_", self.estimator), method)
        return True

    return check


class BilevelSearchCV(MetaEstimatorMixin, BaseEstimator):
    """Tune continuous hyperparameters by descent along hypergradients of the cross-validated loss.

    Good at: many hyperparameters (one for each feature, class, group or coefficient) and few fits. Bad at: parameters
    that are no regularisers; those are tried from lists (``choices``), each combination with a descent of its own.

    The loss that is descended is smooth: mean squared error, log loss, or squared hinge loss; ``scoring`` then picks
    among the points of the path. Where each hyperparameter is a single number, ``best_estimator_`` is the user's
    estimator fitted by its own ``fit``. Otherwise, and with ``smoothing``, the coefficients are computed here and
    written into a clone, since scikit-learn's estimators know one regulariser only; ``best_params_`` then holds arrays
    where there are many.

    Args:
        estimator: Ridge, Lasso, ElasticNet, LogisticRegression, LinearSVC, LinearSVR or KernelRidge (rbf), or a
            Pipeline with one of them at its end, whose other steps are fitted on the training rows of each fold.
        hyperparameters: names of what to tune, or a dictionary name -> scope (``single``, ``feature``, ``class``,
            ``group``, ``free``) or name -> (scope, low, high). None for the estimator's regularisers, one of each. In a
            pipeline names are those of the last step.
        choices: dictionary parameter -> list of values, for what is discrete; names as for ``set_params``.
        n_choices: most combinations of choices that are tried, by ``choice_solver``; None for all, on a grid.
        choice_solver: the sampling solver for ``n_choices``.
        feature_groups: for scope ``group``: the group of each feature.
        scoring: as in GridSearchCV, one score. None: the loss descended (negative).
        cv: as in GridSearchCV.
        refit: whether to train ``best_estimator_`` on all rows.
        smoothing: width of a smoothed hinge in place of the hinge of ``LinearSVC(loss="hinge")`` (in units of the
            margin; 0.1 is a good start) or of the loss of ``LinearSVR(loss="epsilon_insensitive")`` (in the targets'
            units). What is tuned and validated is then the smoothed model, and ``best_estimator_`` has its
            coefficients; ``result_.details`` says how far its objective is from the hinge's. None for the hinge itself.
        prior: precision of a normal prior on each log-hyperparameter, around its start.
        early_stopping: share of the rows that decide when to stop, seen by no fold; 0 for none.
        patience: steps without a better loss on those rows before stopping.
        solver: ``hypergradient``, ``auxiliary`` or ``trust-region``.
        solver_options: more options of the solver, such as ``{"hessian": "exact"}`` of ``trust-region``.
        max_iter: most steps of a descent.
        tol: norm of the hypergradient, relative to its first, at which a descent ends.
        verify: whether the core re-solves the training of the best point independently (``result_.certificate``).
        random_state: an integer for what is random, or None for 0.

    Attributes:
        best_params_, best_score_, best_index_, best_estimator_, cv_results_, n_splits_, refit_time_, scorer_: as in
            GridSearchCV. ``cv_results_`` has a row for each point of the path; there are no times in it, since the
            folds of all points share their work.
        hypergradient_: by name, at the best point, of the loss and the prior by the hyperparameters' logarithms
            (log-odds); squared errors are divided by the variance of y.
        result_: the core's `Result`: certificate, trace, counts.
        n_iter_: steps of the best descent.
        n_lower_solves_: how often all folds were trained.
    """

    def __init__(
        self,
        estimator: Any,
        hyperparameters: Any = None,
        *,
        choices: Mapping[str, Sequence[Any]] | None = None,
        n_choices: int | None = None,
        choice_solver: str = "sample.evolution",
        feature_groups: Sequence[Any] | None = None,
        scoring: Any = None,
        cv: Any = None,
        refit: bool = True,
        smoothing: float | None = None,
        prior: float = 0.0,
        early_stopping: float = 0.0,
        patience: int = 3,
        solver: str = "hypergradient",
        solver_options: Mapping[str, Any] | None = None,
        max_iter: int = 50,
        tol: float = 1e-4,
        verify: bool = False,
        random_state: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.hyperparameters = hyperparameters
        self.choices = choices
        self.n_choices = n_choices
        self.choice_solver = choice_solver
        self.feature_groups = feature_groups
        self.scoring = scoring
        self.cv = cv
        self.refit = refit
        self.smoothing = smoothing
        self.prior = prior
        self.early_stopping = early_stopping
        self.patience = patience
        self.solver = solver
        self.solver_options = solver_options
        self.max_iter = max_iter
        self.tol = tol
        self.verify = verify
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> BilevelSearchCV:
        """Tune, and train the best on all rows.

        Args:
            X: shape (rows, features).
            y: shape (rows,).
            groups: of the rows, for splitters that take them.

        Raises:
            TuningError: (a ValueError) an estimator, hyperparameter or choice that cannot be tuned, or folds that lack
                a class.
        """
        if y is None:
            raise TuningError("This BilevelSearchCV estimator requires y to be passed, but the target y is None.")
        rows, targets, classes = self._checked(X, y)
        task = Task(
            inputs=rows,
            targets=targets,
            features=getattr(self, "feature_names_in_", None),
            classes=classes,
            splits=self._splits(rows, targets, groups),
            stopping=self._stopping_rows(len(targets)),
            hyperparameters=self.hyperparameters,
            feature_groups=self.feature_groups,
            prior=self.prior,
            solver=self.solver,
            options=self._solver_options(),
            patience=self.patience,
            seed=self.random_state or 0,
            verify=self.verify,
            scorer=None if self.scoring is None else check_scoring(self.estimator, self.scoring),
            smoothing=self.smoothing,
        )
        self.scorer_ = task.scorer
        found = self._searched(task)
        self._warn(found, task)
        self._report(found, task)
        if self.refit:
            start = time.perf_counter()
            self.best_estimator_ = self._refitted(found, task)
            self.refit_time_ = time.perf_counter() - start
        return self

    def _solver_options(self) -> dict[str, Any]:
        given, own = dict(self.solver_options or {}), {"max_iterations": self.max_iter, "tolerance": self.tol}
        if both := sorted(given.keys() & own.keys()):
            raise TuningError(f"solver_options: {', '.join(both)} are given by max_iter and tol; leave them out.")
        return {**own, **given}

    def _checked(self, X: Any, y: Any) -> tuple[Any, np.ndarray, tuple[Any, ...]]:
        """Rows, targets (classes as numbers), and the classes' labels."""
        rows: Any
        numeric = not is_classifier(self.estimator)
        if isinstance(self.estimator, Pipeline):
            rows, y = indexable(X, y)
            y = column_or_1d(y)
        else:
            rows, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2, y_numeric=numeric)
        if numeric:
            return rows, np.asarray(y, dtype=float), ()
        check_classification_targets(y)
        labels, numbers = np.unique(y, return_inverse=True)
        if len(labels) < 2:
            raise TuningError(f"There is 1 class in y ({labels[0]!r}): there is nothing to tell apart.")
        return rows, numbers.astype(np.int64), tuple(labels)

    def _stopping_rows(self, rows: int) -> np.ndarray:
        if not 0.0 <= self.early_stopping < 1.0:
            raise TuningError(f"Expected early_stopping as a share of the rows in [0, 1), got {self.early_stopping!r}.")
        if not self.early_stopping:
            return np.zeros(0, dtype=int)
        order = np.random.default_rng(self.random_state or 0).permutation(rows)
        return np.sort(order[: max(1, round(self.early_stopping * rows))])

    def _splits(self, X: Any, y: np.ndarray, groups: Any) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Training and validation rows of each fold, without the rows that decide when to stop."""
        splitter: Any = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        aside = self._stopping_rows(len(y))
        found = [
            (np.setdiff1d(train, aside), np.setdiff1d(test, aside)) for train, test in splitter.split(X, y, groups)
        ]
        self.n_splits_ = len(found)
        for k, (train, test) in enumerate(found):
            if not len(train) or not len(test):
                raise TuningError(
                    f"Fold {k + 1} has no row left for training or validation: lower early_stopping or cv."
                )
            if is_classifier(self.estimator) and len(np.unique(y[train])) < len(np.unique(y)):
                raise TuningError(
                    f"Fold {k + 1} trains without one of the classes: use fewer folds, or leave out rare classes."
                )
        return tuple(found)

    def _searched(self, task: Task) -> list[Candidates]:
        """A descent for each combination of choices that is tried."""
        if not self.choices:
            return [candidates_of(self.estimator, {}, task)]
        for name, values in self.choices.items():
            if isinstance(values, str) or not len(values):
                raise TuningError(f"choices[{name!r}]: expected a list of values, got {values!r}.")
        names = list(self.choices)
        found: list[Candidates] = []

        def follow(x: dict[str, Any], call: bl.Call) -> bl.Answer:
            chosen = {n: self.choices[n][int(x[n])] for n in names}  # type: ignore[index]
            here = candidates_of(self.estimator, chosen, task)
            found.append(here)
            return bl.Answer({}, upper=here.objective, lower=0.0)

        space = [bl.Categorical(n, tuple(str(k) for k in range(len(self.choices[n])))) for n in names]
        problem = bl.NestedProblem(space, follow, name="choices")
        if self.n_choices is None:
            bl.solve(problem, "sample.grid", verify=False)
        else:
            options = {"lower_solves": self.n_choices}
            bl.solve(problem, self.choice_solver, options, seed=task.seed, verify=False)
        if not found:
            raise TuningError("No combination of choices could be tried: raise n_choices.")
        return found

    def _warn(self, found: Sequence[Candidates], task: Task) -> None:
        count = max(sum(h.size for h in c.model.hyperparameters) for c in found)
        rows = int(np.unique(np.concatenate([test for _, test in task.splits])).size)
        if count >= NEAR * rows:
            warnings.warn(
                f"{count} hyperparameters were fitted to {rows} validation rows: best_score_ says little about new "
                "rows. Score on rows held out; share hyperparameters, set a prior, or use early_stopping.",
                OvertuningWarning,
                stacklevel=3,
            )

    def _report(self, found: Sequence[Candidates], task: Task) -> None:
        self.cv_results_, places = results_table(found, task)
        if len(task.stopping):
            # What decides where a path ends decides between paths, too.
            ends = [(c.stopping, sum(len(d.params) for d in found[:k]) + c.chosen) for k, c in enumerate(found)]
            self.best_index_ = min(ends)[1]
        else:
            self.best_index_ = int(np.argmin(self.cv_results_["rank_test_score"]))
        which, step = places[self.best_index_]
        self._place = which, step
        best = found[which]
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.result_ = best.result
        self.hypergradient_ = best.hypergradient(step)
        self.n_iter_ = max(1, int(best.result.counts.get("iterations", 0)))
        self.n_lower_solves_ = sum(int(c.result.counts.get("lower_solves", 0)) for c in found)

    def _refitted(self, found: Sequence[Candidates], task: Task) -> Any:
        which, step = self._place
        best = found[which]
        whole: Any = clone(self.estimator)
        whole.set_params(**best.chosen_parameters)
        last: Any = whole[-1] if isinstance(whole, Pipeline) else whole
        plain = {h.name: float(best.values(step)[h.name][0]) for h in best.model.hyperparameters if h.size == 1}
        labels = np.array(task.classes)[task.targets] if task.classes else task.targets
        # scikit-learn's own fit knows one regulariser, and no smoothed hinge.
        if len(plain) == len(best.model.hyperparameters) and task.smoothing is None:
            last.set_params(**plain)
            whole.fit(task.inputs, labels)
            return whole
        rows, data, steps = prepared(whole, task, np.arange(len(task.targets)), np.zeros(0, dtype=int))
        model = model_of(last, self.hyperparameters, data, task.smoothing)
        x = best.path[step].x
        scaled, weights = best.problem.refitted(x, rows.train, task.targets)
        write(last, model, x, weights, scaled, data)
        if steps is None:
            if task.features is not None:
                last.feature_names_in_ = np.array(task.features, dtype=object)
            return last
        return Pipeline([*steps.steps, (whole.steps[-1][0], last)])

    # What GridSearchCV hands on to the best estimator.

    def _fitted(self) -> Any:
        if not self.refit and hasattr(self, "cv_results_"):
            raise NotFittedError("This BilevelSearchCV was made with refit=False: set refit=True, or fit best_params_.")
        check_is_fitted(self, "best_estimator_")
        return self.best_estimator_

    def score(self, X: Any, y: Any = None) -> float:
        """The score on other rows: by ``scoring``, or the estimator's own."""
        best = self._fitted()
        return float(best.score(X, y) if self.scorer_ is None else self.scorer_(best, X, y))

    @available_if(_has("predict"))
    def predict(self, X: Any) -> Any:
        """The best estimator's predictions."""
        return self._fitted().predict(X)

    @available_if(_has("predict_proba"))
    def predict_proba(self, X: Any) -> Any:
        """The best estimator's probabilities."""
        return self._fitted().predict_proba(X)

    @available_if(_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> Any:
        """The best estimator's logarithms of probabilities."""
        return self._fitted().predict_log_proba(X)

    @available_if(_has("decision_function"))
    def decision_function(self, X: Any) -> Any:
        """The best estimator's decision values."""
        return self._fitted().decision_function(X)

    @property
    def classes_(self) -> Any:
        """Labels of the classes, of classifiers."""
        return self._fitted().classes_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "cv_results_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import get_tags

        tags = cast("Any", super()).__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.target_tags.required = True
        tags.target_tags.multi_output = False
        tags.target_tags.single_output = True
        tags.input_tags.pairwise = False
        tags.input_tags.sparse = False
        return tags
