"""Pessimistic problems as optimistic ones: adversaries choose, of the followers' optimal answers, what hurts most.

Source: Zeng (2020), A practical scheme to compute the pessimistic bilevel optimization problem, INFORMS Journal on
Computing 32. The leader has answers y' of its own that are feasible for the followers. An adversary maximises the
leader's objective F(x, y) over the y that are feasible and no worse for the followers than y'. The better y' is for
them the less room the adversary has, so the leader gains nothing from a y' that is not optimal, and the value is that
of the worst optimal answer. What comes out is an optimistic problem whose followers are the adversaries; their ties do
not matter, since each decides on one value only.

Where a follower is unbounded there is no optimal answer, and y' would say nothing. So the leader also has multipliers
that are feasible for the dual of the follower's linear program: with y' they prove that an optimal answer exists. They
are left out for followers whose variables are all bounded, which need no proof.

A constraint of the leader's that contains followers' variables must hold at every optimal answer: each of its sides has
an adversary of its own. The same would be wrong for a hidden column of the leader's (the epigraph of an absolute
value), which is chosen after the answer: with an adversary a row the sum of the largest values would stand in the
place of the largest sum. And the largest value of a convex function is no linear program.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bilevel_core.program import (
    INF,
    BilevelProgram,
    Function,
    Level,
    Row,
    Variable,
    append_columns,
    linear,
    positive_definite,
    total,
)
from bilevel_core.reductions.base import Reduction
from bilevel_core.traits.traits import curvature, row_curvature


class Pessimistic(Reduction[BilevelProgram, BilevelProgram]):
    """Adversaries in the place of linear followers; the followers' own columns become the leader's y'.

    Args:
        hidden: the leader's columns that stand for no variable of the user's, as `AlgebraicProblem.hidden_columns`.
    """

    def __init__(self, hidden: Collection[int] = ()) -> None:
        self._hidden = frozenset(hidden)
        self._width = 0
        self._worst: dict[int, int] = {}

    def accepts(self, source: BilevelProgram) -> str | None:
        """Takes independent followers that are linear programs for every x, and a leader that is linear in their
        variables, or concave in its (minimised) objective, so that finding the worst answer is a convex problem.
        """
        if source.duals:
            return "the leader uses the followers' multipliers"
        if source.is_game:
            return "the followers play a Nash game"
        for follower in source.followers:
            own = frozenset(follower.columns)
            for i in follower.columns:
                if source.columns[i].integer and not source.columns[i].fixed:
                    return f"variable {source.columns[i].name!r} of follower {follower.name!r} is integer"
            if curvature(follower.objective, own) != "linear":
                return f"the objective of follower {follower.name!r} is not linear in its variables"
            for row in follower.rows:
                if curvature(row.function, own) != "linear":
                    return f"constraint {row.name!r} of follower {follower.name!r} is not linear in its variables"
        lower = frozenset(source.lower_columns)
        after = self._chosen_after(source, lower)
        if after is not None:
            return after
        if curvature(-source.leader.objective, lower) not in ("linear", "convex quadratic"):
            return "the leader's objective, minimised, is not concave in the followers' variables"
        for row in source.leader.rows:
            if curvature(row.function, lower) != "linear":
                return f"the leader's constraint {row.name!r} is not linear in the followers' variables"
        if not matters(source):
            return "nothing of the leader's depends on the followers' answers"
        return None

    def _chosen_after(self, source: BilevelProgram, lower: frozenset[int]) -> str | None:
        """Why a leader is not taken whose hidden columns depend on the followers' answers."""
        own = self._hidden.difference(lower)
        for row in source.leader.rows:
            if own.isdisjoint(row.function.columns) or lower.isdisjoint(row.function.columns):
                continue
            return (
                f"in the leader's problem an atom with a kink is applied to followers' variables (row {row.name!r}), "
                "and the worst value of a convex function is no linear program. Write it with a variable of the "
                "leader's own that is at least every linear piece of the whole expression (t >= y + z, t >= y - z, "
                "... for abs(y) + abs(z)), and use that variable in its place"
            )
        return None

    def apply(self, source: BilevelProgram) -> BilevelProgram:
        """The optimistic problem; see the module."""
        lower = set(source.lower_columns)
        leader = source.leader
        self._width = len(source.columns)
        build = _Adversaries(source)
        objective = leader.objective
        self._worst = {}
        if not objective.columns.isdisjoint(lower):
            self._worst = build.adversary("worst", -objective)
            objective = _moved(objective, self._worst)
        rows: list[Row] = []
        for row in leader.rows:
            if row.function.columns.isdisjoint(lower):
                rows.append(row)
                continue
            for side, bound, sign in (("", row.upper, 1.0), (":lower", row.lower, -1.0)):
                if math.isfinite(bound):
                    to = build.adversary(f"worst for {row.name}{side}", row.function.scaled(-sign))
                    here = _moved(row.function, to)
                    limits = (-INF, bound) if sign > 0.0 else (bound, INF)
                    rows.append(Row(f"{row.name}{side}", here, *limits))
        rows += [row for follower in source.followers for row in follower.rows]
        answers = [build.dual(follower) for follower in source.followers]
        rows += [row for part, _ in answers for row in part]
        own = (*range(self._width), *(i for _, columns in answers for i in columns))
        return BilevelProgram(
            append_columns(source.columns, build.columns),
            Level(leader.name, objective, tuple(rows), own, leader.maximise),
            tuple(build.levels),
            name=source.name,
        )

    def invert(self, values: np.ndarray) -> np.ndarray:
        """The leader's values, and the answers that the adversary of the objective chose."""
        out = values[: self._width].copy()
        for mine, theirs in self._worst.items():
            out[mine] = values[theirs]
        return out


def matters(source: BilevelProgram) -> bool:
    """Whether the leader's objective or constraints depend on the followers' answers."""
    lower = set(source.lower_columns)
    functions = [source.leader.objective, *(r.function for r in source.leader.rows)]
    return any(not f.columns.isdisjoint(lower) for f in functions)


def unique(source: BilevelProgram) -> bool:
    """Whether what the leader sees of the followers' answers is known to be unique at every x, so that the best and the
    worst answer are one.

    Shown for followers with a convex quadratic objective over rows that are convex: the midpoint of two optimal answers
    would be better than both, if they differed in variables over which the Hessian is positive definite. Those must be
    all that the leader's objective and rows contain.
    """
    if source.duals or source.is_game:
        return False
    seen = {i for f in (source.leader.objective, *(r.function for r in source.leader.rows)) for i in f.columns}
    for follower in source.followers:
        free = [i for i in follower.columns if not source.columns[i].fixed]
        own = frozenset(free)
        if seen.isdisjoint(own):
            continue
        if any(source.columns[i].integer for i in free):
            return False
        if curvature(follower.objective, own) != "convex quadratic" or any(
            kind not in ("linear", "convex quadratic", "convex")
            for kind in (row_curvature(r, own, source.columns) for r in follower.rows)
        ):
            return False
        curved = sorted({i for pair in follower.objective.quadratic if own.issuperset(pair) for i in pair})
        if not seen.intersection(own).issubset(curved) or not positive_definite(follower.objective.hessian(curved)):
            return False
    return True


def attained(source: BilevelProgram) -> bool:
    """Whether the pessimistic value is known to be continuous where it is finite, so that over a compact set of x its
    least value is attained: true where x stands in right-hand sides of the followers' problems only.
    """
    for follower in source.followers:
        own = set(follower.columns)
        for f in (follower.objective, *(r.function for r in follower.rows)):
            if f.nonlinear is not None or any((i in own) != (j in own) for i, j in f.quadratic):
                return False
    return True


def _moved(f: Function, to: Mapping[int, int]) -> Function:
    return f.renumbered({i: to.get(i, i) for i in f.columns})


class _Adversaries:
    """Collects the adversaries, the leader's multipliers, and the columns of both."""

    def __init__(self, source: BilevelProgram) -> None:
        self.source = source
        self.columns: list[Variable] = []
        self.levels: list[Level] = []

    def adversary(self, name: str, objective: Function) -> dict[int, int]:
        """One more adversary, which minimises a function of the source's columns; where its copies of them stand.

        It has copies of the variables of those followers only that the function depends on.
        """
        source = self.source
        involved: Sequence[Level] = [f for f in source.followers if not objective.columns.isdisjoint(f.columns)]
        to: dict[int, int] = {}
        for follower in involved:
            for i in follower.columns:
                to[i] = len(source.columns) + len(self.columns)
                self.columns.append(replace(source.columns[i], name=f"{source.columns[i].name} ({name})"))
        rows: list[Row] = []
        for follower in involved:
            for row in follower.rows:
                if not row.function.columns.isdisjoint(to):
                    rows.append(replace(row, function=_moved(row.function, to)))
            # f(x, y) <= f(x, y'): what does not depend on the answer cancels.
            no_worse = total([_moved(follower.objective, to), -follower.objective])
            if no_worse.columns:
                rows.append(Row(f"optimal for {follower.name}", no_worse, upper=0.0))
        self.levels.append(Level(name, _moved(objective, to), tuple(rows), tuple(to.values())))
        return to

    def dual(self, follower: Level) -> tuple[list[Row], list[int]]:
        """The rows and columns by which the leader proves that a follower's linear program is not unbounded.

        One multiplier for each of the follower's rows, and one row for each of its columns that has at most one bound:
        its cost less that of the multipliers is what its own bound has to make up for.
        """
        source = self.source
        free = [i for i in follower.columns if not source.columns[i].fixed]
        if all(math.isfinite(source.columns[i].lower) and math.isfinite(source.columns[i].upper) for i in free):
            return [], []
        reduced = {i: [follower.objective.partial(i)] for i in free}
        made: list[int] = []
        for row in follower.rows:
            own = [i for i in free if i in row.function.columns]
            if not own:
                continue
            made.append(len(source.columns) + len(self.columns))
            # Two sides have two multipliers of opposite signs, of which only the difference matters.
            low = -INF if math.isfinite(row.upper) else 0.0
            high = INF if math.isfinite(row.lower) else 0.0
            self.columns.append(Variable(f"multiplier of {row.name}", low, high))
            for i in own:
                reduced[i].append(row.function.partial(i).times(linear({made[-1]: -1.0})))
        rows: list[Row] = []
        for i in free:
            column = source.columns[i]
            if math.isfinite(column.lower) and math.isfinite(column.upper):
                continue
            f = total(reduced[i])
            low = -INF if math.isfinite(column.upper) else 0.0 - f.constant
            high = INF if math.isfinite(column.lower) else 0.0 - f.constant
            if not f.columns and low <= 0.0 <= high:
                continue
            rows.append(Row(f"{column.name}:not unbounded", f - f.constant, low, high))
        return rows, made
