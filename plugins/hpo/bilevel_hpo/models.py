"""What every model that is tuned has to say of itself: its training objective, its predictions, its validation loss.

A model is the follower: at fixed hyperparameters its weights are what minimises `Model.objective`, which is
twice differentiable; kinks are bounds. All but the network's are convex, so that the answer is the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from bilevel_hpo.hyperparameters import Hyperparameter

Tensors = Mapping[str, torch.Tensor]


DIRECT = 1000
"""Weights up to which a linear system for them is solved by factorisation."""
UNEVEN = 1e3
"""Ratio of the columns' sizes from which each is brought to its own scale, and not all to one."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of data, in units in which solves are well conditioned; penalties are in the user's units all the same.

    Attributes:
        inputs: shape (rows, features), with ``shift`` taken away and divided by ``size``.
        targets: numbers less ``origin`` and divided by ``unit``, or class numbers as integers; shape (rows,).
        shift, size: of each column, shape (features,).
        origin, unit: of the targets; 0 and 1 for classes.
        known: the `moments`, where they have been computed.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    shift: torch.Tensor
    size: torch.Tensor
    origin: float = 0.0
    unit: float = 1.0
    known: tuple[torch.Tensor, ...] | None = None
    _moved: dict[Any, Rows] = field(default_factory=dict[Any, "Rows"], repr=False)

    @classmethod
    def of(cls, inputs: np.ndarray, targets: np.ndarray, *, centred: bool, unit: float = 1.0) -> Rows:
        """Rows with their own columns' scale.

        Args:
            inputs: shape (rows, features).
            targets: shape (rows,).
            centred: whether means may be taken away.
            unit: of targets that are numbers.
        """
        x = np.asarray(inputs, dtype=float)
        shift = x.mean(axis=0) if centred else np.zeros(x.shape[1])
        size = np.sqrt(np.mean((x - shift) ** 2, axis=0))
        varied = size > 1e-12 * np.abs(x).max(axis=0, initial=0.0)
        common = float(np.sqrt(np.mean(size[varied] ** 2))) if varied.any() else 1.0
        even = not varied.any() or size[varied].max() <= UNEVEN * size[varied].min()
        size = np.where(varied & (not even), size, common)
        whole = np.issubdtype(np.asarray(targets).dtype, np.integer)
        origin = float(np.mean(targets)) if centred and not whole else 0.0
        return cls._scaled(x, targets, torch.tensor(shift), torch.tensor(size), origin, 1.0 if whole else unit)

    @classmethod
    def made(cls, tensors: Sequence[torch.Tensor], origin: float, unit: float) -> Rows:
        """Rows of `tensors` that are in their own scale already."""
        inputs, targets, shift, size, *known = tensors
        return cls(inputs, targets, shift, size, origin, unit, tuple(known) or None)

    @classmethod
    def _scaled(
        cls,
        inputs: np.ndarray,
        targets: np.ndarray,
        shift: torch.Tensor,
        size: torch.Tensor,
        origin: float,
        unit: float,
    ) -> Rows:
        x = (torch.tensor(np.asarray(inputs, dtype=float)) - shift) / size
        goals = torch.tensor(np.asarray(targets))
        return cls(x, (goals - origin) / unit if goals.is_floating_point() else goals, shift, size, origin, unit)

    def like(self, inputs: np.ndarray, targets: np.ndarray) -> Rows:
        """Other rows in the scale of these: validation and test rows."""
        return Rows._scaled(inputs, targets, self.shift, self.size, self.origin, self.unit)

    def on(self, device: torch.device) -> Rows:
        """The same rows on a device."""
        if device == self.inputs.device:
            return self
        if device not in self._moved:
            self._moved[device] = Rows.made([p.to(device) for p in self.tensors], self.origin, self.unit)
        return self._moved[device]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All that is a tensor, in the order of the attributes."""
        return self.inputs, self.targets, self.shift, self.size, *(self.known or ())

    @cached_property
    def moments(self) -> tuple[torch.Tensor, ...]:
        """Second moments of the inputs, (features, features), of inputs with targets, and of targets: means over rows.

        All that a squared loss needs to know of rows that are many.
        """
        if self.known is not None:
            return self.known
        n = len(self)
        return self.inputs.T @ self.inputs / n, self.inputs.T @ self.targets / n, self.targets @ self.targets / n

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, eq=False)
class Fold:
    """One training set and the rows that judge it."""

    train: Rows
    validation: Rows


class Model(ABC):
    """A model whose hyperparameters are tuned.

    Attributes:
        hyperparameters: what is tuned, in the order of the leader's variables.
        loss_name: what `validation` is called in reports.
        classifies: whether targets are class numbers.
        refits: whether hyperparameters make sense for other training rows, too.
        convex: whether `objective` is known to be convex in the weights, at all hyperparameters.
    """

    refits: ClassVar[bool] = True
    convex: ClassVar[bool] = False
    hyperparameters: tuple[Hyperparameter, ...]
    loss_name: str
    classifies: bool

    @property
    def centred(self) -> bool:
        """Whether inputs may be shifted: only where an intercept without a penalty takes it up."""
        return False

    @abstractmethod
    def start(self, rows: Rows) -> torch.Tensor:
        """Where training begins: a flat vector of weights."""

    def bounds(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Lower and upper bounds of the weights, of the shape of `start`; None for none."""
        return None

    def by_moments(self, rows: Rows) -> bool:
        """Whether `objective` goes by the rows' moments alone."""
        return False

    @abstractmethod
    def objective(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        """The training objective that the follower minimises, a mean over the rows and penalties."""

    def solvable(self, rows: Rows) -> bool:
        """Whether there is a `closed_form`."""
        return False

    def closed_form(self, x: Tensors, rows: Rows) -> torch.Tensor:
        """The weights that minimise `objective`, by a formula."""
        raise NotImplementedError

    @abstractmethod
    def scores(self, x: Tensors, weights: torch.Tensor, train: Rows, rows: Rows) -> torch.Tensor:
        """Predictions for some rows, shape (rows, outputs), by weights that were trained on ``train``."""

    @abstractmethod
    def validation(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The smooth loss that the leader minimises, a mean over the rows."""

    def remarks(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> dict[str, Any]:
        """What a report should say of trained weights besides losses, numbers by name; nothing by default."""
        return {}

    def accuracy(self, scores: torch.Tensor, targets: torch.Tensor) -> float | None:
        """The share of rows with the right class; None for models of numbers."""
        if not self.classifies:
            return None
        found = scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0.0).long()
        return float((found == targets).double().mean())

    def variables(self) -> tuple[dict[str, torch.Tensor], tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
        """The leader's start, and bounds of the same structure; float64."""

        def full(h: Hyperparameter, value: float) -> torch.Tensor:
            return torch.full((h.size,), value, dtype=torch.float64)

        start = {h.variable: full(h, h.inverse(h.start)) for h in self.hyperparameters}
        low = {h.variable: full(h, h.bounds[0]) for h in self.hyperparameters}
        high = {h.variable: full(h, h.bounds[1]) for h in self.hyperparameters}
        return start, (low, high)
