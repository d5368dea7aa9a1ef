"""What a lower-level solve is asked and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bilevel_core.errors import BilevelError
from bilevel_core.oracles import Oracle, Vector
from bilevel_core.result import Termination


class LowerFailedError(BilevelError):
    """The lower level has no solution at this x, or none was found.

    Attributes:
        termination: ``lower-infeasible``, ``lower-unbounded`` or ``error``.
    """

    def __init__(self, message: str, termination: Termination = Termination.ERROR) -> None:
        self.termination = termination
        super().__init__(message)


class HurriedError(BilevelError):
    """The solve has to end where it is. Raised from within a library's method, and caught by who called that."""

    def __init__(self) -> None:
        super().__init__("The time for the lower level is over.")


@dataclass(frozen=True)
class LowerSettings:
    """How to solve the lower level.

    Attributes:
        method: ``auto``, ``lbfgs``, ``newton-cg``, or the name of an optimiser of torch.optim (``adam``, ``sgd``,
            ``adamw``, ...), which take one minibatch a step where there are data. ``auto`` is ``newton-cg``, and alone
            goes by what the problem says of itself (`TorchProblem.closed_form`, `TorchProblem.lower_convex`).
            Algebraic problems take ``auto`` only: the backend is chosen by their class.
        tolerance: the solve stops when the norm of the (projected) gradient is at most this.
        max_iterations: and at the latest after so many iterations (optimiser steps).
        learning_rate: of torch optimisers.
        schedule: of the learning rate over ``max_iterations``: ``constant``, ``cosine``, ``linear``.
        weight_decay, momentum: of torch optimisers, where they have them.
        hurry: asked now and then; when it returns True the solve stops where it is.
    """

    method: str = "auto"
    tolerance: float = 1e-8
    max_iterations: int = 1000
    learning_rate: float = 0.1
    schedule: str = "constant"
    weight_decay: float = 0.0
    momentum: float = 0.0
    hurry: Callable[[], bool] = field(default=lambda: False, compare=False)

    def ask(self) -> None:
        """Raise `HurriedError` when the solve has to end: for use before every evaluation."""
        if self.hurry():
            raise HurriedError


@dataclass(frozen=True)
class Response:
    """The lower level's answer at one x.

    Attributes:
        y: the answer, a vector of the oracle's kind.
        value: f(x, y).
        inequality, equality: multipliers of ``g <= 0`` (nonnegative) and ``h = 0``.
        at_lower, at_upper: multipliers of the bounds on y (nonnegative), shape (ny,); None where y has no bounds.
        residual: norm of the Lagrangian's gradient by y (with all multipliers).
        converged: whether the tolerance was met.
        iterations: steps taken.
        unique: False when the lower level is known to have other optimal answers at this x; None when unknown. Where
            there are several, ``y`` is the one that suits the leader best (optimistic), as far as that can be had.
        message: what went wrong, when not converged.
    """

    y: Vector
    value: float
    inequality: np.ndarray
    equality: np.ndarray
    at_lower: np.ndarray | None = None
    at_upper: np.ndarray | None = None
    residual: float = 0.0
    converged: bool = True
    iterations: int = 0
    unique: bool | None = None
    message: str = ""
    details: dict[str, Any] = field(default_factory=dict[str, Any])


def own_bounds(oracle: Oracle) -> tuple[np.ndarray, np.ndarray]:
    """The bounds on y as numbers of the oracle's precision, in float64 arrays of shape (ny,).

    A float32 variable at its bound 0.1 is 0.10000000149: next to the bound as it was given it seems to be off.
    """
    return oracle.to_numpy(oracle.from_numpy(oracle.y_lower)), oracle.to_numpy(oracle.from_numpy(oracle.y_upper))
