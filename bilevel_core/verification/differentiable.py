"""The check of a point of a `TorchProblem`: residuals, and the lower level re-solved from several starts.

Nothing proves a global optimum of a function that can only be evaluated, so the scope of the certificate is ``local``.
The re-solves start from the point, from beside it, from the problem's own start and from random ones. Without bounds
and constraints on y they are by L-BFGS, another method than the solvers' default (which goes on where L-BFGS from
another start gets stuck); with them by the same method as the solvers', since there is one only. What a search reached
counts whether or not it met its tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np
import torch

from bilevel_core.errors import BilevelError
from bilevel_core.lower import LowerFailedError, LowerSettings, Response, respond
from bilevel_core.oracles import NonFiniteError, norm
from bilevel_core.oracles.torch import TorchOracle
from bilevel_core.problems.torch import TorchProblem
from bilevel_core.result import Certificate, Verdict

STARTS = 3
SMALL = 200
"""Random starts besides the point itself and the problem's start."""
BESIDE = 1e-3
"""Relative distance of the start beside the point: no descent leaves a saddle that it starts at."""
LARGEST = 20_000
"""Lower variables up to which starts elsewhere are tried, and not only one beside the point."""
BRIEF = 100
"""Iterations from beside the point where there are more: enough to fall from a saddle, too few to pay for twice."""
NEWTON_STEPS = 50
SEED = 20_251_125


@dataclass(frozen=True)
class LocalTolerances:
    """What counts as zero.

    Attributes:
        feasibility: violation of a constraint or bound, absolute, for functions of order 1.
        gap: of the lower objective, relative to its size, at least 1.
        objective: of the upper objective, relative to its size, at least 1.
        iterations: of each re-solve.
        time_limit: seconds for all re-solves together.
    """

    feasibility: float = 1e-6
    gap: float = 1e-6
    objective: float = 1e-4
    iterations: int = 500
    time_limit: float = 60.0

    @classmethod
    def of(cls, dtype: torch.dtype) -> LocalTolerances:
        """What single and half precision can tell is less."""
        if dtype == torch.float64:
            return cls()
        return cls(feasibility=1e-4, gap=1e-4, objective=1e-3)


def check_differentiable(
    problem: TorchProblem, x: Any, y: Any, tolerances: LocalTolerances | None = None
) -> Certificate:
    """Check a point.

    Args:
        problem: the problem.
        x: the leader's values, by leaf name or structured as in the problem.
        y: the follower's values, likewise; buffers of modules among them are used.
        tolerances: what counts as zero; by the problem's precision when left out.

    Raises:
        UsageError: a variable is missing or has the wrong number of values.
    """
    tol = tolerances or LocalTolerances.of(problem.y_layout.dtype)
    oracle = TorchOracle(problem)
    flat_x = problem.x_layout.read(x).double().cpu().numpy()
    flat_y = problem.y_layout.read(y).to(oracle.device)
    oracle.terms.take_buffers(x, y)
    known: dict[str, Any] = {"lower_scope": "local"}
    try:
        upper, lower = oracle.upper(flat_x, flat_y), oracle.lower(flat_x, flat_y)
        known |= _violations(oracle, flat_x, flat_y)
    except NonFiniteError as error:
        return Certificate(Verdict.REFUTED, reason=f"{error}", **known)
    for level in ("upper", "lower"):
        if known[f"{level}_violation"] > tol.feasibility:
            reason = f"A constraint of the {level} level is violated by {known[f'{level}_violation']:.3g}."
            return Certificate(Verdict.REFUTED, reason=reason, **known)
    random = [level for level in ("upper", "lower") if oracle.terms.is_random(level)]
    found = _resolved(oracle, flat_x, flat_y, upper, lower, tol, known)
    if "lower" in random or (random and found.verdict is Verdict.VERIFIED):
        # The point was optimal for its own draw, if at all; under this one even an honest answer has a gap.
        reason = (
            f"The {' and '.join(random)} objective draws random numbers (dropout, say), so that optima are those of "
            f"one draw; the check's is another than the solver's. Under it: {found.reason}"
        )
        return replace(found, verdict=Verdict.UNVERIFIABLE, reason=reason)
    return found


def _violations(oracle: TorchOracle, x: np.ndarray, y: torch.Tensor) -> dict[str, float]:
    beyond = max((oracle.x_lower - x).max(initial=0.0), (x - oracle.x_upper).max(initial=0.0))
    upper = max(float(beyond), oracle.upper_rows(x, y).violation)
    return {"upper_violation": upper, "lower_violation": _lower_violation(oracle, x, y)}


def _lower_violation(oracle: TorchOracle, x: np.ndarray, y: torch.Tensor) -> float:
    point = oracle.to_numpy(y)
    beyond = max((oracle.y_lower - point).max(initial=0.0), (point - oracle.y_upper).max(initial=0.0))
    return max(float(beyond), oracle.lower_rows(x, y).violation)


def _resolved(
    oracle: TorchOracle,
    x: np.ndarray,
    y: torch.Tensor,
    upper: float,
    lower: float,
    tol: LocalTolerances,
    known: dict[str, Any],
) -> Certificate:
    deadline = monotonic() + tol.time_limit
    near, fault = _solve(oracle, x, y, tol, deadline)
    if near is None:
        return Certificate(Verdict.UNVERIFIABLE, reason=f"The lower level could not be re-solved: {fault}", **known)
    allowed = _allowed(oracle, x, y, lower, tol)
    gap = lower - near.value
    known |= {"lower_gap": gap, "lower_value": near.value}
    if gap > allowed:
        reason = (
            f"The follower can do better nearby: its objective is {gap:.3g} above what a descent from y reaches "
            f"({near.value:.6g})."
        )
        return Certificate(Verdict.REFUTED, reason=reason, **known)
    if not near.converged and monotonic() > deadline:
        reason = (
            f"The re-solve of the lower level was cut short after {tol.time_limit:g} s with gradient norm "
            f"{near.residual:.2g}; up to there it found nothing better."
        )
        return Certificate(Verdict.UNVERIFIABLE, reason=reason, **known)
    there = oracle.upper(x, near.y)
    if abs(there - upper) > tol.objective * max(1.0, abs(upper)):
        reason = f"With the lower level solved further from y the leader's objective is {there:.6g}, not {upper:.6g}."
        return Certificate(Verdict.REFUTED, reason=reason, **known)
    best, other, tried, unfinished = _elsewhere(oracle, x, near, tol, allowed, deadline)
    known["response"] = "ties" if other else "unknown"
    if best < lower - allowed:
        known |= {"lower_gap": lower - best, "lower_value": best}
        reason = (
            f"y is a local answer at most: from another start the follower reaches {best:.6g}, and {lower:.6g} at y. "
            "Whether that is its optimum cannot be told."
        )
        return Certificate(Verdict.UNVERIFIABLE, reason=reason, **known)
    starts = f"from {tried} other start(s)" if tried else "nearby"
    reason = f"Feasible at both levels; no better answer of the follower was found {starts}."
    if not near.converged:
        reason += f" (The re-solve stopped with gradient norm {near.residual:.2g}.)"
    if unfinished:
        reason += f" ({unfinished} more search(es) stopped early, above its value.)"
    return Certificate(Verdict.VERIFIED, reason=reason, **known)


def _solve(
    oracle: TorchOracle,
    x: np.ndarray,
    start: torch.Tensor,
    tol: LocalTolerances,
    deadline: float,
    method: str = "lbfgs",
) -> tuple[Response | None, str]:
    """One re-solve; the reason where it fails. Values that fall without end count as failure."""
    settings = LowerSettings(
        method="auto" if oracle.lower_constrained else method,
        max_iterations=tol.iterations,
        hurry=lambda: monotonic() > deadline,
    )
    try:
        return respond(oracle, x, start, settings), ""
    except (LowerFailedError, NonFiniteError, BilevelError) as error:
        return None, str(error)


def _elsewhere(
    oracle: TorchOracle, x: np.ndarray, near: Response, tol: LocalTolerances, allowed: float, deadline: float
) -> tuple[float, bool, int, int]:
    """From other starts: the best value reached, whether an equally good other answer exists, how many searches met
    their tolerance, and how many did not.
    """
    best, other, tried, unfinished = math.inf, False, 0, 0
    if oracle.ny > LARGEST:
        tol = replace(tol, iterations=min(BRIEF, tol.iterations))
    for start in _starts(oracle, near):
        if monotonic() > deadline:
            break
        found, _ = _solve(oracle, x, start, tol, deadline)
        if found is None:
            continue
        if not found.converged and not oracle.lower_constrained and oracle.ny <= LARGEST:
            # Ill-conditioned beyond L-BFGS: by Newton's method from where it stopped.
            further, _ = _solve(oracle, x, found.y, replace(tol, iterations=NEWTON_STEPS), deadline, "newton-cg")
            found = further if further is not None and further.value <= found.value else found
        # A lower value proves that y is not optimal, however the search ended; a constraint must hold for that.
        if _lower_violation(oracle, x, found.y) <= tol.feasibility:
            best = min(best, found.value)
        if best < near.value - allowed:
            break
        if not found.converged:
            unfinished += 1
            continue
        tried += 1
        alike = abs(found.value - near.value) <= allowed
        other = other or (alike and norm(found.y - near.y) > 1e-3 * max(1.0, norm(near.y)))
    return best, other, tried, unfinished


def _allowed(oracle: TorchOracle, x: np.ndarray, y: torch.Tensor, lower: float, tol: LocalTolerances) -> float:
    """How far above its optimal value the lower objective may be: relative to how much it varies around y, so that its
    unit and a constant in it play no part; at least what rounding makes.
    """
    step = oracle.displacement(y)
    try:
        varies = max(abs(oracle.lower(x, y + step) - lower), abs(oracle.lower(x, y - step) - lower))
    except NonFiniteError:
        varies = math.inf
    return max(tol.gap * min(max(1.0, abs(lower)), varies), 10.0 * oracle.precision * abs(lower))


def _starts(oracle: TorchOracle, near: Response) -> Generator[torch.Tensor]:
    """Beside the answer, and of levels that are not large the problem's own start and random ones around it; of small
    levels also the answer's mirror image and random ones further off.
    """
    generator = torch.Generator().manual_seed(SEED)
    spread = max(1.0, norm(near.y) / math.sqrt(oracle.ny))
    own = oracle.y_start()
    places = [(near.y, BESIDE * spread)]
    if oracle.ny <= LARGEST:
        places += [(own, 0.0), *[(own, spread)] * STARTS]
    if oracle.ny <= SMALL:
        places += [
            (-near.y, BESIDE * spread),
            (0.0 * own, 3.0 * spread),
            (0.0 * own, 3.0 * spread),
            (own, 10.0 * spread),
        ]
    for centre, width in places:
        start = centre + width * torch.randn(oracle.ny, generator=generator, dtype=torch.float64).to(centre)
        if oracle.has_lower_bounds:
            start = torch.clamp(start, oracle.from_numpy(oracle.y_lower), oracle.from_numpy(oracle.y_upper))
        yield start
