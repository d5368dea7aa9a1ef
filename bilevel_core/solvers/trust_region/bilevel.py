"""The variant ``model=bilevel`` of `trust-region`, for algebraic problems.

Source: Liu, Han and Wang (1998); Colson, Marcotte and Savard (2005). The model in the region is itself a bilevel
program and is solved exactly, so a step may cross kinks where the follower's active constraints change. An exact l1
merit function weighs the leader's objective against violations of its rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bilevel_core.lower import LowerFailedError, LowerSettings, Response, respond
from bilevel_core.oracles import NonFiniteError, Oracle
from bilevel_core.result import Claim, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.iterative import FEASIBLE, Candidate, CutShortError, State, Stop
from bilevel_core.solvers.second_order import stationary_claim
from bilevel_core.solvers.trust_region.model import (
    Complementarity,
    ModelAnswer,
    Order,
    Region,
    build,
    exact_lower,
    exact_upper,
    leader_scale,
    solve,
)
from bilevel_core.solvers.violation import leader_violation

WIDER = 10.0
"""How much larger a region is tried where there is nothing better in one: few solves, as each is a search."""
ACCEPT, GOOD = 1e-4, 0.75
"""Shares of the predicted reduction: from the first on a step is taken, from the second on the region may grow."""
ROUNDING = 1e-13
"""Predicted reductions up to this, relative, cannot be told from rounding."""
HEAVIEST = 1e10
"""The weight of violations stops growing here: rows that are still violated then are taken as impossible nearby."""
SLOW, PATIENCE = 1e-5, 15
"""A start ends after so many steps in a row with a relative improvement below the first: at an inflection, say, where
steps shrink without end.
"""
CORRECTIONS, CONTRACTION = 6, 0.5
"""How often a rejected step is corrected, each time by a step shorter than the last by the second at least."""
TIED = 1e-9
"""How much worse for the follower, relative, an answer may be and still count as one of its best."""


def _zeros() -> np.ndarray:
    return np.zeros(0)


@dataclass
class BilevelState(State):
    """State of the variant ``bilevel``.

    Attributes:
        inequality, equality: multipliers of the lower level's rows at the candidate.
        radius: of the region, in the largest change of a leader's variable, in units of ``unit``.
        unit: size of the leader's variables: their largest value at the start or a tenth of the widest bounds, at
            least 1.
        refused: smallest radius whose step was rejected since the last accepted step.
        weight: of violations in the merit function.
        linear: whether the leader's part is modelled linearly from now on, since a quadratic model took too long.
        slow: how many steps in a row have improved the merit by next to nothing.
        ended: why the start is over, empty while it is not.
        failed: whether that is an error.
    """

    inequality: np.ndarray = field(default_factory=_zeros)
    equality: np.ndarray = field(default_factory=_zeros)
    radius: float = 1.0
    unit: float = 1.0
    refused: float = math.inf
    weight: float = 1.0
    linear: bool = False
    slow: int = 0
    ended: str = ""
    failed: bool = False


@dataclass(frozen=True)
class BilevelMethod:
    """Options of the variant; see `TrustRegion` for what they mean."""

    radius: float
    max_radius: float
    min_radius: float
    tolerance: float
    upper_model: Order
    complementarity: Complementarity
    lower: LowerSettings

    def init(self, oracle: Any, x0: np.ndarray) -> BilevelState:
        """The follower's answer at the start."""
        response = respond(oracle, x0, None, self.lower)
        radius = min(self.radius, self.max_radius)
        widths = (oracle.x_upper - oracle.x_lower)[np.isfinite(oracle.x_upper - oracle.x_lower)]
        unit = max(1.0, float(np.abs(x0).max(initial=0.0)), 0.1 * float(widths.max(initial=0.0)))
        return self._at(BilevelState(radius=radius, unit=unit), oracle, x0, response)

    def step(self, oracle: Any, state: BilevelState, context: RunContext) -> BilevelState:
        """Solve the model, try its answer, and accept or shrink."""
        here = state.candidate
        assert here is not None
        before = _violations(oracle, here.x, here.y)
        answer, weight = self._model(oracle, state, before, context)
        if answer is None:
            raise CutShortError
        state = replace(state, weight=weight)
        if answer.x is None:
            return self._without_point(state, answer, oracle)
        merit = here.objective + weight * before
        predicted = float(merit - answer.objective - weight * answer.violation)
        figures = {"predicted": predicted, "radius": state.radius, "violation": here.violation}
        state = replace(state, figures=figures)
        least = self._least(oracle, state)
        if predicted <= least:
            return self._nothing_better(oracle, state, answer, least)
        return self._try(oracle, state, answer, merit, predicted, context)

    def done(self, state: BilevelState) -> Stop | None:
        """The message is that of the step that ended the start."""
        if not state.ended:
            return None
        return Stop(Termination.ERROR if state.failed else Termination.CONVERGED, state.ended)

    def _model(
        self, oracle: Any, state: BilevelState, before: float, context: RunContext
    ) -> tuple[ModelAnswer | None, float]:
        """The model's answer, and the weight that makes it a descent of the merit function; None when out of time.

        With the rows as constraints first; where that has no point in the region, with violations at a price.
        """
        here, weight = state.candidate, state.weight
        assert here is not None
        y = np.asarray(here.y, dtype=float)
        region = Region(here.x, y, state.inequality, state.equality, state.radius * state.unit)
        gap = min(1e-6, 0.1 * self.tolerance)
        answer = solve(oracle, build(oracle, region, self._order(state)), context, self.complementarity, gap)
        if answer.x is None and before > 0.0 and _infeasible(answer):
            while True:
                priced = build(oracle, replace(region, weight=weight), self._order(state))
                answer = solve(oracle, priced, context, self.complementarity, gap)
                if answer.x is None or answer.violation < 0.9 * before or weight >= HEAVIEST:
                    break
                weight *= 10.0
        if context.expired or context.stopped:
            return None, weight
        gained = before - answer.violation
        if answer.x is not None and gained > 0.1 * FEASIBLE:
            weight = max(weight, 2.0 * (answer.objective - here.objective) / gained)
        return answer, weight

    def _order(self, state: BilevelState) -> Order:
        return "linear" if state.linear else self.upper_model

    def _least(self, oracle: Any, state: BilevelState) -> float:
        """The reduction of the merit that is worth a step: far smaller where the model is an approximation, since there
        the reduction goes down with the square of the gradient. Never what rounding of F itself may have made.
        """
        here = state.candidate
        assert here is not None
        size = leader_scale(oracle, here.x, np.asarray(here.y, dtype=float))
        rounding = ROUNDING * (size + abs(here.objective))
        share = self.tolerance * min(1.0, state.radius)
        if not (exact_lower(oracle.program) and exact_upper(oracle.program, self._order(state))):
            share *= 1e-3
        return max(share * size, rounding)

    def _without_point(self, state: BilevelState, answer: ModelAnswer, oracle: Any) -> BilevelState:
        if answer.termination is Termination.TIME_LIMIT:
            if self._order(state) == "quadratic" and not exact_upper(oracle.program, "linear"):
                return replace(state, linear=True)
            return self._shrunk(state, 0.25 * state.radius, "its model takes too long to solve")
        if answer.termination is Termination.UNBOUNDED and exact_lower(oracle.program):
            text = "The leader's objective improves without end along the follower's best answers in the region."
            return replace(state, ended=text, failed=True)
        return self._shrunk(state, 0.25 * state.radius, f"the model has no solution there ({answer.termination.value})")

    def _nothing_better(self, oracle: Any, state: BilevelState, answer: ModelAnswer, least: float) -> BilevelState:
        """No better point of the model in the region: look further out, or stop.

        Looking further is worth a solve of the model, since a follower's answer that is better for the leader may begin
        beyond a kink; a radius whose step was already rejected here is not tried again.
        """
        here = state.candidate
        assert here is not None
        wider = min(WIDER * state.radius, self.max_radius)
        if wider >= state.refused:
            wider = 0.5 * (state.radius + state.refused)
        reach = float(np.maximum(here.x - oracle.x_lower, oracle.x_upper - here.x).max(initial=0.0))
        everything = state.radius * state.unit >= reach  # nothing lies beyond the bounds
        if not everything and (wider > 1.5 * state.radius or (wider == self.max_radius > state.radius)):
            return replace(state, radius=wider)
        if here.violation > FEASIBLE:
            if state.weight < HEAVIEST:
                return replace(state, weight=10.0 * state.weight)
            text = "The leader's constraints cannot be met near the point where the search ended."
            return replace(state, ended=text, failed=True)
        exact = exact_lower(oracle.program) and exact_upper(oracle.program, self._order(state))
        if exact and answer.proven and state.radius >= self.min_radius:
            reach = state.radius * state.unit
            text = (
                f"Locally optimal: with no variable of the leader's changed by more than {reach:.3g} no point "
                f"is better by more than {least:.2g}; the model is exact there, and was solved to optimality."
            )
            return replace(state, ended=text, candidate=replace(here, claim=Claim.LOCAL))
        response = respond(oracle, here.x, here.y, self.lower)
        claim = stationary_claim(oracle, here.x, response, smooth=not oracle.has_upper_rows, lower=self.lower)
        text = "The model predicts no reduction in its region."
        if claim is Claim.LOCAL:
            text += " A sufficient condition for a local optimum holds."
        return replace(state, ended=text, candidate=replace(here, claim=claim))

    def _try(
        self,
        oracle: Any,
        state: BilevelState,
        answer: ModelAnswer,
        merit: float,
        predicted: float,
        context: RunContext,
    ) -> BilevelState:
        """Compare the true merit at the model's answer with what was predicted."""
        here = state.candidate
        assert here is not None
        assert answer.x is not None
        length = float(np.abs(answer.x - here.x).max(initial=0.0)) / state.unit
        try:
            response = best_response(oracle, answer.x, answer.y, self.lower)
            after = _merit(oracle, answer.x, response.y, state.weight)
            if merit - after < ACCEPT * predicted and self._misses_rows(oracle, here, answer, response):
                answer, response = self._corrected(oracle, state, answer, response, context)
                assert answer.x is not None
                after = _merit(oracle, answer.x, response.y, state.weight)
        except (LowerFailedError, NonFiniteError) as error:
            return self._shrunk(state, 0.25 * max(length, self.min_radius), str(error))
        ratio = float(merit - after) / predicted
        state = replace(state, figures={**state.figures, "step": length, "ratio": ratio})
        if ratio < ACCEPT:
            why = "the true lower level does not follow the model however small the step"
            return self._shrunk(state, 0.25 * min(length, state.radius), why)
        size = leader_scale(oracle, here.x, np.asarray(here.y, dtype=float))
        slow = state.slow + 1 if merit - after < SLOW * size else 0
        if slow >= PATIENCE:
            text = f"The last {PATIENCE} steps hardly improved the point; nothing more is known of it."
            state = replace(state, ended=text)
        radius = state.radius
        if ratio < 0.25:
            radius = max(0.5 * length, self.min_radius)
        elif ratio > GOOD and length > 0.9 * radius:
            radius = min(2.0 * radius, self.max_radius)
        return self._at(replace(state, radius=radius, refused=math.inf, slow=slow), oracle, answer.x, response)

    @staticmethod
    def _misses_rows(oracle: Any, here: Candidate, answer: ModelAnswer, response: Response) -> bool:
        """Whether the model promised that the leader's rows would be met, and the true answer is as far from them."""
        if here.violation <= FEASIBLE or answer.violation > FEASIBLE or exact_lower(oracle.program):
            return False
        assert answer.x is not None
        return leader_violation(oracle, answer.x, response.y) > 0.5 * here.violation

    def _corrected(
        self, oracle: Any, state: BilevelState, answer: ModelAnswer, response: Response, context: RunContext
    ) -> tuple[ModelAnswer, Response]:
        """The step with the model renewed at its end, as often as this shortens it (second-order corrections).

        Where the follower's answer jumps, the leader's rows may be met at single points only, as between two of its
        vertices. Steps between points that are not feasible then look as bad as none, and Newton's come close only
        together. Source: Conn, Gould and Toint (2000), section 15.3.2.
        """
        here = state.candidate
        assert here is not None
        assert answer.x is not None
        x, length = answer.x, float(np.abs(answer.x - here.x).max(initial=0.0))
        for _ in range(CORRECTIONS):
            most = CONTRACTION * length
            y = np.asarray(response.y if answer.y is None else answer.y, dtype=float)
            region = Region(x, y, state.inequality, state.equality, most)
            gap = min(1e-6, 0.1 * self.tolerance)
            found = solve(oracle, build(oracle, region, self._order(state)), context, self.complementarity, gap)
            if context.expired or context.stopped:
                raise CutShortError
            if found.x is None:
                break
            length = float(np.abs(found.x - x).max(initial=0.0))
            x, response = found.x, best_response(oracle, found.x, found.y, self.lower)
            answer = found
            if leader_violation(oracle, x, response.y) <= FEASIBLE or not 0.0 < length < 0.99 * most:
                break
        return answer, response

    def _shrunk(self, state: BilevelState, radius: float, why: str) -> BilevelState:
        refused = min(state.refused, state.radius)
        if radius >= self.min_radius:
            return replace(state, radius=radius, refused=refused)
        return replace(state, refused=refused, ended=f"The region shrank to nothing: {why}. Nothing more is known.")

    @staticmethod
    def _at(state: BilevelState, oracle: Any, x: np.ndarray, response: Response) -> BilevelState:
        violation = leader_violation(oracle, x, response.y)
        candidate = Candidate(x.copy(), response.y, oracle.upper(x, response.y), violation)
        figures = {**state.figures, "lower_residual": response.residual}
        return replace(
            state,
            candidate=candidate,
            inequality=response.inequality,
            equality=response.equality,
            figures=figures,
        )


def best_response(oracle: Oracle, x: np.ndarray, proposed: Any, settings: LowerSettings) -> Response:
    """The lower level's answer at ``x``; the proposed one where it is as good for the lower level and suits the leader.

    Raises:
        LowerFailedError: the lower level has no answer.
    """
    response = respond(oracle, x, proposed, settings)
    # Without another answer to be known, one as good up to a tolerance is the same one, moved in the leader's favour.
    if response.unique is not False or proposed is None:
        return response
    value = oracle.lower(x, proposed)
    allowed = TIED * max(1.0, abs(response.value))
    if value > response.value + allowed or oracle.lower_rows(x, proposed).violation > TIED:
        return response
    mine = (_violations(oracle, x, proposed) > FEASIBLE, oracle.upper(x, proposed))
    theirs = (_violations(oracle, x, response.y) > FEASIBLE, oracle.upper(x, response.y))
    return replace(response, y=proposed, value=value) if mine < theirs else response


def _merit(oracle: Oracle, x: np.ndarray, y: Any, weight: float) -> float:
    return oracle.upper(x, y) + weight * _violations(oracle, x, y)


def _violations(oracle: Oracle, x: np.ndarray, y: Any) -> float:
    """The sum of the violations of the leader's rows."""
    rows = oracle.upper_rows(x, y)
    return float(np.maximum(rows.g, 0.0).sum() + np.abs(rows.h).sum())


def _infeasible(answer: ModelAnswer) -> bool:
    return answer.termination in (Termination.INFEASIBLE, Termination.CONVERGED, Termination.LOWER_INFEASIBLE)
