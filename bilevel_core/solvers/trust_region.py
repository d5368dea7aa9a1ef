"""`trust-region`: a model of the problem is minimised in a region that grows while the model is right.

Good at: nonlinear algebraic problems, whose kinks it crosses since its model is itself a bilevel program; smooth
differentiable problems with many upper variables. Bad at: noisy lower levels; algebraic problems with hundreds of
follower's inequalities, since each step solves a search over which of them are active.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients import HypergradientSettings
from bilevel_core.lower import LowerSettings
from bilevel_core.oracles import Oracle
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.iterative import IterativeSolver, Stop
from bilevel_core.solvers.trust_region_bilevel import BilevelMethod, BilevelState
from bilevel_core.solvers.trust_region_reduced import ReducedMethod, ReducedState
from bilevel_core.traits import Traits


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrustRegion(IterativeSolver):
    """Trust regions, with a bilevel model or on the reduced objective.

    Source: Liu, Han and Wang (1998); Marcotte, Savard and Zhu (2001); Colson, Marcotte and Savard (2005).
    """

    model: Literal["auto", "bilevel", "reduced"] = _option(
        "auto",
        "bilevel: crosses kinks, algebraic problems only; reduced: quasi-Newton on F(x, y(x)); auto: by the form",
    )
    radius: float = _option(1.0, "first radius of the region, in units of the leader's variables")
    max_radius: float = _option(100.0, "largest radius; with model=bilevel also how far a better point is looked for")
    min_radius: float = _option(1e-10, "the start ends when the region is smaller than this")
    tolerance: float = _option(
        1e-7, "bilevel: predicted reduction, relative, at which to stop; reduced: projected hypergradient"
    )
    upper_model: Literal["quadratic", "linear"] = _option("quadratic", "bilevel: how the leader's part is modelled")
    complementarity: Literal["auto", "sos1", "bigm"] = _option(
        "auto", "bilevel: how the model's pairs are expressed: sos1 (SCIP), bigm (HiGHS); auto: sos1 where SCIP works"
    )
    quasi_newton: Literal["bfgs", "sr1"] = _option("bfgs", "reduced: which update of the Hessian")
    memory: int = _option(10, "reduced: how many pairs the Hessian is made of")
    lower_tolerance: float = _option(1e-10, "tightest tolerance of the lower level's solves")
    lower_iterations: int = _option(1000, "most iterations of one solve of the lower level")
    lower_method: str = _option("auto", "method of differentiable lower levels: auto, lbfgs, newton-cg, adam, ...")
    hypergradient_tolerance: float = _option(1e-8, "reduced: relative residual of the hypergradient's linear solve")

    state_types: ClassVar[tuple[type, ...]] = (BilevelState, ReducedState)
    uses_device: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("radius", "max_radius", "min_radius", "tolerance", "lower_tolerance", "hypergradient_tolerance"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise UsageError(f"Expected a positive number for {name}, got {value!r}.")
        if not self.min_radius <= self.radius <= self.max_radius:
            raise UsageError(
                f"Expected min_radius <= radius <= max_radius, got {self.min_radius!r}, {self.radius!r} and "
                f"{self.max_radius!r}."
            )
        for name in ("memory", "lower_iterations"):
            if getattr(self, name) < 1:
                raise UsageError(f"Expected {name} of at least 1, got {getattr(self, name)}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Continuous problems with followers that are not known to be nonconvex."""
        if traits.form == "differentiable":
            if self.model == "bilevel":
                return Refused("its levels are callables, of which there is no bilevel model", "model=reduced")
            if traits.upper_rows:
                return Refused("model=reduced takes no constraints of the leader's besides bounds", "auxiliary")
            return Accepted("quasi-Newton trust region on the reduced objective F(x, y(x))", "local")
        if traits.form != "algebraic":
            return Refused(f"there are no derivatives for {traits.form} problems", "a sampling solver")
        reason = _refused(traits)
        if reason is not None:
            return reason
        if self.model == "reduced":
            if traits.upper_rows:
                return Refused("model=reduced takes no constraints of the leader's besides bounds", "model=bilevel")
            return Accepted("quasi-Newton trust region on the reduced objective F(x, y(x))", "local")
        return Accepted("trust region with a bilevel model, solved by the followers' optimality conditions", "local")

    def init(self, oracle: Oracle, x0: np.ndarray, context: RunContext) -> BilevelState | ReducedState:
        """See `IterativeSolver.init`."""
        if self._bilevel(oracle):
            return self._bilevel_method().init(oracle, x0)
        return self._reduced_method().init(oracle, x0)

    def step(
        self, oracle: Oracle, state: BilevelState | ReducedState, context: RunContext
    ) -> BilevelState | ReducedState:
        """See `IterativeSolver.step`."""
        if isinstance(state, BilevelState):
            return self._bilevel_method().step(oracle, state, context)
        return self._reduced_method().step(oracle, state)

    def done(self, state: BilevelState | ReducedState) -> Stop | None:
        """See `IterativeSolver.done`."""
        if isinstance(state, BilevelState):
            return self._bilevel_method().done(state)
        return self._reduced_method().done(state)

    def _bilevel(self, oracle: Oracle) -> bool:
        return self.model == "bilevel" or (self.model == "auto" and oracle.form == "algebraic")

    def _lower(self) -> LowerSettings:
        return LowerSettings(
            method=self.lower_method, tolerance=self.lower_tolerance, max_iterations=self.lower_iterations
        )

    def _bilevel_method(self) -> BilevelMethod:
        return BilevelMethod(
            self.radius,
            self.max_radius,
            self.min_radius,
            self.tolerance,
            self.upper_model,
            self.complementarity,
            self._lower(),
        )

    def _reduced_method(self) -> ReducedMethod:
        return ReducedMethod(
            self.radius,
            self.max_radius,
            self.min_radius,
            self.tolerance,
            self.quasi_newton,
            self.memory,
            self._lower(),
            HypergradientSettings(tolerance=self.hypergradient_tolerance),
        )


def _refused(traits: Traits) -> Refused | None:
    """Why an algebraic problem is not for a method that improves a continuous point."""
    if traits.upper_integers:
        return Refused(f"the leader has {traits.upper_integers} integer variable(s)", "an exact solver (kkt)")
    for f in traits.followers:
        if f.integers:
            return Refused(
                f"follower {f.name!r} has {f.integers} integer variable(s), so its answers jump",
                "an exact mixed-integer bilevel solver (branch-and-cut)",
            )
        if f.convex is False:
            return Refused(
                f"follower {f.name!r} is nonconvex, so a local answer of its need not be its best",
                "a global solver for nonconvex followers (global)",
            )
    if traits.game:
        return Refused("the followers play a Nash game, whose answer is not that of one lower level", "kkt")
    return None
