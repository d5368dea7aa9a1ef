"""`hypergradient`: descent on the reduced objective Phi(x) = F(x, y(x)) along hypergradients.

Good at: smooth problems with many upper variables and an unconstrained lower level (hyperparameters, data weights):
with L-BFGS it needs tens of lower-level solves. Bad at: kinks, where the follower's active set changes (`auxiliary` and
`trust-region` cross them), and constraints of the leader's besides bounds (refused).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients import MODES, Hypergradient, HypergradientSettings, reduced_gradient
from bilevel_core.linear import norm as length_of
from bilevel_core.lower import LowerFailedError, Response, respond
from bilevel_core.oracles import NonFiniteError, Oracle
from bilevel_core.result import Claim, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.descent import (
    LOOSE,
    NO_MINIMUM,
    RANDOM,
    SOLVED,
    DescentSolver,
    option,
    projected,
    refused,
    runaway,
)
from bilevel_core.solvers.hypergradient.state import DescentState, looseness, watched
from bilevel_core.solvers.iterative import Candidate, CutShortError, Stop
from bilevel_core.solvers.limited_memory import Memory
from bilevel_core.solvers.second_order import is_random, local_evidence, lower_is_minimum
from bilevel_core.solvers.used_options import HYPERGRADIENT, Only
from bilevel_core.traits import Traits

SUFFICIENT, CURVATURE = 1e-4, 0.9
"""Constants of the Wolfe conditions."""
TRIALS = 25
TIGHTER = 1e-4
"""Of the tolerances: how exact solves are where no better point was found with these."""
PATIENCE = 5
"""A start ends after so many steps in a row that gain no more than rounding."""


@dataclass(frozen=True)
class HypergradientDescent(DescentSolver):
    """Outer L-BFGS, Adam or SGD on hypergradients, projected on the leader's bounds.

    Sources: Pedregosa (2016), Hyperparameter optimization with approximate gradient; Lorraine, Vicol and Duvenaud
    (2020); Nocedal and Wright (2006) for L-BFGS.
    """

    outer: Literal["lbfgs", "adam", "sgd"] = option(
        "lbfgs",
        "method of the upper level: lbfgs with a line search; adam and sgd with fixed steps, for noisy problems",
    )
    outer_rate: float = option(0.1, "step length of adam and sgd at the upper level")
    outer_momentum: float = option(0.0, "momentum of sgd at the upper level")
    mode: Literal[
        "cg", "minres", "neumann", "nystrom", "fixed-point", "dense", "unroll", "finite-difference", "first-order"
    ] = option("cg", "how hypergradients are computed")
    hypergradient_steps: int = option(50, "terms of neumann, inner steps of unroll")

    uses_device: ClassVar[bool] = True
    state_types: ClassVar[tuple[type, ...]] = (DescentState, Response, Memory)
    only: ClassVar[tuple[Only, ...]] = HYPERGRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.mode in MODES
        if not self.outer_rate > 0.0:
            raise UsageError(f"Expected a positive outer_rate, got {self.outer_rate!r}.")
        if not 0.0 <= self.outer_momentum < 1.0:
            raise UsageError(f"Expected outer_momentum in [0, 1), got {self.outer_momentum!r}.")
        if self.hypergradient_steps < 1:
            raise UsageError(f"Expected hypergradient_steps of at least 1, got {self.hypergradient_steps}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Smooth reduced objectives: callables, or followers without constraints besides bounds; bounds on x only."""
        reason = refused(traits)
        if reason is not None:
            return reason
        if traits.upper_rows:
            return Refused("the leader has constraints besides bounds", "auxiliary or trust-region")
        if traits.form == "algebraic":
            for f in traits.followers:
                if f.rows or f.objective == "linear":
                    return Refused(
                        f"follower {f.name!r} has constraints or a linear objective, so its answer has kinks",
                        "auxiliary or trust-region",
                    )
        elif traits.form != "differentiable":
            return Refused(f"there are no derivatives for {traits.form} problems", "a solver that samples")
        return Accepted(f"{self.outer} on hypergradients by {self.mode}", "local")

    def hypergradient_settings(self, norm: float = 0.0) -> HypergradientSettings:
        """See `DescentSolver.hypergradient_settings`."""
        return replace(super().hypergradient_settings(norm), mode=self.mode, steps=self.hypergradient_steps)

    def init(self, oracle: Oracle, x0: np.ndarray, context: RunContext) -> DescentState:
        """See `IterativeSolver.init`."""
        response = respond(oracle, x0, None, self.lower_settings(context))
        state = DescentState(memory=Memory.empty(oracle.nx), first=np.zeros(oracle.nx), second=np.zeros(oracle.nx))
        return self._at(oracle, state, x0, response, self._gradient(oracle, x0, response, None, 0.0))

    def done(self, state: DescentState) -> Stop | None:
        """See `IterativeSolver.done`."""
        if not state.ended:
            return runaway(state.candidate)
        return Stop(Termination.CONVERGED, "" if state.ended == "converged" else state.ended)

    def step(self, oracle: Oracle, state: DescentState, context: RunContext) -> DescentState:
        """See `IterativeSolver.step`."""
        assert state.candidate is not None
        if self._stationary(oracle, state):
            return self._finished(oracle, state, context)
        if self.outer == "lbfgs":
            new = watched(oracle, self._searched(oracle, state, context))
        else:
            new = self._moved(oracle, state, context)
        if context.expired or context.stopped:
            raise CutShortError
        return new

    def _lower(self, oracle: Oracle, x: np.ndarray, state: DescentState, context: RunContext) -> Response:
        """The lower level's answer near where the search stands, as exact as the search needs it there."""
        assert state.response is not None
        settings = self.lower_settings(context, looseness(state))
        if not state.tight:
            return respond(oracle, x, state.response.y, settings)
        response = respond(oracle, x, state.response.y, replace(settings, tolerance=TIGHTER * self.lower_tolerance))
        if response.residual <= self.lower_tolerance:  # which is all that was asked for
            return replace(response, converged=True, message="")
        return response

    def _gradient(
        self, oracle: Oracle, x: np.ndarray, response: Response, warm: Any, norm: float, *, tight: bool = False
    ) -> Hypergradient:
        settings = self.hypergradient_settings(norm)
        if tight:
            settings = replace(settings, tolerance=TIGHTER * settings.tolerance)
        found = reduced_gradient(oracle, x, response, settings, warm)
        if found.negative_curvature:
            oracle.note(
                "At some points the lower Hessian was not positive definite: there the answer is no strict minimum, "
                "and the hypergradient is that of a stationary point."
            )
        return found

    def _at(
        self, oracle: Oracle, state: DescentState, x: np.ndarray, response: Response, found: Hypergradient
    ) -> DescentState:
        if not response.converged:
            oracle.note(LOOSE + response.message, LOOSE)
        size = float(np.linalg.norm(projected(x, found.value, oracle.x_lower, oracle.x_upper)))
        figures = {"hypergradient_norm": size, "lower_residual": response.residual, "residual": found.residual}
        return replace(
            state,
            candidate=Candidate(x, response.y, found.upper),
            response=response,
            gradient=found.value,
            adjoint=found.adjoint,
            largest=max(state.largest, size),
            figures=figures,
        )

    def _stationary(self, oracle: Oracle, state: DescentState) -> bool:
        assert state.candidate is not None
        x, objective = state.candidate.x, state.candidate.objective
        size = float(np.linalg.norm(projected(x, state.gradient, oracle.x_lower, oracle.x_upper)))
        if size <= self.threshold(state.largest, objective):
            return True
        if size > self.threshold(np.inf, objective):
            return False
        _, f_x, _ = oracle.upper_gradients(x, state.candidate.y)
        terms = max(float(np.linalg.norm(f_x)), float(np.linalg.norm(state.gradient - f_x)))
        return size <= self.threshold(state.largest, objective, terms)

    def _finished(self, oracle: Oracle, state: DescentState, context: RunContext) -> DescentState:
        candidate, response = state.candidate, state.response
        assert candidate is not None
        assert response is not None
        if response.residual > self.lower_tolerance:
            # The norm was met with loose solves: once more with tight ones before anything is claimed.
            response = respond(oracle, candidate.x, response.y, self.lower_settings(context))
            found = self._gradient(oracle, candidate.x, response, state.adjoint, 0.0)
            state = self._at(oracle, state, candidate.x, response, found)
            if not self._stationary(oracle, state):
                return state
            candidate = state.candidate
            assert candidate is not None
        exact = self.mode in ("cg", "minres", "dense", "nystrom") and response.converged and not self.damping
        claim = Claim.FEASIBLE
        if is_random(oracle):
            oracle.note(RANDOM)
        elif not state.figures["residual"] <= SOLVED or lower_is_minimum(oracle, candidate.x, response) is False:
            oracle.note(NO_MINIMUM)
        elif exact and self.curvature == "hessian":
            claim = Claim.STATIONARY
            if local_evidence(oracle, candidate.x, response, lower=self.lower_settings(context)):
                claim = Claim.LOCAL
        else:
            oracle.note("The hypergradient was approximate, so that nothing is claimed of the point but feasibility.")
        if not np.any(state.gradient) and state.iteration == 0:
            oracle.note(
                "The hypergradient is zero where the search started: F is flat there. Try starts=8, or another start."
            )
        return replace(state, candidate=replace(candidate, claim=claim), ended="converged")

    # L-BFGS.

    def _searched(self, oracle: Oracle, state: DescentState, context: RunContext) -> DescentState:
        """One step along the quasi-Newton direction, its length by the Wolfe conditions on the re-solved objective."""
        assert state.candidate is not None
        assert state.memory is not None
        x, g = state.candidate.x, state.gradient
        low, high = oracle.x_lower, oracle.x_upper
        memory = Memory.empty(oracle.nx) if state.plain else state.memory
        direction = memory.direction(x, g, low, high)
        if not float(direction @ g) < 0.0:
            memory = Memory.empty(oracle.nx)
            direction = memory.direction(x, g, low, high)
        new = self._search(oracle, replace(state, memory=memory), direction, context)
        if new is not None:
            return new
        if not state.tight:
            return self._tightened(oracle, state, context)
        if state.plain or not len(state.memory.steps):
            text = (
                "The search found no better point along the hypergradient, though its norm is "
                f"{state.figures['hypergradient_norm']:.2g}: a kink of the follower's answer, or inexact lower solves."
            )
            return replace(state, ended=text)
        return replace(state, plain=True)

    def _tightened(self, oracle: Oracle, state: DescentState, context: RunContext) -> DescentState:
        """The same point with the lower level and the hypergradient solved beyond their tolerances.

        With loose ones the answer at the old point may pass for one at the new, so that nothing moves, and near a
        minimum what the tolerances leave open is more than there is to gain.
        """
        assert state.candidate is not None
        x, state = state.candidate.x, replace(state, tight=True)
        response = self._lower(oracle, x, state, context)
        found = self._gradient(oracle, x, response, state.adjoint, 0.0, tight=True)
        return self._at(oracle, state, x, response, found)

    def _search(
        self, oracle: Oracle, state: DescentState, direction: np.ndarray, context: RunContext
    ) -> DescentState | None:
        assert state.candidate is not None
        assert state.response is not None
        assert state.memory is not None
        x, value, slope = state.candidate.x, state.candidate.objective, float(direction @ state.gradient)
        length, shortest, longest = 1.0, 0.0, np.inf
        furthest = max(1.0, _room(x, direction, oracle.x_lower, oracle.x_upper))
        best: DescentState | None = None
        for _ in range(TRIALS):
            if context.expired or context.stopped:
                raise CutShortError
            new_x = np.clip(x + length * direction, oracle.x_lower, oracle.x_upper)
            if np.array_equal(new_x, x):
                return best
            response = self._response(oracle, new_x, state, context)
            upper = None if response is None else _value(oracle, new_x, response)
            decrease = SUFFICIENT * float((new_x - x) @ state.gradient)
            if response is None or upper is None or not upper <= value + decrease:
                if response is not None and upper is not None and upper <= value + self._noise(oracle, state, response):
                    # Values no longer tell the points apart; gradients do (Hager and Zhang 2005).
                    found = self._gradient(oracle, new_x, response, state.adjoint, looseness(state), tight=state.tight)
                    flatter = self._accepted(oracle, state, new_x, response, found)
                    if flatter.figures["hypergradient_norm"] <= 0.9 * state.figures["hypergradient_norm"]:
                        return flatter
                if -length * slope <= oracle.precision * max(1.0, abs(value)):
                    return best  # A shorter step changes the objective by less than rounding.
                longest = length
                guess = 0.25 * length if upper is None else _parabola(length, upper - value, slope)
                length = guess if shortest == 0.0 else 0.5 * (shortest + longest)
                continue
            found = self._gradient(oracle, new_x, response, state.adjoint, looseness(state), tight=state.tight)
            best = self._accepted(oracle, state, new_x, response, found)
            turned = float(found.value @ direction) - slope
            # The first pair is for the scale of the next direction: any positive curvature gives one.
            enough = 0.0 if not len(state.memory.steps) else (CURVATURE - 1.0) * slope
            if turned > enough or length >= furthest:
                return best
            shortest = length
            further = _further(length, slope, slope + turned)
            length = min(further, furthest) if longest == np.inf else 0.5 * (shortest + longest)
        return best

    @staticmethod
    def _noise(oracle: Oracle, state: DescentState, response: Response) -> float:
        """What inexact lower-level solves and rounding may have done to the difference of two objectives."""
        assert state.candidate is not None
        assert state.response is not None
        adjoint = 0.0 if state.adjoint is None else length_of(state.adjoint)
        rounding = 10.0 * oracle.precision * max(1.0, abs(state.candidate.objective))
        return 2.0 * (state.response.residual + response.residual) * adjoint + rounding

    def _response(self, oracle: Oracle, x: np.ndarray, state: DescentState, context: RunContext) -> Response | None:
        """The lower level's answer at a trial point; None where it fails, which only means a shorter step."""
        try:
            return self._lower(oracle, x, state, context)
        except (LowerFailedError, NonFiniteError):
            return None

    def _accepted(
        self, oracle: Oracle, state: DescentState, x: np.ndarray, response: Response, found: Hypergradient
    ) -> DescentState:
        assert state.candidate is not None
        assert state.memory is not None
        memory = state.memory.updated(x - state.candidate.x, found.value - state.gradient, self.memory)
        moved = float(np.linalg.norm(x - state.candidate.x))
        gained = state.candidate.objective - found.upper
        slow = state.slow + 1 if gained <= 10.0 * oracle.precision * max(1.0, abs(found.upper)) else 0
        tight = state.tight and 1e-3 * state.figures["hypergradient_norm"] <= self.lower_tolerance
        new = self._at(oracle, replace(state, memory=memory, plain=False, tight=tight, slow=slow), x, response, found)
        ended = state.ended
        if slow >= PATIENCE:
            ended = (
                f"The last {slow} steps changed the objective by no more than rounding; the hypergradient has norm "
                f"{new.figures['hypergradient_norm']:.2g}. Use float64, or a larger tolerance."
            )
        return replace(new, figures={**new.figures, "step": moved}, ended=ended)

    # Adam and SGD.

    def _moved(self, oracle: Oracle, state: DescentState, context: RunContext) -> DescentState:
        assert state.candidate is not None
        assert state.response is not None
        oracle.advance()
        g, first, second = state.gradient, state.first, state.second
        if self.outer == "adam":
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
            k = state.iteration + 1
            step = (first / (1.0 - 0.9**k)) / (np.sqrt(second / (1.0 - 0.999**k)) + 1e-12)
        else:
            first = self.outer_momentum * first + g
            step = first
        x = np.clip(state.candidate.x - self.outer_rate * step, oracle.x_lower, oracle.x_upper)
        response = respond(oracle, x, state.response.y, self.lower_settings(context))
        found = self._gradient(oracle, x, response, state.adjoint, 0.0)
        return self._at(oracle, replace(state, first=first, second=second), x, response, found)


def _value(oracle: Oracle, x: np.ndarray, response: Response) -> float | None:
    try:
        return oracle.upper(x, response.y)
    except NonFiniteError:
        return None


def _room(x: np.ndarray, direction: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The longest step along a direction within the bounds; infinity where there is none."""
    moves = direction != 0.0
    ends = np.where(direction > 0.0, upper - x, lower - x)[moves]
    return float((ends / direction[moves]).min(initial=np.inf))


def _further(length: float, before: float, now: float) -> float:
    """A longer step where the objective still falls: to where its slope would vanish, 2 to 10 times as long."""
    vanishes = length * before / (before - now) if now > before else np.inf
    return min(10.0 * length, max(2.0 * length, vanishes))


def _parabola(length: float, rise: float, slope: float) -> float:
    """The minimum of the parabola through a failed trial, kept between a tenth and a half of its length."""
    bent = rise - slope * length
    guess = -slope * length * length / (2.0 * bent) if bent > 0.0 else 0.5 * length
    return float(np.clip(guess, 0.1 * length, 0.5 * length))
