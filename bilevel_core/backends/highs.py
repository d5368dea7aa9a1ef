"""HiGHS: linear programs, mixed-integer linear programs and convex quadratic programs, globally."""

from __future__ import annotations

import importlib.metadata
import math
import os
import threading
from dataclasses import replace
from typing import Any

import numpy as np

from bilevel_core.backends.base import Backend, Solution, SolveSettings, SolveStatus
from bilevel_core.backends.convex_qp import solve_convex_qp
from bilevel_core.backends.interrupt import run_interruptibly
from bilevel_core.errors import BackendError, UsageError
from bilevel_core.program import Program, positive_semidefinite

OBJECTIVE_TOLERANCE = 1e-6


def quiet(highspy: Any) -> Any:
    """A HiGHS object that prints nothing: 1.16.0 writes its banner to stdout when callbacks are first enabled, which
    its own constructor does before anyone can switch output off.
    """

    class Quiet(highspy.Highs):
        def enableCallbacks(self) -> Any:
            self.setOptionValue("output_flag", False)
            return super().enableCallbacks()

    h: Any = Quiet()
    h.setOptionValue("output_flag", False)
    return h


class Highs(Backend):
    """HiGHS through highspy. A fresh object every solve: re-running one after a change of bounds has returned
    objectives that were not those of the returned vector (HiGHS 1.16.0). The objective is compared every time.
    """

    name = "highs"
    summary = "LP, MILP and convex QP, global"
    scope = "global"

    def version(self) -> str:
        """The version of highspy."""
        return importlib.metadata.version("highspy")

    def accepts(self, program: Program) -> str | None:
        """No sets, pairs, nonlinear or quadratic rows; quadratic objective only if convex and without integers."""
        if program.sos1 or program.complementarities:
            return "HiGHS knows neither special ordered sets nor complementarity pairs"
        if program.row_degree > 1:
            return "HiGHS takes linear constraints only"
        if program.objective.degree > 2:
            return "HiGHS takes linear and quadratic objectives only"
        if program.objective.degree == 2:
            if program.has_integers:
                return "HiGHS takes no quadratic objective together with integer variables"
            order = sorted({i for pair in program.objective.quadratic for i in pair})
            if not positive_semidefinite(program.objective.hessian(order)):
                return "HiGHS takes no nonconvex quadratic objective"
        return None

    def _solve(self, program: Program, settings: SolveSettings) -> Solution:
        """See `Backend.solve`. Progress is reported for mixed-integer programs."""
        if program.objective.degree == 2:
            return solve_convex_qp(program, settings, self._with_multipliers)
        # An answer that contradicts itself is asked for again, from scratch and then without presolve, before it is
        # an error: 1.16.0 does so now and then on mixed-integer programs, most often when given a start.
        attempts = [settings]
        if program.has_integers:
            attempts.append(replace(settings, start=None))
            attempts.append(replace(settings, start=None, options={**settings.options, "presolve": "off"}))
        for attempt in attempts:
            solution, told = self._attempt(program, attempt)
            if solution.values is None:
                return solution
            differs = abs(solution.objective - told) > OBJECTIVE_TOLERANCE * max(1.0, abs(told))
            violation = program.violation(solution.values)
            if not differs and violation <= OBJECTIVE_TOLERANCE:
                return solution
            fault = f"reports objective {told:.9g}, and its own point has {solution.objective:.9g}"
            fault += f" and violates the program by {violation:.2g}"
        raise BackendError(f"HiGHS contradicts itself: it {fault}.")  # pyright: ignore[reportPossiblyUnboundVariable]

    def _attempt(self, program: Program, settings: SolveSettings) -> tuple[Solution, float]:
        """One solve, and the objective that HiGHS reports for it."""
        h, solution = self._solved(program, settings)
        return solution, float(h.getInfo().objective_function_value)

    def _with_multipliers(self, program: Program, settings: SolveSettings) -> tuple[Solution, np.ndarray, np.ndarray]:
        """One solve of a continuous program, and the multipliers of its rows and of its bounds."""
        h, solution = self._solved(program, settings)
        found = h.getSolution()
        return solution, np.array(found.row_dual, dtype=float), np.array(found.col_dual, dtype=float)

    def _solved(self, program: Program, settings: SolveSettings) -> tuple[Any, Solution]:
        import highspy

        h = quiet(highspy)
        h.setOptionValue("random_seed", settings.seed % (2**31))
        h.setOptionValue("primal_feasibility_tolerance", 1e-9)
        h.setOptionValue("dual_feasibility_tolerance", 1e-9)
        h.setOptionValue("mip_feasibility_tolerance", 1e-9)
        h.setOptionValue("mip_abs_gap", settings.absolute_gap or 0.0)
        # By default HiGHS adds 1e-7 to the diagonal of a Hessian, which moves the optimum.
        h.setOptionValue("qp_regularization_value", 0.0)
        h.setOptionValue("mip_rel_gap", 0.0 if settings.gap is None else settings.gap)
        if settings.time_limit is not None:
            h.setOptionValue("time_limit", max(1e-3, settings.time_limit))
        if os.environ.get("OMP_NUM_THREADS") == "1":  # as workers of an executor set it; HiGHS does not look itself
            h.setOptionValue("threads", 1)
        for key, value in settings.options.items():
            if h.setOptionValue(key, value) != highspy.HighsStatus.kOk:
                raise UsageError(f"HiGHS has no option {key!r}, or does not take {value!r} for it.")
        self._pass_model(h, highspy, program)
        if settings.start is not None and program.has_integers:
            self._pass_start(h, highspy, program, settings.start)
        self._run(h, highspy, settings, program)
        return h, self._solution(h, highspy, program)

    @staticmethod
    def _pass_model(h: Any, highspy: Any, program: Program) -> None:
        n = len(program.columns)
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = n, len(program.rows)
        cost = np.zeros(n)
        for i, c in program.objective.linear.items():
            cost[i] = c
        lp.col_cost_ = cost
        lp.offset_ = program.objective.constant
        lp.col_lower_ = np.array([c.lower for c in program.columns], dtype=float)
        lp.col_upper_ = np.array([c.upper for c in program.columns], dtype=float)
        lp.row_lower_ = np.array([r.lower - r.function.constant for r in program.rows], dtype=float)
        lp.row_upper_ = np.array([r.upper - r.function.constant for r in program.rows], dtype=float)
        starts, index, value = [0], [], []
        for row in program.rows:
            for i, c in row.function.linear.items():
                index.append(i)
                value.append(c)
            starts.append(len(index))
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.array(starts, dtype=np.int32)
        lp.a_matrix_.index_ = np.array(index, dtype=np.int32)
        lp.a_matrix_.value_ = np.array(value, dtype=float)
        kinds = highspy.HighsVarType
        if program.has_integers:
            lp.integrality_ = [kinds.kInteger if c.integer else kinds.kContinuous for c in program.columns]
        if h.passModel(lp) == highspy.HighsStatus.kError:
            raise BackendError("HiGHS did not take the model; look for NaN among its coefficients.")
        if program.objective.quadratic:
            columns: dict[int, list[tuple[int, float]]] = {}
            for (i, j), c in program.objective.quadratic.items():
                # Lower triangle by columns, of the Hessian: twice the coefficient on the diagonal.
                columns.setdefault(i, []).append((j, 2.0 * c if i == j else c))
            starts, index, value = [], [], []
            for i in range(n):
                starts.append(len(index))
                for j, c in sorted(columns.get(i, [])):
                    index.append(j)
                    value.append(c)
            q = highspy.HighsHessian()
            q.dim_ = n
            q.format_ = highspy.HessianFormat.kTriangular
            q.start_ = np.array([*starts, len(index)], dtype=np.int32)
            q.index_ = np.array(index, dtype=np.int32)
            q.value_ = np.array(value, dtype=float)
            if h.passHessian(q) == highspy.HighsStatus.kError:
                raise BackendError("HiGHS did not take the quadratic objective.")

    @staticmethod
    def _pass_start(h: Any, highspy: Any, program: Program, start: np.ndarray) -> None:
        solution = highspy.HighsSolution()
        solution.col_value = [
            min(max(0.0, c.lower), c.upper) if math.isnan(v) else float(v)
            for v, c in zip(start, program.columns, strict=True)
        ]
        h.setSolution(solution)

    @staticmethod
    def _run(h: Any, highspy: Any, settings: SolveSettings, program: Program) -> None:
        """Run with progress, until done or interrupted."""
        stop = threading.Event()
        progress = settings.progress

        def interrupt(event: Any) -> None:
            if stop.is_set():
                event.interrupt()

        def log(event: Any) -> None:
            out = event.data_out
            value = out.mip_primal_bound
            if progress is not None and progress(
                value if math.isfinite(value) else None,
                out.mip_dual_bound if math.isfinite(out.mip_dual_bound) else None,
                int(out.mip_node_count),
            ):
                stop.set()

        if program.has_integers:
            h.cbMipInterrupt += interrupt
            if progress is not None:
                h.cbMipImprovingSolution += log
                h.cbMipLogging += log
        else:
            h.cbSimplexInterrupt += interrupt
        run_interruptibly(h.run, stop.set)

    @staticmethod
    def _solution(h: Any, highspy: Any, program: Program) -> Solution:
        s = highspy.HighsModelStatus
        raw = h.getModelStatus()
        status = {
            s.kOptimal: SolveStatus.OPTIMAL,
            s.kModelEmpty: SolveStatus.OPTIMAL,
            s.kInfeasible: SolveStatus.INFEASIBLE,
            s.kUnbounded: SolveStatus.UNBOUNDED,
            s.kUnboundedOrInfeasible: SolveStatus.INFEASIBLE_OR_UNBOUNDED,
            s.kTimeLimit: SolveStatus.TIME_LIMIT,
            s.kInterrupt: SolveStatus.INTERRUPTED,
            s.kIterationLimit: SolveStatus.OTHER_LIMIT,
            s.kSolutionLimit: SolveStatus.OTHER_LIMIT,
            s.kObjectiveBound: SolveStatus.OTHER_LIMIT,
            s.kObjectiveTarget: SolveStatus.OTHER_LIMIT,
            s.kMemoryLimit: SolveStatus.OTHER_LIMIT,
        }.get(raw, SolveStatus.ERROR)
        info = h.getInfo()
        bound = info.mip_dual_bound if program.has_integers else -math.inf
        nodes = max(0, int(info.mip_node_count)) if program.has_integers else 0
        message = "" if status is not SolveStatus.ERROR else f"HiGHS: {h.modelStatusToString(raw)}"
        if raw == s.kModelEmpty:
            return Solution(status, np.zeros(0), program.objective.constant, program.objective.constant)
        feasible = info.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible)
        if not feasible or status in (SolveStatus.INFEASIBLE, SolveStatus.UNBOUNDED):
            return Solution(status, None, bound=bound, nodes=nodes, message=message)
        values = np.array(h.getSolution().col_value, dtype=float)
        objective = program.objective.evaluate(values)
        if status is SolveStatus.OPTIMAL and not program.has_integers:
            bound = objective
        return Solution(status, values, objective, bound, nodes, message)
