"""Second derivatives of ``F - v . f_y`` for a fixed v: what the Hessian of the reduced objective is made of.

Third derivatives of the lower objective, by reverse mode over reverse mode over reverse mode, along one direction a
product.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from bilevel_core.errors import UsageError
from bilevel_core.oracles.base import AdjointCurvature

if TYPE_CHECKING:
    from bilevel_core.oracles.torch import TorchOracle

REMEDY = "leave out hessian=exact."


class TorchAdjointCurvature(AdjointCurvature):
    """See `AdjointCurvature`. Graphs are built anew for each term and product, so that memory does not grow."""

    def __init__(self, oracle: TorchOracle, x: np.ndarray, y: torch.Tensor, adjoint: torch.Tensor) -> None:
        self.oracle = oracle
        self._x = oracle.x_tensor(x).requires_grad_(True)
        self._y = y.detach().clone().requires_grad_(True)
        self._adjoint = adjoint.detach().clone()

    def _terms(self) -> Iterable[torch.Tensor]:
        """The parts of ``F - v . f_y``, with graphs."""
        for weight, term in self.oracle.terms.of("upper"):
            yield weight * term(self._x, self._y)
        for weight, term in self.oracle.terms.of("lower"):
            value = term(self._x, self._y)
            (by_y,) = torch.autograd.grad(
                value, (self._y,), create_graph=True, allow_unused=True, materialize_grads=True
            )
            yield -weight * (self._adjoint * by_y).sum()

    def product(self, d: np.ndarray, along_y: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
        """See `AdjointCurvature.product`.

        Raises:
            UsageError: a layer without second or third derivatives.
        """
        self.oracle.counts["third_derivative_products"] += 1
        if self.oracle.finite_differences:
            raise UsageError(f"A layer of the lower level has no second derivative: {REMEDY}")
        along = torch.as_tensor(d).to(self._x), along_y.detach()
        by_x, by_y = torch.zeros_like(self._x), torch.zeros_like(self._y)
        try:
            for value in self._terms():
                parts = self._along(value, along)
                by_x, by_y = by_x + parts[0], by_y + parts[1]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"A layer of the lower level has no third derivative ({reason}): {REMEDY}") from error
        self.oracle.check_finite(by_x, "second derivatives of the adjoint at", "x")
        self.oracle.check_finite(by_y, "second derivatives of the adjoint at", "y")
        return by_x.double().cpu().numpy(), by_y

    def _along(self, value: torch.Tensor, along: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """How a term's gradient changes along a direction."""
        leaves = self._x, self._y
        none = tuple(torch.zeros_like(leaf) for leaf in leaves)
        if not value.requires_grad:
            return none
        first = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
        slope = (first[0] * along[0]).sum() + (first[1] * along[1]).sum()
        if not slope.requires_grad:  # the term is linear
            return none
        return torch.autograd.grad(slope, leaves, allow_unused=True, materialize_grads=True)
