"""One follower's problem at a fixed x: which backend solves it, and what is said when there is no answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from bilevel_core.backends import Backend, Solution, SolveSettings, SolveStatus
from bilevel_core.backends.casadi_expression import CasadiTranslator
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.backends.scip import Scip, tight_feastol
from bilevel_core.errors import BackendError
from bilevel_core.lower.base import LowerFailedError
from bilevel_core.oracles.algebraic import AlgebraicOracle
from bilevel_core.program import Function, Program
from bilevel_core.program import expression as ex
from bilevel_core.result import Termination

SECONDS = 10.0
"""For a solve by SCIP, whose time has no other bound."""
UNBOUNDED = -1e15
"""An objective below this is taken as minus infinity."""
FEASIBLE = 1e-6


@dataclass(frozen=True)
class Found:
    """A follower's answer.

    Attributes:
        y: over the follower's own columns.
        program: its problem at this x where HiGHS solved it (linear, convex quadratic: the answer holds globally).
        iterations: of Ipopt.
        row_multipliers, bound_multipliers: Ipopt's, over rows and own columns; positive at the upper side.
        message: how the solve ended, when not as it should.
    """

    y: np.ndarray
    program: Program | None = None
    iterations: int = 0
    row_multipliers: np.ndarray | None = None
    bound_multipliers: np.ndarray | None = None
    message: str = ""


class FollowerProblem:
    """One follower of an oracle; what does not depend on x is found out and compiled once.

    Args:
        oracle: the problem.
        index: the follower's number.
    """

    def __init__(self, oracle: AlgebraicOracle, index: int) -> None:
        import casadi

        self._ca: Any = casadi
        self._counts = oracle.counts
        self._program = oracle.program
        self._index = index
        self._level = oracle.program.followers[index]
        self._x_columns = oracle.x_columns
        block = oracle.blocks[index]
        self._lower, self._upper = oracle.y_lower[block], oracle.y_upper[block]
        self._row_lower = np.array([r.lower for r in self._level.rows], dtype=float)
        self._row_upper = np.array([r.upper for r in self._level.rows], dtype=float)
        own = frozenset(self._level.columns)
        functions = (self._level.objective, *(r.function for r in self._level.rows))
        self._kinked = any(_has_kink(f, own) for f in functions)
        self._build()
        self._solvers: dict[int, Any] = {}

    def _build(self) -> None:
        """The objective and rows as graphs, and whether the problem is linear or quadratic in y whatever x is."""
        ca = self._ca
        x, y = ca.SX.sym("x", len(self._x_columns)), ca.SX.sym("y", len(self._level.columns))
        v: list[Any] = [None] * len(self._program.columns)
        for symbol, columns in ((x, self._x_columns), (y, self._level.columns)):
            for k, i in enumerate(columns):
                v[i] = symbol[k]
        translate = CasadiTranslator(ca, v)
        objective = translate.function(self._level.objective)
        rows = ca.vertcat(ca.SX(0, 1), *(translate.function(r.function) for r in self._level.rows))
        self._nlp = {"x": y, "p": x, "f": objective, "g": rows}
        hessian = ca.jacobian(ca.gradient(objective, y), y)
        # A kink's derivative is a sign, in which y no longer shows up as something to differentiate.
        flat = not ca.depends_on(hessian, y) and not ca.depends_on(ca.jacobian(rows, y), y)
        self._flat = flat and not self._kinked

    def solve(self, values: np.ndarray, start: np.ndarray, max_iterations: int) -> Found:
        """The follower's answer.

        Args:
            values: one number per column of the whole program, of which only those of x are used.
            start: where Ipopt starts, over the follower's own columns.
            max_iterations: of Ipopt.

        Raises:
            LowerFailedError: there is no answer, or none was found.
        """
        if not self._level.columns:
            return Found(np.zeros(0))
        if self._flat:
            alone, _ = self._program.follower_at(self._index, values)
            if Highs().accepts(alone) is None:
                return self._by_highs(alone)
        if self._kinked:
            alone, _ = self._program.follower_at(self._index, values)
            found = self._by_scip(alone)
            if found is not None:
                return found
        return self._by_ipopt(values, start, max_iterations)

    def _by_highs(self, alone: Program) -> Found:
        backends: tuple[Backend, ...] = (Highs(), Scip(), Ipopt())
        size = self._level.objective.size
        scaled = alone
        # Beside HiGHS's absolute tolerances small costs would be none. The scale is that of the objective as written:
        # costs that only a nearly vanishing x makes small are left as near to a tie as they are.
        if size > 0.0 and not 1e-3 <= size <= 1e3:
            scaled = replace(alone, objective=alone.objective.scaled(1.0 / size))
        solution = _first(scaled, backends)
        if solution.status is SolveStatus.INFEASIBLE_OR_UNBOUNDED:
            # A feasible problem without an optimum is an unbounded one.
            probe = _first(replace(alone, objective=Function()), backends)
            status = SolveStatus.UNBOUNDED if probe.solved else SolveStatus.INFEASIBLE
            solution = replace(solution, status=status)
        if solution.values is None or not solution.solved:
            self._fail(solution)
        return Found(solution.values, alone)

    def _by_scip(self, alone: Program) -> Found | None:
        """SCIP's answer; None where it cannot take the problem or does not finish."""
        solution = _first(alone, (Scip(),))
        if solution.status in (SolveStatus.INFEASIBLE, SolveStatus.UNBOUNDED):
            self._fail(solution)
        return None if solution.values is None or not solution.solved else Found(solution.values)

    def _by_ipopt(self, values: np.ndarray, start: np.ndarray, max_iterations: int) -> Found:
        solver = self._solvers.get(max_iterations)
        if solver is None:
            options = {
                "print_time": False,
                "ipopt.print_level": 0,
                "ipopt.sb": "yes",
                "ipopt.tol": 1e-10,
                "ipopt.bound_relax_factor": 0.0,  # else it returns points beyond the bounds
                "ipopt.max_iter": max_iterations,
            }
            solver = self._solvers[max_iterations] = self._ca.nlpsol("follower", "ipopt", self._nlp, options)
        found, told = self._run(solver, values, start)
        if not _good(told):
            self._refuse_unbounded(values, found)
            # Starting from the old answer may be what went wrong.
            again, told_again = self._run(solver, values, self._inside(np.zeros(len(start))))
            if _good(told_again):
                found, told = again, told_again
        if not _good(told):
            found, told = self._second_opinion(solver, values, found, told)
        if _good(told):
            return found
        return replace(found, message=f"Ipopt ended with {told.replace('_', ' ').lower()}")

    def _run(self, solver: Any, values: np.ndarray, start: np.ndarray) -> tuple[Found, str]:
        given = {"lbx": self._lower, "ubx": self._upper, "p": values[self._x_columns]}
        if len(self._row_lower):
            given |= {"lbg": self._row_lower, "ubg": self._row_upper}
        answer = solver(x0=np.clip(start, self._lower, self._upper), **given)
        stats = solver.stats()
        self._counts["lower_evaluations"] += int(stats.get("n_call_nlp_f", 0))
        y, rows, bounds = (np.array(answer[key], dtype=float).reshape(-1) for key in ("x", "lam_g", "lam_x"))
        return Found(y, None, int(stats["iter_count"]), rows, bounds), str(stats["return_status"])

    def _second_opinion(self, solver: Any, values: np.ndarray, found: Found, told: str) -> tuple[Found, str]:
        """Ipopt ended without an answer, which proves nothing: SCIP knows whether there is one, and Ipopt goes on
        from it.
        """
        alone, _ = self._program.follower_at(self._index, values)
        seen = self._by_scip(alone)
        if seen is not None:
            return self._run(solver, values, seen.y)
        self._refuse_unbounded(values, found)
        if not (np.isfinite(found.y).all() and alone.violation(found.y) < FEASIBLE):
            ended = told.replace("_", " ").lower()
            raise LowerFailedError(
                f"No feasible answer of follower {self._level.name!r} was found at this x (Ipopt ended with {ended}). "
                "Give its variables bounds, or start elsewhere."
            )
        return found, told

    def _refuse_unbounded(self, values: np.ndarray, found: Found) -> None:
        """A feasible point with an objective as low as Ipopt's own mark of divergence shows that there is no end."""
        if not np.isfinite(found.y).all():
            return
        alone, _ = self._program.follower_at(self._index, values)
        if alone.objective.evaluate(found.y) < UNBOUNDED and alone.violation(found.y) < FEASIBLE:
            self._fail(Solution(SolveStatus.UNBOUNDED))

    def _inside(self, y: np.ndarray) -> np.ndarray:
        both = np.isfinite(self._lower) & np.isfinite(self._upper)
        middle = 0.5 * (np.where(both, self._lower, 0.0) + np.where(both, self._upper, 0.0))
        return np.clip(np.where(both, middle, y), self._lower, self._upper)

    def _fail(self, solution: Solution) -> NoReturn:
        name = self._level.name
        if solution.status in (SolveStatus.INFEASIBLE, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
            raise LowerFailedError(
                f"Follower {name!r} has no feasible answer at this x. Constrain the leader to where it has one.",
                Termination.LOWER_INFEASIBLE,
            )
        if solution.status is SolveStatus.UNBOUNDED:
            raise LowerFailedError(
                f"Follower {name!r} is unbounded at this x: its objective has no minimum. Bound its variables.",
                Termination.LOWER_UNBOUNDED,
            )
        raise LowerFailedError(
            f"Follower {name!r} could not be solved at this x: {solution.message or solution.status.value}."
        )


def _first(program: Program, backends: tuple[Backend, ...]) -> Solution:
    """The solution of the first backend that takes the program and does not fail."""
    last = Solution(SolveStatus.ERROR, message="no backend takes its problem")
    for backend in backends:
        if backend.accepts(program) is not None or not backend.available().available:
            continue
        options = {"numerics/feastol": tight_feastol(program, degree=2)} if backend.name == "scip" else {}
        limit = SECONDS if backend.name == "scip" else None
        try:
            solution = backend.solve(program, SolveSettings(time_limit=limit, options=options))
        except BackendError as error:
            last = Solution(SolveStatus.ERROR, message=str(error))
            continue
        if solution.status is not SolveStatus.ERROR:
            return solution
        last = solution
    return last


def _good(told: str) -> bool:
    return told in ("Solve_Succeeded", "Solved_To_Acceptable_Level", "Search_Direction_Becomes_Too_Small")


def _has_kink(f: Function, own: frozenset[int]) -> bool:
    return f.nonlinear is not None and any(
        isinstance(n, ex.Call) and n.function == "abs" and bool(ex.columns(n) & own) for n in ex.walk(f.nonlinear)
    )
