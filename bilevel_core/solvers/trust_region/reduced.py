"""The variant ``model=reduced`` of `trust-region`: on Phi(x) = F(x, y(x)), for lower levels of any kind.

Source: Conn, Gould and Toint (2000), Trust-Region Methods, for the loop and the ratio test with inexact values;
Steihaug (1983) for truncated conjugate gradients; Byrd, Nocedal and Schnabel (1994) for limited-memory updates.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from bilevel_core.hypergradients import HypergradientSettings, ReducedHessian, reduced_gradient
from bilevel_core.lower import LowerFailedError, LowerSettings, Response, respond
from bilevel_core.oracles import Oracle, norm
from bilevel_core.result import Claim, Termination
from bilevel_core.solvers.iterative import Candidate, State, Stop
from bilevel_core.solvers.second_order import stationary_claim

ACCEPT, GOOD = 1e-4, 0.75
"""Shares of the predicted reduction: from the first on a step is taken, from the second on the region may grow."""
TRUSTED = 0.05
"""The error that an inexact lower level puts on Phi is kept below this share of the predicted reduction."""
BLURRED = 1e-10
"""Predicted reductions below this, relative, may be lost in the errors of two values of Phi: then gradients decide."""
LOOSEST = 1e-4
"""Residual of the lower level that is never exceeded, however much reduction is predicted."""


def _no_pairs() -> np.ndarray:
    return np.zeros((0, 0))


@dataclass
class ReducedState(State):
    """State of the variant ``reduced``.

    Attributes:
        gradient: the hypergradient at the candidate, shape (nx,).
        adjoint: of the last hypergradient, to start the next from.
        response: the lower level's answer at the candidate, where the model is made of it.
        residual: of the lower level at the candidate.
        strict: whether Phi is smooth at the candidate, as far as the multipliers tell.
        bent: whether the linear solve for the hypergradient met negative curvature of the lower level.
        radius: of the region, Euclidean.
        steps, changes: the last accepted steps and changes of the gradient, newest last, shapes (k, nx).
        converged: whether the projected gradient has met the tolerance.
        ended: why the start is over, empty while it is not.
    """

    gradient: np.ndarray = field(default_factory=lambda: np.zeros(0))
    adjoint: Any = None
    response: Response | None = None
    residual: float = 0.0
    strict: bool = True
    bent: bool = False
    radius: float = 1.0
    steps: np.ndarray = field(default_factory=_no_pairs)
    changes: np.ndarray = field(default_factory=_no_pairs)
    converged: bool = False
    ended: str = ""


@dataclass(frozen=True)
class ReducedMethod:
    """Options of the variant; see `TrustRegion` for what they mean."""

    radius: float
    max_radius: float
    min_radius: float
    tolerance: float
    hessian: Literal["quasi-newton", "exact"]
    quasi_newton: Literal["bfgs", "sr1"]
    memory: int
    lower: LowerSettings
    hypergradient: HypergradientSettings

    def init(self, oracle: Oracle, x0: np.ndarray) -> ReducedState:
        """The lower level's answer and the hypergradient at the start."""
        response = respond(oracle, x0, None, self.lower)
        empty = np.zeros((0, oracle.nx))
        state = ReducedState(radius=min(self.radius, self.max_radius), steps=empty, changes=empty.copy())
        return self._at(state, oracle, x0, response)

    def step(self, oracle: Oracle, state: ReducedState) -> ReducedState:
        """Minimise the quadratic model in the region, re-solve the lower level there, accept or shrink."""
        here = state.candidate
        assert here is not None
        if self._size(oracle, state) <= self.tolerance:
            return self._settled(oracle, state)
        model = self._model(oracle, state)
        low, high = oracle.x_lower - here.x, oracle.x_upper - here.x
        d = bounded_step(model, state.gradient, state.radius, low, high)
        predicted = -float(state.gradient @ d + 0.5 * d @ model.product(d))
        length = norm(d)
        if not predicted > 0.0 or length == 0.0:
            return self._shrunk(state, 0.0, "the model predicts no reduction that can be told from rounding")
        x = np.clip(here.x + d, oracle.x_lower, oracle.x_upper)
        accuracy = self._accuracy(state, predicted)
        try:
            response = respond(oracle, x, here.y, replace(self.lower, tolerance=accuracy))
        except LowerFailedError as error:
            return self._shrunk(state, 0.25 * length, str(error))
        value = oracle.upper(x, response.y)
        ratio = (here.objective - value) / predicted
        state = replace(
            state,
            figures={**state.figures, "predicted": predicted, "ratio": ratio, "step": length, "accuracy": accuracy},
        )
        if not ratio >= ACCEPT:
            if state.residual > accuracy:
                # The comparison is only as good as the worse of the two values: renew the one at the candidate first.
                again = respond(oracle, here.x, here.y, replace(self.lower, tolerance=accuracy))
                if again.residual < state.residual:
                    return self._at(state, oracle, here.x, again)
            if predicted <= BLURRED * max(1.0, abs(here.objective)):
                new = self._at(state, oracle, x, response)
                if self._size(oracle, new) <= 0.9 * self._size(oracle, state):
                    return self._remember(new, x - here.x, new.gradient - state.gradient)
            why = "the values do not follow the hypergradient however small the step"
            return self._shrunk(state, 0.25 * length, why)
        radius = state.radius
        if ratio < 0.25:
            radius = max(0.5 * length, self.min_radius)
        elif ratio > GOOD and length > 0.8 * radius:
            radius = min(2.0 * radius, self.max_radius)
        new = self._at(replace(state, radius=radius), oracle, x, response)
        return self._remember(new, x - here.x, new.gradient - state.gradient)

    def _model(self, oracle: Oracle, state: ReducedState) -> Quadratic:
        if self.hessian == "exact":
            assert state.candidate is not None
            assert state.response is not None
            return ReducedHessian(oracle, state.candidate.x, state.response, state.adjoint, self.hypergradient)
        return QuasiNewton(state.steps, state.changes, self.quasi_newton, norm(state.gradient) / state.radius)

    def done(self, state: ReducedState) -> Stop | None:
        """The message is that of the step that ended the start."""
        return Stop(Termination.CONVERGED, state.ended) if state.ended else None

    def _accuracy(self, state: ReducedState, predicted: float) -> float:
        """The lower level's tolerance for a trial point.

        A residual r moves Phi by adjoint . r to first order, so that this bound on |r| keeps the ratio test meaningful.
        """
        size = 1.0 if state.adjoint is None else max(norm(state.adjoint), 1e-12)
        return float(np.clip(TRUSTED * predicted / size, self.lower.tolerance, max(LOOSEST, self.lower.tolerance)))

    def _settled(self, oracle: Oracle, state: ReducedState) -> ReducedState:
        """The projected gradient is small: renew it with the tightest lower level, then say what is known."""
        here = state.candidate
        assert here is not None
        response = respond(oracle, here.x, here.y, self.lower)
        if state.residual > self.lower.tolerance and response.residual < state.residual:
            return self._at(state, oracle, here.x, response)
        text = f"The projected hypergradient is {self._size(oracle, state):.2g}."
        claim = Claim.FEASIBLE
        if response.converged and not state.bent:
            claim = stationary_claim(oracle, here.x, response, lower=self.lower, settings=self.hypergradient)
        if claim is Claim.LOCAL:
            text += " A sufficient condition for a local optimum holds."
        elif not response.converged:
            text += f" The lower level was not solved to its tolerance: {response.message}"
        elif state.bent:
            text += " The lower Hessian has negative curvature there, so that nothing is claimed of the point."
        elif claim is Claim.STATIONARY and not state.strict:
            claim = Claim.FEASIBLE
            text += " A constraint of the lower level is only just active: other directions may still descend."
        return replace(state, converged=True, ended=text, candidate=replace(here, claim=claim))

    def _shrunk(self, state: ReducedState, radius: float, why: str) -> ReducedState:
        if radius >= self.min_radius:
            return replace(state, radius=radius)
        return replace(state, ended=f"The region shrank to nothing: {why}. Nothing more is known of the point.")

    def _at(self, state: ReducedState, oracle: Oracle, x: np.ndarray, response: Response) -> ReducedState:
        here = reduced_gradient(oracle, x, response, self.hypergradient, state.adjoint)
        new = replace(
            state,
            candidate=Candidate(x.copy(), response.y, here.upper),
            gradient=here.value,
            adjoint=here.adjoint,
            response=response if self.hessian == "exact" else None,
            residual=response.residual,
            strict=here.strict,
            bent=here.negative_curvature,
        )
        figures = {
            "hypergradient_norm": self._size(oracle, new),
            "radius": state.radius,
            "lower_residual": response.residual,
        }
        return replace(new, figures={**state.figures, **figures})

    def _remember(self, state: ReducedState, s: np.ndarray, change: np.ndarray) -> ReducedState:
        """Keep the pair for the model, unless its curvature is noise."""
        if (
            self.hessian == "exact"
            or norm(change) == 0.0
            or (self.quasi_newton == "bfgs" and s @ change <= 1e-8 * norm(s) * norm(change))
        ):
            return state
        keep = max(0, self.memory - 1)
        steps = np.vstack([state.steps[len(state.steps) - keep :] if keep < len(state.steps) else state.steps, s])
        changes = np.vstack(
            [state.changes[len(state.changes) - keep :] if keep < len(state.changes) else state.changes, change]
        )
        return replace(state, steps=steps, changes=changes)

    @staticmethod
    def _size(oracle: Oracle, state: ReducedState) -> float:
        """The largest entry of the hypergradient projected onto the bounds."""
        assert state.candidate is not None
        x = state.candidate.x
        projected = x - np.clip(x - state.gradient, oracle.x_lower, oracle.x_upper)
        return float(np.abs(projected).max(initial=0.0))


class Quadratic(Protocol):
    """The second-order part of a model."""

    def product(self, v: np.ndarray, /) -> np.ndarray:
        """Its matrix times a vector."""
        ...


class QuasiNewton:
    """A limited-memory approximation of the Hessian: ``scale I + U diag(signs) U'``.

    Args:
        steps, changes: pairs, oldest first, shapes (k, n).
        kind: ``bfgs`` (positive definite) or ``sr1`` (may be indefinite; pairs with tiny denominators are left out).
        scale: the multiple of the identity while there is no pair; the newest pair decides afterwards.
    """

    def __init__(self, steps: np.ndarray, changes: np.ndarray, kind: str, scale: float) -> None:
        self.scale = scale
        if len(steps):
            s, y = steps[-1], changes[-1]
            self.scale = max(1e-12, abs(float(y @ y)) / max(abs(float(s @ y)), 1e-300))
            if kind == "sr1":
                self.scale = max(1e-12, abs(float(s @ y)) / float(s @ s))
        self.vectors = np.zeros((0, steps.shape[1]))
        self.signs = np.zeros(0)
        for s, y in zip(steps, changes, strict=True):
            image = self.product(s)
            if kind == "bfgs":
                self._update(image / np.sqrt(s @ image), -1.0)
                self._update(y / np.sqrt(s @ y), 1.0)
                continue
            rest = y - image
            denominator = float(rest @ s)
            if abs(denominator) > 1e-8 * norm(rest) * norm(s):
                self._update(rest / np.sqrt(abs(denominator)), float(np.sign(denominator)))

    def product(self, v: np.ndarray) -> np.ndarray:
        """The approximation times a vector."""
        return self.scale * v + self.vectors.T @ (self.signs * (self.vectors @ v))

    def _update(self, vector: np.ndarray, sign: float) -> None:
        self.vectors = np.vstack([self.vectors, vector])
        self.signs = np.append(self.signs, sign)


def bounded_step(
    model: Quadratic, gradient: np.ndarray, radius: float, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """A step d with |d| <= radius and low <= d <= high that reduces ``gradient . d + 0.5 d . B d``.

    Truncated conjugate gradients on the free variables; where the path meets a bound, its variables are held there and
    the rest goes on. Every part is cut at its minimum along the line, so the model never rises.
    """
    d = np.zeros_like(gradient)
    slope = gradient.copy()
    held = ((low >= 0.0) & (slope > 0.0)) | ((high <= 0.0) & (slope < 0.0))
    for _ in range(len(d) + 1):
        free = ~held
        if not free.any() or norm(slope[free]) <= 1e-12 * max(1e-300, norm(gradient)):
            break
        p = _steihaug(model, np.where(free, slope, 0.0), d, free, radius)
        along, curvature = float(slope @ p), float(p @ model.product(p))
        if along >= 0.0:
            break
        best = min(1.0, -along / curvature) if curvature > 0.0 else 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(p > 0.0, (high - d) / p, np.where(p < 0.0, (low - d) / p, np.inf))
        meets = float(max(0.0, room.min()))
        d = np.clip(d + min(best, meets) * p, low, high)
        slope = gradient + model.product(d)
        if meets >= best:
            break
        held |= free & (room <= meets)
    return d


def _steihaug(model: Quadratic, slope: np.ndarray, d: np.ndarray, free: np.ndarray, radius: float) -> np.ndarray:
    """An approximate minimiser p of the model around ``d`` over the free variables, with |d + p| <= radius."""
    p = np.zeros_like(slope)
    residual, direction = -slope, -slope
    target = min(0.1, np.sqrt(norm(slope))) * norm(slope)
    for _ in range(int(free.sum())):
        image = np.where(free, model.product(direction), 0.0)
        curvature = float(direction @ image)
        square = float(residual @ residual)
        length = square / curvature if curvature > 0.0 else np.inf
        edge = _to_edge(d + p, direction, radius)
        if length >= edge:
            return p + edge * direction
        p = p + length * direction
        remaining = residual - length * image
        if norm(remaining) <= target:
            return p
        direction = remaining + float(remaining @ remaining) / square * direction
        residual = remaining
    return p


def _to_edge(centre: np.ndarray, direction: np.ndarray, radius: float) -> float:
    """The t >= 0 with |centre + t direction| = radius, for a centre in the ball."""
    a, b, c = float(direction @ direction), float(centre @ direction), float(centre @ centre) - radius**2
    root = np.sqrt(max(0.0, b * b - a * c))
    # The stable one of the two forms of the root.
    return max(0.0, float(-c / (b + root) if b > 0.0 else (root - b) / a))
