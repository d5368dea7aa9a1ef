"""The registered tuning problems. Each factory's keyword arguments are the problem's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_hpo.data import Faults
from bilevel_hpo.hyperparameters import Hyperparameter, Scope, index_of
from bilevel_hpo.linear import HingeModel, LinearModel
from bilevel_hpo.models import Model
from bilevel_hpo.other_models import CleaningModel, NetworkModel
from bilevel_hpo.problem import TuningProblem
from bilevel_hpo.smoothed import SmoothedHingeModel
from bilevel_hpo.sources import Source, assembled, standard

Regression = Literal["diabetes"]
Classification = Literal["digits", "iris", "wine", "breast_cancer"]


def ridge(
    *,
    dataset: Regression = "diabetes",
    data: Path | None = None,
    target: str | None = None,
    drop: tuple[str, ...] = (),
    faults: Faults = "error",
    scope: Literal["single", "feature"] = "feature",
    compare: bool = True,
    test: float = 0.25,
    validation: float = 0.25,
    stopping: float = 0.0,
    folds: int = 1,
    split_seed: int = 0,
    prior: float = 0.0,
) -> TuningProblem:
    """Ridge regression with a regulariser alpha for each feature: ``|t - X w|^2 + sum alpha_j w_j^2``.

    Args:
        dataset: data that ships with scikit-learn
        data: a CSV file of your own in its place
        target: its column to predict
        drop: its columns to leave out
        faults: whether bad rows and constant columns are an error, or left out
        scope: one alpha for all features, or one each
        compare: report what one alpha reaches, too
        test: share of the rows that is held out for the test
        validation: share of the rows for validation, with one fold
        stopping: share of the rows that say when to stop; 0 for no early stopping
        folds: of cross-validation; 1 for one validation set
        split_seed: of the split
        prior: precision of a normal prior on each log alpha; 0 for none
    """
    source = Source(dataset, data, target, drop, faults, test, validation, stopping, folds, split_seed, prior)
    table = source.table(False)
    table = standard(table, source)

    def make(single: bool, rows: Sequence[str]) -> Model:
        index, labels = index_of("single" if single else scope, table.features, ("target",))
        alpha = Hyperparameter("alpha", 1e-3, 1e5, 1.0, index=index, labels=labels)
        return LinearModel("squared", (alpha,))

    return assembled("hpo/ridge", source, table, make, compare and scope != "single")


def elastic_net(
    *,
    dataset: Regression = "diabetes",
    data: Path | None = None,
    target: str | None = None,
    drop: tuple[str, ...] = (),
    faults: Faults = "error",
    scope: Literal["single", "feature"] = "feature",
    compare: bool = True,
    test: float = 0.25,
    validation: float = 0.25,
    stopping: float = 0.0,
    folds: int = 1,
    split_seed: int = 0,
    prior: float = 0.0,
) -> TuningProblem:
    """Elastic net: ``|t - X w|^2 / (2 n) + sum alpha_j (r |w_j| + (1 - r) w_j^2 / 2)``, alpha and r tuned.

    Args:
        dataset: data that ships with scikit-learn
        data: a CSV file of your own in its place
        target: its column to predict
        drop: its columns to leave out
        faults: whether bad rows and constant columns are an error, or left out
        scope: one alpha for all features, or one each; r is one for all
        compare: report what one alpha reaches, too
        test: share of the rows that is held out for the test
        validation: share of the rows for validation, with one fold
        stopping: share of the rows that say when to stop; 0 for no early stopping
        folds: of cross-validation; 1 for one validation set
        split_seed: of the split
        prior: precision of a normal prior on each log alpha, and on the log odds of r; 0 for none
    """
    source = Source(dataset, data, target, drop, faults, test, validation, stopping, folds, split_seed, prior)
    table = source.table(False)
    table = standard(table, source)
    spread = float(np.std(table.targets[source.parts(table).tuning]))

    def make(single: bool, rows: Sequence[str]) -> Model:
        index, labels = index_of("single" if single else scope, table.features, ("target",))
        # Beyond the targets' spread every coefficient is zero.
        alpha = Hyperparameter("alpha", 1e-4 * spread, spread, 1e-2 * spread, index=index, labels=labels)
        ratio = Hyperparameter("l1_ratio", 0.01, 0.99, 0.5, "logit")
        return LinearModel("squared", (alpha, ratio), units="mean")

    return assembled("hpo/elastic-net", source, table, make, compare and scope != "single")


def logistic(
    *,
    dataset: Classification = "digits",
    data: Path | None = None,
    target: str | None = None,
    drop: tuple[str, ...] = (),
    faults: Faults = "error",
    scope: Scope = "class",
    groups: tuple[str, ...] = (),
    compare: bool = True,
    test: float = 0.25,
    validation: float = 0.25,
    stopping: float = 0.0,
    folds: int = 1,
    split_seed: int = 0,
    prior: float = 0.0,
) -> TuningProblem:
    """Multinomial logistic regression, ``sum losses + sum W^2 / (2 C)``, with a C for each class.

    Args:
        dataset: data that ships with scikit-learn
        data: a CSV file of your own in its place
        target: its column with the classes
        drop: its columns to leave out
        faults: whether bad rows and constant columns are an error, or left out
        scope: one C, or one for each feature, class, group of features, or coefficient (free)
        groups: with scope=group: the group of each feature
        compare: report what one C reaches, too
        test: share of the rows that is held out for the test
        validation: share of the rows for validation, with one fold
        stopping: share of the rows that say when to stop; 0 for no early stopping
        folds: of cross-validation; 1 for one validation set
        split_seed: of the split
        prior: precision of a normal prior on each log C; 0 for none
    """
    source = Source(dataset, data, target, drop, faults, test, validation, stopping, folds, split_seed, prior)
    table = source.table(True)
    table = replace(table, inputs=table.inputs / 16.0) if table.name == "digits" else standard(table, source)

    def make(single: bool, rows: Sequence[str]) -> Model:
        index, labels = index_of("single" if single else scope, table.features, table.classes, groups or None)
        c = Hyperparameter("C", 1e-3, 1e2, 1.0, index=index, labels=labels)
        return LinearModel("softmax", (c,), outputs=len(table.classes), units="C")

    return assembled("hpo/logistic", source, table, make, compare and scope != "single")


def svm(
    *,
    dataset: Classification = "breast_cancer",
    data: Path | None = None,
    target: str | None = None,
    drop: tuple[str, ...] = (),
    faults: Faults = "error",
    loss: Literal["hinge", "squared-hinge"] = "hinge",
    smoothing: float = 0.0,
    scope: Scope = "single",
    groups: tuple[str, ...] = (),
    compare: bool = True,
    test: float = 0.25,
    validation: float = 0.25,
    stopping: float = 0.0,
    folds: int = 1,
    split_seed: int = 0,
    prior: float = 0.0,
) -> TuningProblem:
    """Linear support vector machine, one class against the rest: ``C sum losses + |w|^2 / 2``, intercept penalised.

    Args:
        dataset: data that ships with scikit-learn
        data: a CSV file of your own in its place
        target: its column with the classes
        drop: its columns to leave out
        faults: whether bad rows and constant columns are an error, or left out
        loss: of training; the hinge by its dual, a quadratic program. The leader's loss is the squared hinge
        smoothing: width of a smoothed hinge, in units of the margin, in place of the hinge; 0 for none
        scope: one C, or one for each feature, class, group of features, or coefficient (free)
        groups: with scope=group: the group of each feature
        compare: report what one C reaches, too
        test: share of the rows that is held out for the test
        validation: share of the rows for validation, with one fold
        stopping: share of the rows that say when to stop; 0 for no early stopping
        folds: of cross-validation; 1 for one validation set
        split_seed: of the split
        prior: precision of a normal prior on each log C; 0 for none
    """
    if smoothing and loss != "hinge":
        raise UsageError(f"Parameter smoothing is for loss=hinge; got loss={loss}, which has no kink to smooth.")
    source = Source(dataset, data, target, drop, faults, test, validation, stopping, folds, split_seed, prior)
    table = source.table(True)
    table = standard(table, source)
    outputs = table.classes if len(table.classes) > 2 else table.classes[1:]

    def make(single: bool, rows: Sequence[str]) -> Model:
        index, labels = index_of("single" if single else scope, table.features, outputs, groups or None)
        c = Hyperparameter("C", 1e-4, 1e2, 0.1, index=index, labels=labels)
        common: dict[str, Any] = {"outputs": len(outputs), "units": "C", "intercept": "penalised"}
        if smoothing:
            return SmoothedHingeModel("squared-hinge", (c,), width=smoothing, **common)
        kind = LinearModel if loss == "squared-hinge" else HingeModel
        return kind("squared-hinge", (c,), **common)

    return assembled("hpo/svm", source, table, make, compare and scope != "single")


def data_cleaning(
    *,
    dataset: Classification = "digits",
    data: Path | None = None,
    target: str | None = None,
    drop: tuple[str, ...] = (),
    faults: Faults = "error",
    wrong: float = 0.5,
    l2: float = 1e-3,
    compare: bool = True,
    test: float = 0.25,
    validation: float = 0.25,
    stopping: float = 0.0,
    split_seed: int = 0,
    prior: float = 0.0,
) -> TuningProblem:
    """Softmax regression with a weight in (0, 1) for each training row, of which many have wrong labels.

    Args:
        dataset: data that ships with scikit-learn
        data: a CSV file of your own in its place
        target: its column with the classes
        drop: its columns to leave out
        faults: whether bad rows and constant columns are an error, or left out
        wrong: share of the training rows that get a wrong label; 0 leaves them as they are
        l2: weight of the squared coefficients
        compare: report what equal weights reach, too
        test: share of the rows that is held out for the test
        validation: share of the rows for validation
        stopping: share of the rows that say when to stop; 0 for no early stopping
        split_seed: of the split and of the wrong labels
        prior: precision of a normal prior on the log odds of each weight; 0 for none
    """
    if not 0.0 <= wrong < 1.0 or not l2 > 0.0:
        raise UsageError(f"Expected wrong in [0, 1) and a positive l2, got wrong={wrong} and l2={l2}.")
    source = Source(dataset, data, target, drop, faults, test, validation, stopping, 1, split_seed, prior)
    table = source.table(True)
    table = replace(table, inputs=table.inputs / 16.0) if table.name == "digits" else standard(table, source)
    count = len(table.classes)

    def spoil(targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(split_seed + 1)
        moved = rng.random(len(rows)) < wrong
        return np.where(moved, (targets + rng.integers(1, count, len(rows))) % count, targets)

    def make(single: bool, rows: Sequence[str]) -> Model:
        index = np.zeros(len(rows), dtype=int) if single else np.arange(len(rows))
        labels = ("",) if single else tuple(rows)
        shares = Hyperparameter("weight", 1e-5, 1.0 - 1e-5, 0.5, "logit", index, labels)
        return CleaningModel((shares,), count, l2)

    return assembled("hpo/data-cleaning", source, table, make, compare, spoil if wrong else None)


def mlp(
    *,
    dataset: Classification = "wine",
    data: Path | None = None,
    target: str | None = None,
    drop: tuple[str, ...] = (),
    faults: Faults = "error",
    hidden: int = 8,
    compare: bool = True,
    test: float = 0.25,
    validation: float = 0.25,
    stopping: float = 0.0,
    folds: int = 1,
    split_seed: int = 0,
    prior: float = 0.0,
) -> TuningProblem:
    """A network with one hidden layer: a weight decay for each layer, and label smoothing. Its training is not convex.

    Args:
        dataset: data that ships with scikit-learn
        data: a CSV file of your own in its place
        target: its column with the classes
        drop: its columns to leave out
        faults: whether bad rows and constant columns are an error, or left out
        hidden: units of the hidden layer
        compare: report what one weight decay for both layers reaches, too
        test: share of the rows that is held out for the test
        validation: share of the rows for validation, with one fold
        stopping: share of the rows that say when to stop; 0 for no early stopping
        folds: of cross-validation; 1 for one validation set
        split_seed: of the split
        prior: precision of a normal prior on each log weight decay, and on the log odds of the smoothing; 0 for none
    """
    if hidden < 1:
        raise UsageError(f"Expected at least one hidden unit, got hidden={hidden}.")
    source = Source(dataset, data, target, drop, faults, test, validation, stopping, folds, split_seed, prior)
    table = source.table(True)
    table = standard(table, source)

    def make(single: bool, rows: Sequence[str]) -> Model:
        index: Any = np.zeros(2, dtype=int) if single else np.arange(2)
        labels = ("",) if single else ("hidden layer", "output layer")
        decay = Hyperparameter("weight_decay", 1e-4, 1.0, 1e-2, index=index, labels=labels)
        smooth = Hyperparameter("label_smoothing", 1e-4, 0.5, 0.05, "logit")
        return NetworkModel((decay, smooth), hidden, len(table.classes))

    return assembled("hpo/mlp", source, table, make, compare)
