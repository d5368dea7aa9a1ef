"""A mixed-integer linear program that is solved many times with other limits, bounds or costs, by HiGHS.

`bilevel_core.backends.highs` makes a fresh object for each solve, which costs more than the tiny programs here. This
one keeps its object, clears it before each run, and never believes an objective that is not that of the vector.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from bilevel_core.backends import Solution, SolveStatus
from bilevel_core.backends.highs import OBJECTIVE_TOLERANCE, Highs
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import BackendError
from bilevel_core.program import Program, Row, Variable, linear
from bilevel_core.solvers.branch_cut.lp_tree import LpTree
from bilevel_core.solvers.branch_cut.model import Matrix, sp

PATIENCE = 2.0
"""Seconds for which a solve is not watched for interrupts: watching costs more than most solves."""
SMALL = 15
"""Up to this many columns presolve costs more than it saves."""
PLANTED = 400
"""Up to this many columns a tree of linear programs is tried first."""


class Mip:
    """``min cost v`` over ``row_lower <= matrix v <= row_upper``, bounds and integrality.

    Args:
        cost, matrix, row_lower, row_upper, lower, upper, integer: the program.
        hurry: asked during long solves; returns seconds left (None: no limit), at most 0 to stop.

    Attributes:
        solves: how many times it was solved.
    """

    def __init__(
        self,
        cost: np.ndarray,
        matrix: Matrix,
        row_lower: np.ndarray,
        row_upper: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        integer: np.ndarray,
        hurry: Callable[[], float | None],
    ) -> None:
        self.cost = cost.astype(float)
        self.matrix = sp.csr_matrix(matrix)
        self.row_lower, self.row_upper = row_lower.astype(float), row_upper.astype(float)
        self.lower, self.upper = lower.astype(float), upper.astype(float)
        self.integer = integer.astype(bool)
        self.solves = 0
        self._hurry = hurry
        self._columns = np.arange(len(cost), dtype=np.int32)
        self._rows = np.arange(self.matrix.shape[0], dtype=np.int32)
        self._dense = self.matrix.toarray() if self.matrix.shape[0] * len(cost) <= 20_000 else self.matrix
        self._sizes = abs(self._dense)
        self._highs = self._load()
        self._tree = LpTree(self._load(relaxed=True), self.integer) if len(cost) <= PLANTED else None

    @property
    def _objects(self) -> list[Any]:
        return [self._highs] if self._tree is None else [self._highs, self._tree.highs]

    def options(self, **values: Any) -> None:
        """Set options of HiGHS, which alone solves from now on."""
        self._tree = None
        for name, value in values.items():
            self._highs.setOptionValue(name, value)

    def limits(self, row_lower: np.ndarray, row_upper: np.ndarray) -> None:
        """Change the limits of all rows."""
        self.row_lower, self.row_upper = row_lower, row_upper
        if len(self._rows):
            for h in self._objects:
                h.changeRowsBounds(len(self._rows), self._rows, row_lower, row_upper)

    def bounds(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """Change the bounds of all columns."""
        self.lower, self.upper = lower, upper
        self._highs.changeColsBounds(len(self._columns), self._columns, lower, upper)

    def costs(self, cost: np.ndarray) -> None:
        """Change the costs of all columns."""
        self.cost = cost
        for h in self._objects:
            h.changeColsCost(len(self._columns), self._columns, cost)

    def solve(self) -> Solution:
        """Solve. A contradiction of HiGHS with itself, or an end without an answer, is put to SCIP.

        Raises:
            BackendError: neither comes to an answer.
        """
        self.solves += 1
        if self._tree is not None and self._tree.promising:
            quick = self._tree.solve(self.lower, self.upper, self.cost)
            if quick is not None and (quick.values is None or self.violation(quick.values) <= OBJECTIVE_TOLERANCE):
                return quick
        solution = self._run()
        if solution.status is SolveStatus.ERROR:
            solution = self._elsewhere()
        return solution

    def _run(self) -> Solution:
        import highspy

        h, status = self._highs, highspy.HighsModelStatus
        # Without this, a run after a change of limits has returned another vector's objective (HiGHS 1.16.0).
        h.clearSolver()
        left = self._hurry()
        if left is not None and left <= 0.0:
            return Solution(SolveStatus.TIME_LIMIT)
        h.setOptionValue("time_limit", PATIENCE if left is None else min(PATIENCE, left))
        h.run()
        raw = h.getModelStatus()
        if raw == status.kTimeLimit and (left is None or left > PATIENCE):
            self._run_watched(h)
            raw = h.getModelStatus()
        found = {
            status.kOptimal: SolveStatus.OPTIMAL,
            status.kModelEmpty: SolveStatus.OPTIMAL,
            status.kInfeasible: SolveStatus.INFEASIBLE,
            status.kUnbounded: SolveStatus.UNBOUNDED,
            status.kUnboundedOrInfeasible: SolveStatus.INFEASIBLE_OR_UNBOUNDED,
            status.kTimeLimit: SolveStatus.TIME_LIMIT,
            status.kInterrupt: SolveStatus.INTERRUPTED,
        }.get(raw, SolveStatus.ERROR)
        if found is not SolveStatus.OPTIMAL:
            return Solution(found)
        values = np.array(h.getSolution().col_value, dtype=float)
        told = float(h.getInfo().objective_function_value)
        values[self.integer] = np.rint(values[self.integer])
        objective = float(self.cost @ values)
        agrees = abs(objective - told) <= OBJECTIVE_TOLERANCE * max(1.0, abs(told))
        if not agrees or self.violation(values) > OBJECTIVE_TOLERANCE:
            return Solution(SolveStatus.ERROR)
        return Solution(SolveStatus.OPTIMAL, values, objective, objective)

    def violation(self, values: np.ndarray) -> float:
        """The largest violation of rows and bounds, of rows relative to their largest term."""
        activity = self._dense @ values
        excess = np.maximum(self.row_lower - activity, activity - self.row_upper)
        scale = np.maximum(1.0, self._sizes @ np.abs(values)) if len(excess) else excess
        beyond = np.maximum(self.lower - values, values - self.upper)
        return max(0.0, float((excess / scale).max(initial=0.0)), float(beyond.max(initial=0.0)))

    def _run_watched(self, h: Any) -> None:
        """Once more, looking out for the end of time and interrupts."""
        stop = threading.Event()

        def look(event: Any) -> None:
            left = self._hurry()
            if stop.is_set() or (left is not None and left <= 0.0):
                event.interrupt()

        left = self._hurry()
        h.clearSolver()
        h.setOptionValue("time_limit", math.inf if left is None else max(1e-3, left))
        h.cbMipInterrupt += look
        try:
            h.run()
        finally:
            h.cbMipInterrupt -= look

    def _elsewhere(self) -> Solution:
        """The same program by the backends, which check themselves: SCIP first, since HiGHS has failed."""
        program = self.program()
        fault = ""
        for backend in (Scip(), Highs()):
            try:
                solution = backend.solve(program)
            except BackendError as error:
                fault = str(error)
                continue
            if solution.status is not SolveStatus.ERROR:
                return solution
            fault = solution.message
        raise BackendError(f"Neither SCIP nor HiGHS solves one of the search's subproblems: {fault}")

    def program(self) -> Program:
        """The program as it stands, for a backend."""
        columns = [
            Variable(f"v{j}", float(a), float(b), bool(i))
            for j, (a, b, i) in enumerate(zip(self.lower, self.upper, self.integer, strict=True))
        ]
        m = self.matrix
        rows: list[Row] = []
        for i in range(m.shape[0]):
            at = slice(m.indptr[i], m.indptr[i + 1])
            f = linear({int(j): float(v) for j, v in zip(m.indices[at], m.data[at], strict=True) if v})
            rows.append(Row(f"r{i}", f, float(self.row_lower[i]), float(self.row_upper[i])))
        return Program(tuple(columns), linear({j: float(c) for j, c in enumerate(self.cost) if c}), tuple(rows))

    def _load(self, *, relaxed: bool = False) -> Any:
        import highspy

        from bilevel_core.backends.highs import quiet

        h: Any = quiet(highspy)
        lp: Any = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.cost), self.matrix.shape[0]
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = self.cost, self.lower, self.upper
        lp.row_lower_, lp.row_upper_ = self.row_lower, self.row_upper
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = self.matrix.indptr.astype(np.int32)
        lp.a_matrix_.index_ = self.matrix.indices.astype(np.int32)
        lp.a_matrix_.value_ = self.matrix.data.astype(float)
        if self.integer.any() and not relaxed:
            kinds = highspy.HighsVarType
            lp.integrality_ = [kinds.kInteger if i else kinds.kContinuous for i in self.integer]
        if h.passModel(lp) == highspy.HighsStatus.kError:
            raise BackendError("HiGHS did not take a subproblem; look for NaN among the coefficients.")
        for name, value in {
            "threads": 1,
            "mip_rel_gap": 0.0,
            "mip_abs_gap": 0.0,
            "primal_feasibility_tolerance": 1e-9,
            "dual_feasibility_tolerance": 1e-9,
            "mip_feasibility_tolerance": 1e-9,
            # These look for what tiny programs do not have, and cost several times their solution.
            "mip_heuristic_run_feasibility_jump": False,
            "mip_detect_symmetry": False,
            "mip_heuristic_effort": 0.02,
        }.items():
            h.setOptionValue(name, value)
        if len(self.cost) <= SMALL or relaxed:
            h.setOptionValue("presolve", "off")
        return h
