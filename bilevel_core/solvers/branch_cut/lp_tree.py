"""A few nodes of branch and bound on warm linear programs: for tiny mixed-integer programs this is over before HiGHS's
own branch and bound has set itself up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel_core.backends import Solution, SolveStatus

MOST_NODES = 16
"""Where a tree needs more, it is given up."""
WHOLE = 1e-7
PATIENCE = 20
"""After so many trees, those whose share of failures is above a third are planted no more."""


class LpTree:
    """Branch and bound on the linear relaxation, which a HiGHS object keeps from one solve to the next.

    Args:
        highs: the object, with the relaxation in it.
        integer: which columns are integer.
    """

    def __init__(self, highs: Any, integer: np.ndarray) -> None:
        self.highs = highs
        self._integer = np.flatnonzero(integer)
        self._columns = np.arange(len(integer), dtype=np.int32)
        self.tried = self.failed = 0

    @property
    def promising(self) -> bool:
        """Whether most trees so far came to an end."""
        return self.tried < PATIENCE or 3 * self.failed < self.tried

    def solve(self, lower: np.ndarray, upper: np.ndarray, cost: np.ndarray) -> Solution | None:
        """The optimum, or None where the tree was given up. ``cost`` is the objective that the object holds."""
        import highspy

        status = highspy.HighsModelStatus
        h, whole = self.highs, self._integer
        self.tried += 1
        best: np.ndarray | None = None
        least = np.inf
        stack = [(lower, upper)]
        for _ in range(MOST_NODES):
            if not stack:
                break
            low, up = stack.pop()
            h.changeColsBounds(len(self._columns), self._columns, low, up)
            h.run()
            raw = h.getModelStatus()
            if raw == status.kInfeasible:
                continue
            if raw != status.kOptimal:
                stack = [(low, up)]
                break
            values = np.array(h.getSolution().col_value, dtype=float)
            objective = float(cost @ values)
            if objective >= least - 1e-9 * max(1.0, abs(least)):
                continue
            distance = np.abs(values[whole] - np.rint(values[whole]))
            if distance.max(initial=0.0) <= WHOLE:
                best, least = values, objective
                continue
            j = whole[int(np.argmax(distance))]
            below, above = up.copy(), low.copy()
            below[j] = np.floor(values[j])
            above[j] = below[j] + 1.0
            children = [(low, below), (above, up)]
            if values[j] - below[j] < 0.5:
                children.reverse()  # the nearer one is looked at first
            stack += children
        if stack:
            self.failed += 1
            return None
        if best is None:
            return Solution(SolveStatus.INFEASIBLE)
        best[whole] = np.rint(best[whole])
        value = float(cost @ best)
        return Solution(SolveStatus.OPTIMAL, best, value, value)
