"""What a hypergradient is asked and what it gives back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError, unknown
from bilevel_core.oracles import Vector

IMPLICIT = ("cg", "minres", "neumann", "nystrom", "fixed-point", "dense")
"""Modes that solve a linear system in the lower Hessian at the answer (implicit function theorem)."""
EXPLICIT = ("unroll", "finite-difference", "first-order")
"""Modes that do not."""
MODES = IMPLICIT + EXPLICIT

LIMITS = ("tolerance", "max_iterations")
"""How well a linear system is solved, where there is one: solvers set these without a look at the mode."""
USED: dict[str, tuple[str, ...]] = {
    "cg": (*LIMITS, "damping", "curvature"),
    "minres": (*LIMITS, "damping", "curvature"),
    "neumann": ("tolerance", "steps", "step", "seed", "damping", "curvature"),
    "nystrom": (*LIMITS, "rank", "seed", "damping", "curvature"),
    "fixed-point": (*LIMITS, "step", "seed", "damping", "curvature"),
    "dense": ("damping", "curvature"),
    "unroll": ("steps", "truncate", "step", "seed"),
    "finite-difference": ("step", "seed"),
    "first-order": (),
}
"""The settings that each mode makes use of."""


@dataclass(frozen=True)
class HypergradientSettings:
    """How to compute a hypergradient.

    A setting that the mode does not use is refused unless it has its default; ``tolerance`` and ``max_iterations`` are
    left alone here, and refused by `refuse_unused`.

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
        examine: look for what speaks against the point being an answer, which costs a few gradients; left out where
            that is known (one step of a stochastic method, say).
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
    examine: bool = True

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
        self.refuse_unused(except_for=LIMITS)

    def refuse_unused(self, except_for: Collection[str] = ()) -> None:
        """Refuse settings that differ from their defaults and that the mode does not use.

        Raises:
            UsageError: there is one; it is named, with the modes that use it.
        """
        for f in fields(self):
            if f.name in ("mode", "examine") or f.name in except_for or f.name in USED[self.mode]:
                continue
            if getattr(self, f.name) != f.default:
                modes = ", ".join(mode for mode, used in USED.items() if f.name in used)
                raise UsageError(
                    f"Hypergradient mode {self.mode!r} does not use {f.name}: leave it out, or take a mode that does "
                    f"({modes})."
                )


@dataclass(frozen=True)
class Hypergradient:
    """A hypergradient and what it rests on.

    Attributes:
        value: d/dx F(x, y(x)); shape (nx,), or structured like x from the public function.
        residual: relative residual of the linear solve; NaN for modes that solve none.
        counts: products and gradients spent.
        upper: F(x, y); of ``unroll`` and ``finite-difference`` at the end of their steps.
        stationarity: norm of the Lagrangian's gradient by y. The hypergradient is that of an answer; far from one it
            may have the wrong sign. Of ``unroll`` the norm before its last step.
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
