"""What may be claimed of a point where the hypergradient vanishes: whether the follower's answer is a minimum at all,
and second-order evidence for the leader from differences of hypergradients.

Shared by the iterative solvers. The evidence says yes only where a sufficient condition holds beyond what errors of
differences and of lower-level solves can explain; a no means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients import Hypergradient, HypergradientSettings, OptimalitySystem, reduced_gradient
from bilevel_core.linear import NonFiniteProductError
from bilevel_core.linear.spectrum import STORED, smallest_eigenvalue
from bilevel_core.lower import LowerFailedError, LowerSettings, Response, respond
from bilevel_core.oracles import NonFiniteError, Oracle
from bilevel_core.result import Claim

LARGEST = 50
"""Problems with more upper variables are not examined: each costs two lower-level solves."""
STEPS = (1e-4, 1e-5, 1e-6)
"""Lengths of differences, tried in turn: the shorter where third derivatives spoil the longer. Each stands alone."""
FINER = 1e-2
"""Lower levels beside the point are solved to this share of the tolerance at it: differences magnify errors."""
ACTIVE = 1e-6
"""A multiplier above this, relative to the gradient's terms, counts as positive; a bound this close as active."""
KANTOROVICH = 0.25
"""Below 1/2 a stationary point lies next to the point, with a Hessian that is still positive definite there."""
POSITIVE = 1e-4
"""A hypergradient's entry beyond this, relative to its terms (at least 1e-3), is a positive multiplier of a bound."""
NEAR = 1e-4
"""A Newton step up to this, relative to x (at least 1), means that the point is as good as stationary."""
ACCURATE = 1e-5
"""Relative residual of the linear solve up to which a vanishing hypergradient says something."""
LANCZOS = 40
"""Steps of the estimate of the lower Hessian's smallest eigenvalue, where it has too many variables to be computed."""
ROWS = 1500
"""Lower variables up to which Hessians are made dense."""


def stationary_claim(
    oracle: Oracle,
    x: np.ndarray,
    response: Response,
    *,
    smooth: bool = True,
    lower: LowerSettings | None = None,
    settings: HypergradientSettings | None = None,
) -> Claim:
    """What may be said of a point where first-order conditions of the leader hold.

    Nothing but feasibility where the follower's answer is no minimum, or where a level is random, so that they hold
    for one draw; a note says why. ``local`` where `local_evidence` is found, else ``stationary``.

    Args:
        oracle: the problem.
        x: the point, shape (nx,).
        response: the lower level's answer there.
        smooth: whether to look for evidence of a local optimum at all.
        lower: how to solve the lower level beside the point.
        settings: how to compute hypergradients.
    """
    if is_random(oracle):
        oracle.note("A level is random, so that nothing is claimed of the point but feasibility.")
        return Claim.FEASIBLE
    minimum = lower_is_minimum(oracle, x, response)
    try:
        here = reduced_gradient(oracle, x, response, settings)
    except NonFiniteError:
        return Claim.FEASIBLE
    if minimum is False or here.negative_curvature:
        oracle.note(
            "The lower Hessian has negative curvature at the follower's answer, which is a saddle point rather than a "
            "minimum: nothing is claimed of the point. Try another start of y, or starts=8."
        )
        return Claim.FEASIBLE
    if not here.residual <= ACCURATE:
        oracle.note("The hypergradient was approximate, so that nothing is claimed of the point but feasibility.")
        return Claim.FEASIBLE
    if smooth and minimum and _evidence(oracle, x, response, here, lower, settings):
        return Claim.LOCAL
    return Claim.STATIONARY


def is_random(oracle: Oracle) -> bool:
    """Whether an objective draws random numbers, so that a point is stationary for one draw only."""
    return oracle.is_random


def lower_is_minimum(oracle: Oracle, x: np.ndarray, response: Response) -> bool | None:
    """Whether second-order conditions hold at the lower level's answer, whichever way the leader's objective points.

    The smallest eigenvalue of the Lagrangian's Hessian on the directions that active constraints leave free: computed
    up to `STORED` variables and with rows, else estimated by Lanczos from a random vector.

    Args:
        oracle: the problem.
        x: upper variables, shape (nx,).
        response: the lower level's answer there.

    Returns:
        False where a direction of negative curvature was found; True where the Hessian is positive definite, or where
        the estimate found no such direction (evidence, no proof); None where it cannot be told: a singular Hessian of
        a function that can only be evaluated, negative curvature that weakly active constraints may rule out, a
        system too large.
    """
    try:
        system = OptimalitySystem(oracle, x, response)
        least = _least(oracle, system)
        if least.value > least.zero or (not least.exact and least.value >= -least.zero):
            return True
        if least.value >= -least.zero:
            # Algebraic lower levels are solved as linear and convex programs, which may be flat.
            return True if oracle.form == "algebraic" else None
        if system.active.strict or _feasible(oracle, system, response, least.vector):
            return False
        held = _least(oracle, OptimalitySystem(oracle, x, response, hold_weak=True))
        return False if held.value < -held.zero else None
    except (NonFiniteError, NonFiniteProductError, UsageError):
        return None


@dataclass(frozen=True)
class _Least:
    """The smallest eigenvalue on the free directions, infinite where there are none; what counts as zero beside it."""

    value: float
    zero: float
    vector: np.ndarray
    exact: bool = True


def _least(oracle: Oracle, system: OptimalitySystem) -> _Least:
    free = np.flatnonzero(~system.fixed)
    vector = np.zeros(oracle.ny)
    differences = bool(getattr(oracle, "finite_differences", False))
    slack = 1e-4 if differences else max(100, 10 * free.size) * oracle.precision
    if free.size and not system.row_count:

        def product(v: np.ndarray) -> np.ndarray:
            along = np.zeros(oracle.ny)
            along[free] = v
            return oracle.to_numpy(system.curvature.product(oracle.from_numpy(along)))[free]

        like = np.zeros(free.size, dtype=np.float32 if oracle.precision > 1e-10 else float)
        found = smallest_eigenvalue(product, like, iterations=STORED if free.size <= STORED else LANCZOS, slack=slack)
        if found.vector is not None:
            vector[free] = found.vector
        return _Least(found.value, slack * found.size, vector, found.exact)
    if free.size == 0:
        return _Least(np.inf, 0.0, vector)
    if oracle.ny > ROWS:
        raise UsageError(f"The lower level has constraints and {oracle.ny} variables; up to {ROWS} are examined.")
    hessian = system.curvature.dense()[np.ix_(free, free)]
    basis = np.eye(free.size)
    if system.row_count:
        _, values, vectors = np.linalg.svd(system.row_y[:, free])
        basis = vectors[int((values > 1e-10 * max(1.0, values.max(initial=0.0))).sum()) :].T
    if basis.shape[1] == 0:
        return _Least(np.inf, 0.0, vector)
    values, vectors = np.linalg.eigh(basis.T @ hessian @ basis)
    vector[free] = basis @ vectors[:, 0]
    return _Least(float(values[0]), slack * float(np.abs(hessian).max()), vector)


def _feasible(oracle: Oracle, system: OptimalitySystem, response: Response, v: np.ndarray) -> bool:
    """Whether v or -v keeps, to first order, to the constraints that are active without a multiplier."""
    rooms: list[np.ndarray] = []
    if system.rows is not None and system.rows.g_y is not None and system.active.weak.any():
        rooms.append(-system.rows.g_y[system.active.weak] @ v)
    if system.active.weak_bounds.any():
        point = oracle.to_numpy(response.y)
        near = ACTIVE * np.maximum(1.0, np.abs(point))
        rooms.append(v[system.active.weak_bounds & (point - oracle.y_lower <= near)])
        rooms.append(-v[system.active.weak_bounds & (oracle.y_upper - point <= near)])
    room = np.concatenate(rooms)
    return bool((room >= -1e-12).all() or (room <= 1e-12).all())


def local_evidence(
    oracle: Oracle,
    x: np.ndarray,
    response: Response,
    *,
    lower: LowerSettings | None = None,
    settings: HypergradientSettings | None = None,
) -> bool:
    """Whether ``x`` is a strict local minimum of Phi(x) = F(x, y(x)) within its bounds.

    Where Phi is smooth: the sufficient second-order condition, on the variables that are not held at a bound by a
    positive multiplier, with the Hessian from differences of hypergradients. With one variable at a kink: both
    one-sided slopes rise. Saddles and maxima fail either. Upper rows must hold strictly.

    Args:
        oracle: the problem.
        x: a converged point, shape (nx,).
        response: the lower level's answer there.
        lower: how to solve the lower level beside the point.
        settings: how to compute hypergradients.

    Returns:
        False also where it cannot be told: too many variables, a kink in several, a lower level that fails nearby, a
        random level, an answer that `lower_is_minimum` does not say yes to.
    """
    if oracle.nx > LARGEST or is_random(oracle) or not lower_is_minimum(oracle, x, response):
        return False
    try:
        here = reduced_gradient(oracle, x, response, settings)
    except NonFiniteError:
        return False
    return _evidence(oracle, x, response, here, lower, settings)


def _evidence(
    oracle: Oracle,
    x: np.ndarray,
    response: Response,
    here: Hypergradient,
    lower: LowerSettings | None,
    settings: HypergradientSettings | None,
) -> bool:
    if oracle.nx > LARGEST or response.unique is False or not _rows_are_strict(oracle, x, response):
        return False
    lower = lower or LowerSettings()
    probe = _Probe(oracle, replace(lower, tolerance=FINER * lower.tolerance), settings)
    try:
        if not here.strict:
            return oracle.nx == 1 and _rises_on_both_sides(probe, x, response)
        return any(_second_order(probe, x, response, here, length) for length in STEPS)
    except (LowerFailedError, NonFiniteError):
        return False


@dataclass(frozen=True)
class _Probe:
    oracle: Oracle
    lower: LowerSettings
    settings: HypergradientSettings | None

    def response(self, x: np.ndarray, start: Any) -> Response:
        return respond(self.oracle, x, start, self.lower)

    def gradient(self, x: np.ndarray, start: Response) -> Hypergradient | None:
        """None where Phi is not known to be on the same smooth piece as at the point that ``start`` answers."""
        response = self.response(x, start.y)
        if not response.converged or response.unique is False or _active(response) != _active(start):
            return None
        here = reduced_gradient(self.oracle, x, response, self.settings)
        return here if here.strict and not here.negative_curvature else None


def _active(response: Response) -> tuple[bytes, ...]:
    """Which of the lower level's constraints carry a multiplier."""
    multipliers = (response.inequality, response.at_lower, response.at_upper)
    return tuple(
        b"" if m is None else (m > ACTIVE * max(1.0, float(m.max(initial=0.0)))).tobytes() for m in multipliers
    )


def _rows_are_strict(oracle: Oracle, x: np.ndarray, response: Response) -> bool:
    if not oracle.has_upper_rows:
        return True
    rows = oracle.upper_rows(x, response.y)
    return not len(rows.h) and float(rows.g.max(initial=-1.0)) < -ACTIVE


def _terms(oracle: Oracle, x: np.ndarray, response: Response, here: Hypergradient) -> float:
    """The size of what cancels in the hypergradient: errors are relative to it."""
    _, by_x, _ = oracle.upper_gradients(x, response.y)
    return max(1e-12, float(np.abs(by_x).max(initial=0.0)), float(np.abs(here.value - by_x).max(initial=0.0)))


def _second_order(probe: _Probe, x: np.ndarray, response: Response, here: Hypergradient, length: float) -> bool:
    oracle, g = probe.oracle, here.value
    terms = _terms(oracle, x, response, here)
    near = ACTIVE * np.maximum(1.0, np.abs(x))
    at_lower, at_upper = x - oracle.x_lower <= near, oracle.x_upper - x <= near
    least = POSITIVE * max(1e-3, terms)
    held = (at_lower & (g > least)) | (at_upper & (g < -least)) | (at_lower & at_upper)
    free = np.flatnonzero(~held).tolist()
    if here.negative_curvature:
        return False
    if not free:
        return True
    hessian = np.zeros((len(free), len(free)))
    doubt = np.zeros((len(free), len(free)))
    third = np.zeros((len(free), len(free)))
    for k, i in enumerate(free):
        columns: list[np.ndarray] = []
        step = length * max(1.0, abs(float(x[i])))
        for signed in _inside(oracle, x, i, step):
            there = probe.gradient(_moved(x, i, signed), response)
            if there is None:
                return False
            columns.append((there.value[free] - g[free]) / signed)
            size = max(terms, float(np.abs(there.value).max()))
            errors = (float(np.nan_to_num(there.residual + here.residual)) + 1e-9) * size
            doubt[k] = np.maximum(doubt[k], errors / step)
        if not columns:
            return False
        hessian[k] = np.mean(columns, axis=0)
        # Differences to the two sides, or at two lengths, agree where Phi is smooth; a kink between shows here.
        spread = np.abs(columns[0] - columns[-1])
        doubt[k] += spread
        # The two are the Hessian's columns half a step to each side, or a quarter of a step apart.
        third[k] = spread / (step if _two_sided(oracle, x, i, step) else 0.25 * step)
    doubt += np.abs(hessian - hessian.T)
    size = float(np.abs(hessian).max())
    smallest = float(np.linalg.eigvalsh(0.5 * (hessian + hessian.T))[0])
    if smallest <= max(1e-6 * size, float(np.linalg.norm(doubt, 2))):
        return False
    # Newton-Kantorovich: with a Hessian that changes fast, as next to an inflection, being positive definite here is
    # not enough while the gradient is not exactly zero.
    newton = np.linalg.solve(0.5 * (hessian + hessian.T), g[free])
    if (np.abs(newton) > NEAR * np.maximum(1.0, np.abs(x[free]))).any():
        return False
    return float(np.linalg.norm(newton)) * float(np.linalg.norm(third)) <= KANTOROVICH * smallest


def _two_sided(oracle: Oracle, x: np.ndarray, i: int, step: float) -> bool:
    return bool(oracle.x_upper[i] - x[i] >= step and x[i] - oracle.x_lower[i] >= step)


def _inside(oracle: Oracle, x: np.ndarray, i: int, step: float) -> tuple[float, ...]:
    """Two signed steps along variable i that stay within its bounds: one to each side, else two to one side."""
    if _two_sided(oracle, x, i, step):
        return step, -step
    up, down = oracle.x_upper[i] - x[i] >= step, x[i] - oracle.x_lower[i] >= step
    if up:
        return step, 0.5 * step
    return (-step, -0.5 * step) if down else ()


def _moved(x: np.ndarray, i: int, step: float) -> np.ndarray:
    moved = x.copy()
    moved[i] += step
    return moved


def _rises_on_both_sides(probe: _Probe, x: np.ndarray, response: Response) -> bool:
    oracle = probe.oracle
    value, by_x, _ = oracle.upper_gradients(x, response.y)
    for sign in (1.0, -1.0):
        bound = oracle.x_upper[0] if sign > 0.0 else oracle.x_lower[0]
        room = float(sign * (bound - x[0]))
        if room <= 0.0:
            continue
        slopes: list[float] = []
        for length in STEPS[:2]:
            step = min(room, length * max(1.0, abs(float(x[0]))))
            there = _moved(x, 0, sign * step)
            rise = oracle.upper(there, probe.response(there, response.y).y) - value
            slopes.append(rise / step)
        size = max(1.0, float(np.abs(by_x).max()), abs(value))
        # A slope that fades with the step is that of a smooth piece, whose curvature decides: not this test's matter.
        if min(slopes) <= 1e-3 * size or slopes[1] < 0.5 * slopes[0]:
            return False
    return True
