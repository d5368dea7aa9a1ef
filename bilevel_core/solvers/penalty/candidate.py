"""Turning upper variables into a candidate: the lower level re-solved, the leader's constraints checked."""

from __future__ import annotations

import numpy as np

from bilevel_core.lower import LowerSettings, Response, respond
from bilevel_core.oracles import Oracle, Vector
from bilevel_core.result import Claim
from bilevel_core.solvers.iterative import Candidate
from bilevel_core.solvers.violation import leader_violation


def within(oracle: Oracle, x: np.ndarray) -> np.ndarray:
    """x within its bounds, and on a bound that it misses by rounding only."""
    x = np.clip(x, oracle.x_lower, oracle.x_upper)
    for bound in (oracle.x_lower, oracle.x_upper):
        x = np.where(np.abs(x - bound) <= 1e-9 * np.maximum(1.0, np.abs(x)), bound, x)
    return x


def answered(
    oracle: Oracle, x: np.ndarray, start: Vector | None = None, settings: LowerSettings | None = None
) -> tuple[Candidate, Response]:
    """The candidate at x, with the lower level re-solved there.

    Raises:
        LowerFailedError: the lower level has no answer at x.
        NonFiniteError: a value is not finite.
    """
    x = within(oracle, np.asarray(x, dtype=float))
    response = respond(oracle, x, start, settings)
    return Candidate(x, response.y, oracle.upper(x, response.y), leader_violation(oracle, x, response.y)), response


def claimed(candidate: Candidate, claim: Claim) -> Candidate:
    """The same candidate with another claim."""
    return Candidate(candidate.x, candidate.y, candidate.objective, candidate.violation, claim)
