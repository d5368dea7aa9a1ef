"""What a hypergradient is asked and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError, unknown
from bilevel_core.oracles import Vector

IMPLICIT = ("cg", "minres", "neumann", "nystrom", "fixed-point", "dense")
"""Modes that solve a linear system in the lower Hessian at the answer (implicit function theorem)."""
EXPLICIT = ("unroll", "finite-difference", "first-order")
"""Modes that do not."""
MODES = IMPLICIT + EXPLICIT


@dataclass(frozen=True)
class HypergradientSettings:
    """How to compute a hypergradient.

    Attributes:
        mode: one of `MODES`.
        tolerance: relative residual of the linear solve.
        max_iterations: products at most, of cg, minres and fixed-point.
        steps: terms of neumann; inner steps of unroll.
        truncate: unroll: differentiate through the last so many steps only; None for all.
        step: step length of neumann, fixed-point, unroll, finite-difference; None for 1 over the largest eigenvalue
            of the Hessian, estimated.
        rank: nystrom: number of products with random vectors.
        damping: added to the Hessian. It biases the result, and is 0 unless asked for (nystrom: of its approximation
            only, which is then a preconditioner).
        curvature: ``hessian``, or ``gauss-newton`` without the second derivatives of the model's outputs.
        seed: of what is random in the linear solver.
    """

    mode: str = "cg"
    tolerance: float = 1e-10
    max_iterations: int = 500
    steps: int = 50
    truncate: int | None = None
    step: float | None = None
    rank: int = 20
    damping: float = 0.0
    curvature: str = "hessian"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("hypergradient mode", self.mode, MODES)
        if self.curvature not in ("hessian", "gauss-newton"):
            raise unknown("curvature", self.curvature, ("hessian", "gauss-newton"))
        for name in ("tolerance", "damping"):
            if not getattr(self, name) >= 0.0:
                raise UsageError(f"Expected {name} of at least 0, got {getattr(self, name)!r}.")
        for name in ("max_iterations", "steps", "rank"):
            if getattr(self, name) < 1:
                raise UsageError(f"Expected {name} of at least 1, got {getattr(self, name)!r}.")
        if self.truncate is not None and not 0 <= self.truncate <= self.steps:
            raise UsageError(f"Expected truncate between 0 and steps = {self.steps}, got {self.truncate}.")
        if self.step is not None and not self.step > 0.0:
            raise UsageError(f"Expected a positive step, got {self.step!r}.")


@dataclass(frozen=True)
class Hypergradient:
    """A hypergradient and what it rests on.

    Attributes:
        value: d/dx F(x, y(x)); shape (nx,), or structured like x from the public function.
        residual: relative residual of the linear solve; NaN for modes that solve none.
        counts: products and gradients spent.
        upper: F(x, y).
        stationarity: norm of the Lagrangian's gradient by y. The hypergradient is that of an answer; far from one it
            may have the wrong sign.
        bias: first-order estimate of F(x, y) - F(x, y(x)), by the adjoint; NaN for modes without one.
        adjoint: p = L_yy^-1 F_y, to start the next solve from; None for modes without one.
        negative_curvature: the lower Hessian is not positive definite at y.
        strict: False where lower constraints are active with a zero multiplier: then this is the derivative to one
            side only.
        message: what to beware of, in sentences; empty when all is well.
    """

    value: Any
    residual: float
    counts: Mapping[str, int]
    upper: float
    stationarity: float
    bias: float = np.nan
    adjoint: Vector | None = field(default=None, repr=False)
    negative_curvature: bool = False
    strict: bool = True
    message: str = ""
