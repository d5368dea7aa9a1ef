"""`global` for an optimistic leader: the relaxation with value-function cuts, and responses as incumbents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bilevel_core.program import BilevelProgram, Program, Row
from bilevel_core.reductions.fritz_john import FritzJohn
from bilevel_core.reductions.value_function import Answer, ValueFunction
from bilevel_core.solvers.global_search.answers import SHARES, answers_at, inner_program
from bilevel_core.solvers.global_search.followers import (
    AUXILIARY_SECONDS,
    TIE,
    CutShortError,
    Followers,
    Optimal,
    clipped,
)
from bilevel_core.solvers.global_search.tree import Seen

AUXILIARY_GAP = 0.05
AHEAD, NEARBY = 1e-8, 1e-3
TINY = 1e-9
"""A follower whose answer in the relaxation is worse than its optimum by less than this (relative) cannot be cut."""


class Optimistic:
    """See `Side`.

    Args:
        program: the problem.
        followers: its followers.
        absolute, relative: up to what a follower's answer cannot be told from an optimal one.
    """

    def __init__(self, program: BilevelProgram, followers: Followers, *, absolute: float, relative: float) -> None:
        self.program = program
        self.absolute, self.relative = absolute, relative
        self.followers = followers
        self.answers: list[Answer] = []
        self.conditions = FritzJohn(program)
        self._tried: set[bytes] = set()

    @property
    def cuts(self) -> int:
        """See `Side.cuts`."""
        return len(self.answers)

    @property
    def solves(self) -> int:
        """See `Side.solves`."""
        return self.followers.solves

    @property
    def has_conditions(self) -> bool:
        """See `Side.has_conditions`."""
        return bool(self.conditions.systems)

    def relaxation(self, box: Mapping[int, tuple[float, float]], *, conditions: bool) -> Program:
        """See `Side.relaxation`."""
        relaxed = ValueFunction(self.answers, box).apply(self.program)
        return self.conditions.added_to(relaxed) if conditions else relaxed

    def look(self, point: np.ndarray, value: float, tolerance: float) -> Seen:
        """See `Side.look`."""
        optimal = self.followers.optimal(point)
        if optimal is None:
            return Seen(cut=False)
        cut = self.cut(point, optimal)
        if not optimal.attained:
            return Seen(cut)
        best, worth = self._incumbent(optimal)
        if worth > value + tolerance:
            other = self._improved(optimal.point if best is None else best)
            if other is not None and other[1] < worth:
                best, worth = other
        return Seen(cut, best, worth, self.nearly(point, optimal))

    def worth(self, optimal: Optimal) -> float:
        """See `Side.worth`: the leader's value at its best response."""
        best = self.followers.response(optimal)
        if best is None or not self.followers.feasible(best):
            return np.inf
        return self.program.leader.objective.evaluate(best)

    def nearly(self, point: np.ndarray, optimal: Optimal) -> bool:
        """Whether each follower's answer in a point is optimal up to the tolerances."""
        here = [f.objective.evaluate(point) for f in self.program.followers]
        return all(
            v - best <= max(self.absolute, self.relative * abs(best))
            for v, best in zip(here, optimal.values, strict=True)
        )

    def cut(self, point: np.ndarray, optimal: Optimal) -> bool:
        """Find answers from which cuts against the point are made; whether there are new ones."""
        found = False
        for k, gap in enumerate(self.followers.gaps(point, optimal)):
            if gap <= TINY:
                continue
            inner = self._inner(k, optimal, gap)
            for answer in answers_at(self.program, k, optimal.point, inner):
                if answer not in self.answers:
                    self.answers.append(answer)
                    found = True
        return found

    def _inner(self, k: int, optimal: Optimal, gap: float) -> list[np.ndarray]:
        """Answers that stay feasible over larger regions than the optimal one; none where x moves no constraint."""
        gain = gap * self.followers.scale(k, optimal.point)
        out: list[np.ndarray] = []
        for share in SHARES:
            auxiliary = inner_program(self.program, k, optimal.point, optimal.values[k] + share * gain)
            if auxiliary is None:
                break
            found = self.followers.solve(auxiliary, seconds=AUXILIARY_SECONDS, gap=AUXILIARY_GAP, absolute=0.0)
            if found.values is not None and found.values[-1] > 0.0:
                point = optimal.point.copy()
                point[list(self.program.followers[k].columns)] = clipped(auxiliary, found.values)[:-1]
                out.append(point)
        return out

    def _incumbent(self, optimal: Optimal) -> tuple[np.ndarray | None, float]:
        """The leader's best response at an x, or just beside it."""
        best = self.followers.response(optimal)
        if best is None or not self.followers.feasible(best):
            return None, np.inf
        goal = self.program.leader.objective
        if max(self.followers.gaps(best, optimal)) <= TIE:
            return best, goal.evaluate(best)
        # Optimal only up to a tolerance: beside this x it is so outright, or never.
        choices = [optimal.point] if self.followers.feasible(optimal.point) else []
        beside = self._beside(best, optimal)
        choices += [] if beside is None else [beside]
        found = min(choices, key=goal.evaluate, default=None)
        return found, np.inf if found is None else goal.evaluate(found)

    def _beside(self, point: np.ndarray, optimal: Optimal) -> np.ndarray | None:
        """A point close by at which a follower's answer is better for it than the one that is optimal at this x: where
        two answers change places, rounding alone decides which of them is optimal.
        """
        program, followers = self.program, self.followers
        relaxed = program.high_point()
        rows = list(relaxed.rows)
        for k, gap in enumerate(followers.gaps(point, optimal)):
            if gap > TIE:
                level = program.followers[k]
                rival = Answer.constant(k, level, optimal.point)
                scale = followers.scale(k, optimal.point)
                ahead = level.objective - level.objective.compose(rival.values)
                rows.append(Row(f"ahead for {level.name}", ahead.scaled(100.0 / scale), upper=-100.0 * AHEAD))
        columns = tuple(
            c if c.integer else replace(c, lower=max(c.lower, float(v) - NEARBY), upper=min(c.upper, float(v) + NEARBY))
            for c, v in zip(relaxed.columns, point, strict=True)
        )
        near = replace(relaxed, columns=columns, rows=tuple(rows))
        found = followers.solve(near, seconds=AUXILIARY_SECONDS, gap=1e-6, absolute=1e-6)
        if found.values is None:
            return None
        moved = clipped(near, found.values)
        try:
            there = followers.optimal(moved)
        except CutShortError:
            return None
        if there is None or not there.attained:
            return None
        settled = followers.downhill(moved)
        fits = max(followers.gaps(settled, there)) <= TIE and followers.feasible(settled)
        return settled if fits else None

    def _improved(self, point: np.ndarray) -> tuple[np.ndarray, float] | None:
        """A better point nearby, with the same constraints active, if the follower's answer there is a global one."""
        key = np.round(point, 4).tobytes()
        if key in self._tried:
            return None
        self._tried.add(key)
        moved = self.followers.on_its_piece(point)
        if moved is None:
            return None
        try:
            optimal = self.followers.optimal(moved)
            if optimal is None or not optimal.attained:
                return None
            if max(self.followers.gaps(moved, optimal)) <= TIE and self.followers.feasible(moved):
                return moved, self.program.leader.objective.evaluate(moved)
            best, worth = self._incumbent(optimal)
        except CutShortError:
            return None
        return None if best is None else (best, worth)
