"""`global` for a pessimistic leader: threats as cuts, and the worst of the nearly optimal answers as its value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bilevel_core.program import BilevelProgram, Function, Program, Row
from bilevel_core.reductions.value_function import Answer
from bilevel_core.reductions.worst_case import Threat, WorstCase
from bilevel_core.solvers.global_search.answers import answers_at, inner_program
from bilevel_core.solvers.global_search.followers import AUXILIARY_SECONDS, FEASIBLE, Followers, Optimal, clipped
from bilevel_core.solvers.global_search.optimistic import AUXILIARY_GAP, Optimistic
from bilevel_core.solvers.global_search.tree import Seen

EXPECTED = 0.5
"""The answers that an incumbent is measured by are within this share of the slack, so that those are cuts at its x."""


class Pessimistic:
    """See `Side`.

    Args:
        program: the problem.
        followers: its followers.
        absolute, relative: how far from optimal an answer may be and must be expected.
    """

    def __init__(self, program: BilevelProgram, followers: Followers, *, absolute: float, relative: float) -> None:
        self.program = program
        self.followers = followers
        self.absolute, self.relative = absolute, relative
        self.threats: list[Threat] = []
        self._optimistic = Optimistic(program, followers, absolute=absolute, relative=relative)

    @property
    def cuts(self) -> int:
        """See `Side.cuts`."""
        return len(self.threats) + self._optimistic.cuts

    @property
    def solves(self) -> int:
        """See `Side.solves`."""
        return self.followers.solves

    @property
    def has_conditions(self) -> bool:
        """See `Side.has_conditions`."""
        return self._optimistic.has_conditions

    def relaxation(self, box: Mapping[int, tuple[float, float]], *, conditions: bool) -> Program:
        """See `Side.relaxation`."""
        relaxed = WorstCase(self._optimistic.answers, self.threats, box).apply(self.program)
        return self._optimistic.conditions.added_to(relaxed) if conditions else relaxed

    def look(self, point: np.ndarray, value: float, tolerance: float) -> Seen:
        """See `Side.look`. Its value is the worst over nearly optimal answers; the point holds an optimal one."""
        optimal = self.followers.optimal(point)
        if optimal is None:
            return Seen(cut=False)
        cut = self._optimistic.cut(point, optimal)
        if not optimal.attained:
            return Seen(cut)
        slacks = self._slacks(optimal)
        leader = self.program.leader
        worst = self._worst(optimal, leader.objective, slacks)
        there = leader.objective.evaluate(worst)
        if there > value + 0.1 * tolerance:
            need = Row("worse for the leader", leader.objective, lower=value + 0.5 * (there - value))
            cut = self._threaten(optimal, worst, need, slacks) or cut
        broken = False
        for row in self.followers.tied:
            for side in _sides(row):
                bad = self._worst(optimal, side.function, slacks)
                beyond = side.violation(bad)
                if beyond > FEASIBLE * side.function.scale(bad):
                    broken = True
                    need = Row("against the leader", side.function, lower=side.upper + 0.5 * beyond)
                    cut = self._threaten(optimal, bad, need, slacks) or cut
        if broken:
            return Seen(cut)
        exact = self.followers.response(optimal, worst=leader.objective)
        if exact is None or not self.followers.feasible(exact):
            return Seen(cut)
        return Seen(cut, exact, max(there, leader.objective.evaluate(exact)))

    def worth(self, optimal: Optimal) -> float:
        """See `Side.worth`: the worst value over nearly optimal answers."""
        slacks = self._slacks(optimal)
        for row in self.followers.tied:
            for side in _sides(row):
                bad = self._worst(optimal, side.function, slacks)
                if side.violation(bad) > FEASIBLE * side.function.scale(bad):
                    return np.inf
        exact = self.followers.response(optimal)
        if exact is None or not self.followers.feasible(exact):
            return np.inf
        goal = self.program.leader.objective
        return goal.evaluate(self._worst(optimal, goal, slacks))

    def _slacks(self, optimal: Optimal) -> tuple[float, ...]:
        return tuple(max(self.absolute, self.relative * abs(v)) for v in optimal.values)

    def _worst(self, optimal: Optimal, objective: Function, slacks: tuple[float, ...]) -> np.ndarray:
        """The answer, among those nearly optimal, at which a function is largest."""
        if objective.columns.isdisjoint(self.program.lower_columns):
            return optimal.point
        found = self.followers.response(optimal, worst=objective, slacks=[EXPECTED * s for s in slacks], settle=False)
        return optimal.point if found is None else found

    def _threaten(self, optimal: Optimal, worst: np.ndarray, need: Row, slacks: tuple[float, ...]) -> bool:
        """Make threats of an answer: as it is or deeper inside what x allows, and moving with x."""
        choices: list[list[Answer]] = []
        for k in range(len(self.program.followers)):
            inner = self._inside(k, optimal, worst, need, slacks[k])
            choices.append(answers_at(self.program, k, worst, () if inner is None else (inner,)))
        found = False
        for n in range(max(map(len, choices))):
            threat = Threat(tuple(c[min(n, len(c) - 1)] for c in choices), slacks)
            if threat not in self.threats:
                self.threats.append(threat)
                found = True
        return found

    def _inside(self, k: int, optimal: Optimal, worst: np.ndarray, need: Row, slack: float) -> np.ndarray | None:
        """An answer of one follower that is nearly as bad for the leader, and stays feasible over a larger region."""
        auxiliary = inner_program(self.program, k, worst, optimal.values[k] + 0.9 * slack)
        if auxiliary is None:
            return None
        own = self.program.followers[k].columns
        position = {c: n for n, c in enumerate(own)}
        bad = need.function.fix({i: float(worst[i]) for i in need.function.columns if i not in position})
        if bad.columns:
            rows = (*auxiliary.rows, replace(need, function=bad.renumbered(position)))
            auxiliary = replace(auxiliary, rows=rows)
        found = self.followers.solve(auxiliary, seconds=AUXILIARY_SECONDS, gap=AUXILIARY_GAP, absolute=0.0)
        if found.values is None or found.values[-1] <= 0.0:
            return None
        point = worst.copy()
        point[list(own)] = clipped(auxiliary, found.values)[:-1]
        return point


def _sides(row: Row) -> list[Row]:
    """A row as upper limits only."""
    out: list[Row] = []
    if np.isfinite(row.upper):
        out.append(Row(row.name, row.function, upper=row.upper))
    if np.isfinite(row.lower):
        out.append(Row(row.name, -row.function, upper=-row.lower))
    return out
