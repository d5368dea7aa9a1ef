"""`penalty`: the follower's optimality moved into the objective, with a weight that rises.

Good at: linear and convex quadratic followers with many pairs, as a fast local method (`duality-gap`, `alternating`);
smooth nonlinear followers (`double`); large differentiable problems whose second derivatives are out of reach
(`value-function`).
Bad at: global optimality, and differentiable problems with constraints. The last digits of `value-function` depend on
the weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from bilevel_core.errors import RefusedError, UsageError
from bilevel_core.oracles import Oracle
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.iterative import IterativeSolver, State, Stop
from bilevel_core.solvers.penalty_convexity import refuse_nonconvex
from bilevel_core.solvers.penalty_gap import GapState, Weights, gap_done, gap_init, gap_step
from bilevel_core.solvers.penalty_value import (
    ValueOptions,
    ValueState,
    value_done,
    value_init,
    value_step,
)
from bilevel_core.traits import FollowerTraits, Traits, derive_traits

MOST_ALGEBRAIC, MOST_VALUE = 1e8, 1e3


def _option(default: Any, text: str) -> Any:
    """An option with its help."""
    return field(default=default, metadata={"help": text})


METHODS = {
    "duality-gap": "penalised duality gap, local minimisation by HiGHS or Ipopt, exact finish",
    "alternating": "penalty alternating direction method, blocks by HiGHS, exact finish",
    "double": "barrier on the followers' constraints, penalty on the leader's, Ipopt, exact finish",
    "value-function": "value-function penalty with first derivatives only",
}


@dataclass(frozen=True)
class Penalty(IterativeSolver):
    """Penalty methods, local.

    Sources: `duality-gap` White and Anandalingam (1993); `alternating` Kleinert and Schmidt (2021); `double` Ishizuka
    and Aiyoshi (1992); `value-function` Liu et al. (2022), Kwon et al. (2023), Shen and Chen (2023). Each answer is
    re-solved at its x. The claim is ``stationary``, or ``local`` where second-order evidence was found.

    Raises:
        UsageError: an option is out of its range.
    """

    method: Literal["auto", "value-function", "duality-gap", "alternating", "double"] = _option(
        "auto",
        "auto: value-function for callables, duality-gap for linear and convex quadratic followers with linear "
        "constraints, else double",
    )
    weight: float = _option(1.0, "first weight of the penalty, relative to the objectives' coefficients")
    growth: float = _option(10.0, "factor by which the weight rises")
    max_weight: float | None = _option(None, "largest weight; by default 1e3 for value-function and 1e8 for the others")
    gap_tolerance: float = _option(1e-7, "algebraic methods: the duality gap, relative, at which the weight is enough")
    tolerance: float = _option(1e-6, "value-function: of the projected hypergradient estimate, relative to its first")
    extrapolate: bool = _option(True, "value-function: a last stage with two weights whose biases cancel")
    lower_tolerance: float = _option(1e-8, "value-function: of the gradients of inner minimisations")
    lower_iterations: int = _option(1000, "value-function: most steps of each inner minimisation")

    uses_device: ClassVar[bool] = True
    state_types: ClassVar[tuple[type, ...]] = (GapState, ValueState)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight", "gap_tolerance", "tolerance", "lower_tolerance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise UsageError(f"Expected a positive number for {name}, got {value!r}.")
        if not (math.isfinite(self.growth) and self.growth > 1.0):
            raise UsageError(f"Expected a growth above 1, got {self.growth!r}.")
        if self.max_weight is not None and not (math.isfinite(self.max_weight) and self.max_weight >= self.weight):
            raise UsageError(f"Expected max_weight of at least weight = {self.weight:g}, got {self.max_weight!r}.")
        if self.lower_iterations < 1:
            raise UsageError(f"Expected at least 1 for lower_iterations, got {self.lower_iterations}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Continuous problems: followers known to be nonconvex, integers and Nash games are refused."""
        if traits.form == "differentiable":
            if self.method not in ("auto", "value-function"):
                return Refused(
                    f"method {self.method!r} needs expressions, and the levels are callables", "method=value-function"
                )
            if traits.upper_rows:
                return Refused("the leader has constraints besides bounds", "auxiliary")
            if traits.lower_bounds or any(f.rows for f in traits.followers):
                return Refused("its inner minimisations take no constraints or bounds of the follower's", "auxiliary")
            return Accepted(METHODS["value-function"], "stationary")
        if traits.form != "algebraic":
            return Refused(f"it has no way to treat {traits.form} problems", "a solver that samples the upper level")
        if self.method == "value-function":
            return Refused("method 'value-function' is for callables, and the levels are expressions", "method=auto")
        return _refusal(traits) or self._takes(traits)

    def _takes(self, traits: Traits) -> Accepted | Refused:
        method = _chosen(self.method, traits)
        if method != "double":
            for f in traits.followers:
                reason = _beyond_duality(f)
                if reason:
                    return Refused(f"follower {f.name!r} {reason}, and so no duality gap to penalise", "method=double")
        return Accepted(METHODS[method], "local")

    def make_oracle(self, problem: Any, context: RunContext) -> Oracle:
        """See `IterativeSolver.make_oracle`.

        Raises:
            RefusedError: a nonlinear follower that is seen to be nonconvex.
            UsageError: a device other than the CPU for an algebraic problem.
        """
        oracle = super().make_oracle(problem, context)
        if oracle.form == "algebraic" and any(f.convex is None for f in derive_traits(problem).followers):
            refuse_nonconvex(oracle, context.seed)
            oracle.counts.clear()
        return oracle

    def init(self, oracle: Oracle, x0: np.ndarray, context: RunContext) -> State:
        """See `IterativeSolver.init`."""
        if oracle.form == "differentiable":
            return value_init(oracle, x0, context, self._value_options(context))
        return gap_init(oracle, x0, context, self._weights)

    def step(self, oracle: Oracle, state: State, context: RunContext) -> State:
        """See `IterativeSolver.step`."""
        if isinstance(state, ValueState):
            return value_step(oracle, state, context, self._value_options(context))
        assert isinstance(state, GapState)
        return gap_step(oracle, state, context, self._weights, _method_of(self.method, oracle))

    def done(self, state: State) -> Stop | None:
        """See `IterativeSolver.done`."""
        if isinstance(state, ValueState):
            return value_done(state)
        assert isinstance(state, GapState)
        return gap_done(state)

    @property
    def _weights(self) -> Weights:
        most = max(self.weight, MOST_ALGEBRAIC) if self.max_weight is None else self.max_weight
        return Weights(self.weight, self.growth, most, self.gap_tolerance)

    def _value_options(self, context: RunContext) -> ValueOptions:
        most = max(self.weight, MOST_VALUE) if self.max_weight is None else self.max_weight
        return ValueOptions(
            self.weight,
            self.growth,
            most,
            self.extrapolate,
            self.tolerance,
            self.lower_tolerance,
            self.lower_iterations,
            lambda: context.expired or context.stopped,
        )


def _refusal(traits: Traits) -> Refused | None:
    if traits.upper_integers:
        return Refused(
            f"the leader has {traits.upper_integers} integer variable(s), and the method moves continuously",
            "an exact solver (kkt)",
        )
    if traits.game:
        return Refused(
            "the followers play a Nash game, which has no common lower-level objective", "an exact solver (kkt)"
        )
    for f in traits.followers:
        if f.integers:
            return Refused(
                f"follower {f.name!r} has {f.integers} integer variable(s), so it has no optimality conditions",
                "an exact mixed-integer bilevel solver (branch-and-cut)",
            )
        if f.convex is False:
            return Refused(
                f"follower {f.name!r} is nonconvex, so points that satisfy its optimality conditions need not be "
                "optimal for it",
                "a global solver for nonconvex followers (global)",
            )
    return None


def _beyond_duality(f: FollowerTraits) -> str:
    """Why a follower's dual is not that of a linear or convex quadratic program, or nothing."""
    if f.constraints != "linear":
        return f"has {f.constraints} constraints"
    if f.objective not in ("linear", "convex quadratic"):
        return f"has a {f.objective} objective"
    return "has constraint coefficients that vary with the leader's variables" if f.matrix_varies else ""


def _chosen(method: str, traits: Traits) -> str:
    if method != "auto":
        return method
    return "double" if any(_beyond_duality(f) for f in traits.followers) else "duality-gap"


def _method_of(method: str, oracle: Oracle) -> str:
    if method != "auto":
        return method
    problem: Any = getattr(oracle, "problem", None)
    if not isinstance(problem, AlgebraicProblem):
        raise RefusedError("The penalty solver's algebraic methods need a problem with expressions.")
    return _chosen(method, derive_traits(problem))
