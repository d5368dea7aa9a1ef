"""`hyper-local-search`: from sampled and trained hyperparameters a few steps along a linear program's direction.

The linear program is the auxiliary program in the maximum norm: hyperparameters and weights move along one line on
which training stays optimal to first order. The step length is chosen on that joint line alone, without training. What
counts is the corrected value, with the weights trained again at the hyperparameters reached; both are reported, since
the weights on the line are those of no trained model.

Good at: a better point from models that are trained already, for the price of two linear solves and one training each.
Bad at: ending anywhere in particular; ``auxiliary`` and ``hypergradient`` go on to a stationary point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients import HypergradientSettings, OptimalitySystem
from bilevel_core.lower import LowerSettings, Response, respond
from bilevel_core.oracles import Oracle
from bilevel_core.result import Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.auxiliary.search import Line, Trial, bracketed
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.descent import LOOSE, option, projected, refused
from bilevel_core.solvers.iterative import Candidate, CutShortError, IterativeSolver, State, Stop, give_up
from bilevel_core.traits import Traits

FLAT = 1e-10
"""A slope along the direction, relative to max(1, |F|), that counts as zero."""


@dataclass
class LocalState(State):
    """Where one start stands.

    Attributes:
        response: the lower level's answer at the candidate.
        story: a sentence for each step: F before it, on the joint line, and corrected.
        steps: the same as figures.
        ended: whether no further step is to be had.
    """

    response: Response | None = None
    story: list[str] = field(default_factory=list[str])
    steps: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    ended: bool = False


@dataclass(frozen=True)
class HyperLocalSearch(IterativeSolver):
    """Random hyperparameters, each trained, and steps along a linear program's joint direction from there.

    Source: Sinha and Gunwal (2025), A linear programming-based hyper local search for tuning hyperparameters.
    """

    starts: int = option(10, "samples: the problem's own start, then random ones")
    steps: int = option(1, "steps of the linear program from each sample")
    length: float = option(
        1.0, "step length, in every hyperparameter's logarithm, that the search on the line begins with"
    )
    lower_tolerance: float = option(1e-8, "gradient norm at which training ends")
    lower_iterations: int = option(1000, "most iterations of one training")

    uses_device: ClassVar[bool] = True
    state_types: ClassVar[tuple[type, ...]] = (LocalState, Response)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "lower_iterations"):
            if getattr(self, name) < 1:
                raise UsageError(f"Expected {name} of at least 1, got {getattr(self, name)}.")
        for name in ("length", "lower_tolerance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise UsageError(f"Expected a positive number for {name}, got {value!r}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Problems of functions, without rows of the leader's."""
        if traits.form != "differentiable":
            return Refused("it is for models that are trained", "auxiliary")
        if traits.upper_rows:
            return Refused("a step on the joint line does not see the leader's constraints", "auxiliary")
        return refused(traits) or Accepted("linear program for a joint direction from each sample", "feasible")

    def init(self, oracle: Oracle, x0: np.ndarray, context: RunContext) -> LocalState:
        """See `IterativeSolver.init`: a sample, trained."""
        response = respond(oracle, x0, None, self._lower(context))
        return self._at(oracle, LocalState(), x0, response, oracle.upper(x0, response.y))

    def done(self, state: LocalState) -> Stop | None:
        """See `IterativeSolver.done`."""
        if not state.ended and state.iteration < self.steps:
            return None
        return Stop(Termination.CONVERGED, " ".join(state.story), tuple(state.steps))

    def step(self, oracle: Oracle, state: LocalState, context: RunContext) -> LocalState:
        """See `IterativeSolver.step`."""
        assert state.candidate is not None
        assert state.response is not None
        x, before, response = state.candidate.x, state.candidate.objective, state.response
        system = OptimalitySystem(oracle, x, response, HypergradientSettings())
        _, f_x, f_y = oracle.upper_gradients(x, response.y)
        gradient = system.total(f_x, system.solve(f_y))
        # The linear program: min gradient . d with |d_j| <= 1 and the bounds of X has this solution.
        d_x = -np.sign(projected(x, gradient, oracle.x_lower, oracle.x_upper))
        if not float(gradient @ d_x) < -FLAT * max(1.0, abs(before)):
            return self._over(state, f"At F = {before:.6g} the linear program's value is 0: no direction descends.")
        line = Line(oracle, x, response, d_x, system.follow(d_x).v, self._lower(context))
        room = float(np.where(d_x > 0.0, oracle.x_upper - x, x - oracle.x_lower)[d_x != 0.0].max())

        def joint(length: float) -> float:
            return line.predicted(length) if length <= room else math.inf

        length = bracketed(joint, min(self.length, room))
        found = line.at(length) if length else None
        if context.expired or context.stopped:
            raise CutShortError
        if found is None:
            return self._over(state, f"From F = {before:.6g} no step on the joint line could be taken.")
        return self._moved(oracle, state, found, joint(length))

    def _moved(self, oracle: Oracle, state: LocalState, found: Trial, joint: float) -> LocalState:
        """The corrected point; where it is no better the start ends at the point before."""
        assert state.candidate is not None
        before = state.candidate.objective
        told = (
            f"A step of {found.length:.3g} from F = {before:.6g} promised {joint:.6g} on the joint line; with the "
            f"weights trained again it is {found.objective:.6g}."
        )
        figures = {"step": found.length, "before": before, "joint_line": joint, "corrected": found.objective}
        steps = [*state.steps, figures]
        if not found.objective < before:
            kept = self._over(state, f"{told} The point before it is kept.")
            return replace(kept, figures={**state.figures, **figures}, steps=steps)
        new = self._at(oracle, state, found.x, found.response, found.objective)
        return replace(new, figures={**new.figures, **figures}, story=[*state.story, told], steps=steps)

    def _at(self, oracle: Oracle, state: LocalState, x: np.ndarray, response: Response, objective: float) -> LocalState:
        if not response.converged:
            oracle.note(LOOSE + response.message, LOOSE)
        figures = {"lower_residual": response.residual}
        return replace(state, candidate=Candidate(x, response.y, objective), response=response, figures=figures)

    @staticmethod
    def _over(state: LocalState, why: str) -> LocalState:
        return replace(state, story=[*state.story, why], ended=True)

    def _lower(self, context: RunContext) -> LowerSettings:
        settings: dict[str, Any] = {"tolerance": self.lower_tolerance, "max_iterations": self.lower_iterations}
        return LowerSettings(**settings, hurry=give_up(context))
