"""Linear models: squared, logistic, squared-hinge and insensitive losses with L2 and L1 penalties, and hinge losses.

An L1 penalty makes the weights the difference of two that are not negative: a linear term instead of a kink, and what
is zero is a bound that is active. So the core's active set does the differentiation (Bertrand et al. 2020, Implicit
differentiation of Lasso-type models, differentiate the same system). A hinge loss is a quadratic program; its dual has
bounds only, and is what is solved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from bilevel_hpo.hyperparameters import Hyperparameter
from bilevel_hpo.models import DIRECT, Model, Rows, Tensors

Loss = Literal["squared", "softmax", "logistic", "squared-hinge", "squared-insensitive"]


@dataclass(frozen=True, eq=False)
class LinearModel(Model):
    """``mean loss(inputs W + b) + sum l1 |W| + sum l2 W^2 / 2``, in scikit-learn's units.

    Attributes:
        loss: of one row. ``logistic`` and the hinges take one output for two classes, one against the rest for more.
        hyperparameters: by name ``alpha`` (``units="alpha"``: l2 = alpha / rows, as in ridge regression; ``"mean"``: l2
            and l1 per row, as in the elastic net), ``C`` (both divided by C times rows), ``l1_ratio`` (the share of
            l1), or ``l1`` and ``l2`` themselves; ``epsilon`` of the insensitive loss.
        outputs: columns of W.
        units: see above.
        intercept: ``free``, ``penalised`` like a weight (as liblinear does), or ``none``.
        l1_ratio: where it is not tuned.
        epsilon: where it is not tuned.
        C: where it is not tuned.
    """

    convex: ClassVar[bool] = True
    loss: Loss
    hyperparameters: tuple[Hyperparameter, ...]
    outputs: int = 1
    units: Literal["alpha", "mean", "C"] = "alpha"
    intercept: Literal["free", "penalised", "none"] = "free"
    l1_ratio: float = 0.0
    epsilon: float = 0.0
    C: float = 1.0

    @property
    def classifies(self) -> bool:  # type: ignore[override]
        """See `Model`."""
        return self.loss in ("softmax", "logistic", "squared-hinge")

    @property
    def loss_name(self) -> str:  # type: ignore[override]
        """See `Model`."""
        names = {"softmax": "log loss", "logistic": "log loss", "squared-hinge": "squared hinge loss"}
        return names.get(self.loss, "mean squared error")

    @property
    def centred(self) -> bool:
        """See `Model.centred`."""
        return self.intercept == "free"

    @property
    def sparse(self) -> bool:
        """Whether there is an L1 penalty."""
        return self.l1_ratio > 0.0 or any(h.name in ("l1", "l1_ratio") for h in self.hyperparameters)

    @property
    def biases(self) -> int:
        """How many intercepts there are: softmax needs one less than classes, since only differences count."""
        if self.intercept == "none":
            return 0
        return self.outputs - 1 if self.loss == "softmax" and self.intercept == "free" else self.outputs

    def start(self, rows: Rows) -> torch.Tensor:
        """See `Model.start`."""
        count = rows.inputs.shape[1] * self.outputs * (2 if self.sparse else 1)
        return torch.zeros(count + self.biases, dtype=torch.float64)

    def bounds(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See `Model.bounds`."""
        if not self.sparse:
            return None
        low = torch.zeros_like(self.start(rows))
        low[len(low) - self.biases :] = -math.inf
        return low, torch.full_like(low, math.inf)

    def parts(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """W (features, outputs) for scaled inputs, |W| likewise, and the intercepts (outputs,).

        The follower's variables are W with each entry divided by a length that shrinks as its penalty grows, so that
        the Hessian's diagonal stays near 1 whatever the hyperparameters: what a preconditioner would do, by a change of
        variables.
        """
        features = rows.inputs.shape[1]
        count = features * self.outputs
        bias = weights[len(weights) - self.biases :]
        if not self.biases:
            bias = torch.zeros(self.outputs, dtype=weights.dtype, device=weights.device)
        elif self.biases < self.outputs:
            bias = torch.cat([bias, torch.zeros_like(bias[:1])])
        _, l2 = self.penalties(x, len(rows))
        length = torch.rsqrt(1.0 + l2 / rows.size[:, None] ** 2)
        first = weights[:count].reshape(features, self.outputs) * length
        if not self.sparse:
            return first, first.abs(), bias
        second = weights[count : 2 * count].reshape(features, self.outputs) * length
        return first - second, first + second, bias

    def by_moments(self, rows: Rows) -> bool:
        """See `Model.by_moments`."""
        # An intercept with a penalty keeps inputs and targets from being centred, which the moments count on.
        return self.loss == "squared" and self.intercept != "penalised" and len(rows) > rows.inputs.shape[1]

    def objective(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        """See `Model.objective`."""
        rows = rows.on(weights.device)
        w, size, bias = self.parts(x, weights, rows)
        if self.by_moments(rows):
            total = self._moment_loss(w[:, 0], bias[0], rows)
        else:
            total = self._loss(x, rows.inputs @ w + bias, rows)
        l1, l2 = self.penalties(x, len(rows))
        unit = rows.size[:, None]
        total = total + 0.5 * (l2 * (w / unit) ** 2).sum()
        if self.intercept == "penalised":
            total = total + 0.5 * (l2.mean(0) * bias * bias).sum()
        # Dividing targets by their unit divides the weights by it, and the objective by its square.
        return total + (l1 * size / unit).sum() / rows.unit if self.sparse else total

    def _moment_loss(self, w: torch.Tensor, bias: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Half the mean squared error, in a time that does not depend on the number of rows."""
        inputs, products, targets = rows.moments
        total = 0.5 * (w @ (inputs @ w) + targets) - w @ products
        if not self.biases:
            return total
        # Inputs and targets of a model with a free intercept have mean zero: see `Rows.of`.
        assert self.centred
        return total + 0.5 * bias * bias

    def solvable(self, rows: Rows) -> bool:
        """See `Model.solvable`: squared losses without an L1 penalty are."""
        return not self.sparse and self.by_moments(rows) and rows.inputs.shape[1] <= DIRECT

    def closed_form(self, x: Tensors, rows: Rows) -> torch.Tensor:
        """See `Model.closed_form`: the normal equations."""
        inputs, products, _ = rows.moments
        _, l2 = self.penalties(x, len(rows))
        ease = (l2 / rows.size[:, None] ** 2).expand(len(products), 1)[:, 0]
        length = torch.rsqrt(1.0 + ease)  # see `parts`
        matrix = length[:, None] * (inputs + torch.diag(ease)) * length
        weights = torch.linalg.solve_ex(matrix, length * products)[0]
        return torch.cat([weights, torch.zeros_like(weights[:1])]) if self.biases else weights

    def penalties(self, x: Tensors, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """l1 and l2 of each coefficient, (features, outputs) or shapes that broadcast to it."""
        named = {h.name: h.spread(x) for h in self.hyperparameters}
        if "l1" in named or "l2" in named:
            zero = torch.zeros_like(next(iter(x.values()))[:1])
            return named.get("l1", zero), named.get("l2", zero)
        like = next(iter(x.values()))
        ratio = named.get("l1_ratio", torch.as_tensor(self.l1_ratio, dtype=like.dtype, device=like.device))
        if self.units == "C":
            weight = 1.0 / (named["C"] if "C" in named else torch.full_like(like[:1], self.C)) / rows
        else:
            weight = named["alpha"] / (rows if self.units == "alpha" else 1.0)
        return weight * ratio, weight * (1.0 - ratio)

    def _loss(self, x: Tensors, scores: torch.Tensor, rows: Rows) -> torch.Tensor:
        targets = rows.targets
        if self.loss == "squared":
            return 0.5 * ((scores[:, 0] - targets) ** 2).mean()
        if self.loss == "squared-insensitive":
            excess = (scores[:, 0] - targets).abs() - self._epsilon(x) / rows.unit
            return (torch.relu(excess) ** 2).mean()
        return self.validation(scores, targets)

    def _epsilon(self, x: Tensors) -> torch.Tensor | float:
        """Of the insensitive loss."""
        return next((h.spread(x) for h in self.hyperparameters if h.name == "epsilon"), self.epsilon)

    def scores(self, x: Tensors, weights: torch.Tensor, train: Rows, rows: Rows) -> torch.Tensor:
        """See `Model.scores`."""
        train, rows = train.on(weights.device), rows.on(weights.device)
        w, _, bias = self.parts(x, weights, train)
        return rows.inputs @ w + bias

    def validation(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """See `Model.validation`."""
        targets = targets.to(scores.device)
        if self.loss in ("squared", "squared-insensitive"):
            return ((scores[:, 0] - targets) ** 2).mean()
        if self.loss == "softmax":
            return torch.nn.functional.cross_entropy(scores, targets)
        signs = signs_of(targets, self.outputs, scores.dtype)
        if self.loss == "logistic":
            return torch.nn.functional.softplus(-signs * scores).sum(1).mean()
        return (torch.relu(1.0 - signs * scores) ** 2).sum(1).mean()

    def coefficients(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """W and b for inputs and targets as they were before scaling; softmax with intercepts that sum to 0."""
        w, _, bias = self.parts(x, weights, rows)
        w = w / rows.size[:, None] * rows.unit
        bias = bias * rows.unit + rows.origin - rows.shift @ w
        return w, bias - bias.mean() if self.loss == "softmax" and self.intercept == "free" else bias


@dataclass(frozen=True, eq=False)
class HingeModel(LinearModel):
    """Hinge or insensitive loss of first power, by its dual: ``0 <= a <= 1`` for each row and output.

    The primal is ``sum loss + sum W^2 / (2 C) + b^2 / (2 C)``: the intercept is penalised, as in liblinear, so that the
    dual has bounds and no equality. The weights are ``W = C inputs' (signs a)``.

    Source: Hsieh et al. (2008), A dual coordinate descent method for large-scale linear SVM.

    Attributes:
        regression: insensitive loss ``max(0, |r| - epsilon)`` instead of the hinge.
    """

    regression: bool = False

    @property
    def classifies(self) -> bool:  # type: ignore[override]
        """See `Model`."""
        return not self.regression

    def start(self, rows: Rows) -> torch.Tensor:
        """See `Model.start`."""
        return torch.zeros(len(rows) * (2 if self.regression else self.outputs), dtype=torch.float64)

    def bounds(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See `Model.bounds`."""
        zero = self.start(rows)
        return zero, torch.ones_like(zero)

    def objective(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        """See `Model.objective`: the dual, over the rows."""
        rows = rows.on(weights.device)
        w, bias, ease = self._primal(x, weights, rows)
        total = 0.5 * (ease * (w / rows.size[:, None]) ** 2).sum() + 0.5 * (ease.mean(0) * bias * bias).sum()
        if not self.regression:
            return total - weights.sum() / len(rows)
        up, down = weights.view(2, -1)
        epsilon = self._epsilon(x)
        return total - ((up - down) @ rows.targets - (epsilon / rows.unit * (up + down)).sum()) / len(rows)

    def _primal(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """W for scaled inputs, b, and the penalties' weights 1 / (C rows)."""
        _, ease = self.penalties(x, len(rows))
        ease = ease * rows.unit
        if self.regression:
            up, down = weights.view(2, -1)
            push = (up - down)[:, None]
        else:
            push = signs_of(rows.targets, self.outputs, weights.dtype) * weights.view(len(rows), self.outputs)
        w = rows.inputs.T @ push / len(rows) / ease * rows.size[:, None] ** 2
        bias = push.sum(0) / len(rows) / ease.mean(0)
        return w, bias if self.intercept == "penalised" else torch.zeros_like(bias), ease

    def scores(self, x: Tensors, weights: torch.Tensor, train: Rows, rows: Rows) -> torch.Tensor:
        """See `Model.scores`."""
        train, rows = train.on(weights.device), rows.on(weights.device)
        w, bias, _ = self._primal(x, weights, train)
        return rows.inputs @ w + bias

    def coefficients(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """See `LinearModel.coefficients`."""
        w, bias, _ = self._primal(x, weights, rows)
        return w / rows.size[:, None] * rows.unit, bias * rows.unit


def signs_of(targets: torch.Tensor, outputs: int, dtype: torch.dtype) -> torch.Tensor:
    """+1 and -1 by class, shape (rows, outputs): one column for two classes, one against the rest for more."""
    if outputs == 1:
        return (2.0 * targets.to(dtype) - 1.0)[:, None]
    return 2.0 * torch.nn.functional.one_hot(targets, outputs).to(dtype) - 1.0
