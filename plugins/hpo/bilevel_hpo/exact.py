"""The support vector machine as the quadratic program that it is: on few rows, for solvers that are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

import bilevel_core as bl
from bilevel_core.errors import UsageError
from bilevel_core.result import Values
from bilevel_hpo.data import Faults, Table, read_csv, shipped
from bilevel_hpo.split import split


class ExactSvmProblem(bl.PyomoProblem):
    """The C of a linear support vector machine; training is a quadratic program of the follower's.

    The follower minimises ``(|w|^2 + b^2) / 2 + C sum slack`` with ``slack_k >= 1 - s_k (w . z_k + b)`` and
    ``slack_k >= 0`` on the training rows; the leader the mean squared hinge loss on the validation rows. Its optimality
    conditions are linear but for complementarity, so that `kkt` finds the best C of all. That takes a binary choice for
    each training row: tens of rows, not thousands.

    Source: Kunapuli, Bennett, Hu and Pang (2008), Classification model selection via bilevel programming.

    Args:
        inputs: shape (rows, features); scaled.
        signs: +1 and -1, shape (rows,).
        train, validation, test: numbers of rows. Those of the test are seen by neither level.
        features: names.
        bounds: of C.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        signs: np.ndarray,
        train: np.ndarray,
        validation: np.ndarray,
        test: np.ndarray,
        features: tuple[str, ...],
        bounds: tuple[float, float],
    ) -> None:
        import pyomo.environ

        pyo = cast("Any", pyomo.environ)
        self.inputs, self.signs, self.rows, self.test = inputs, signs, (train, validation), test
        m = pyo.ConcreteModel()
        m.C = pyo.Var(bounds=bounds)
        m.excess = pyo.Var(range(len(validation)), bounds=(0.0, None))
        f = m.follower = cast("Any", bl.Follower())
        f.w = pyo.Var(list(features))
        f.b = pyo.Var()
        f.slack = pyo.Var(range(len(train)), bounds=(0.0, None))

        def short(row: int) -> Any:
            """How far a row is from a margin of 1."""
            score = sum(float(z) * f.w[name] for name, z in zip(features, inputs[row], strict=True)) + f.b
            return 1.0 - float(signs[row]) * score

        m.objective = pyo.Objective(expr=sum(e**2 for e in m.excess.values()) / len(validation))
        m.validation = pyo.ConstraintList()
        for k, row in enumerate(validation):
            m.validation.add(m.excess[k] >= short(row))
        size = sum(w**2 for w in f.w.values()) + f.b**2
        f.objective = pyo.Objective(expr=0.5 * size + m.C * sum(f.slack.values()))
        f.training = pyo.ConstraintList()
        for k, row in enumerate(train):
            f.training.add(f.slack[k] >= short(row))
        super().__init__(m, name="hpo/svm-exact")

    def details(self, x: Values, y: Values) -> dict[str, Any]:
        """Loss and accuracy on the test rows, by the model as trained on the training rows."""
        scores = self.inputs[self.test] @ np.asarray(y["follower.w"]) + float(np.asarray(y["follower.b"]))
        margins = self.signs[self.test] * scores
        return {
            "loss": "squared hinge loss",
            "test_rows": len(self.test),
            "test_loss": float(np.mean(np.maximum(0.0, 1.0 - margins) ** 2)),
            "test_accuracy": float(np.mean(margins > 0.0)),
        }


def svm_exact(
    *,
    dataset: Literal["breast_cancer"] = "breast_cancer",
    data: Path | None = None,
    target: str | None = None,
    drop: tuple[str, ...] = (),
    faults: Faults = "error",
    train: int = 20,
    validation: int = 20,
    low: float = 1e-2,
    high: float = 10.0,
    split_seed: int = 0,
) -> ExactSvmProblem:
    """Linear support vector machine on few rows, its training as a quadratic program: the best C of all, proven.

    Args:
        dataset: data that ships with scikit-learn
        data: a CSV file of your own in its place, with two classes
        target: its column with the classes
        drop: its columns to leave out
        faults: whether bad rows and constant columns are an error, or left out
        train: rows for training
        validation: rows for validation; all others are for the test
        low: smallest C
        high: largest C
        split_seed: of the split
    """
    if data is None:
        if target is not None or drop:
            raise UsageError("Parameters target and drop are for a file: give data=FILE, too.")
        table = shipped(dataset)
    elif target is None:
        raise UsageError("Parameter data=FILE needs target=COLUMN, the column to predict.")
    else:
        table = read_csv(data, target, classify=True, drop=drop, faults=faults)
    if len(table.classes) != 2:
        raise UsageError(f"hpo/svm-exact tells two classes apart; {table.name} has {len(table.classes)}: take hpo/svm.")
    if not 0.0 < low < high < np.inf:
        raise UsageError(f"Expected 0 < low < high, got low={low} and high={high}.")
    return _made(table, train, validation, (low, high), split_seed)


def _made(table: Table, train: int, validation: int, bounds: tuple[float, float], seed: int) -> ExactSvmProblem:
    rows = len(table.targets)
    if train < 2 or validation < 1 or train + validation >= rows:
        raise UsageError(
            f"Expected at least 2 rows for training, 1 for validation and 1 left for the test, of {rows}; got "
            f"train={train} and validation={validation}."
        )
    test = 1.0 - (train + validation) / rows
    parts = split(table.targets, classes=table.classes, seed=seed, test=test, validation=validation / rows)
    seen = table.inputs[parts.tuning]
    size = seen.std(axis=0)
    inputs = (table.inputs - seen.mean(axis=0)) / np.where(size > 0.0, size, 1.0)
    ((first, second),) = parts.folds
    return ExactSvmProblem(inputs, 2.0 * table.targets - 1.0, first, second, parts.test, table.features, bounds)
