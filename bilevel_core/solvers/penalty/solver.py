"""`penalty`: the follower's optimality moved into the objective, with a weight that rises.

Good at: linear and convex quadratic followers with many pairs, as a fast local method (`duality-gap`, `alternating`);
smooth nonlinear followers (`double`); large differentiable problems whose second derivatives are out of reach
(`value-function`).
Bad at: global optimality, and differentiable problems with constraints. The last digits of `value-function` depend on
the weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from bilevel_core.errors import RefusedError, UsageError
from bilevel_core.oracles import Oracle, make_oracle
from bilevel_core.problems.base import AlgebraicProblem, Problem
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.descent import option, refused
from bilevel_core.solvers.iterative import IterativeSolver, State, Stop, give_up
from bilevel_core.solvers.penalty.convexity import nonconvexity
from bilevel_core.solvers.penalty.gap import GapState, Weights, gap_done, gap_init, gap_step
from bilevel_core.solvers.penalty.value import (
    ValueOptions,
    ValueState,
    value_done,
    value_init,
    value_step,
)
from bilevel_core.solvers.used_options import Only
from bilevel_core.traits import FollowerTraits, Traits, derive_traits

MOST_ALGEBRAIC, MOST_VALUE = 1e8, 1e3


def _is_value_function(solver: Any, form: str | None) -> bool | None:
    if solver.method == "auto":
        return None if form is None else form == "differentiable"
    return solver.method == "value-function"


def _is_algebraic(solver: Any, form: str | None) -> bool | None:
    value_function = _is_value_function(solver, form)
    return None if value_function is None else not value_function


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

    method: Literal["auto", "value-function", "duality-gap", "alternating", "double"] = option(
        "auto",
        "auto: value-function for callables, duality-gap for linear and convex quadratic followers with linear "
        "constraints, else double",
    )
    weight: float = option(1.0, "first weight of the penalty, relative to the objectives' coefficients")
    growth: float = option(10.0, "factor by which the weight rises")
    max_weight: float | None = option(None, "largest weight; by default 1e3 for value-function and 1e8 for the others")
    gap_tolerance: float = option(1e-7, "algebraic methods: the duality gap, relative, at which the weight is enough")
    tolerance: float = option(1e-6, "value-function: of the projected hypergradient estimate, relative to its first")
    extrapolate: bool = option(True, "value-function: a last stage with two weights whose biases cancel")
    lower_tolerance: float = option(1e-8, "value-function: of the gradients of inner minimisations")
    lower_iterations: int = option(1000, "value-function: most steps of each inner minimisation")

    uses_device: ClassVar[bool] = True
    state_types: ClassVar[tuple[type, ...]] = (GapState, ValueState)
    only: ClassVar[tuple[Only, ...]] = (
        Only(
            ("tolerance", "extrapolate", "lower_tolerance", "lower_iterations"),
            "with method=value-function, for callables",
            _is_value_function,
        ),
        Only(("gap_tolerance",), "with the algebraic methods, for expressions", _is_algebraic),
    )

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
        return refused(traits) or self._takes(traits)

    def _takes(self, traits: Traits) -> Accepted | Refused:
        method = _chosen(self.method, traits)
        if method != "double":
            for f in traits.followers:
                reason = _beyond_duality(f)
                if reason:
                    return Refused(f"follower {f.name!r} {reason}, and so no duality gap to penalise", "method=double")
        return Accepted(METHODS[method], "local")

    def refuses(self, problem: Problem) -> Refused | None:
        """Nonlinear followers that are seen to be nonconvex at sampled points."""
        if problem.form != "algebraic" or all(f.convex is not None for f in derive_traits(problem).followers):
            return None
        reason = nonconvexity(make_oracle(problem))
        return Refused(reason, "a global solver for nonconvex followers (global)") if reason else None

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
            give_up(context),
        )


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
