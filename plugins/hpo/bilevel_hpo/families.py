"""scikit-learn's estimators as models that can be tuned: which parameters, which ranges, and the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from bilevel_core.errors import UsageError, unknown
from bilevel_hpo.hyperparameters import Hyperparameter, index_of
from bilevel_hpo.linear import HingeModel, LinearModel
from bilevel_hpo.models import Model, Rows
from bilevel_hpo.other_models import KernelRidgeModel
from bilevel_hpo.smoothed import SmoothedHingeModel


class TuningError(UsageError, ValueError):
    """What is asked of `BilevelSearchCV` cannot be: an estimator, a hyperparameter or data. Also a ValueError."""


@dataclass(frozen=True)
class Range:
    """Where a parameter is searched: its range, where the search begins, and the scale."""

    low: float
    high: float
    start: float
    scale: Any = "log"


@dataclass(frozen=True, eq=False)
class Data:
    """What ranges and names depend on.

    Attributes:
        inputs, targets: all rows; classes as numbers.
        features: names of the columns.
        classes: labels; empty for numbers.
        groups: the group of each feature, or None.
    """

    inputs: np.ndarray
    targets: np.ndarray
    features: tuple[str, ...]
    classes: tuple[Any, ...] = ()
    groups: Sequence[Any] | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the columns of coefficients: one for two classes."""
        if not self.classes:
            return ("target",)
        names = tuple(str(c) for c in self.classes)
        return names if len(names) > 2 else names[1:]

    @property
    def largest_l1(self) -> float:
        """The alpha from which a lasso has no coefficient that is not zero."""
        centred = self.inputs - self.inputs.mean(axis=0)
        slope = np.abs(centred.T @ (self.targets - self.targets.mean())).max(initial=0.0) / len(self.targets)
        return float(slope) or 1.0


FIRST_POWER = ("hinge", "epsilon_insensitive")
"""Losses of LinearSVC and LinearSVR that have a kink."""
FAMILIES = ("Ridge", "Lasso", "ElasticNet", "LogisticRegression", "LinearSVC", "LinearSVR", "KernelRidge")


def family_name(estimator: Any) -> str:
    """Which of `FAMILIES` an estimator is.

    Raises:
        TuningError: none of them.
    """
    for kind in type(estimator).__mro__:
        if kind.__module__.startswith("sklearn.") and kind.__name__ in FAMILIES:
            return kind.__name__
    raise TuningError(
        f"There is no hypergradient for {type(estimator).__name__}. Take one of {', '.join(FAMILIES)}, alone or at the "
        "end of a Pipeline, or sample (scikit-learn's own searches, Optuna)."
    )


def defaults(estimator: Any, data: Data) -> dict[str, Range]:
    """The parameters of an estimator that can be tuned, with their ranges; the first are tuned by default."""
    name = family_name(estimator)
    if name == "Ridge":
        return {"alpha": _around(1e-4, 1e6, estimator.alpha)}
    if name in ("Lasso", "ElasticNet"):
        top = data.largest_l1
        found = {"alpha": Range(1e-4 * top, top, 0.03 * top)}
        return found | ({"l1_ratio": Range(0.01, 0.99, 0.5, "logit")} if name == "ElasticNet" else {})
    if name == "KernelRidge":
        width = estimator.gamma or 1.0 / (data.inputs.shape[1] * (float(data.inputs.var()) or 1.0))
        return {"alpha": _around(1e-4, 1e4, estimator.alpha), "gamma": Range(1e-3 * width, 1e3 * width, width)}
    found = {"C": _around(1e-4, 1e4, estimator.C)}
    if name == "LogisticRegression" and 0.0 < _l1_share(estimator) < 1.0:
        found["l1_ratio"] = Range(0.01, 0.99, min(0.99, max(0.01, _l1_share(estimator))), "logit")
    if name == "LinearSVR":
        spread = float(np.std(data.targets)) or 1.0
        found["epsilon"] = Range(1e-4 * spread, spread, min(spread, max(1e-2 * spread, estimator.epsilon)))
    return found


def model_of(
    estimator: Any,
    tuned: Mapping[str, Any] | Sequence[str] | None,
    data: Data,
    smoothing: float | None = None,
) -> Model:
    """The model of an estimator.

    Args:
        estimator: an estimator of a family; its other parameters are kept.
        tuned: names of hyperparameters, or name -> scope, or name -> (scope, low, high); None for the estimator's
            regularisers, one of each.
        data: what ranges depend on.
        smoothing: width of a smoothed hinge in place of one of first power; None for that itself.

    Raises:
        TuningError: a parameter that cannot be tuned, a scope or range that cannot be, or a setting of the estimator's
            that has no model here; a width that is not positive, or where there is nothing to smooth.
    """
    ranges = defaults(estimator, data)
    name = family_name(estimator)
    _refuse(estimator, name)
    if smoothing is not None and getattr(estimator, "loss", "") not in FIRST_POWER:
        raise TuningError(
            f"smoothing={smoothing!r} would have no effect on {estimator!r}: only LinearSVC(loss='hinge') and "
            "LinearSVR(loss='epsilon_insensitive') have a kink to smooth. Leave it out."
        )
    asked: dict[str, Any] = {}
    if tuned is None:
        asked = dict.fromkeys(ranges if name != "LinearSVR" else ["C"], "single")
    else:
        asked = dict(tuned) if isinstance(tuned, Mapping) else dict.fromkeys(tuned, "single")
    if not asked:
        raise TuningError("Nothing to tune: hyperparameters is empty. Leave it out for the estimator's regularisers.")
    found: list[Hyperparameter] = []
    for parameter, wish in asked.items():
        if parameter not in ranges:
            error = unknown("hyperparameter", parameter, ranges)
            raise TuningError(f"{error} Others of {name} can be tried from a list: choices={{{parameter!r}: [...]}}.")
        found.append(_hyperparameter(parameter, wish, ranges[parameter], name, data))
    _check_fixed(estimator, name, asked)
    try:
        return _built(estimator, name, tuple(found), data, smoothing)
    except UsageError as error:
        raise error if isinstance(error, TuningError) else TuningError(f"smoothing: {error}") from error


def _hyperparameter(parameter: str, wish: Any, given: Range, family: str, data: Data) -> Hyperparameter:
    parts = (wish,) if isinstance(wish, str) else tuple(wish)
    if len(parts) not in (1, 3) or not isinstance(parts[0], str):
        raise TuningError(f"hyperparameters[{parameter!r}]: expected a scope or (scope, low, high), got {wish!r}.")
    low, high = (given.low, given.high) if len(parts) == 1 else (float(parts[1]), float(parts[2]))
    single = parts[0] == "single"
    if not single and (parameter not in ("alpha", "C") or family == "KernelRidge"):
        raise TuningError(f"hyperparameters[{parameter!r}]: there is one for the whole model; got scope {parts[0]!r}.")
    try:
        index, labels = index_of(parts[0], data.features, data.outputs, data.groups)
        whole = single and (parameter not in ("alpha", "C") or family == "KernelRidge")
        start = min(high, max(low, given.start))
        return Hyperparameter(parameter, low, high, start, given.scale, None if whole else index, labels)
    except UsageError as error:
        raise TuningError(str(error)) from error


def _built(estimator: Any, name: str, tuned: tuple[Hyperparameter, ...], data: Data, smoothing: float | None) -> Model:
    if name == "KernelRidge":
        gamma = estimator.gamma or 1.0 / data.inputs.shape[1]
        return KernelRidgeModel(tuned, alpha=float(estimator.alpha), gamma=float(gamma))
    free: Any = "free" if estimator.fit_intercept else "none"
    if name == "Ridge":
        return LinearModel("squared", tuned, units="alpha", intercept=free)
    fixed = {h.name for h in tuned}
    if name in ("Lasso", "ElasticNet"):
        ratio = 1.0 if name == "Lasso" else float(estimator.l1_ratio)
        if "alpha" not in fixed:
            raise TuningError(f"{name}: tune alpha along with l1_ratio.")
        return LinearModel("squared", tuned, units="mean", intercept=free, l1_ratio=ratio)
    count = len(data.outputs)
    penalised: Any = "penalised" if estimator.fit_intercept else "none"
    common: dict[str, Any] = {"outputs": count, "units": "C", "C": float(estimator.C)}
    if name == "LogisticRegression":
        loss = "softmax" if count > 1 else "logistic"
        liblinear = estimator.solver == "liblinear"
        return LinearModel(
            loss, tuned, intercept=penalised if liblinear else free, l1_ratio=_l1_share(estimator), **common
        )
    common["intercept"] = penalised
    loss = "squared-hinge" if name == "LinearSVC" else "squared-insensitive"
    if name == "LinearSVR":
        common["epsilon"] = float(estimator.epsilon)
    if estimator.loss not in FIRST_POWER:
        return LinearModel(loss, tuned, **common)
    if smoothing is not None:
        return SmoothedHingeModel(loss, tuned, regression=name == "LinearSVR", width=smoothing, **common)
    return HingeModel(loss, tuned, regression=name == "LinearSVR", **common)


def _l1_share(estimator: Any) -> float:
    """The share of L1 in a logistic regression's penalty, by ``penalty`` where it is given and by ``l1_ratio``."""
    penalty = getattr(estimator, "penalty", "deprecated")
    if penalty in ("l1", "l2"):
        return float(penalty == "l1")
    return float(estimator.l1_ratio or 0.0)


def _refuse(estimator: Any, name: str) -> None:
    """Settings without a model here."""
    allowed: dict[str, tuple[Any, ...]] = {"positive": (False,), "class_weight": (None,), "intercept_scaling": (1,)}
    if name == "KernelRidge":
        allowed["kernel"] = ("rbf",)
    if name == "LinearSVC":
        allowed |= {"penalty": ("l2",), "multi_class": ("ovr",)}
    if name == "LogisticRegression":
        allowed["penalty"] = ("l1", "l2", "elasticnet", "deprecated")
    for parameter, values in allowed.items():
        value: Any = getattr(estimator, parameter, values[0])
        if value not in values:
            raise TuningError(
                f"{name}({parameter}={value!r}) has no hypergradient here. Expected {parameter} = "
                f"{' or '.join(repr(v) for v in values)}."
            )
    alpha: Any = getattr(estimator, "alpha", 1.0)
    if not np.isscalar(alpha):
        raise TuningError(f"{name}: expected a number for alpha, got {type(alpha).__name__}.")


def _check_fixed(estimator: Any, name: str, tuned: Mapping[str, Any]) -> None:
    """Numbers of the estimator's that are kept: where they are wrong training has no minimum, or many."""
    wanted: list[tuple[str, str, bool]] = []
    for parameter in ("C", "alpha", "gamma"):
        value: Any = getattr(estimator, parameter, None)
        wanted += [(parameter, "a positive number", value is None or value > 0.0)]
    share: Any = getattr(estimator, "l1_ratio", None)
    wanted += [("l1_ratio", "a number from 0 to 1", share is None or 0.0 <= share <= 1.0)]
    width: Any = getattr(estimator, "epsilon", None)
    wanted += [("epsilon", "a number of at least 0", width is None or width >= 0.0)]
    for parameter, what, right in wanted:
        if parameter not in tuned and not right:
            raise TuningError(f"{name}: expected {what} for {parameter}, got {getattr(estimator, parameter)!r}.")


def _around(low: float, high: float, start: Any) -> Range:
    value = float(start) if math.isfinite(start) else high
    return Range(low, high, min(high, max(low, value)))


def write(estimator: Any, model: Model, x: Any, weights: torch.Tensor, rows: Rows, data: Data) -> Any:
    """Put trained weights into an estimator that has not been fitted, as its own ``fit`` would have.

    Args:
        estimator: a clone.
        model: its model.
        x: hyperparameters, as the model's functions take them.
        weights: trained on ``rows``.
        rows: training rows in the model's scale.
        data: labels of classes.
    """
    features = rows.inputs.shape[1]
    with torch.no_grad():
        if isinstance(model, KernelRidgeModel):
            estimator.dual_coef_ = weights.numpy().copy()
            estimator.X_fit_ = (rows.inputs * rows.size + rows.shift).numpy()
        else:
            w, bias = cast("LinearModel", model).coefficients(x, weights, rows)
            flat = not data.classes
            estimator.coef_ = w[:, 0].numpy().copy() if flat else w.T.numpy().copy()
            estimator.intercept_ = float(bias[0]) if flat else bias.numpy().copy()
    if data.classes:
        estimator.classes_ = np.array(data.classes)
    estimator.n_features_in_ = features
    estimator.n_iter_ = np.array([1])
    return estimator
