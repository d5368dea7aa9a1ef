"""What the solvers that descend along hypergradients share: their options, and when they end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients import HypergradientSettings
from bilevel_core.lower import LowerSettings
from bilevel_core.result import Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Refused
from bilevel_core.solvers.iterative import Candidate, IterativeSolver, Stop, give_up
from bilevel_core.traits import Traits


def option(default: Any, text: str) -> Any:
    """A field with its help text."""
    return field(default=default, metadata={"help": text})


WITHOUT_END, FAR_OUT = 1e20, 1e12
"""An objective below minus the first, or variables beyond the second, are taken for a problem without a minimum."""
SOLVED = 1e-5
"""Relative residual of the adjoint system up to which a hypergradient supports a claim."""
NO_MINIMUM = (
    "At the end the follower's answer is no strict minimum with a Hessian that can be solved with, so that nothing is "
    "claimed of the point: the follower may have kinks, many answers, or a saddle there."
)
LOOSE = "Not every lower-level solve met its tolerance; the last: "
RANDOM = "A level draws random numbers: what holds for one draw is not claimed of the problem."
LOOSEST_LOWER, LOOSEST_LINEAR = 1e-5, 1e-3
"""Tolerances of lower-level and linear solves that are never exceeded, however far the method is from its end."""


@dataclass(frozen=True)
class DescentSolver(IterativeSolver):
    """Options of the lower-level solve and of the hypergradient.

    Raises:
        UsageError: an option is out of its range.
    """

    tolerance: float = option(
        1e-7, "norm of the projected hypergradient, relative to its first size (at most |F|), at which to stop"
    )
    memory: int = option(20, "how many pairs the curvature estimate of the reduced objective is made of")
    lower_method: str = option("auto", "lower-level solver of callables: auto, newton-cg, lbfgs, adam, sgd, ...")
    lower_tolerance: float = option(1e-8, "gradient norm at which a lower-level solve ends")
    lower_iterations: int = option(1000, "most iterations of one lower-level solve")
    learning_rate: float = option(0.1, "of lower-level optimisers such as adam and sgd")
    schedule: Literal["constant", "cosine", "linear"] = option("constant", "of that learning rate over one solve")
    momentum: float = option(0.0, "of lower-level optimisers that have one")
    weight_decay: float = option(0.0, "of lower-level optimisers that have one")
    hypergradient_tolerance: float = option(1e-8, "relative residual of the linear solves in the lower Hessian")
    hypergradient_iterations: int = option(500, "most products of one such solve")
    curvature: Literal["hessian", "gauss-newton"] = option(
        "hessian", "of the lower level; gauss-newton needs the problem's outputs"
    )
    damping: float = option(0.0, "added to the lower Hessian; biases the hypergradient")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tolerance", "lower_tolerance", "hypergradient_tolerance", "learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise UsageError(f"Expected a positive number for {name}, got {value!r}.")
        for name in ("lower_iterations", "hypergradient_iterations", "memory"):
            if getattr(self, name) < 1:
                raise UsageError(f"Expected {name} of at least 1, got {getattr(self, name)}.")
        for name in ("momentum", "weight_decay", "damping"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise UsageError(f"Expected {name} of at least 0, got {value!r}.")

    def lower_settings(self, context: RunContext, norm: float = 0.0) -> LowerSettings:
        """How the lower level is solved; a solve is cut short when the run has to end.

        Args:
            context: the run.
            norm: of the projected hypergradient where the method stands. Far from a stationary point (large norm) less
                accuracy does: the error of F is at most about the tolerance times the adjoint.
        """
        return LowerSettings(
            method=self.lower_method,
            tolerance=max(self.lower_tolerance, min(LOOSEST_LOWER, 1e-3 * norm)),
            max_iterations=self.lower_iterations,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            hurry=give_up(context),
        )

    def threshold(self, largest: float, objective: float, terms: float = 0.0) -> float:
        """The norm of a projected hypergradient up to which it counts as zero.

        Args:
            largest: the largest such norm in this start: multiplying F multiplies what counts as zero.
            objective: F, whose size (at least 1) limits that.
            terms: size of what cancels in the hypergradient, F_x and the follower's part: where a start begins at a
                stationary point nothing else gives the scale.
        """
        return self.tolerance * max(terms, min(largest, max(1.0, abs(objective))))

    def hypergradient_settings(self, norm: float = 0.0) -> HypergradientSettings:
        """How hypergradients are computed; ``norm`` as for `lower_settings`."""
        return HypergradientSettings(
            tolerance=max(self.hypergradient_tolerance, min(LOOSEST_LINEAR, 1e-1 * norm)),
            max_iterations=self.hypergradient_iterations,
            curvature=self.curvature,
            damping=self.damping,
        )


def refused(traits: Traits) -> Refused | None:
    """Why no method that moves along derivatives takes a problem; None when it may."""
    if traits.upper_integers:
        return Refused(
            f"the leader has {traits.upper_integers} integer variable(s), and the method moves continuously",
            "an exact solver (kkt)",
        )
    for f in traits.followers:
        if f.integers:
            return Refused(
                f"follower {f.name!r} has {f.integers} integer variable(s), so its answer has no derivative",
                "an exact mixed-integer bilevel solver (branch-and-cut)",
            )
        if f.convex is False:
            return Refused(
                f"follower {f.name!r} is nonconvex, so its local answers need not be optimal for it",
                "a global solver for nonconvex followers (global)",
            )
    if traits.game:
        return Refused("the followers play a Nash game, so their answers are no minimum of one function", "kkt")
    return None


def runaway(candidate: Candidate | None) -> Stop | None:
    """The end of a start whose objective falls, or whose variables grow, without end."""
    if candidate is None:
        return None
    far = float(np.abs(candidate.x).max(initial=0.0))
    if candidate.objective > -WITHOUT_END and far < FAR_OUT:
        return None
    return Stop(
        Termination.ERROR,
        f"The leader's objective has fallen to {candidate.objective:.3g} at variables as large as {far:.3g}, and seems "
        "to have no minimum: bound the leader's variables.",
    )


def projected(x: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The gradient without the components that push against a bound that x lies on."""
    pushes = ((x <= lower) & (gradient > 0.0)) | ((x >= upper) & (gradient < 0.0))
    return np.where(pushes, 0.0, gradient)
