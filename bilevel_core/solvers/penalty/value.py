"""The value-function penalty for differentiable problems: gradients only, never a second derivative.

For a weight rho the penalised function of the leader's variables is

    P(x) = min over y [F(x, y) + rho f(x, y)] - rho min over z f(x, z)

and its gradient is that of the bracket less that of the last term, at fixed y and z (Danskin): the hypergradient
estimate ``grad_x F(x, y) + rho (grad_x f(x, y) - grad_x f(x, z))``. Its bias is about 1/rho.

Source: BOME (Liu, Ye, Wright, Stone, Liu 2022), F2SA (Kwon, Kwon, Wright, Nowak 2023), PBGD (Shen and Chen 2023). Here
full batches, inner minimisations carried to a tolerance, and an outer projected gradient with Barzilai-Borwein steps
and a line search. Since both P and its gradient have an expansion in 1/rho, the last stage minimises
``2 P_rho - P_(rho/2)``, whose bias is about 1/rho^2 (Richardson).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from bilevel_core.lower import LowerFailedError, LowerSettings
from bilevel_core.oracles import NonFiniteError, Oracle, Vector
from bilevel_core.result import Claim, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.descent import RANDOM
from bilevel_core.solvers.iterative import State, Stop
from bilevel_core.solvers.penalty.candidate import answered, claimed
from bilevel_core.solvers.penalty.minimise import Minimum, minimise
from bilevel_core.solvers.second_order import is_random

Smooth = Callable[[Vector], tuple[float, Vector]]

HALVINGS = 30
BIAS = 1e-4
"""A bias of the hypergradient beyond this, relative to its first value (at least 1), leaves stationarity open."""
SINGLE_LIMIT = 1e3
"""In single precision larger weights lose the difference of two values of f to cancellation."""
DOUBLE = 2.0**-52


@dataclass(frozen=True)
class ValueOptions:
    """How the value-function penalty goes about it.

    Attributes:
        first, growth, most: weights from ``first`` by ``growth`` up to ``most``.
        extrapolate: whether a last stage combines two weights.
        tolerance: of the projected hypergradient estimate, in units of its first value where that is above 1.
        lower_tolerance, lower_iterations: of the inner minimisations.
        hurry: asked at each of their evaluations; raises `CutShortError` where the step has to be given up.
    """

    first: float
    growth: float
    most: float
    extrapolate: bool
    tolerance: float
    lower_tolerance: float
    lower_iterations: int
    hurry: Callable[[], bool] = lambda: False


@dataclass
class ValueState(State):
    """Where the method stands.

    Attributes:
        x: upper variables.
        z: the lower level's answer at x.
        ys: minimisers of the penalised lower level, one for each weight in use.
        weights: those weights: one, or (rho/2, rho) in the last stage.
        factors: what each weight's function counts: (1,), or (-1, 2).
        value: the penalised function at x.
        gradient: its gradient.
        length: the next trial step's length.
        scale: what the tolerance is relative to.
        ended: ``converged``, ``stuck`` (no descent left) or empty.
    """

    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    z: Vector = None
    ys: list[Vector] = field(default_factory=list[Vector])
    weights: list[float] = field(default_factory=list[float])
    factors: list[float] = field(default_factory=list[float])
    value: float = math.inf
    gradient: np.ndarray = field(default_factory=lambda: np.zeros(0))
    length: float = 1.0
    scale: float = 1.0
    ended: str = ""
    stop: str = ""


@dataclass(frozen=True)
class Penalised:
    """The penalised function at one x, with the points that its terms were taken at."""

    value: float
    gradient: np.ndarray
    z: Vector
    ys: list[Vector]
    residual: float


def value_init(oracle: Oracle, x0: np.ndarray, context: RunContext, options: ValueOptions) -> ValueState:
    """The lower level solved at x0, and the penalised function with the first weight.

    Raises:
        LowerFailedError: the lower level was not solved at x0.
    """
    if oracle.precision > DOUBLE and options.most > SINGLE_LIMIT:
        oracle.note(
            f"The lower level is in single precision or less and the penalty's weight rises to {options.most:g}: above "
            f"{SINGLE_LIMIT:g} the difference of two lower objectives is lost to cancellation. Use float64, or a "
            "smaller max_weight."
        )
    candidate, _ = answered(oracle, x0, None, _settings(options))
    state = ValueState(
        candidate=candidate, x=candidate.x, z=candidate.y, ys=[candidate.y], weights=[options.first], factors=[1.0]
    )
    state = _first(oracle, state, options)
    norm = float(np.linalg.norm(state.gradient))
    return replace(state, length=1.0 / max(1.0, norm), scale=max(1.0, norm), figures=_figures(oracle, state))


def _first(oracle: Oracle, state: ValueState, options: ValueOptions) -> ValueState:
    """The penalised function with the smallest weight at which its minimiser in y is found: below it, the leader's pull
    may leave no minimum.
    """
    while True:
        weight = state.weights[-1]
        try:
            found = _penalised(oracle, state.x, state, options)
            if found.residual <= 1e4 * options.lower_tolerance or weight >= options.most:
                return _with(state, found)
        except (NonFiniteError, OverflowError):
            if weight >= options.most:
                raise
        state = replace(state, weights=[min(weight * options.growth, options.most)])


def value_step(oracle: Oracle, state: ValueState, context: RunContext, options: ValueOptions) -> ValueState:
    """One projected gradient step of the penalised function, or the next weight where none is needed."""
    if _stationarity(oracle, state) <= options.tolerance * state.scale:
        return _next_stage(oracle, state, options, "")
    for attempt in range(HALVINGS):
        length = state.length * 0.5**attempt
        x = np.clip(state.x - length * state.gradient, oracle.x_lower, oracle.x_upper)
        step = x - state.x
        try:
            found = _penalised(oracle, x, state, options)
        except (NonFiniteError, LowerFailedError):
            continue
        if found.value <= state.value + 1e-4 * float(state.gradient @ step) + _noise(oracle, found, state):
            break
    else:
        return _next_stage(oracle, state, options, "stuck")
    turned = found.gradient - state.gradient  # pyright: ignore[reportPossiblyUnboundVariable]
    bend = float(step @ turned)  # pyright: ignore[reportPossiblyUnboundVariable]
    longer = float(step @ step) / bend if bend > 0.0 else 4.0 * length  # pyright: ignore[reportPossiblyUnboundVariable]
    moved = _with(replace(state, x=x, length=min(max(longer, 1e-10), 1e6)), found)  # pyright: ignore[reportPossiblyUnboundVariable]
    objective = oracle.upper(moved.x, moved.z)
    assert state.candidate is not None
    candidate = replace(state.candidate, x=moved.x, y=moved.z, objective=objective)
    figures = {**_figures(oracle, moved), "step": float(np.linalg.norm(step)), "lower_residual": found.residual}  # pyright: ignore[reportPossiblyUnboundVariable]
    return replace(moved, candidate=candidate, figures=figures)


def value_done(state: ValueState) -> Stop | None:
    """Ends when the last stage has converged, or no step descends any more."""
    return Stop(Termination.CONVERGED, state.stop) if state.ended else None


def _next_stage(oracle: Oracle, state: ValueState, options: ValueOptions, trouble: str) -> ValueState:
    """The next weight; after the last one the two weights together; after those the end."""
    weight = state.weights[-1]
    if weight < options.most:
        weights, factors = [min(weight * options.growth, options.most)], [1.0]
    elif options.extrapolate and len(state.weights) == 1:
        weights, factors = [0.5 * weight, weight], [-1.0, 2.0]
    else:
        return _finish(oracle, state, options, trouble)
    ys = [state.ys[-1]] * len(weights)
    longer = replace(state, weights=weights, factors=factors, ys=ys)
    return _with(longer, _penalised(oracle, state.x, longer, options))


def _finish(oracle: Oracle, state: ValueState, options: ValueOptions, trouble: str) -> ValueState:
    bias = _bias(oracle, state, options)
    candidate, response = answered(oracle, state.x, state.z, _settings(options))
    weight = state.weights[-1]
    order = f"about 1/rho = {1.0 / weight:.1g}"
    if len(state.weights) > 1:
        order += " for one weight, reduced to about 1/rho^2 by extrapolation"
    text = f"The hypergradient was estimated from a penalty of weight rho = {weight:g}; its bias is {order}, "
    text += f"by comparison of weights {bias:.1g}."
    if trouble:
        left = _stationarity(oracle, state)
        text += f" No step descends any more; the projected hypergradient estimate is {left:.2g}."
    elif bias > BIAS * state.scale:
        text += " That is too much to call the point stationary: raise max_weight."
    elif is_random(oracle):
        text += f" {RANDOM}"
    elif response.converged:
        candidate = claimed(candidate, Claim.STATIONARY)
    if not response.converged:
        text += f" The lower level was not solved to its tolerance at the end: {response.message}"
    return replace(state, candidate=candidate, ended=trouble or "converged", stop=text)


def _bias(oracle: Oracle, state: ValueState, options: ValueOptions) -> float:
    """The error of the hypergradient estimate, from those of half and a quarter of the weight.

    An error of a/rho + b/rho^2 is removed up to b/rho^2 by extrapolation from two weights, and what is left then shows
    in the difference of two extrapolations, which is three times as large.
    """
    quarter, half, whole = (
        _penalised(
            oracle,
            state.x,
            replace(state, weights=[share * state.weights[-1]], factors=[1.0], ys=[state.ys[-1]]),
            options,
        ).gradient
        for share in (0.25, 0.5, 1.0)
    )
    free = (state.x > oracle.x_lower) & (state.x < oracle.x_upper)
    finest, finer = 2.0 * whole - half, 2.0 * half - quarter
    remaining = (finest - finer) / 3.0
    error = remaining if len(state.weights) > 1 else whole - finest
    return float(np.linalg.norm(error[free]))


def _penalised(oracle: Oracle, x: np.ndarray, near: ValueState, options: ValueOptions) -> Penalised:
    """P and its gradient at x; inner minimisations start from the points of ``near``."""
    lower = _lower(oracle, x, near.z, options)
    found = [
        _inner(oracle, _composite(oracle, x, weight), y, 1.0 / max(1.0, weight), options)
        for weight, y in zip(near.weights, near.ys, strict=True)
    ]
    ys = [f.point for f in found]
    heights = [oracle.lower(x, y) for y in ys]
    best = int(np.argmin(heights))
    if heights[best] < lower.value - oracle.precision * max(1.0, abs(lower.value)):
        # A nonconvex lower level: the leader's pull led to a better answer than was known.
        lower = _lower(oracle, x, ys[best], options)
    at_answer = oracle.lower_gradient_x(x, lower.point)
    value, gradient = 0.0, np.zeros(oracle.nx)
    for weight, factor, y, height in zip(near.weights, near.factors, ys, heights, strict=True):
        upper, by_x, _ = oracle.upper_gradients(x, y)
        value += factor * (upper + weight * (height - lower.value))
        gradient += factor * (by_x + weight * (oracle.lower_gradient_x(x, y) - at_answer))
    return Penalised(value, gradient, lower.point, ys, max(lower.residual, *(f.residual for f in found)))


def _lower(oracle: Oracle, x: np.ndarray, start: Vector, options: ValueOptions) -> Minimum:
    return _inner(oracle, lambda z: oracle.lower_gradient(x, z), start, 1.0, options)


def _composite(oracle: Oracle, x: np.ndarray, weight: float) -> Smooth:
    """F/rho + f where rho exceeds 1, else F + rho f: of the order of the larger term."""
    unit = 1.0 / max(1.0, weight)

    def function(y: Vector) -> tuple[float, Vector]:
        upper, _, by_y = oracle.upper_gradients(x, y)
        lower, slope = oracle.lower_gradient(x, y)
        return unit * upper + unit * weight * lower, by_y * unit + slope * (unit * weight)

    return function


def _inner(oracle: Oracle, function: Smooth, start: Vector, unit: float, options: ValueOptions) -> Minimum:
    # An error of e in y enters the estimate as rho e: the composite is solved to a tolerance smaller by the weight.
    tolerance = max(options.lower_tolerance * unit, 10.0 * oracle.precision)

    def watched(y: Vector) -> tuple[float, Vector]:
        options.hurry()
        return function(y)

    return minimise(
        watched, start, tolerance=tolerance, max_iterations=options.lower_iterations, precision=oracle.precision
    )


def _with(state: ValueState, found: Penalised) -> ValueState:
    return replace(state, value=found.value, gradient=found.gradient, z=found.z, ys=found.ys)


def _stationarity(oracle: Oracle, state: ValueState) -> float:
    """Length of the projected gradient."""
    return float(np.linalg.norm(np.clip(state.x - state.gradient, oracle.x_lower, oracle.x_upper) - state.x))


def _figures(oracle: Oracle, state: ValueState) -> dict[str, float]:
    return {"weight": state.weights[-1], "hypergradient_norm": _stationarity(oracle, state)}


def _noise(oracle: Oracle, found: Penalised, state: ValueState) -> float:
    """How far the penalised function is off through rounding."""
    return 10.0 * oracle.precision * sum(abs(w) for w in state.weights) * max(1.0, abs(found.value))


def _settings(options: ValueOptions) -> LowerSettings:
    return LowerSettings(
        method="lbfgs",
        tolerance=options.lower_tolerance,
        max_iterations=max(1000, options.lower_iterations),
        hurry=options.hurry,
    )
