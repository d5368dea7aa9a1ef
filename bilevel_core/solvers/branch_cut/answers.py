"""What a follower answers at given values of the linking columns: solved once each, and remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilevel_core.backends import SolveStatus
from bilevel_core.solvers.branch_cut.knapsack import Knapsack, as_knapsack
from bilevel_core.solvers.branch_cut.mip import Mip
from bilevel_core.solvers.branch_cut.model import Follower

_UNBOUNDED = (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED)


class LowerUnboundedError(Exception):
    """A follower has no optimal answer; its name is the argument."""


class OutOfTimeError(Exception):
    """A subproblem was cut short, and nothing may be concluded from it."""


@dataclass(frozen=True)
class Answer:
    """An optimal answer of a follower.

    Attributes:
        value: its objective.
        y: its columns, shape (k,).
    """

    value: float
    y: np.ndarray


class Answers:
    """The answers of one follower.

    Args:
        follower: which.
        hurry: as for `Mip`.
    """

    def __init__(self, follower: Follower, hurry: Callable[[], float | None]) -> None:
        self.follower = follower
        f = follower
        self._mip = Mip(f.cost, f.own, f.row_lower, f.row_upper, f.lower, f.upper, f.integer, hurry)
        self._hurry = hurry
        self._known: dict[tuple[float, ...], Answer | None] = {}
        self.knapsack: Knapsack | None = as_knapsack(follower)
        self.solves = 0

    def at(self, values: np.ndarray) -> Answer | None:
        """The answer where the linking columns have the values of a point, integers rounded; None where the follower
        has no feasible one.

        Raises:
            LowerUnboundedError: it is unbounded there.
            OutOfTimeError: the solve was cut short.
            BackendError: no backend solves it.
        """
        f = self.follower
        linking = np.where(f.linking_integer, np.rint(values[f.linking]), values[f.linking])
        key = tuple(linking.tolist())
        if key not in self._known:
            self._known[key] = self.solve(linking)
        return self._known[key]

    def solve(self, linking: np.ndarray) -> Answer | None:
        """The answer for linking columns as they are, not remembered; see `at`."""
        self.solves += 1
        f = self.follower
        x = np.zeros(f.matrix.shape[1])
        x[f.linking] = linking
        shift = f.others @ x
        if self.knapsack is not None:
            y = self.knapsack.answer(shift)
            if y is not None:
                return Answer(float(f.cost @ y), y)
        self._mip.limits(f.row_lower - shift, f.row_upper - shift)
        solution = self._mip.solve()
        if solution.status in _UNBOUNDED and self._feasible():
            raise LowerUnboundedError(f.name)
        if solution.status in (SolveStatus.INFEASIBLE, *_UNBOUNDED):
            return None
        if solution.values is None or not solution.solved:
            raise OutOfTimeError
        return Answer(solution.objective, solution.values)

    def _feasible(self) -> bool:
        """Whether there is any feasible answer within the limits as they stand."""
        m = self._mip
        probe = Mip(np.zeros(len(m.cost)), m.matrix, m.row_lower, m.row_upper, m.lower, m.upper, m.integer, self._hurry)
        solution = probe.solve()
        if solution.values is None and solution.status is not SolveStatus.INFEASIBLE:
            raise OutOfTimeError
        return solution.values is not None
