"""The value-function relaxation for a pessimistic leader: threats, answers that the leader must expect.

Source: Wiesemann, Tsoukalas, Kleniati and Rustem (2013), Pessimistic bilevel optimization, SIAM Journal on Optimization
23: the problem as a semi-infinite one. The leader has an answer y of its own to measure by. For every known answer y^k,
a threat, one of these holds: y^k is not feasible for its follower at x; it is worse for the follower than y, by a slack
e; or the leader's value counts it: F(x, y^k) <= worst, and the leader's constraints hold at y^k too. With e > 0 the
leader is prepared for every answer that is within e of optimal. Only so is the set of points closed, and a bound
possible: with e = 0 a leader's worst value may jump at one x, and its infimum need not be attained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bilevel_core.program import BilevelProgram, Function, Program, Row, Variable, append_columns, linear
from bilevel_core.reductions.base import Reduction
from bilevel_core.reductions.value_function import SHARP, Answer, Bounds, Cuts, ValueFunction, boxed, defined_over
from bilevel_core.traits.interval import Box, function_range


@dataclass(frozen=True)
class Threat:
    """An answer of every follower, and by follower the slack within which an answer must be expected."""

    answers: tuple[Answer, ...]
    slacks: tuple[float, ...]


class WorstCase(Reduction[BilevelProgram, Program]):
    """See the module.

    Args:
        answers: known answers, from which cuts for y's optimality are made as in `ValueFunction`.
        threats: answers that the leader must expect.
        box: narrower bounds of some columns.
    """

    def __init__(self, answers: Sequence[Answer], threats: Sequence[Threat], box: Bounds | None = None) -> None:
        self.answers, self.threats = tuple(answers), tuple(threats)
        self.box: Bounds = dict(box or {})
        self._width = 0

    def accepts(self, source: BilevelProgram) -> str | None:
        """What `ValueFunction` takes."""
        return ValueFunction().accepts(source)

    def apply(self, source: BilevelProgram) -> Program:
        """The relaxation; the column behind the source's is the leader's worst value."""
        self._width = len(source.columns)
        columns = boxed(source.columns, self.box)
        goal = source.leader.objective
        low, _ = function_range(goal, Box(columns, frozenset()))
        # The box of followers' columns holds for optimal answers; those that must be expected may lie beyond it.
        lower = frozenset(source.lower_columns)
        wider = [c if i in lower else columns[i] for i, c in enumerate(source.columns)]
        _, high = function_range(goal, Box(wider, frozenset()))
        worst = len(columns)
        with_worst = append_columns(columns, [Variable("worst", low, high)])
        cuts = Cuts(source, with_worst)
        cuts.rows.append(Row("own answer", goal - linear({worst: 1.0}), upper=0.0))
        for answer in self.answers:
            cuts.optimality(answer)
        for threat in self.threats:
            self._expect(source, cuts, threat, worst)
        relaxed = source.high_point()
        return cuts.program(Program(with_worst, linear({worst: 1.0}), relaxed.rows))

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Drop what was added."""
        return values[: self._width]

    @staticmethod
    def _expect(source: BilevelProgram, cuts: Cuts, threat: Threat, worst: int) -> None:
        alternatives: list[list[Function]] = []
        everywhere: dict[int, Function] = {}
        for answer, slack in zip(threat.answers, threat.slacks, strict=True):
            ways = cuts.infeasible(answer)
            follower = source.followers[answer.follower]
            own = follower.objective.share(follower.columns)
            theirs = own.compose(answer.values)
            if ways is None or not defined_over(theirs, cuts.box):
                return
            alternatives += [[way] for way in ways]
            alternatives.append([(own - theirs + slack).scaled(SHARP)])
            everywhere.update(answer.values)
        counted = [source.leader.objective.compose(everywhere) - linear({worst: 1.0})]
        for row in source.leader.rows:
            if row.function.columns.isdisjoint(everywhere):
                continue
            there = row.function.compose(everywhere)
            counted += [there - row.upper] if math.isfinite(row.upper) else []
            counted += [-there + row.lower] if math.isfinite(row.lower) else []
        if all(defined_over(f, cuts.box) for f in counted):
            cuts.disjunction("expects", [counted, *alternatives])
