"""What `auxiliary` does where no direction descends: a trust-region step, and what stationarity proves."""

from __future__ import annotations

import numpy as np

from bilevel_core.errors import BackendError
from bilevel_core.lower import LowerFailedError, LowerSettings, respond
from bilevel_core.oracles import NonFiniteError, Oracle
from bilevel_core.oracles.algebraic import AlgebraicOracle
from bilevel_core.program import positive_semidefinite
from bilevel_core.result import Claim
from bilevel_core.run import RunContext
from bilevel_core.solvers.auxiliary.search import Trial, trial
from bilevel_core.solvers.iterative import Candidate
from bilevel_core.solvers.trust_region.model import leader_scale
from bilevel_core.solvers.trust_region.solver import TrustRegion

LARGEST = 300
"""Variables of both levels up to which a trust-region step, a mixed-integer program, is tried."""
BETTER = 1e-7
STEPS = 8


def leap(
    oracle: Oracle,
    candidate: Candidate,
    weight: float,
    excess: float,
    lower: LowerSettings,
    context: RunContext,
) -> tuple[Trial | None, Claim]:
    """A trust-region step with a bilevel model around the candidate.

    Returns:
        A better point, if there is one; else what the model proves of the candidate: ``local`` where nothing in it was
        approximated and the whole region was searched.
    """
    nothing = None, Claim.NONE
    if oracle.nx + oracle.ny > LARGEST:
        return nothing
    method = TrustRegion(model="bilevel")
    merit = candidate.objective + weight * excess
    try:
        state = method.init(oracle, candidate.x, context)
        for _ in range(STEPS):
            if method.done(state) is not None or context.expired or context.stopped:
                break
            state = method.step(oracle, state, context)
        found = state.candidate
        if found is None or np.array_equal(found.x, candidate.x):
            return None, Claim.NONE if found is None else found.claim
        point = trial(oracle, 0.0, found.x, respond(oracle, found.x, found.y, lower))
    except (LowerFailedError, NonFiniteError, BackendError):
        return nothing
    least = BETTER * leader_scale(oracle, candidate.x, np.asarray(candidate.y, dtype=float))
    return (point if point.merit(weight) < merit - least else None), Claim.NONE


def polyhedral(oracle: Oracle) -> bool:
    """Whether B-stationarity proves a local optimum: the follower's optimality conditions are polyhedral, the leader's
    rows linear, and the leader's objective convex.

    The graph of the follower's answers is then a union of polyhedra, and on each of them a convex function that does
    not fall in any direction of it is at its minimum.
    """
    if not isinstance(oracle, AlgebraicOracle):
        return False
    program = oracle.program
    leader = program.leader
    if leader.objective.degree > 2 or any(r.function.degree > 1 for r in leader.rows):
        return False
    for follower in program.followers:
        if follower.objective.degree > 2 or any(r.function.degree > 1 for r in follower.rows):
            return False
    order = sorted({i for pair in leader.objective.quadratic for i in pair})
    return not order or positive_semidefinite(leader.objective.hessian(order))
