"""Ipopt through CasADi: smooth continuous programs, locally.

The program's own expressions are handed to CasADi, which differentiates them; no Ipopt executable is needed (no
package on the Python index ships one).
"""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

import numpy as np

from bilevel_core.backends.base import Backend, Solution, SolveSettings, SolveStatus
from bilevel_core.backends.casadi_expression import CasadiTranslator
from bilevel_core.errors import UsageError
from bilevel_core.program import Program

UNBOUNDED_OBJECTIVE = -1e15


class Ipopt(Backend):
    """Ipopt, the one inside CasADi's wheel."""

    name = "ipopt"
    summary = "smooth continuous NLP, local"
    scope = "local"

    def version(self) -> str:
        """The version of CasADi, which brings Ipopt."""
        return f"casadi {importlib.metadata.version('casadi')}"

    def accepts(self, program: Program) -> str | None:
        """No integers, sets or pairs."""
        if program.has_integers:
            return "Ipopt takes no integer variables"
        if program.sos1 or program.complementarities:
            return "Ipopt takes neither special ordered sets nor complementarity pairs"
        return None

    def _solve(self, program: Program, settings: SolveSettings) -> Solution:
        """See `Backend.solve`. Starts from ``settings.start``, or from the middle of the bounds."""
        import casadi

        ca: Any = casadi
        v = ca.SX.sym("v", len(program.columns))
        translate = CasadiTranslator(ca, v)
        rows = [translate.function(r.function) for r in program.rows]
        nlp = {"x": v, "f": translate.function(program.objective), "g": ca.vertcat(*rows) if rows else ca.SX(0, 1)}
        options: dict[str, Any] = {"print_time": False, "ipopt.print_level": 0, "ipopt.sb": "yes", "ipopt.tol": 1e-9}
        # Ipopt handles trial points where a function has no value; CasADi would print a line on stderr for each.
        options["show_eval_warnings"] = False
        # By default Ipopt relaxes bounds by 1e-8, and returns points beyond them.
        options["ipopt.bound_relax_factor"] = 0.0
        if settings.time_limit is not None:
            options["ipopt.max_wall_time"] = max(1e-3, settings.time_limit)
        options.update({f"ipopt.{k}": value for k, value in settings.options.items()})
        try:
            solver = ca.nlpsol("s", "ipopt", nlp, options)
        except RuntimeError as error:
            raise UsageError(f"Ipopt did not take the problem or an option: {str(error).splitlines()[-1]}") from error
        lower = np.array([c.lower for c in program.columns])
        upper = np.array([c.upper for c in program.columns])
        start = _middle(lower, upper)
        if settings.start is not None:
            start = np.where(np.isnan(settings.start), start, settings.start)
        answer = solver(
            x0=np.clip(start, lower, upper),
            lbx=lower,
            ubx=upper,
            lbg=np.array([r.lower for r in program.rows]),
            ubg=np.array([r.upper for r in program.rows]),
        )
        stats = solver.stats()
        return self._solution(program, np.array(answer["x"], dtype=float).reshape(-1), stats)

    @staticmethod
    def _solution(program: Program, values: np.ndarray, stats: dict[str, Any]) -> Solution:
        told = str(stats["return_status"])
        status = {
            "Solve_Succeeded": SolveStatus.LOCALLY_OPTIMAL,
            "Solved_To_Acceptable_Level": SolveStatus.LOCALLY_OPTIMAL,
            "Infeasible_Problem_Detected": SolveStatus.ERROR,  # locally infeasible proves nothing
            "Diverging_Iterates": SolveStatus.INFEASIBLE_OR_UNBOUNDED,
            "Maximum_Iterations_Exceeded": SolveStatus.OTHER_LIMIT,
            "Maximum_WallTime_Exceeded": SolveStatus.TIME_LIMIT,
            "Maximum_CpuTime_Exceeded": SolveStatus.TIME_LIMIT,
            "User_Requested_Stop": SolveStatus.INTERRUPTED,
        }.get(told, SolveStatus.ERROR)
        message = "" if status is SolveStatus.LOCALLY_OPTIMAL else f"Ipopt: {told.replace('_', ' ').lower()}"
        if not np.isfinite(values).all():
            return Solution(SolveStatus.ERROR, None, message=message or "Ipopt: not a number in the solution")
        objective = program.objective.evaluate(values)
        if status is SolveStatus.INFEASIBLE_OR_UNBOUNDED and objective < UNBOUNDED_OBJECTIVE:
            status = SolveStatus.UNBOUNDED
        keep = status is SolveStatus.LOCALLY_OPTIMAL or (
            status is SolveStatus.TIME_LIMIT and program.violation(values) < 1e-6
        )
        return Solution(status, values if keep else None, objective if keep else math.nan, message=message)


def _middle(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    both = np.isfinite(lower) & np.isfinite(upper)
    start = np.zeros(len(lower))
    start[both] = 0.5 * (lower[both] + upper[both])
    only_lower = np.isfinite(lower) & ~np.isfinite(upper)
    start[only_lower] = np.maximum(0.0, lower[only_lower] + 1.0)
    only_upper = ~np.isfinite(lower) & np.isfinite(upper)
    start[only_upper] = np.minimum(0.0, upper[only_upper] - 1.0)
    return start
