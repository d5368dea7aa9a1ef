"""Smoothed hinge and insensitive losses: no kink, so that the tuned loss has a derivative everywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from bilevel_core.errors import UsageError
from bilevel_hpo.linear import LinearModel, signs_of
from bilevel_hpo.models import Rows, Tensors


@dataclass(frozen=True, eq=False)
class SmoothedHingeModel(LinearModel):
    """`HingeModel` with ``max(0, v)`` replaced by ``width log(1 + exp(v / width))``, and solved in the weights.

    That lies above ``max(0, v)``, by ``width log 2`` at most. So the hinge's objective at the smoothed answer exceeds
    its minimum by no more than `bound`.

    Source: Lee and Mangasarian (2001), SSVM: a smooth support vector machine, for the smoothing function.

    Attributes:
        regression: insensitive loss ``max(0, |r| - epsilon)`` instead of the hinge.
        width: of the smoothing: in units of the margin, 1; with ``regression`` in the targets' units.

    Raises:
        UsageError: a width that is no positive number.
    """

    regression: bool = False
    width: float = 0.1

    def __post_init__(self) -> None:
        given: Any = self.width
        if isinstance(given, bool) or not isinstance(given, Real) or not 0.0 < float(given) < math.inf:
            raise UsageError(f"Expected the width of the smoothing as a positive number, got {self.width!r}.")

    @property
    def classifies(self) -> bool:  # type: ignore[override]
        """See `Model`."""
        return not self.regression

    def _loss(self, x: Tensors, scores: torch.Tensor, rows: Rows) -> torch.Tensor:
        return self.mean_loss(x, scores, rows, self.width)

    def mean_loss(self, x: Tensors, scores: torch.Tensor, rows: Rows, width: float) -> torch.Tensor:
        """The mean loss over the rows in the units of `LinearModel.objective`; width 0 for the hinge itself."""
        if not self.regression:
            signs = signs_of(rows.targets, self.outputs, scores.dtype)
            return _positive(1.0 - signs * scores, width).sum(1).mean()
        residual, width = scores[:, 0] - rows.targets, width / rows.unit
        epsilon = self._epsilon(x) / rows.unit
        losses = _positive(residual - epsilon, width) + _positive(-residual - epsilon, width)
        # In the units of `LinearModel.objective`, which are those of squared losses.
        return losses.mean() / rows.unit

    def bound(self, x: Tensors) -> float:
        """How far the smoothed loss of a row is above the hinge's, at most: ``width log 2`` for each output; for the
        insensitive loss ``width (log 2 + log(1 + exp(-2 epsilon / width)))``.
        """
        if not self.regression:
            return self.outputs * self.width * math.log(2.0)
        epsilon = float(torch.as_tensor(self._epsilon(x)).max())
        return self.width * (math.log(2.0) + math.log1p(math.exp(-2.0 * epsilon / self.width)))

    def remarks(self, x: Tensors, weights: torch.Tensor, rows: Rows) -> dict[str, Any]:
        """See `Model.remarks`: the training objective with the smoothed loss and with the hinge, a mean over rows."""
        rows = rows.on(weights.device)
        w, _, bias = self.parts(x, weights, rows)
        scores = rows.inputs @ w + bias
        smoothed = self.objective(x, weights, rows)
        sharp = smoothed - self.mean_loss(x, scores, rows, self.width) + self.mean_loss(x, scores, rows, 0.0)
        unit = rows.unit**2
        return {
            "smoothing": self.width,
            "smoothed_objective": unit * float(smoothed),
            "hinge_objective": unit * float(sharp),
            "smoothing_bound": self.bound(x),
        }


def _positive(values: torch.Tensor, width: float) -> torch.Tensor:
    if width == 0.0:
        return torch.relu(values)
    return width * torch.nn.functional.softplus(values / width, threshold=40.0)
