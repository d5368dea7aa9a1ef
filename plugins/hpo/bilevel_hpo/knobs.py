"""Hyperparameters of training a network, by name: what each one does to inputs, losses and penalties."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from bilevel_core.errors import UsageError
from bilevel_hpo.hyperparameters import Hyperparameter


class Knob(ABC):
    """One named hyperparameter of `TrainingProblem`, with one entry or many.

    A hyperparameter of your own overrides `entries` and what it changes.

    Attributes:
        needs_rows: whether batches must carry row numbers.
    """

    needs_rows: ClassVar[bool] = False

    @abstractmethod
    def entries(self, module: torch.nn.Module) -> Hyperparameter:
        """Its name, range and entries for a module."""

    def inputs(self, value: torch.Tensor, inputs: Any) -> Any:
        """The inputs that training sees."""
        return inputs

    def losses(self, value: torch.Tensor, losses: torch.Tensor, outputs: Any, targets: Any, rows: Any) -> torch.Tensor:
        """The loss of each row, shape (rows,)."""
        return losses

    def penalty(self, value: torch.Tensor, y: Any) -> torch.Tensor | float:
        """What is added to the mean loss; ``y.named_parameters()`` are the weights."""
        return 0.0


@dataclass(frozen=True)
class WeightDecay(Knob):
    """``value / 2 * |w|^2``.

    Attributes:
        per: one for all weights (``single``), for each parameter tensor (``tensor``), or each number (``weight``).
        low, high, start: range.
        name: of the hyperparameter.
    """

    per: Literal["single", "tensor", "weight"] = "tensor"
    low: float = 1e-6
    high: float = 1e2
    start: float = 1e-3
    name: str = "weight_decay"

    def entries(self, module: torch.nn.Module) -> Hyperparameter:
        """See `Knob.entries`."""
        trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        if self.per == "single":
            labels: tuple[str, ...] = ("",)
        elif self.per == "tensor":
            labels = tuple(n for n, _ in trained)
        elif self.per == "weight":
            labels = tuple(f"{n}:{k}" for n, p in trained for k in range(p.numel()))
        else:
            raise UsageError(f"WeightDecay: expected per = single, tensor or weight, got {self.per!r}.")
        return Hyperparameter(self.name, self.low, self.high, self.start, labels=labels)

    def penalty(self, value: torch.Tensor, y: Any) -> torch.Tensor:
        """See `Knob.penalty`."""
        squares = [p.reshape(-1) ** 2 for _, p in y.named_parameters()]
        if self.per == "weight":
            return 0.5 * (value * torch.cat(squares)).sum()
        return 0.5 * (value * torch.stack([s.sum() for s in squares])).sum()


@dataclass(frozen=True)
class SampleWeights(Knob):
    """A weight in (0, 1) for each training row, or each group of rows; batches carry the row numbers.

    Attributes:
        count: rows, or groups if the numbers are those of groups.
        low, high, start: range.
        name: of the hyperparameter.
    """

    needs_rows: ClassVar[bool] = True
    count: int
    low: float = 1e-4
    high: float = 1.0 - 1e-4
    start: float = 0.5
    name: str = "sample_weight"

    def entries(self, module: torch.nn.Module) -> Hyperparameter:
        """See `Knob.entries`."""
        labels = tuple(f"row {k}" for k in range(self.count))
        return Hyperparameter(self.name, self.low, self.high, self.start, "logit", labels=labels)

    def losses(self, value: torch.Tensor, losses: torch.Tensor, outputs: Any, targets: Any, rows: Any) -> torch.Tensor:
        """See `Knob.losses`."""
        return value[rows] * losses


@dataclass(frozen=True)
class LabelSmoothing(Knob):
    """``(1 - value) loss + value * mean over classes of -log p``, for outputs that are logits."""

    low: float = 1e-4
    high: float = 0.5
    start: float = 0.05
    name: str = "label_smoothing"

    def entries(self, module: torch.nn.Module) -> Hyperparameter:
        """See `Knob.entries`."""
        return Hyperparameter(self.name, self.low, self.high, self.start, "logit")

    def losses(self, value: torch.Tensor, losses: torch.Tensor, outputs: Any, targets: Any, rows: Any) -> torch.Tensor:
        """See `Knob.losses`."""
        return (1.0 - value) * losses - value * torch.log_softmax(outputs, 1).mean(1)


@dataclass(frozen=True)
class LossMixing(Knob):
    """Further losses of (outputs, targets), one value a row, each with a positive weight; the main one has weight 1."""

    others: Mapping[str, Callable[[Any, Any], torch.Tensor]]
    low: float = 1e-4
    high: float = 1e2
    start: float = 0.1
    name: str = "loss_weight"

    def entries(self, module: torch.nn.Module) -> Hyperparameter:
        """See `Knob.entries`."""
        return Hyperparameter(self.name, self.low, self.high, self.start, labels=tuple(self.others))

    def losses(self, value: torch.Tensor, losses: torch.Tensor, outputs: Any, targets: Any, rows: Any) -> torch.Tensor:
        """See `Knob.losses`."""
        return losses + sum(w * f(outputs, targets) for w, f in zip(value, self.others.values(), strict=True))


@dataclass(frozen=True)
class Augmentation(Knob):
    """Inputs changed by ``function(inputs, strength)``, which must be differentiable by the strength.

    What it draws from torch's random state is frozen for a run, as the core does with dropout.
    """

    function: Callable[[Any, torch.Tensor], Any]
    low: float = 1e-3
    high: float = 10.0
    start: float = 0.1
    name: str = "augmentation"

    def entries(self, module: torch.nn.Module) -> Hyperparameter:
        """See `Knob.entries`."""
        return Hyperparameter(self.name, self.low, self.high, self.start)

    def inputs(self, value: torch.Tensor, inputs: Any) -> Any:
        """See `Knob.inputs`."""
        return self.function(inputs, value)
