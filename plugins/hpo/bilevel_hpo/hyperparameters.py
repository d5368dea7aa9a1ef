"""Hyperparameters as the leader's variables: their scale, their range, and which coefficients each one acts on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from bilevel_core.errors import UsageError
from bilevel_core.problems.tree import Layout

Scope = Literal["single", "feature", "class", "group", "free"]
SCOPES = ("single", "feature", "class", "group", "free")


@dataclass(frozen=True, eq=False)
class Hyperparameter:
    """One named hyperparameter, or one for each feature, class or group under one name.

    The leader's variable is its logarithm (``scale="log"``) or its log-odds (``scale="logit"``), so that steps are
    relative and the value stays in its range by nature.

    Attributes:
        name: what it is called in the model, such as ``alpha``.
        low, high: its range, in its own units.
        start: where the search begins.
        scale: ``log`` for positive quantities, ``logit`` for shares in (0, 1).
        index: shape (features, outputs): the entry of the hyperparameter that each coefficient is regularised by; None
            for a hyperparameter that belongs to the model as a whole.
        labels: what to call its entries; one empty text for a single one.
    """

    name: str
    low: float
    high: float
    start: float
    scale: Literal["log", "logit"] = "log"
    index: np.ndarray | None = None
    labels: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        end = 1.0 if self.scale == "logit" else math.inf
        if not 0.0 < self.low <= self.start <= self.high < end:
            raise UsageError(
                f"Hyperparameter {self.name!r}: expected 0 < low <= start <= high < {end:g}, got low {self.low!r}, "
                f"start {self.start!r}, high {self.high!r}."
            )

    @property
    def variable(self) -> str:
        """The name of the leader's variable: ``log_alpha``, ``logit_l1_ratio``."""
        return f"{self.scale}_{self.name}"

    @property
    def size(self) -> int:
        """How many entries it has."""
        return len(self.labels)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the leader's variable."""
        return self.inverse(self.low), self.inverse(self.high)

    def shared(self) -> Hyperparameter:
        """The same with one entry in place of many."""
        index = None if self.index is None else np.zeros_like(self.index)
        return replace(self, index=index, labels=("",))

    def inverse(self, value: float) -> float:
        """A value in its own units as the leader's variable."""
        return math.log(value) if self.scale == "log" else math.log(value / (1.0 - value))

    def value(self, variable: Any) -> Any:
        """The leader's variable (tensor or array) in the hyperparameter's own units."""
        if isinstance(variable, torch.Tensor):
            return variable.exp() if self.scale == "log" else torch.sigmoid(variable)
        variable = np.asarray(variable, dtype=float)
        return np.exp(variable) if self.scale == "log" else 1.0 / (1.0 + np.exp(-variable))

    def entry(self, within: int) -> str:
        """What its entry of that number is called: ``alpha``, ``alpha[bmi]``."""
        label = self.labels[within]
        return f"{self.name}[{label}]" if label else self.name

    def spread(self, x: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Its values for each coefficient, shape (features, outputs); shape (1,) without an index."""
        values = self.value(x[self.variable])
        if self.index is None:
            return values
        return values[torch.as_tensor(self.index, device=values.device)]


def index_of(
    scope: str,
    features: Sequence[str],
    outputs: Sequence[str],
    groups: Sequence[Any] | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which entry of a hyperparameter each coefficient belongs to, and what the entries are called.

    Args:
        scope: ``single``, one for each ``feature``, ``class``, ``group`` of features, or coefficient (``free``).
        features, outputs: names.
        groups: for ``group``: the group of each feature.

    Raises:
        UsageError: an unknown scope, or groups that do not fit.
    """
    d, c = len(features), len(outputs)
    if scope == "single":
        return np.zeros((d, c), dtype=int), ("",)
    if scope == "feature":
        return np.repeat(np.arange(d)[:, None], c, axis=1), tuple(features)
    if scope == "class":
        return np.repeat(np.arange(c)[None, :], d, axis=0), tuple(outputs)
    if scope == "free":
        labels = tuple(f if c == 1 else f"{f}, {o}" for f in features for o in outputs)
        return np.arange(d * c).reshape(d, c), labels
    if scope != "group":
        raise UsageError(f"There is no scope {scope!r} for a hyperparameter. Known: {', '.join(SCOPES)}.")
    if groups is None or len(groups) != d:
        got = "none" if groups is None else f"{len(groups)} of them"
        raise UsageError(f"Scope 'group' needs the group of each of the {d} features; got {got}: pass groups=[...].")
    names = list(dict.fromkeys(str(g) for g in groups))
    place = np.array([names.index(str(g)) for g in groups])
    return np.repeat(place[:, None], c, axis=1), tuple(names)


def entry_of(hyperparameters: Sequence[Hyperparameter], layout: Layout, k: int, value: float) -> tuple[str, float]:
    """What logs call an entry of the leader's variables, and the value in the hyperparameter's own units."""
    leaf, within = layout.place(k)
    (mine,) = (h for h in hyperparameters if h.variable == leaf.name)
    return mine.entry(within), float(mine.value(value))
