"""The ask/tell protocol that all samplers share.

A sampler says which point to try next (`Sampler.ask`) and is told what came of it (`Sampler.tell`). It solves nothing
and knows nothing of bilevel problems: whoever drives it solves the lower level at each point.

What is asked depends on the space, the options, the seed, and the trials told so far in the order in which they were
told; the random numbers for trial k come from the seed and k. So a run is repeated, and resumed, by telling a fresh
sampler the same outcomes again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bilevel_core.sampling.space import Key, Space

FEASIBLE = 1e-6
"""Violation of the leader's constraints up to which a point counts as feasible."""


@dataclass(frozen=True)
class Trial:
    """A point to try.

    Attributes:
        index: 0, 1, ...: the number of the trial in its run.
        point: a point of the space, shape (n,).
        budget: share of the lower level's full budget, in (0, 1].
        parent: index of the trial whose answer the lower level starts from; None for its own start.
        start: the lower variables to start from, shape (ny,), where the sampler predicts them; None where not.
    """

    index: int
    point: np.ndarray
    budget: float = 1.0
    parent: int | None = None
    start: np.ndarray | None = None


@dataclass(frozen=True)
class Score:
    """What came of a trial, as far as a sampler needs to know.

    Attributes:
        objectives: the leader's objectives, minimised; one but for several upper objectives. Empty where there are
            none: the lower level has no answer there, or the trial failed.
        violation: of the leader's constraints, 0 when all hold.
        answer: the lower level's answer, shape (ny,), where it is a vector and the sampler asked for answers.
        value: the lower level's objective at its answer; NaN where unknown.
    """

    objectives: tuple[float, ...] = ()
    violation: float = math.inf
    answer: np.ndarray | None = None
    value: float = math.nan

    @property
    def feasible(self) -> bool:
        """Whether there is an answer, and the leader's constraints hold."""
        return bool(self.objectives) and self.violation <= FEASIBLE

    @property
    def rank(self) -> tuple[int, float]:
        """Feasibility first: smaller is better. Feasible points by the first objective, then infeasible ones by their
        violation, then those without an answer (Deb 2000).
        """
        if self.feasible:
            return 0, self.objectives[0]
        return (1, self.violation) if math.isfinite(self.violation) else (2, 0.0)


class Sampler(ABC):
    """Base of all samplers.

    Args:
        space: what to sample.
        seed: for everything random.
        starts: points to try first, such as the problem's own starting point.

    Attributes:
        asked: number of trials handed out.
        pending: trials handed out and not told yet, by index.
        seen: scores by `Space.key`; None for points that are pending.
    """

    wants_answers: ClassVar[bool] = False
    """Whether `tell` needs the lower level's answers."""

    def __init__(self, space: Space, seed: int, starts: tuple[np.ndarray, ...] = ()) -> None:
        self.space = space
        self.seed = seed
        self.starts = starts
        self.asked = 0
        self.pending: dict[int, Trial] = {}
        self.seen: dict[Key, Score | None] = {}
        self._over = False

    def ask(self) -> Trial | None:
        """The next trial; None where there is none until more has been told, or where nothing is left to try.

        In a finite space no point is handed out twice: where the method proposes one again, a random point that has
        not been tried takes its place.
        """
        if self._over:
            return None
        rng = self.rng(self.asked)
        trial = self._start() or self._propose(rng)
        if trial is not None and self._repeats(trial):
            trial = self._instead(trial, rng)
        if trial is None:
            return None
        self.asked += 1
        self.pending[trial.index] = trial
        self.seen.setdefault(self.space.key(trial.point), None)
        return trial

    def tell(self, trial: Trial, score: Score) -> None:
        """What came of a trial that was handed out."""
        del self.pending[trial.index]
        self.seen[self.space.key(trial.point)] = score
        self._learn(trial, score)

    def amend(self, trial: int, score: Score) -> None:
        """A trial that was told has turned out otherwise. Nothing to do for methods that don't look back.

        Args:
            trial: its index.
            score: what holds now.
        """
        return

    @property
    def over(self) -> bool:
        """Whether nothing is left to try; False while an answer to a pending trial may bring more."""
        return self._over or (not self.pending and self._exhausted())

    @property
    def whole(self) -> float | None:
        """How many points the method goes through in a fixed order; None where it has no such end."""
        return None

    @property
    def parents(self) -> frozenset[int]:
        """Trials whose answers later ones may start from."""
        return frozenset()

    @property
    def figures(self) -> Mapping[str, float]:
        """Numbers for the log of events."""
        return {}

    def rng(self, index: int) -> np.random.Generator:
        """The random numbers of trial ``index``."""
        return np.random.default_rng([self.seed % 2**64, index])

    def trial(self, point: np.ndarray, **more: Any) -> Trial:
        """The next trial, at a point."""
        return Trial(self.asked, point, **more)

    @abstractmethod
    def _propose(self, rng: np.random.Generator) -> Trial | None:
        """The next trial, made with `trial`; None to wait for outcomes."""

    def _learn(self, trial: Trial, score: Score) -> None:
        """Take in an outcome. Nothing to do for methods that do not learn."""
        return

    def _exhausted(self) -> bool:
        """Whether the method has come to its own end."""
        return False

    def _start(self) -> Trial | None:
        """One of the points to try first."""
        if self.asked < len(self.starts):
            point = self.space.canonical(self.starts[self.asked])
            if self.space.key(point) not in self.seen:
                return self.trial(point)
        return None

    def _repeats(self, trial: Trial) -> bool:
        return self.space.finite and trial.parent is None and self.space.key(trial.point) in self.seen

    def _instead(self, trial: Trial, rng: np.random.Generator) -> Trial | None:
        """The same trial at a point of a finite space that has not been tried; None, and the end, where all have."""
        point = self.untried(rng)
        if point is None:
            self._over = True
            return None
        return self.trial(point, budget=trial.budget)

    def untried(self, rng: np.random.Generator) -> np.ndarray | None:
        """A random point that has not been handed out; None where there is none left."""
        for _ in range(20):
            point = self.space.random(rng)
            if self.space.key(point) not in self.seen:
                return point
        if not self.space.finite:
            return None
        rest = (
            [p for p in self.space.enumerate(1) if self.space.key(p) not in self.seen] if self.space.size < 1e6 else []
        )
        if rest:
            return rest[int(rng.integers(len(rest)))]
        for _ in range(10_000 if self.space.size >= 1e6 else 0):
            point = self.space.random(rng)
            if self.space.key(point) not in self.seen:
                return point
        return None
