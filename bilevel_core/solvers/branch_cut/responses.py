"""The leader's best and worst value at given values of the linking columns, over the followers' optimal answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bilevel_core.backends import SolveStatus
from bilevel_core.program import INF
from bilevel_core.solvers.branch_cut.answers import Answers, OutOfTimeError
from bilevel_core.solvers.branch_cut.mip import Mip
from bilevel_core.solvers.branch_cut.model import LinearModel, Matrix, sp

EXACT = 1e-9
"""How far beyond its optimal value an answer may be and count as optimal, relative to its largest term: of continuous
columns, where there are any, since a term of integer ones is exact."""
ROUNDING = 1e-15


@dataclass(frozen=True)
class Response:
    """A bilevel feasible point: its value for the leader (minimised) and all columns."""

    value: float
    values: np.ndarray


class Responses:
    """Points for given linking columns, solved once for each.

    Args:
        model: the problem, without a column for the leader's worth.
        answers: the followers' answers.
        pessimistic: whether the followers give the leader the worst of their optimal answers, or the best.
        hurry: as for `Mip`.
    """

    def __init__(
        self,
        model: LinearModel,
        answers: Sequence[Answers],
        hurry: Callable[[], float | None],
        *,
        pessimistic: bool,
    ) -> None:
        self.model = model
        self._answers = answers
        self._pessimistic = pessimistic
        self._hurry = hurry
        self._known: dict[tuple[int, ...], Response | None] = {}
        faces = sp.csr_matrix((len(answers), model.size))
        faces = faces.tolil()
        for k, a in enumerate(answers):
            faces[k, a.follower.columns] = a.follower.cost
        self._matrix = sp.vstack([model.matrix, faces]).tocsr()
        self._mip = self._make(model.cost, self._matrix, model.row_lower, model.row_upper, model.integer)
        lower = {int(c) for a in answers for c in a.follower.columns}
        self._lower = np.array(sorted(lower), dtype=np.int64)
        self.solves = 0

    def _make(self, cost: np.ndarray, matrix: Matrix, low: np.ndarray, up: np.ndarray, integer: np.ndarray) -> Mip:
        more = matrix.shape[0] - len(low)
        low, up = np.append(low, np.full(more, -INF)), np.append(up, np.full(more, INF))
        return Mip(cost, matrix, low, up, self.model.lower, self.model.upper, integer, self._hurry)

    def at(self, values: np.ndarray) -> Response | None:
        """The response where the linking columns are those of a point, rounded if integer; None where the leader's
        constraints admit none.

        Raises:
            LowerUnboundedError, OutOfTimeError, BackendError: as for `Answers.at`.
        """
        linking = self.model.linking
        fixed = np.where(self.model.integer[linking], np.rint(values[linking]), values[linking])
        key = tuple(fixed.tolist())
        if key not in self._known:
            at = values.copy()
            at[linking] = fixed
            self._known[key] = self._solve(at)
        return self._known[key]

    def known(self, values: np.ndarray) -> bool:
        """Whether `at` would solve nothing."""
        linking = self.model.linking
        return tuple(np.where(self.model.integer[linking], np.rint(values[linking]), values[linking])) in self._known

    def _solve(self, at: np.ndarray) -> Response | None:
        self.solves += 1
        rooms: list[float] = []
        for a in self._answers:
            answer = a.at(at)
            if answer is None:
                return None
            f = a.follower
            moves = ~f.integer if not f.integer.all() else f.integer
            terms = np.abs(f.cost * answer.y)
            largest = max(float(terms[moves].max(initial=0.0)), float(np.abs(f.cost[moves]).max(initial=0.0)))
            room = EXACT * max(largest, 1e-9) + ROUNDING * float(terms.sum())
            rooms.append(answer.value + (0.4 * f.step if f.step else room))
        return self._worst(at, np.array(rooms)) if self._pessimistic else self._best(at, np.array(rooms))

    def _best(self, at: np.ndarray, rooms: np.ndarray) -> Response | None:
        model = self.model
        self._pin(self._mip, at)
        self._mip.limits(np.append(model.row_lower, np.full(len(rooms), -INF)), np.append(model.row_upper, rooms))
        solution = self._mip.solve()
        return self._response(solution.status, solution.values)

    def _pin(self, mip: Mip, at: np.ndarray) -> None:
        lower, upper = self.model.lower.copy(), self.model.upper.copy()
        lower[self.model.linking] = upper[self.model.linking] = at[self.model.linking]
        mip.bounds(lower, upper)

    def _response(self, status: SolveStatus, values: np.ndarray | None) -> Response | None:
        if status is SolveStatus.INFEASIBLE:
            return None
        if values is None or status is not SolveStatus.OPTIMAL:
            raise OutOfTimeError
        return Response(self.model.objective(values), values)

    def _worst(self, at: np.ndarray, rooms: np.ndarray) -> Response | None:
        """The followers' optimal answers worst for the leader's objective, and its best own columns that satisfy its
        rows whatever the followers choose.
        """
        model, lower = self.model, self._lower
        m = model.leader_rows
        follower_rows = self._matrix[m:]
        low = np.append(model.row_lower[m:], np.full(len(rooms), -INF))
        up = np.append(model.row_upper[m:], rooms)
        face = Mip(np.zeros(model.size), follower_rows, low, up, model.lower, model.upper, model.integer, self._hurry)
        self._pin(face, at)

        def most(of: np.ndarray) -> tuple[float, np.ndarray]:
            goal = np.zeros(model.size)
            goal[lower] = -of[lower]
            face.costs(goal)
            solution = face.solve()
            if solution.status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
                return INF, np.zeros(0)
            if solution.values is None or not solution.solved:
                raise OutOfTimeError
            return -solution.objective, solution.values

        worst, answer = most(model.cost)
        if worst == INF:
            return None
        own = model.matrix[:m].tolil()
        own[:, lower] = 0.0
        row_low, row_up = model.row_lower[:m].copy(), model.row_upper[:m].copy()
        coupling = model.matrix[:m][:, lower]
        for i in np.flatnonzero(np.diff(coupling.indptr)):
            row = model.matrix[i].toarray()[0]
            for sign, sides in ((1.0, row_up), (-1.0, row_low)):
                if np.isfinite(sides[i]):
                    extent, _ = most(sign * row)
                    if extent == INF:
                        return None
                    sides[i] -= sign * extent
            if row_low[i] > row_up[i] + 1e-9:
                return None
        cost = model.cost.copy()
        cost[lower] = 0.0
        leader = self._make(cost, own.tocsr(), row_low, row_up, model.integer)
        bounds_low, bounds_up = model.lower.copy(), model.upper.copy()
        bounds_low[model.linking] = bounds_up[model.linking] = at[model.linking]
        bounds_low[lower] = bounds_up[lower] = answer[lower]
        leader.bounds(bounds_low, bounds_up)
        found = leader.solve()
        return self._response(found.status, found.values)
