"""Step sizes along a joint direction (d_x, d_y): proposals from the predictor, decided by the re-solved lower level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilevel_core.hypergradients import OptimalitySystem
from bilevel_core.lower import LowerFailedError, LowerSettings, Response, respond
from bilevel_core.oracles import NonFiniteError, Oracle, Vector
from bilevel_core.solvers.auxiliary.program import Direction
from bilevel_core.solvers.violation import leader_violation

REFINEMENTS = 8
MOST_BREAKPOINTS = 6


@dataclass(frozen=True)
class Trial:
    """A point along the direction with the lower level re-solved.

    Attributes:
        length: step length t.
        x, response: the point.
        objective: F there.
        violation: largest violation of the leader's rows; ``excess``: their sum.
    """

    length: float
    x: np.ndarray
    response: Response
    objective: float
    violation: float
    excess: float

    def merit(self, weight: float) -> float:
        """F plus the weighted sum of the leader's violations (exact l1 penalty)."""
        return self.objective + weight * self.excess


class Line:
    """Trials along one direction, each made once.

    Args:
        oracle: the problem.
        x: where the direction starts.
        response: the lower level's answer there.
        d_x: direction in x.
        d_y: the follower's move along it, a vector of the oracle's kind.
        lower: how the lower level is solved: from the predictor ``y + t d_y``.
    """

    def __init__(
        self,
        oracle: Oracle,
        x: np.ndarray,
        response: Response,
        d_x: np.ndarray,
        d_y: Vector,
        lower: LowerSettings,
    ) -> None:
        self.oracle = oracle
        self.x, self.response = x, response
        self.d_x, self.d_y = d_x, d_y
        self.lower = lower
        self._made: dict[float, Trial | None] = {}

    def predicted(self, length: float) -> float:
        """F at the predictor; infinity where it is not defined. Costs no lower-level solve."""
        try:
            return self.oracle.upper(self._point(length), self._predictor(length))
        except NonFiniteError:
            return np.inf

    def at(self, length: float) -> Trial | None:
        """The corrected point; None where the lower level fails."""
        if length not in self._made:
            self._made[length] = self._make(length)
        return self._made[length]

    def _point(self, length: float) -> np.ndarray:
        return np.clip(self.x + length * self.d_x, self.oracle.x_lower, self.oracle.x_upper)

    def _predictor(self, length: float) -> Vector:
        return self.response.y + length * self.d_y

    def _make(self, length: float) -> Trial | None:
        x = self._point(length)
        if np.array_equal(x, self.x):
            return None
        try:
            response = respond(self.oracle, x, self._predictor(length), self.lower)
            return trial(self.oracle, length, x, response)
        except (LowerFailedError, NonFiniteError):
            return None


def trial(oracle: Oracle, length: float, x: np.ndarray, response: Response) -> Trial:
    """A point with its objective and the leader's violations."""
    objective = oracle.upper(x, response.y)
    violation = excess = 0.0
    if oracle.has_upper_rows:
        rows = oracle.upper_rows(x, response.y)
        violation = leader_violation(oracle, x, response.y)
        excess = float(np.maximum(rows.g, 0.0).sum() + np.abs(rows.h).sum())
    return Trial(length, x, response, objective, violation, excess)


def breakpoints(
    system: OptimalitySystem, x: np.ndarray, y: np.ndarray, response: Response, direction: Direction
) -> list[float]:
    """Step lengths at which, to first order, the follower's active set changes, or a row or bound of the leader's is
    met; the smallest few. A constraint that is not active becomes so, or a multiplier falls to zero.
    """
    oracle = system.oracle
    d_x, d_y = direction.x, direction.y
    found: list[float] = []
    rows = system.rows
    if rows is not None and rows.g.size:
        assert rows.g_x is not None
        assert rows.g_y is not None
        idle = ~(system.active.strong | system.active.weak)
        found += _meets(-rows.g[idle], (rows.g_x @ d_x + rows.g_y @ d_y)[idle])
        held = response.inequality[system.held]
        found += _meets(held, -direction.rates[: held.size])
    loose = ~(system.active.fixed | system.active.weak_bounds)
    found += _meets((y - oracle.y_lower)[loose], -d_y[loose]) + _meets((oracle.y_upper - y)[loose], d_y[loose])
    # At a lower bound the multiplier is the Lagrangian's derivative, at an upper one minus that.
    for multiplier, sign in ((response.at_lower, -1.0), (response.at_upper, 1.0)):
        if multiplier is not None:
            found += _meets(multiplier[system.fixed], sign * direction.bound_rates[system.fixed])
    found += _meets(x - oracle.x_lower, -d_x) + _meets(oracle.x_upper - x, d_x)
    if oracle.has_upper_rows:
        upper = oracle.upper_rows(x, response.y, jacobian=True)
        for values, by_x, by_y in ((upper.g, upper.g_x, upper.g_y), (upper.h, upper.h_x, upper.h_y)):
            assert by_x is not None
            assert by_y is not None
            found += _meets(-values, by_x @ d_x + by_y @ d_y) + _meets(values, -(by_x @ d_x + by_y @ d_y))
    return sorted(found)[:MOST_BREAKPOINTS]


def _meets(room: np.ndarray, speed: np.ndarray) -> list[float]:
    """When each room is used up, where it is and there is something to use up."""
    runs = np.isfinite(room) & (speed > 1e-12) & (room > 1e-9)
    return [float(t) for t in room[runs] / speed[runs] if t > 1e-12]


def search(line: Line, lengths: list[float], start: Trial, weight: float) -> Trial | None:
    """The best corrected point among the lengths and a refinement around the best; None when none is better.

    Lengths are tried in order; two in a row that are worse than the best end the list.
    """
    base = start.merit(weight)
    tried: list[tuple[float, float]] = [(0.0, base)]
    best: Trial | None = None
    worse = 0
    for length in sorted(set(lengths)):
        found = line.at(length)
        merit = np.inf if found is None else found.merit(weight)
        tried.append((length, merit))
        if found is not None and merit < (base if best is None else best.merit(weight)):
            best, worse = found, 0
        else:
            worse += 1
            if worse >= 2 and best is not None:
                break
    if best is None:
        return _shorter(line, min(lengths), base, weight)
    return _refined(line, tried, best, weight)


def _shorter(line: Line, length: float, base: float, weight: float) -> Trial | None:
    for _ in range(14):
        length *= 0.25
        found = line.at(length)
        if found is not None and found.merit(weight) < base:
            return found
    return None


def _refined(line: Line, tried: list[tuple[float, float]], best: Trial, weight: float) -> Trial:
    """Successive parabolas (golden sections where they fail) in the bracket around the best length tried."""
    tried.sort()
    where = next(k for k, (t, _) in enumerate(tried) if t == best.length)
    if where + 1 == len(tried):
        return _longer(line, best, weight)
    (a, fa), (b, fb), (c, fc) = tried[where - 1], tried[where], tried[where + 1]
    for _ in range(REFINEMENTS):
        t = _vertex(a, fa, b, fb, c, fc)
        if not a < t < c or min(abs(t - b), t - a, c - t) < 1e-3 * (c - a):
            t = b + 0.382 * (c - b) if c - b > b - a else b - 0.382 * (b - a)
        found = line.at(t)
        ft = np.inf if found is None else found.merit(weight)
        if found is not None and ft < best.merit(weight):
            best = found
        if ft < fb:
            if t > b:
                a, fa = b, fb
            else:
                c, fc = b, fb
            b, fb = t, ft
        elif t > b:
            c, fc = t, ft
        else:
            a, fa = t, ft
        if c - a <= 1e-6 * max(1.0, c):
            break
    return best


def _longer(line: Line, best: Trial, weight: float) -> Trial:
    """Doubling while it pays: the best length tried was the longest."""
    for _ in range(12):
        found = line.at(2.0 * best.length)
        if found is None or not found.merit(weight) < best.merit(weight):
            return best
        best = found
    return best


def _vertex(a: float, fa: float, b: float, fb: float, c: float, fc: float) -> float:
    if not all(map(np.isfinite, (fa, fb, fc))):
        return np.nan
    p, q = (b - a) * (fb - fc), (b - c) * (fb - fa)
    return b - 0.5 * ((b - a) * p - (b - c) * q) / (p - q) if p != q else np.nan


def bracketed(function: Callable[[float], float], first: float) -> float:
    """The minimiser of a function of t > 0, roughly: doubling or quartering to a bracket, then golden sections.

    0 when no t down to a millionth of ``first`` is better than t = 0.
    """
    zero, t = function(0.0), first
    value = function(t)
    while not value < zero:
        t *= 0.25
        if t < 1e-6 * first:
            return 0.0
        value = function(t)
    low, high = 0.0, 2.0 * t
    beyond = function(high)
    while beyond < value:
        low, t, value, high = t, high, beyond, 2.0 * high
        beyond = function(high)
    for _ in range(10):
        if high - low < 0.1 * t:
            break
        u = t + 0.382 * (high - t) if high - t > t - low else t - 0.382 * (t - low)
        trial_value = function(u)
        if trial_value < value:
            low, high = (t, high) if u > t else (low, t)
            t, value = u, trial_value
        elif u > t:
            high = u
        else:
            low = u
    return t
