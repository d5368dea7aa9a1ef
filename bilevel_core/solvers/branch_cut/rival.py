"""One follower's part in the search: is a point optimal for it, and what cuts off a point that is not?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bilevel_core.solvers.branch_cut.answers import Answer, Answers
from bilevel_core.solvers.branch_cut.cone import Cone, Cut
from bilevel_core.solvers.branch_cut.directions import Directions
from bilevel_core.solvers.branch_cut.free_sets import Family, Policies, Solutions
from bilevel_core.solvers.branch_cut.interdiction import Interdiction, forbidders
from bilevel_core.solvers.branch_cut.model import Follower, LinearModel

ASKED = 12
"""Of each family this many sets, the deepest around the point, are made into cuts to choose from."""
SHALLOW = 1e-4
"""Cuts that move a point by less (distance) are not added."""


class Rival:
    """One follower's answers, and the sets and cuts that follow from them.

    Args:
        model, follower: whose.
        guard: see `Solutions`.
        hurry: as for `Mip`.
    """

    def __init__(self, model: LinearModel, follower: Follower, guard: float, hurry: Callable[[], float | None]) -> None:
        self.follower = follower
        self.answers = Answers(follower, hurry)
        self.solutions = Solutions(model, follower, guard)
        self.policies = Policies(model, follower)
        self.directions = Directions(model, follower, hurry)
        forbids = forbidders(model, follower)
        self.interdiction = None
        if forbids is not None:
            self.interdiction = Interdiction(model, follower, forbids, self.answers, hurry)

    def families(self) -> Iterator[Family]:
        """All families of its sets."""
        yield self.solutions.family
        if self.directions.useful:
            yield self.directions.family
        for family, _ in self.policies.families.values():
            yield family

    def excess(self, values: np.ndarray, answer: Answer) -> float:
        """How much worse than an answer a point is for the follower."""
        return float(self.follower.cost @ values[self.follower.columns]) - answer.value

    def optimal(self, values: np.ndarray, answer: Answer) -> bool:
        """Whether a point is as good for the follower as its answer, up to the tolerance of the search."""
        return self.excess(values, answer) <= self.follower.tolerance(answer.value)

    def beaten(self, values: np.ndarray) -> bool:
        """Whether a known answer beats a point with integer linking columns; no solve is needed to reject it then."""
        numbers, _ = self.solutions.family.holding(values, 1)
        return bool(len(numbers))

    def learn(self, values: np.ndarray, *, exact: bool) -> bool:
        """Solve for an answer whose sets hold a point; returns whether there is one.

        Args:
            values: the point.
            exact: whether its linking columns are integer, so that the answer is remembered.
        """
        answer = self.answers.at(values) if exact else self.answers.solve(values[self.follower.linking])
        if answer is None or self.excess(values, answer) <= 1e-6:
            return False
        self.keep(values, answer)
        return True

    def direct(self, values: np.ndarray) -> bool:
        """Solve for a direction whose set holds a point, where none does yet; returns whether one does now."""
        if not self.directions.useful:
            return False
        if len(self.directions.family.holding(values, 1)[0]):
            return True
        return self.directions.find(values) is not None

    def keep(self, values: np.ndarray, answer: Answer) -> None:
        """Keep the sets of an answer at a point."""
        self.solutions.add(answer.y)
        if self.policies.useful:
            self.policies.add(values, answer)

    def holds(self, values: np.ndarray) -> bool:
        """Whether a known set holds a point."""
        return any(f.count and len(f.holding(values, 1)[0]) for f in self.families())

    def cut(self, cone: Cone) -> Cut | None:
        """The deepest cut that known sets give at a vertex; one without coefficients where the node is empty."""
        best: Cut | None = None
        for family in self.families():
            if not family.count:
                continue
            numbers, slack = family.holding(cone.point, ASKED)
            if not len(numbers):
                continue
            cut = cone.deepest(family, slack)
            if cut is not None and cut.depth > SHALLOW and (best is None or cut.depth > best.depth):
                best = cut
        return best
