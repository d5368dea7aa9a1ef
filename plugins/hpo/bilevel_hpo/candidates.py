"""What `BilevelSearchCV` tries: one descent for each combination of discrete choices, and its path as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline

import bilevel_core as bl
from bilevel_core.result import Result
from bilevel_hpo.descents import Step, tune
from bilevel_hpo.families import Data, TuningError, family_name, model_of, write
from bilevel_hpo.models import Fold, Model, Rows
from bilevel_hpo.problem import TuningProblem


@dataclass(frozen=True, eq=False)
class Task:
    """What is the same for all combinations of choices.

    Attributes:
        inputs: rows as the estimator takes them.
        targets: numbers, or class numbers.
        features: names of the columns, or None.
        classes: labels; empty for numbers.
        splits: training and validation rows of each fold.
        stopping: rows that decide when to stop; none of them for no early stopping.
        hyperparameters, feature_groups, prior, patience: see `BilevelSearchCV`.
        solver, options, seed, verify: of the core.
        scorer: None for the loss.
        smoothing: width of a smoothed hinge; None for none.
    """

    inputs: Any
    targets: np.ndarray
    features: Sequence[str] | None
    classes: tuple[Any, ...]
    splits: tuple[tuple[np.ndarray, np.ndarray], ...]
    stopping: np.ndarray
    hyperparameters: Any
    feature_groups: Sequence[Any] | None
    prior: float
    solver: str
    options: Mapping[str, Any]
    patience: int
    seed: int
    verify: bool
    scorer: Any
    smoothing: float | None = None

    @property
    def unit(self) -> float:
        """Of the targets: their standard deviation; 1 for classes and constant ones."""
        return 1.0 if self.classes else float(np.std(self.targets)) or 1.0


@dataclass(frozen=True, eq=False)
class Parts:
    """Inputs as the last step takes them."""

    train: np.ndarray
    other: np.ndarray


def prepared(estimator: Any, task: Task, train: np.ndarray, other: np.ndarray) -> tuple[Parts, Data, Pipeline | None]:
    """Inputs of training and other rows after a pipeline's steps, fitted on the former, and those steps (or None).

    Raises:
        TuningError: the steps give something else than a matrix of finite numbers.
    """
    a, b = _rows(task.inputs, train), _rows(task.inputs, other)
    steps: Any = None
    if isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
        steps = clone(estimator[:-1])
        labels = np.array(task.classes)[task.targets] if task.classes else task.targets
        a = steps.fit_transform(a, labels[train])
        b = steps.transform(b) if len(other) else a[:0]
    names = getattr(a, "columns", task.features if steps is None else None)
    a, b = _array(a), _array(b)
    if a.ndim != 2 or not np.issubdtype(a.dtype, np.number) or not np.isfinite(a).all() or not np.isfinite(b).all():
        raise TuningError("The inputs of the pipeline's last step are no matrix of finite numbers.")
    features = tuple(str(n) for n in names) if names is not None else tuple(f"x{k}" for k in range(a.shape[1]))
    data = Data(a.astype(float), task.targets[train], features, task.classes, task.feature_groups)
    return Parts(a.astype(float), b.astype(float)), data, steps


def _rows(inputs: Any, which: np.ndarray) -> Any:
    """Some rows of a frame, an array, a sparse matrix or a list."""
    if hasattr(inputs, "iloc"):
        return inputs.iloc[which]
    return [inputs[k] for k in which] if isinstance(inputs, list) else inputs[which]


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


@dataclass(frozen=True, eq=False)
class Candidates:
    """One combination of choices, and the path of its descent.

    Attributes:
        chosen_parameters: the choices, by name.
        estimator: the last step with them, not fitted.
        model, problem: what was tuned.
        data: of the first fold, for names and labels.
        path: points.
        chosen: where the path ends.
        result: of the core.
        prefix: of the last step's parameters in the whole.
    """

    chosen_parameters: dict[str, Any]
    estimator: Any
    model: Model
    problem: TuningProblem
    data: Data
    path: tuple[Step, ...]
    chosen: int
    result: Result
    prefix: str

    @property
    def objective(self) -> float:
        """What the choices are compared by: the stopping loss where there is one, else the leader's objective."""
        step = self.path[self.chosen]
        return step.objective if step.stopping is None else step.stopping

    @property
    def stopping(self) -> float:
        """The loss on the stopping rows where the path ends."""
        return self.path[self.chosen].stopping or 0.0

    @property
    def params(self) -> list[dict[str, Any]]:
        """Parameters at each point, as ``cv_results_`` has them: numbers, and arrays where there are several."""
        rows: list[dict[str, Any]] = []
        for k in range(len(self.path)):
            named = {n: float(v[0]) if len(v) == 1 else v for n, v in self.values(k).items()}
            rows.append({f"{self.prefix}{n}": v for n, v in named.items()} | self.chosen_parameters)
        return rows

    def values(self, step: int) -> dict[str, np.ndarray]:
        """The hyperparameters at a point, in their own units."""
        x = self.path[step].x
        return {h.name: h.value(x[h.variable]).numpy() for h in self.model.hyperparameters}

    def hypergradient(self, step: int) -> dict[str, np.ndarray]:
        """The derivative of the leader's objective by each hyperparameter's logarithm (log-odds)."""
        point = self.path[step]
        slopes = bl.hypergradient(self.problem, point.x, point.y).value
        return {f"{self.prefix}{h.name}": slopes[h.variable].numpy() for h in self.model.hyperparameters}

    def scores(self, step: int, task: Task) -> list[float]:
        """A point's score on each fold: the scorer's, or the negative loss in the targets' units."""
        point, found = self.path[step], []
        for name, fold in zip(self.problem.names, self.problem.folds, strict=True):
            weights = point.y[name]
            if task.scorer is None:
                with torch.no_grad():
                    predicted = self.model.scores(point.x, weights, fold.train, fold.validation)
                    loss = float(self.model.validation(predicted, fold.validation.targets))
                found.append(-loss * fold.train.unit**2)
                continue
            values = {n: float(v[0]) for n, v in self.values(step).items() if len(v) == 1}
            blank: Any = clone(self.estimator)
            blank.set_params(**values)
            fitted = write(blank, self.model, point.x, weights, fold.train, self.data)
            rows = fold.validation
            inputs = (rows.inputs * rows.size + rows.shift).numpy()
            targets = rows.targets.numpy()
            labels = np.array(task.classes)[targets] if task.classes else targets * rows.unit + rows.origin
            found.append(float(task.scorer(fitted, inputs, labels)))
        return found


def candidates_of(estimator: Any, chosen: dict[str, Any], task: Task) -> Candidates:
    """Tune the continuous hyperparameters at fixed choices.

    Raises:
        TuningError: choices that the estimator does not have, or a model that cannot be tuned.
    """
    whole: Any = clone(estimator)
    known = whole.get_params()
    for name in chosen:
        if name not in known:
            raise TuningError(f"choices: {type(estimator).__name__} has no parameter {name!r}.")
    whole.set_params(**chosen)
    last = whole[-1] if isinstance(whole, Pipeline) else whole
    prefix = f"{whole.steps[-1][0]}__" if isinstance(whole, Pipeline) else ""
    family_name(last)
    folds: list[Fold] = []
    stopping: list[Rows] = []
    data: Data | None = None
    model: Model | None = None
    for train, validation in task.splits:
        parts, here, _ = prepared(whole, task, train, np.concatenate([validation, task.stopping]))
        if data is None or model is None:
            data, model = here, model_of(last, task.hyperparameters, here, task.smoothing)
        elif parts.train.shape[1] != len(data.features):
            raise TuningError("The pipeline's steps give another number of columns on each fold.")
        rows = Rows.of(parts.train, task.targets[train], centred=model.centred, unit=task.unit)
        count = len(validation)
        folds.append(Fold(rows, rows.like(parts.other[:count], task.targets[validation])))
        stopping.append(rows.like(parts.other[count:], task.targets[task.stopping]))
    assert model is not None
    assert data is not None
    seen = int(np.unique(np.concatenate([v for _, v in task.splits])).size)
    problem = TuningProblem(model, folds, prior=task.prior, validation_rows=seen, name="BilevelSearchCV")
    found = tune(
        problem,
        solver=task.solver,
        options=task.options,
        stopping=stopping if len(task.stopping) else None,
        patience=task.patience,
        seed=task.seed,
        verify=task.verify,
    )
    return Candidates(chosen, last, model, problem, data, found.path, found.chosen, found.result, prefix)


def results_table(found: Sequence[Candidates], task: Task) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """``cv_results_``, and which descent and step each row is."""
    places = [(k, step) for k, c in enumerate(found) for step in range(len(c.path))]
    params = [row for c in found for row in c.params]
    scores = np.array([found[k].scores(step, task) for k, step in places])
    table: dict[str, Any] = {"params": params}
    for name in dict.fromkeys(n for row in params for n in row):
        column: Any = np.ma.masked_array(np.empty(len(params), dtype=object), mask=True)
        for k, row in enumerate(params):
            if name in row:
                column[k] = row[name]
        table[f"param_{name}"] = column
    for k in range(scores.shape[1]):
        table[f"split{k}_test_score"] = scores[:, k]
    table["mean_test_score"] = scores.mean(axis=1)
    table["std_test_score"] = scores.std(axis=1)
    order = np.nan_to_num(-table["mean_test_score"], nan=np.inf)
    table["rank_test_score"] = np.array([1 + int((order < value).sum()) for value in order], dtype=np.int32)
    return table, places
