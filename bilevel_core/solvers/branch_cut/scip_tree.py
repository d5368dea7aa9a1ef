"""SCIP's search tree over the high-point relaxation: what the search asks of SCIP and tells it, in arrays.

SCIP's own presolving, symmetry, heuristics and dual reductions are off: they see the leader's objective only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bilevel_core.backends.interrupt import run_interruptibly
from bilevel_core.errors import BackendError, UsageError
from bilevel_core.solvers.branch_cut.branching import Child
from bilevel_core.solvers.branch_cut.cone import Cone, RowStore, read_cone
from bilevel_core.solvers.branch_cut.model import LinearModel


class ScipTree:
    """A PySCIPOpt model of the high-point relaxation.

    Args:
        model: the problem.
        seed: SCIP's.

    Attributes:
        scip: the package PySCIPOpt.
        tree: its model.
        cuts: how many were added.
    """

    def __init__(self, model: LinearModel, seed: int) -> None:
        import pyscipopt

        self.model = model
        self.scip: Any = pyscipopt
        self.tree: Any = self.scip.Model()
        self.variables: list[Any] = []
        self.cuts = 0
        self._transformed: list[Any] = []
        self._places: dict[str, int] = {}
        self._store = RowStore()
        self._build(seed)

    def _build(self, seed: int) -> None:
        m, data = self.tree, self.model
        m.hideOutput()
        off = self.scip.SCIP_PARAMSETTING.OFF
        m.setPresolve(off)
        # Their points are hardly ever bilevel feasible, and each costs a follower's solve; responses take their place.
        m.setHeuristics(off)
        m.setSeparating(self.scip.SCIP_PARAMSETTING.FAST)
        for name, value in {
            "misc/catchctrlc": False,
            "misc/usesymmetry": 0,
            "limits/gap": 0.0,
            "propagating/dualfix/freq": -1,
            # Rounds are counted by the handler.
            "separating/maxroundsroot": -1,
            "separating/maxstallroundsroot": 60,
            "separating/maxrounds": -1,
            "randomization/randomseedshift": seed % (2**31),
        }.items():
            m.setParam(name, value)
        for j in range(data.size):
            low = None if data.lower[j] == -np.inf else float(data.lower[j])
            up = None if data.upper[j] == np.inf else float(data.upper[j])
            kind = "I" if data.integer[j] else "C"
            self.variables.append(m.addVar(f"v{j}", vtype=kind, lb=low, ub=up, obj=float(data.cost[j])))
        m.addObjoffset(data.constant)
        for i in range(data.matrix.shape[0]):
            row = data.matrix[i]
            low, up = float(data.row_lower[i]), float(data.row_upper[i])
            if not row.nnz:
                if low > 1e-9 or up < -1e-9:
                    m.addCons(m.addVar(f"infeasible{i}", lb=0.0, ub=0.0) >= 1.0)
            elif np.isfinite(low) or np.isfinite(up):
                m.addCons(self._row(row.indices, row.data, low, up), name=f"row{i}")

    def _row(self, where: Iterable[int], values: Iterable[float], low: float, up: float) -> Any:
        body = self.scip.quicksum(float(a) * self.variables[j] for j, a in zip(where, values, strict=True) if a)
        if low == up:
            return body == low
        if np.isfinite(low) and np.isfinite(up):
            return low <= (body <= up)
        return body <= up if np.isfinite(up) else body >= low

    def run(self, time_limit: float | None, stop: Callable[[], object], options: dict[str, Any]) -> None:
        """Search, until the end, the time limit or an interrupt, on which ``stop`` is called.

        Raises:
            UsageError: an option that SCIP does not take.
            BackendError: SCIP broke.
        """
        m = self.tree
        if time_limit is not None:
            m.setParam("limits/time", max(1e-3, time_limit))
        for name, value in options.items():
            try:
                m.setParam(name, value)
            except (KeyError, LookupError, ValueError, TypeError) as error:
                raise UsageError(f"SCIP has no parameter {name!r}, or does not take {value!r} for it.") from error

        def interrupt() -> None:
            stop()
            m.interruptSolve()

        try:
            run_interruptibly(m.optimizeNogil, interrupt)
        except Exception as error:  # PySCIPOpt raises bare exceptions
            raise BackendError(f"SCIP failed: {error}") from error

    def started(self) -> None:
        """Note SCIP's transformed variables, once they exist."""
        self._transformed = [self.tree.getTransformedVar(v) for v in self.variables]
        self._places = {v.name: j for j, v in enumerate(self._transformed)}

    # What SCIP knows.

    @property
    def status(self) -> str:
        """SCIP's word for how it ended."""
        return str(self.tree.getStatus())

    @property
    def bound(self) -> float:
        """The proven bound (minimised)."""
        return self._number(self.tree.getDualbound())

    @property
    def value(self) -> float:
        """The value of the best point, infinite without one."""
        return self._number(self.tree.getPrimalbound())

    @property
    def nodes(self) -> int:
        """Nodes looked at."""
        return int(self.tree.getNTotalNodes())

    @property
    def node(self) -> int:
        """The number of the current node."""
        return int(self.tree.getCurrentNode().getNumber())

    @property
    def at_root(self) -> bool:
        """Whether the current node is the root."""
        return self.tree.getDepth() == 0

    def _number(self, value: float) -> float:
        value = float(value)
        return value if abs(value) < self.tree.infinity() else float(np.copysign(np.inf, value))

    def best(self) -> np.ndarray | None:
        """SCIP's best point."""
        return self.values(self.tree.getBestSol()) if self.tree.getNSols() else None

    def values(self, solution: Any = None) -> np.ndarray:
        """A point; that of the linear program by default."""
        return np.array([self.tree.getSolVal(solution, v) for v in self.variables], dtype=float)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The current node's bounds."""
        return (
            np.array([v.getLbLocal() for v in self._transformed], dtype=float),
            np.array([v.getUbLocal() for v in self._transformed], dtype=float),
        )

    def cone(self) -> Cone | None:
        """The simplex cone of the current linear program."""
        return read_cone(self.tree, self._places, self.model.size, self._store)

    # What SCIP is told.

    def offer(self, values: np.ndarray) -> None:
        """Hand in a point."""
        point = self.tree.createSol()
        for v, value, whole in zip(self.variables, values, self.model.integer, strict=True):
            self.tree.setSolVal(point, v, float(np.rint(value) if whole else value))
        self.tree.trySol(point, printreason=False, completely=False, free=True)

    def add_row(self, coefficients: np.ndarray, side: float, *, local: bool) -> str:
        """Add the cut ``coefficients v >= side``, for the current node's part of the tree or for all of it."""
        m = self.tree
        name = f"bilevel{self.cuts}"
        row = m.createEmptyRowUnspec(name, lhs=float(side), rhs=None, local=local, modifiable=False, removable=True)
        m.cacheRowExtensions(row)
        for j in np.flatnonzero(coefficients):
            m.addVarToRow(row, self._transformed[j], float(coefficients[j]))
        m.flushRowExtensions(row)
        infeasible = m.addCut(row, forcecut=True)
        m.releaseRow(row)
        self.cuts += 1
        return "CUTOFF" if infeasible else "SEPARATED"

    def split(self, children: list[Child]) -> str:
        """Replace the current node by its parts; without any it is empty."""
        if not children:
            return "CUTOFF"
        m = self.tree
        estimate = m.getLocalEstimate()
        for child in children:
            node = m.createChild(child.priority, estimate)
            for coefficients, low, up in child.rows:
                where = np.flatnonzero(coefficients)
                # With the default check=True SCIP would reject feasible points of other nodes.
                m.addConsNode(node, self._row(where, coefficients[where], low, up), check=False, local=True)
        return "BRANCHED"

    def interrupt(self) -> None:
        """End the search at the next chance."""
        self.tree.interruptSolve()
