"""`auxiliary`: descent along the joint direction of a small program, so that the follower stays optimal on the way.

At a point the auxiliary program gives the direction in upper and lower variables along which the leader's objective
falls fastest while the follower stays optimal to first order. Without constraints at either level it is two linear
solves in the lower Hessian, matrix-free; else a linear or quadratic program for HiGHS, with branches where lower
constraints are weakly active. Its optimal value 0 is a certificate: no direction descends (B-stationarity).

Good at: kinks on the path, leader's constraints, warm starts (the predictor is optimal to first order already). Bad at:
directions that are flat over a distance: there it looks further with a trust-region step, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients import OptimalitySystem
from bilevel_core.lower import Response, respond
from bilevel_core.oracles import Oracle
from bilevel_core.result import Claim, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.auxiliary.leap import leap, polyhedral
from bilevel_core.solvers.auxiliary.program import LARGEST, AuxiliaryProgram, Direction
from bilevel_core.solvers.auxiliary.search import Line, Trial, bracketed, breakpoints, search, trial
from bilevel_core.solvers.auxiliary.state import AuxiliaryState
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
from bilevel_core.solvers.iterative import FEASIBLE, Candidate, CutShortError, Stop
from bilevel_core.solvers.limited_memory import Memory
from bilevel_core.solvers.second_order import is_random, local_evidence, lower_is_minimum
from bilevel_core.solvers.used_options import AUXILIARY, Only
from bilevel_core.traits import Traits

SUFFICIENT = 1e-4
FAR = 1e4
"""Bound on a quasi-Newton step's components, in units of x (at least 1)."""
HEAVIEST = 1e8
PROVEN = "Nothing better lies in a region around the point: a bilevel model that is exact there shows it."


@dataclass(frozen=True)
class Auxiliary(DescentSolver):
    """The auxiliary program's direction, with a step size that the re-solved lower level decides.

    Sources: Savard and Gauvin (1994); Vicente, Savard and Judice (1994); Sinha, Khandait and Mohanty (2024).
    """

    norm: Literal["auto", "2", "inf", "quasi-newton"] = option(
        "auto",
        "what measures d_x: 2 or inf (steepest descent; with constraints both are inf, a linear program), quasi-newton "
        "(a curvature estimate of the reduced objective); auto: quasi-newton, and inf for the certificate",
    )
    max_leaps: int = option(5, "most trust-region steps from points where no direction descends (algebraic problems)")

    uses_device: ClassVar[bool] = True
    state_types: ClassVar[tuple[type, ...]] = (AuxiliaryState, Response, Memory)
    only: ClassVar[tuple[Only, ...]] = AUXILIARY

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_leaps < 0:
            raise UsageError(f"Expected max_leaps of at least 0, got {self.max_leaps}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Continuous problems with followers that are not known to be nonconvex."""
        reason = refused(traits)
        if reason is not None:
            return reason
        if traits.form not in ("algebraic", "differentiable"):
            return Refused(f"there are no derivatives for {traits.form} problems", "a solver that samples")
        size = traits.upper_variables + traits.lower_variables
        constrained = traits.upper_rows or any(f.rows for f in traits.followers)
        if constrained and size > LARGEST:
            return Refused(
                f"it has constraints and {size} variables; with constraints the program is dense, up to {LARGEST}",
                "kkt, or bounds in the place of constraints",
            )
        how = "linear or quadratic program for HiGHS" if constrained else "two linear solves in the lower Hessian"
        return Accepted(f"auxiliary program: {how}", "local")

    def init(self, oracle: Oracle, x0: np.ndarray, context: RunContext) -> AuxiliaryState:
        """See `IterativeSolver.init`."""
        response = respond(oracle, x0, None, self.lower_settings(context))
        point = trial(oracle, 0.0, x0, response)
        _, f_x, f_y = oracle.upper_gradients(x0, response.y)
        steepest = max(float(np.abs(f_x).max(initial=0.0)), float(abs(f_y).max()) if oracle.ny else 0.0)
        state = AuxiliaryState(memory=Memory.empty(oracle.nx), weight=10.0 * max(1.0, steepest))
        return self._at(oracle, state, point)

    def done(self, state: AuxiliaryState) -> Stop | None:
        """See `IterativeSolver.done`."""
        if not state.ended:
            return runaway(state.candidate)
        return Stop(Termination.CONVERGED, "" if state.ended == "converged" else state.ended)

    def step(self, oracle: Oracle, state: AuxiliaryState, context: RunContext) -> AuxiliaryState:
        """See `IterativeSolver.step`."""
        assert state.candidate is not None
        assert state.response is not None
        x, response = state.candidate.x, state.response
        norm = state.figures.get("hypergradient_norm", 0.0)
        system = OptimalitySystem(oracle, x, response, self.hypergradient_settings(norm))
        _, f_x, f_y = oracle.upper_gradients(x, response.y)
        found = system.solve(f_y, start=state.adjoint)
        gradient = system.total(f_x, found)
        terms = max(float(np.linalg.norm(f_x)), float(np.linalg.norm(gradient - f_x)))
        constrained = oracle.has_upper_rows or oracle.has_lower_rows or not system.active.strict
        # With constraints the program itself says what is consistent.
        sound = not found.negative_curvature and (constrained or found.residual <= SOLVED)
        state = replace(state, terms=terms, sound=sound)
        state = self._learnt(state, system, x, gradient, found.v)
        if found.negative_curvature:
            oracle.note("At some points the lower Hessian was not positive definite: the answer is no strict minimum.")
        if constrained and oracle.nx + oracle.ny <= LARGEST:
            new = self._constrained(oracle, state, system, (f_x, oracle.to_numpy(f_y)), gradient, context)
        else:
            new = self._free(oracle, state, system, gradient, context)
        if context.expired or context.stopped:
            raise CutShortError
        return new

    def _learnt(
        self, state: AuxiliaryState, system: OptimalitySystem, x: np.ndarray, gradient: np.ndarray, adjoint: Any
    ) -> AuxiliaryState:
        """The curvature estimate with the last step, where both ends lie on the same piece."""
        assert state.memory is not None
        active = np.concatenate([system.active.strong, system.active.fixed])
        memory = state.memory
        if state.last_x is not None and state.last_gradient is not None and state.last_active is not None:
            same = np.array_equal(active, state.last_active)
            memory = memory.updated(x - state.last_x, gradient - state.last_gradient, self.memory) if same else memory
            if not same:
                memory = Memory.empty(x.size)
        return replace(state, memory=memory, last_x=x, last_gradient=gradient, last_active=active, adjoint=adjoint)

    def _at(self, oracle: Oracle, state: AuxiliaryState, point: Trial) -> AuxiliaryState:
        if not point.response.converged:
            oracle.note(LOOSE + point.response.message, LOOSE)
        return replace(
            state,
            candidate=Candidate(point.x, point.response.y, point.objective, point.violation),
            response=point.response,
            excess=point.excess,
            length=point.length or state.length,
            plain=False,
            figures={
                **state.figures,
                "step": point.length,
                "lower_residual": point.response.residual,
                "violation": point.violation,
            },
        )

    # Without constraints: matrix-free.

    def _free(
        self,
        oracle: Oracle,
        state: AuxiliaryState,
        system: OptimalitySystem,
        gradient: np.ndarray,
        context: RunContext,
    ) -> AuxiliaryState:
        assert state.candidate is not None
        assert state.memory is not None
        candidate = state.candidate
        steep = projected(candidate.x, gradient, oracle.x_lower, oracle.x_upper)
        size = float(np.linalg.norm(steep))
        largest = max(state.largest, size)
        state = replace(state, largest=largest, figures={**state.figures, "hypergradient_norm": size})
        if size <= self.threshold(largest, candidate.objective, state.terms):
            return self._settled(oracle, state, system, context, regular=True, exact=True)
        assert state.memory is not None
        memory = Memory.empty(oracle.nx) if state.plain else state.memory
        d_x = self._direction(oracle, candidate.x, steep, gradient, memory)
        moved = system.follow(d_x)
        line = self._line(oracle, state, d_x, moved.v, context)
        scaled = self.norm in ("auto", "quasi-newton") and len(memory.steps) > 0
        length = 1.0 if scaled else bracketed(line.predicted, state.length)
        point = self._corrected(line, length or 0.1 * state.length, candidate.objective, float(gradient @ d_x))
        if point is not None:
            return self._at(oracle, replace(state, memory=memory), point)
        if len(memory.steps):
            return replace(state, plain=True)
        return self._stuck(oracle, state, size, context)

    def _direction(
        self, oracle: Oracle, x: np.ndarray, steep: np.ndarray, gradient: np.ndarray, memory: Memory
    ) -> np.ndarray:
        if self.norm == "inf":
            return -np.sign(steep) * (np.abs(steep) > 1e-3 * np.abs(steep).max())
        if self.norm == "2":
            return -steep / np.linalg.norm(steep)
        d_x = memory.direction(x, gradient, oracle.x_lower, oracle.x_upper)
        return d_x if float(d_x @ gradient) < 0.0 else -steep / np.linalg.norm(steep)

    def _line(self, oracle: Oracle, state: AuxiliaryState, d_x: np.ndarray, d_y: Any, context: RunContext) -> Line:
        assert state.candidate is not None
        assert state.response is not None
        lower = self.lower_settings(context, state.figures.get("hypergradient_norm", 0.0))
        return Line(oracle, state.candidate.x, state.response, d_x, d_y, lower)

    def _corrected(self, line: Line, length: float, value: float, slope: float) -> Trial | None:
        """The first of the length, a third of it, ... whose re-solved objective falls enough."""
        for _ in range(16):
            found = line.at(length)
            if found is not None and found.objective <= value + SUFFICIENT * length * slope:
                return found
            length *= 0.3
        return None

    # With constraints: a program.

    def _constrained(
        self,
        oracle: Oracle,
        state: AuxiliaryState,
        system: OptimalitySystem,
        gradients: tuple[np.ndarray, np.ndarray],
        gradient: np.ndarray,
        context: RunContext,
    ) -> AuxiliaryState:
        assert state.candidate is not None
        assert state.response is not None
        candidate, response = state.candidate, state.response
        upper = oracle.upper_rows(candidate.x, response.y, jacobian=True)
        y = oracle.to_numpy(response.y)
        program = AuxiliaryProgram(oracle, candidate.x, y, system, gradients, upper, state.weight)
        # A direction of the size of x: its slope per unit is what the tolerance is for.
        reach = max(1.0, float(np.abs(candidate.x).max(initial=0.0)))
        steepest = program.solve(reach)
        if steepest is None:
            return self._stuck(oracle, state, None, context)
        # Where the leader's rows are violated the value is a matter of their price, not of F's scale.
        promised = -steepest.value / reach
        largest = state.largest if state.excess else max(state.largest, promised)
        state = replace(state, largest=largest, figures={**state.figures, "auxiliary_value": -promised})
        if promised > self.threshold(largest, candidate.objective, state.terms):
            # The value of a quasi-Newton direction falls with the square of the slope: whether the point is stationary
            # is for the steepest one to say.
            if self.norm in ("auto", "quasi-newton") and not state.plain:
                point = self._bent(oracle, state, system, program, gradient, context)
                if point is not None:
                    return self._at(oracle, state, point)
            point = self._along(oracle, state, system, steepest, context)
            if point is not None:
                return self._at(oracle, replace(state, memory=Memory.empty(oracle.nx)), point)
            return self._stuck(oracle, state, promised, context)
        return self._settled(oracle, state, system, context, regular=program.regular(), exact=steepest.exact)

    def _bent(
        self,
        oracle: Oracle,
        state: AuxiliaryState,
        system: OptimalitySystem,
        program: AuxiliaryProgram,
        gradient: np.ndarray,
        context: RunContext,
    ) -> Trial | None:
        """A better point along a direction that the curvature estimate bends."""
        assert state.candidate is not None
        assert state.memory is not None
        x, value, memory = state.candidate.x, state.candidate.objective, state.memory
        steep = projected(x, gradient, oracle.x_lower, oracle.x_upper)
        matrix = memory.matrix(max(float(np.linalg.norm(steep)), 1e-6 * max(1.0, abs(value))))
        direction = program.solve(FAR * max(1.0, float(np.abs(x).max(initial=0.0))), matrix)
        if direction is not None and direction.value < 0.0:
            point = self._along(oracle, state, system, direction, context)
            if point is not None:
                return point
        if not system.active.strict or oracle.has_upper_rows or not steep.any():
            return None
        # Near a stationary point the program's tolerances hide its direction. On a smooth piece two linear solves give
        # the same one.
        d_x = self._direction(oracle, x, steep, gradient, memory)
        line = self._line(oracle, state, d_x, system.follow(d_x).v, context)
        return self._corrected(line, 1.0, value, float(gradient @ d_x))

    def _along(
        self,
        oracle: Oracle,
        state: AuxiliaryState,
        system: OptimalitySystem,
        direction: Direction,
        context: RunContext,
    ) -> Trial | None:
        assert state.candidate is not None
        assert state.response is not None
        candidate, response = state.candidate, state.response
        line = self._line(oracle, state, direction.x, oracle.from_numpy(direction.y), context)
        y = oracle.to_numpy(response.y)
        lengths = [1.0, *breakpoints(system, candidate.x, y, response, direction)]
        start = Trial(0.0, candidate.x, response, candidate.objective, candidate.violation, state.excess)
        found = search(line, lengths, start, state.weight)
        least = 1e-12 * max(1.0, abs(start.merit(state.weight)))
        if found is None or not found.merit(state.weight) < start.merit(state.weight) - least:
            return None
        return found

    # Ends.

    def _settled(
        self,
        oracle: Oracle,
        state: AuxiliaryState,
        system: OptimalitySystem,
        context: RunContext,
        *,
        regular: bool,
        exact: bool,
    ) -> AuxiliaryState:
        """No direction descends: what that proves, and whether a trust-region step finds a better point further off."""
        assert state.candidate is not None
        assert state.response is not None
        candidate, response = state.candidate, state.response
        if candidate.violation > FEASIBLE and state.weight < HEAVIEST:
            return replace(state, weight=10.0 * state.weight)
        if response.residual > self.lower_tolerance and response.converged:
            # Met with loose solves: once more with tight ones before anything is claimed.
            tight = respond(oracle, candidate.x, response.y, self.lower_settings(context))
            if tight.residual < response.residual:
                tightened = self._at(oracle, state, trial(oracle, 0.0, candidate.x, tight))
                return replace(tightened, figures={**tightened.figures, "hypergradient_norm": 0.0})
        further, proven = self._leapt(oracle, state, context)
        if further is not None:
            return further
        claim = Claim.FEASIBLE
        if candidate.violation > FEASIBLE:
            text = "The leader's constraints cannot be met near the point where the search ended: try starts=8."
            return replace(state, ended=text)
        if proven is Claim.LOCAL:
            claim = proven
            oracle.note(PROVEN)
        elif is_random(oracle):
            oracle.note(RANDOM)
        elif not state.sound or lower_is_minimum(oracle, candidate.x, response) is False:
            oracle.note(NO_MINIMUM)
        elif regular and exact and response.converged and not self.damping and self.curvature == "hessian":
            claim = Claim.STATIONARY
            smooth = system.active.strict and candidate.violation <= FEASIBLE
            if polyhedral(oracle) or (
                smooth and local_evidence(oracle, candidate.x, response, lower=self.lower_settings(context))
            ):
                claim = Claim.LOCAL
            oracle.note("The auxiliary program's optimal value is 0: the point is B-stationary.")
        else:
            oracle.note(
                "No direction of the auxiliary program descends, but active constraints depend on each other or a "
                "solve was approximate, so that this proves nothing."
            )
        return replace(state, candidate=replace(candidate, claim=claim), ended="converged")

    def _leapt(self, oracle: Oracle, state: AuxiliaryState, context: RunContext) -> tuple[AuxiliaryState | None, Claim]:
        """A better point further off, or what looking for one has proven of the candidate."""
        assert state.candidate is not None
        if oracle.form != "algebraic" or state.leaps >= self.max_leaps:
            return None, Claim.NONE
        better, claim = leap(oracle, state.candidate, state.weight, state.excess, self.lower_settings(context), context)
        if better is None:
            return None, claim
        oracle.note(
            "Where no direction descended, a trust-region step found a better point further off, and the search went "
            "on from there."
        )
        fresh = replace(
            state, memory=Memory.empty(oracle.nx), last_x=None, last_gradient=None, last_active=None, adjoint=None
        )
        return replace(self._at(oracle, fresh, better), leaps=state.leaps + 1, length=1.0), Claim.NONE

    def _stuck(self, oracle: Oracle, state: AuxiliaryState, size: float | None, context: RunContext) -> AuxiliaryState:
        """A direction that should descend by ``size``, and no better point along it; or (None) no direction at all."""
        further, proven = self._leapt(oracle, state, context)
        if further is not None:
            return further
        if proven is Claim.LOCAL:
            oracle.note(PROVEN)
            assert state.candidate is not None
            return replace(state, candidate=replace(state.candidate, claim=proven), ended="converged")
        text = (
            "No backend solved the auxiliary program at the point reached: whether the objective descends there is not "
            "known."
            if size is None
            else f"The auxiliary program promises a descent of {size:.2g}, and no better point was found along it: the "
            "follower's answer jumps there, or lower-level solves are not accurate enough."
        )
        return replace(state, ended=text)
