"""`trust-region`: a model of the problem is minimised in a region that grows while the model is right.

Good at: nonlinear algebraic problems, whose kinks it crosses since its model is itself a bilevel program; smooth
differentiable problems with many upper variables. Bad at: noisy lower levels; algebraic problems with hundreds of
follower's inequalities, since each step solves a search over which of them are active.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients import HypergradientSettings
from bilevel_core.lower import LowerSettings
from bilevel_core.oracles import Oracle
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.descent import option, refused
from bilevel_core.solvers.iterative import IterativeSolver, Stop, give_up
from bilevel_core.solvers.trust_region.bilevel import BilevelMethod, BilevelState
from bilevel_core.solvers.trust_region.reduced import ReducedMethod, ReducedState
from bilevel_core.solvers.used_options import Only, for_form
from bilevel_core.traits import Traits


def _is_bilevel(solver: Any, form: str | None) -> bool | None:
    if solver.model == "auto":
        return None if form is None else form == "algebraic"
    return solver.model == "bilevel"


def _is_reduced(solver: Any, form: str | None) -> bool | None:
    bilevel = _is_bilevel(solver, form)
    return None if bilevel is None else not bilevel


def _is_quasi_newton(solver: Any, form: str | None) -> bool | None:
    return False if solver.hessian == "exact" else _is_reduced(solver, form)


@dataclass(frozen=True)
class TrustRegion(IterativeSolver):
    """Trust regions, with a bilevel model or on the reduced objective.

    Source: Liu, Han and Wang (1998); Marcotte, Savard and Zhu (2001); Colson, Marcotte and Savard (2005).
    """

    model: Literal["auto", "bilevel", "reduced"] = option(
        "auto",
        "bilevel: crosses kinks, algebraic problems only; reduced: quasi-Newton on F(x, y(x)); auto: by the form",
    )
    radius: float = option(
        1.0, "first radius of the region, in units of the leader's variables (their size, at least 1)"
    )
    max_radius: float = option(100.0, "largest radius; with model=bilevel also how far a better point is looked for")
    min_radius: float = option(1e-10, "the start ends when the region is smaller than this")
    tolerance: float = option(
        1e-7, "bilevel: predicted reduction, relative, at which to stop; reduced: projected hypergradient"
    )
    upper_model: Literal["quadratic", "linear"] = option("quadratic", "bilevel: how the leader's part is modelled")
    complementarity: Literal["auto", "sos1", "bigm"] = option(
        "auto", "bilevel: how the model's pairs are expressed: sos1 (SCIP), bigm (HiGHS); auto: sos1 where SCIP works"
    )
    hessian: Literal["quasi-newton", "exact"] = option(
        "quasi-newton",
        "reduced: exact: by third derivatives; differentiable problems whose lower constraints are bounds",
    )
    quasi_newton: Literal["bfgs", "sr1"] = option("bfgs", "reduced: which update of the Hessian")
    memory: int = option(10, "reduced: how many pairs the Hessian is made of")
    lower_tolerance: float = option(1e-10, "tightest tolerance of the lower level's solves")
    lower_iterations: int = option(1000, "most iterations of one solve of the lower level")
    lower_method: str = option("auto", "method of differentiable lower levels: auto, lbfgs, newton-cg, adam, ...")
    hypergradient_tolerance: float = option(1e-8, "reduced: relative residual of the hypergradient's linear solve")

    state_types: ClassVar[tuple[type, ...]] = (BilevelState, ReducedState)
    only: ClassVar[tuple[Only, ...]] = (
        Only(("upper_model", "complementarity"), "with model=bilevel, for algebraic problems", _is_bilevel),
        Only(("hypergradient_tolerance",), "with model=reduced", _is_reduced),
        Only(("quasi_newton", "memory"), "with model=reduced and hessian=quasi-newton", _is_quasi_newton),
        for_form("differentiable", "lower_method", "hessian"),
    )
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
            if self.hessian == "exact" and any(f.rows for f in traits.followers):
                return Refused("hessian=exact takes lower bounds, but no lower constraints", "hessian=quasi-newton")
            how = "Newton's" if self.hessian == "exact" else "quasi-Newton"
            return Accepted(f"{how} trust region on the reduced objective F(x, y(x))", "local")
        if traits.form != "algebraic":
            return Refused(f"there are no derivatives for {traits.form} problems", "a sampling solver")
        reason = refused(traits)
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
            return self._bilevel_method(context).init(oracle, x0)
        return self._reduced_method(context).init(oracle, x0)

    def step(
        self, oracle: Oracle, state: BilevelState | ReducedState, context: RunContext
    ) -> BilevelState | ReducedState:
        """See `IterativeSolver.step`."""
        if isinstance(state, BilevelState):
            return self._bilevel_method(context).step(oracle, state, context)
        return self._reduced_method(context).step(oracle, state)

    def done(self, state: BilevelState | ReducedState) -> Stop | None:
        """See `IterativeSolver.done`."""
        if isinstance(state, BilevelState):
            return self._bilevel_method(RunContext()).done(state)
        return self._reduced_method(RunContext()).done(state)

    def _bilevel(self, oracle: Oracle) -> bool:
        return self.model == "bilevel" or (self.model == "auto" and oracle.form == "algebraic")

    def _lower(self, context: RunContext) -> LowerSettings:
        return LowerSettings(
            method=self.lower_method,
            tolerance=self.lower_tolerance,
            max_iterations=self.lower_iterations,
            hurry=give_up(context),
        )

    def _bilevel_method(self, context: RunContext) -> BilevelMethod:
        return BilevelMethod(
            self.radius,
            self.max_radius,
            self.min_radius,
            self.tolerance,
            self.upper_model,
            self.complementarity,
            self._lower(context),
        )

    def _reduced_method(self, context: RunContext) -> ReducedMethod:
        return ReducedMethod(
            self.radius,
            self.max_radius,
            self.min_radius,
            self.tolerance,
            self.hessian,
            self.quasi_newton,
            self.memory,
            self._lower(context),
            HypergradientSettings(tolerance=self.hypergradient_tolerance),
        )
