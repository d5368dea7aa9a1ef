"""Followers of an algebraic problem at a fixed x, solved to global optimality: integers and nonconvexity allowed.

HiGHS takes linear, mixed-integer linear and convex quadratic followers, SCIP all others. No derivatives, and so no
multipliers: for methods that look at values only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from bilevel_core.backends import Backend, Solution, SolveSettings, SolveStatus
from bilevel_core.backends.face import optimal_face
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.backends.scip import Scip, tight_feastol
from bilevel_core.errors import BackendError
from bilevel_core.lower.base import LowerFailedError
from bilevel_core.lower.choice import best_for_leader
from bilevel_core.program import BilevelProgram, Program
from bilevel_core.result import Termination


@dataclass(frozen=True)
class ExactResponse:
    """The followers' answers.

    Attributes:
        values: one number per column of the program: x as given, and the answers.
        lower: each follower's optimal value, minimised.
        proven: whether every answer is proven globally optimal.
    """

    values: np.ndarray
    lower: tuple[float, ...]
    proven: bool


def respond_exactly(program: BilevelProgram, values: np.ndarray, seconds: float = 10.0) -> ExactResponse:
    """Solve every follower at the x in ``values``; of several optimal answers take the leader's best (optimistic).

    Args:
        program: the problem, not a Nash game.
        values: one number per column; those of followers are not used.
        seconds: limit of each solve.

    Raises:
        LowerFailedError: a follower is infeasible, unbounded, or was not solved.
    """
    out = np.array(values, dtype=float)
    faces: dict[int, Program] = {}
    lower: list[float] = []
    proven = True
    for k, follower in enumerate(program.followers):
        alone, columns = program.follower_at(k, out)
        solution, scope = _solve(alone, seconds)
        if solution.values is None or not solution.solved:
            _fail(follower.name, solution)
        proven = proven and scope == "global" and solution.status is SolveStatus.OPTIMAL
        found = _rounded(alone, solution.values)
        out[list(columns)] = found
        lower.append(alone.objective.evaluate(found))
        faces[k] = replace(alone, rows=(*alone.rows, *optimal_face(alone, lower[-1], found)))
    chosen = best_for_leader(program, out, faces)
    if chosen is not None:
        better = chosen[0]
        for follower in program.followers:
            for i in follower.columns:
                if program.columns[i].integer:
                    better[i] = round(better[i])
        out = better
    return ExactResponse(out, tuple(lower), proven)


def _solve(program: Program, seconds: float) -> tuple[Solution, str]:
    """The first backend that takes the program and ends with an answer, or with the reason why there is none."""
    backends: tuple[Backend, ...] = (Highs(), Scip(), Ipopt())
    last = Solution(SolveStatus.ERROR, message="no backend takes its problem")
    for backend in backends:
        if backend.accepts(program) is not None or not backend.available().available:
            continue
        options = {"numerics/feastol": tight_feastol(program, degree=2)} if backend.name == "scip" else {}
        try:
            solution = backend.solve(program, SolveSettings(time_limit=seconds, options=options))
        except BackendError as error:
            last = Solution(SolveStatus.ERROR, message=str(error))
            continue
        if solution.solved or solution.status in (
            SolveStatus.INFEASIBLE,
            SolveStatus.UNBOUNDED,
            SolveStatus.INFEASIBLE_OR_UNBOUNDED,
        ):
            return solution, backend.scope
        last = solution
    return last, "local"


def _rounded(program: Program, values: np.ndarray) -> np.ndarray:
    return np.array([round(v) if c.integer else v for c, v in zip(program.columns, values, strict=True)], dtype=float)


def _fail(name: str, solution: Solution) -> NoReturn:
    endings = {
        SolveStatus.INFEASIBLE: ("has no feasible answer at this x", Termination.LOWER_INFEASIBLE),
        SolveStatus.UNBOUNDED: ("is unbounded at this x", Termination.LOWER_UNBOUNDED),
    }
    said, termination = endings.get(solution.status, ("could not be solved at this x", Termination.ERROR))
    more = f": {solution.message}" if solution.message else ""
    raise LowerFailedError(f"Follower {name!r} {said}{more}.", termination)
