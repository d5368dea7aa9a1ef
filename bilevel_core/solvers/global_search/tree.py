"""`global`: the search itself: boxes of the leader's variables, a relaxation solved in each, cuts, and subdivision.

Source: Mitsos, Lemonidis and Barton (2008) for bounds from cuts and incumbents from responses; Paulavičius and Adjiman
(2019), BASBL, for subdividing the leader's variables.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from bilevel_core.backends import SolveSettings, SolveStatus
from bilevel_core.backends.scip import Scip, tight_feastol
from bilevel_core.errors import BackendError
from bilevel_core.program import Level, Program, Row, Variable
from bilevel_core.run import RunContext
from bilevel_core.solvers.global_search.followers import CutShortError, Optimal, clipped

Box = dict[int, tuple[float, float]]
NARROW, NEARLY = 1e-7, 1e-4
"""A box whose sides are all shorter than this, relative to the first box, is not divided further; the second where the
relaxation's answers are optimal up to the tolerances.
"""
ROUNDS = 12
"""Most relaxations of one box before it is divided."""
PROGRESS = 0.1
"""A box is divided when a round closes less than this share of its gap."""
COARSE = 0.3
"""A relaxation is solved up to this share of the gap that is open."""
EVERY = 1.0
"""Seconds between reports from within a solve."""
NODES = 10_000
"""A relaxation that is not solved by then gives the bound that it has, and its box is divided. Counted, not timed, so
that a run can be repeated on another machine, or on a busy one.
"""
TRIAL = 2000
"""Nodes that a relaxation with optimality conditions may take; also what may be spent at first on those that are not
solved by then.
"""
RENEWED = 0.25
"""What may be spent on them grows by so many nodes for each that other relaxations take."""


@dataclass(frozen=True)
class Seen:
    """What came of looking at a relaxation's point.

    Attributes:
        cut: whether new cuts were found that are meant to exclude it.
        point: a point that is feasible for the bilevel problem at the same x, or near it; None where none was found.
        value: the leader's objective there, minimised.
        nearly: whether the followers' answers in the relaxation's point are optimal up to the tolerances.
    """

    cut: bool
    point: np.ndarray | None = None
    value: float = math.inf
    nearly: bool = False


class Side(Protocol):
    """What is different between an optimistic and a pessimistic leader."""

    @property
    def has_conditions(self) -> bool:
        """Whether there are followers' optimality conditions to sharpen relaxations with."""
        ...

    def relaxation(self, box: Mapping[int, tuple[float, float]], *, conditions: bool) -> Program:
        """The relaxation within a box, with all cuts found so far, and the followers' necessary optimality conditions
        if these are asked for; the problem's columns come first.
        """
        ...

    def look(self, point: np.ndarray, value: float, tolerance: float) -> Seen:
        """Examine a relaxation's point with this value (minimised): cuts and an incumbent.

        Raises:
            CutShortError: a follower could not be solved.
        """
        ...

    def worth(self, optimal: Optimal) -> float:
        """What an x is worth to the leader (minimised), given the followers' optimal answers there; infinite where its
        constraints do not hold.

        Raises:
            CutShortError: the leader's or the worst choice among answers could not be found.
        """
        ...

    @property
    def cuts(self) -> int:
        """How many answers are known from which cuts are made."""
        ...

    @property
    def solves(self) -> int:
        """How many programs were solved to examine points."""
        ...


@dataclass(order=True)
class Node:
    """A box, the bound that is proven for it, and whether its relaxations come with optimality conditions: those of
    the box that it was a part of closed more of the gap with them.
    """

    bound: float
    number: int
    box: Box = field(compare=False)
    conditions: bool = field(default=False, compare=False)


class Tree:
    """The search.

    Args:
        side: the kind of leader.
        columns: the problem's columns, with finite bounds.
        linking: the leader's columns that followers see.
        leader: the leader, for its sense in reports.
        absolute, relative: how close the bound must come to the incumbent.
        max_relaxations: most relaxations.
        context: of the run.
    """

    def __init__(
        self,
        side: Side,
        columns: tuple[Variable, ...],
        linking: tuple[int, ...],
        leader: Level,
        *,
        absolute: float,
        relative: float,
        max_relaxations: int,
        context: RunContext,
    ) -> None:
        self.side = side
        self.columns = columns
        self.linking = linking
        self.leader = leader
        self.absolute, self.relative = absolute, relative
        self.max_relaxations = max_relaxations
        self.context = context
        self.best: np.ndarray | None = None
        self.value = math.inf
        self.relaxations = 0
        self.nodes = 0
        self.limited = False
        self._trial = float(TRIAL) if side.has_conditions else 0.0
        self.troubles: list[str] = []
        self._told = 0.0
        self._heap: list[Node] = []
        self._current: Node | None = None
        self._settled = math.inf
        self._numbers = itertools.count()
        self._root: Box = {i: (c.lower, c.upper) for i, c in enumerate(columns)}

    @property
    def bound(self) -> float:
        """What is proven: no bilevel point has a smaller value."""
        bounds = [n.bound for n in self._heap[:1]] + [self._settled]
        if self._current is not None:
            bounds.append(self._current.bound)
        return min([*bounds, self.value])

    @property
    def tolerance(self) -> float:
        """How close the bound must come to the incumbent."""
        return self.absolute if not math.isfinite(self.value) else max(self.absolute, self.relative * abs(self.value))

    @property
    def closed(self) -> bool:
        """Whether the bound meets the incumbent, or there is provably no point."""
        return self.bound >= self.value - self.tolerance or (math.isinf(self.value) and math.isinf(self.bound))

    def run(self) -> None:
        """Search until the bound meets the incumbent, the boxes are used up, or something stops it."""
        self._push(-math.inf, self._root, conditions=False)
        while self._heap and not self._stop():
            node = heapq.heappop(self._heap)
            self._current = node
            if node.bound >= self.value - self.tolerance:
                break
            self._work(node)
            self._current = None

    def offer(self, point: np.ndarray, value: float) -> None:
        """A bilevel feasible point."""
        if value < self.value - 1e-9 * max(1.0, abs(value)):
            self.best, self.value = point, value
            self._report("incumbent")

    def pulse(self) -> bool:
        """Report, but not too often; whether to stop."""
        if time.monotonic() - self._told >= EVERY:
            self._report("iteration")
        return self.context.stopped

    def _stop(self) -> bool:
        if self.context.stopped or self.context.expired:
            return True
        self.limited = self.relaxations >= self.max_relaxations
        return self.limited

    def _push(self, bound: float, box: Box, *, conditions: bool) -> None:
        heapq.heappush(self._heap, Node(bound, next(self._numbers), box, conditions))

    def _work(self, node: Node) -> None:
        """Relax, examine and cut until the box is done with or cuts stall; then divide it.

        Optimality conditions make a relaxation tighter and harder to solve, and which of it counts for more depends on
        the problem: after a first round they are tried for so many nodes, and kept where they close more of the gap.
        """
        point: np.ndarray | None = None
        nearly = slow = tried = False
        for turn in range(ROUNDS):
            if self._stop():
                self._push(node.bound, node.box, conditions=node.conditions)
                return
            before = node.bound
            trial = turn > 0 and not (tried or node.conditions) and self._trial > 0.0
            tried |= trial
            conditions = trial or node.conditions
            point, value, done = self._relax(node, conditions=conditions)
            self._report("iteration")
            stalls = self._stalls(node, before)
            if conditions:
                node.conditions = done and not (trial and stalls)
            seen = Seen(cut=False)
            if point is not None and node.bound < self.value - self.tolerance:
                seen = self._look(point, value)
                if seen.point is not None:
                    self.offer(seen.point, seen.value)
                nearly = seen.nearly
            if node.bound >= self.value - self.tolerance:
                self._settle(node.bound)
                return
            if conditions and not node.conditions:
                continue  # without them, then
            if not seen.cut or (stalls and slow):
                break
            slow = stalls
        self._divide(node, point, NEARLY if nearly else NARROW)

    def _stalls(self, node: Node, before: float) -> bool:
        """Whether a round closed next to nothing of a box's gap."""
        gap = self.value - before
        return math.isfinite(before) and node.bound - before < PROGRESS * (gap if math.isfinite(gap) else 1.0)

    def _settle(self, bound: float) -> None:
        self._settled = min(self._settled, bound)

    def _look(self, point: np.ndarray, value: float) -> Seen:
        try:
            return self.side.look(point, value, self.tolerance)
        except CutShortError as error:
            if str(error) not in self.troubles and not self.context.stopped:
                self.troubles.append(str(error))
            return Seen(cut=False)

    def _relax(self, node: Node, *, conditions: bool) -> tuple[np.ndarray | None, float, bool]:
        """Solve a box's relaxation; raise its bound.

        Returns:
            A point, its value, and whether the solve came to its end within the nodes that optimality conditions get.
        """
        program = self.side.relaxation(node.box, conditions=conditions)
        cutoff = self.value - 0.5 * self.tolerance
        if math.isfinite(cutoff):
            program = replace(program, rows=(*program.rows, Row("cutoff", program.objective, upper=cutoff)))
        self.relaxations += 1

        def progress(objective: float | None, bound: float | None, nodes: int) -> bool:
            return self.pulse() or (bound is not None and bound >= self.value - self.tolerance)

        options: dict[str, float] = {
            "numerics/feastol": tight_feastol(program),
            "limits/absgap": self._wanted(node),
            "limits/nodes": NODES if not conditions else TRIAL if node.conditions else max(1, int(self._trial)),
        }
        settings = SolveSettings(
            time_limit=self.context.remaining(),
            seed=self.context.seed,
            gap=0.1 * self.relative,
            options=options,
            progress=progress,
        )
        try:
            found = Scip().solve(program, settings)
        except BackendError as error:
            self.troubles.append(str(error))
            return None, math.nan, False
        self.nodes += found.nodes
        done = found.status not in (SolveStatus.OTHER_LIMIT, SolveStatus.TIME_LIMIT)
        if conditions and not done:
            self._trial -= found.nodes
        elif not conditions and self.side.has_conditions:
            self._trial += RENEWED * found.nodes
        if found.status is SolveStatus.INFEASIBLE:
            node.bound = max(node.bound, cutoff)
            return None, math.inf, done
        told = self.context.stopped or found.bound >= self.value - self.tolerance
        if found.status is SolveStatus.INTERRUPTED and not told:
            raise KeyboardInterrupt
        if math.isfinite(found.bound):
            node.bound = max(node.bound, found.bound)
        if found.values is None:
            return None, found.objective, done
        first = replace(program, columns=program.columns[: len(self.columns)])
        return clipped(first, found.values[: len(self.columns)]), found.objective, done

    def _wanted(self, node: Node) -> float:
        """How exactly a relaxation is solved: a part of what is open, but never more exactly than the end needs."""
        known = math.isfinite(self.value) and math.isfinite(node.bound)
        return max(0.25 * self.tolerance, COARSE * (self.value - node.bound) if known else 0.0)

    def _divide(self, node: Node, point: np.ndarray | None, narrow: float) -> None:
        widths = {i: self._width(node.box, i) for i in self.linking}
        i = max(widths, key=lambda k: widths[k], default=-1)
        if i < 0 or widths[i] <= narrow:
            self._settle(node.bound)
            return
        low, high = node.box[i]
        at = 0.5 * (low + high)
        if point is not None:
            at = min(max(float(point[i]), low + 0.2 * (high - low)), high - 0.2 * (high - low))
        if self.columns[i].integer:
            sides = ((low, math.floor(at)), (math.floor(at) + 1.0, high))
        else:
            sides = ((low, at), (at, high))
        for side in sides:
            if side[0] <= side[1]:
                self._push(node.bound, {**node.box, i: side}, conditions=node.conditions)

    def _width(self, box: Box, i: int) -> float:
        low, high = box[i]
        first = self._root[i][1] - self._root[i][0]
        if self.columns[i].integer and high - low < 1.0:
            return 0.0
        return 0.0 if first <= 0.0 else (high - low) / first

    def _report(self, kind: str) -> None:
        self._told = time.monotonic()
        shown = self.leader.in_users_sense
        bound, value = self.bound, self.value
        gap = value - bound
        self.context.report(
            kind,
            iteration=self.relaxations,
            best=shown(value) if math.isfinite(value) else None,
            objective=shown(value) if math.isfinite(value) and kind == "incumbent" else None,
            bound=shown(bound) if math.isfinite(bound) else None,
            gap=gap if math.isfinite(gap) else None,
            cuts=self.side.cuts,
            solves=self.relaxations + self.side.solves,
        )
