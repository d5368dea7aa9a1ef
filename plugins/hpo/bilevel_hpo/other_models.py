"""Models that are not linear ones with penalties: kernel ridge regression, weighted rows, and a small network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from bilevel_hpo.hyperparameters import Hyperparameter
from bilevel_hpo.models import DIRECT, Model, Rows, Tensors


@dataclass(frozen=True, eq=False)
class KernelRidgeModel(Model):
    """``(K + alpha I) c = t`` with the Gaussian kernel ``exp(-gamma |u - v|^2)``, in scikit-learn's units.

    Solved as the minimum of a quadratic. No intercept, as in scikit-learn.

    Attributes:
        alpha, gamma: where they are not tuned.
    """

    convex: ClassVar[bool] = True
    hyperparameters: tuple[Hyperparameter, ...]
    alpha: float = 1.0
    gamma: float = 1.0
    loss_name: str = "mean squared error"
    classifies: bool = False

    def start(self, rows: Rows) -> torch.Tensor:
        """See `Model.start`."""
        return torch.zeros(len(rows), dtype=torch.float64)

    def _value(self, name: str, x: Tensors) -> torch.Tensor:
        found = next((h for h in self.hyperparameters if h.name == name), None)
        return torch.tensor([getattr(self, name)], dtype=torch.float64) if found is None else found.spread(x)

    def _kernel(self, x: Tensors, a: Rows, b: Rows) -> torch.Tensor:
        u, v = a.inputs * a.size + a.shift, b.inputs * b.size + b.shift
        squares = (u * u).sum(1)[:, None] + (v * v).sum(1)[None, :] - 2.0 * u @ v.T
        return torch.exp(-self._value("gamma", x).to(u.device) * squares.clamp(min=0.0))

    def objective(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        """See `Model.objective`."""
        rows = rows.on(weights.device)
        pulled = self._kernel(x, rows, rows) @ weights + self._value("alpha", x).to(weights) * weights
        return (0.5 * weights @ pulled - weights @ rows.targets) / len(rows)

    def solvable(self, rows: Rows) -> bool:
        """See `Model.solvable`."""
        return len(rows) <= DIRECT

    def closed_form(self, x: Tensors, rows: Rows) -> torch.Tensor:
        """See `Model.closed_form`."""
        alpha = self._value("alpha", x).to(rows.inputs)
        eye = torch.eye(len(rows), dtype=alpha.dtype, device=alpha.device)
        return torch.linalg.solve_ex(self._kernel(x, rows, rows) + alpha * eye, rows.targets)[0]

    def scores(self, x: Tensors, weights: torch.Tensor, train: Rows, rows: Rows) -> torch.Tensor:
        """See `Model.scores`."""
        train, rows = train.on(weights.device), rows.on(weights.device)
        return (self._kernel(x, rows, train) @ weights)[:, None]

    def validation(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """See `Model.validation`."""
        return ((scores[:, 0] - targets.to(scores)) ** 2).mean()


@dataclass(frozen=True, eq=False)
class CleaningModel(Model):
    """Softmax regression with a weight for each training row: rows whose labels are wrong should get none.

    Source: Franceschi et al. (2017), Forward and reverse gradient-based hyperparameter optimization, section 5.1.

    Attributes:
        outputs: classes.
        l2: weight of the squared coefficients; fixed.
    """

    refits: ClassVar[bool] = False
    convex: ClassVar[bool] = True
    hyperparameters: tuple[Hyperparameter, ...]
    outputs: int
    l2: float = 1e-3
    loss_name: str = "log loss"
    classifies: bool = True

    @property
    def centred(self) -> bool:
        """See `Model.centred`."""
        return True

    def start(self, rows: Rows) -> torch.Tensor:
        """See `Model.start`."""
        return torch.zeros((rows.inputs.shape[1] + 1) * self.outputs - 1, dtype=torch.float64)

    def _apply(self, weights: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        count = rows.inputs.shape[1] * self.outputs
        w = weights[:count].reshape(-1, self.outputs)
        bias = torch.cat([weights[count:], torch.zeros_like(weights[:1])])
        return rows.inputs @ w + bias, w

    def objective(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        """See `Model.objective`."""
        rows = rows.on(weights.device)
        scores, _ = self._apply(weights, rows)
        losses = torch.nn.functional.cross_entropy(scores, rows.targets, reduction="none")
        (shares,) = self.hyperparameters
        return (shares.spread(x) * losses).mean() + 0.5 * self.l2 * (weights * weights).sum()

    def scores(self, x: Tensors, weights: torch.Tensor, train: Rows, rows: Rows) -> torch.Tensor:
        """See `Model.scores`."""
        return self._apply(weights, rows.on(weights.device))[0]

    def validation(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """See `Model.validation`."""
        return torch.nn.functional.cross_entropy(scores, targets.to(scores.device))


@dataclass(frozen=True, eq=False)
class NetworkModel(Model):
    """A network with one hidden layer of tanh units; weight decay by layer, and label smoothing for classes.

    Not convex: its answers are local minima, the one that training reaches from a fixed random start.

    Attributes:
        hidden: units.
        outputs: classes; 1 for numbers, whose targets ought to be of size 1.
        seed: of the starting weights.
    """

    hyperparameters: tuple[Hyperparameter, ...]
    hidden: int
    outputs: int
    seed: int = 0

    @property
    def classifies(self) -> bool:  # type: ignore[override]
        """See `Model`."""
        return self.outputs > 1

    @property
    def loss_name(self) -> str:  # type: ignore[override]
        """See `Model`."""
        return "log loss" if self.classifies else "mean squared error"

    @property
    def centred(self) -> bool:
        """See `Model.centred`: here scaled inputs are part of the model."""
        return True

    def start(self, rows: Rows) -> torch.Tensor:
        """See `Model.start`."""
        d, h, c = rows.inputs.shape[1], self.hidden, self.outputs
        generator = torch.Generator().manual_seed(self.seed)
        first = torch.randn(d * h, generator=generator, dtype=torch.float64) / math.sqrt(d)
        second = torch.randn(h * c, generator=generator, dtype=torch.float64) / math.sqrt(h)
        return torch.cat([first, second, torch.zeros(h + c, dtype=torch.float64)])

    def _layers(self, weights: torch.Tensor, features: int) -> tuple[torch.Tensor, ...]:
        h, c = self.hidden, self.outputs
        first, second, a, b = weights.split([features * h, h * c, h, c])
        return first.view(features, h), second.view(h, c), a, b

    def objective(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        """See `Model.objective`. Intercepts are decayed with their layer: no direction is flat."""
        rows = rows.on(weights.device)
        named = {h.name: h.spread(x) for h in self.hyperparameters}
        first, second, a, b = self._layers(weights, rows.inputs.shape[1])
        scores = torch.tanh(rows.inputs @ first + a) @ second + b
        if self.classifies:
            logs = torch.log_softmax(scores, 1)
            right = logs.gather(1, rows.targets[:, None])[:, 0]
            smooth = named["label_smoothing"]
            loss = -((1.0 - smooth) * right + smooth * logs.mean(1)).mean()
        else:
            loss = 0.5 * ((scores[:, 0] - rows.targets) ** 2).mean()
        decay = named["weight_decay"]
        squares = torch.stack([(first * first).sum() + a @ a, (second * second).sum() + b @ b])
        return loss + 0.5 * (decay * squares).sum()

    def scores(self, x: Tensors, weights: torch.Tensor, train: Rows, rows: Rows) -> torch.Tensor:
        """See `Model.scores`."""
        rows = rows.on(weights.device)
        first, second, a, b = self._layers(weights, rows.inputs.shape[1])
        return torch.tanh(rows.inputs @ first + a) @ second + b

    def validation(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """See `Model.validation`."""
        if self.classifies:
            return torch.nn.functional.cross_entropy(scores, targets.to(scores.device))
        return ((scores[:, 0] - targets.to(scores)) ** 2).mean()
