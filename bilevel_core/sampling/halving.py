"""Successive halving and Hyperband: many points with a small budget of the lower level, the better ones with more."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from bilevel_core.sampling.base import Sampler, Score, Trial
from bilevel_core.sampling.space import Space


@dataclass
class _Rung:
    """One level of a bracket: who runs with which budget.

    Attributes:
        budget: share of the full budget.
        waiting: (point, parent trial) that are still to be asked.
        told: (rank, trial) that are done.
        out: number of trials on their way.
    """

    budget: float
    waiting: list[tuple[np.ndarray, int | None]]
    told: list[tuple[tuple[int, float], Trial]] = field(default_factory=list[tuple[tuple[int, float], Trial]])
    out: int = 0


class HalvingSampler(Sampler):
    """Brackets of successive halving, each promoted trial going on from its own last answer.

    A bracket starts random points with the budget ``eta**-s``; the best ``1/eta`` of them go on with ``eta`` times as
    much, until the full budget. ``halving`` repeats the bracket with the smallest first budget; ``hyperband`` goes
    through all of them, since a small budget may mislead.

    Good at: lower levels that are trained, where a part of the training says much. Bad at: lower levels that say
    nothing before they are solved. Source: Jamieson and Talwalkar (2016); Li et al. (2018), "Hyperband", JMLR 18.

    Args:
        space: what to sample.
        seed: for everything random.
        eta: how much the field shrinks, and the budget grows, from rung to rung; at least 2.
        smallest: the smallest budget, as a share of the full one.
        hyperband: whether to go through all brackets.
        starts: points to try first.
    """

    wants_answers = True

    def __init__(
        self,
        space: Space,
        seed: int,
        eta: int,
        smallest: float,
        hyperband: bool,
        starts: tuple[np.ndarray, ...] = (),
    ) -> None:
        super().__init__(space, seed)
        self._first = list(starts)
        self._eta, self._hyperband = eta, hyperband
        self._rungs = max(0, math.floor(math.log(1.0 / smallest) / math.log(eta) + 1e-9))
        self._bracket = 0
        self._rung: _Rung | None = None
        self._known: set[object] = set()

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        if self._rung is None:
            self._rung = self._opening(rng)
            if self._rung is None:
                self._over = True
                return None
        rung = self._rung
        if not rung.waiting:
            return None
        point, parent = rung.waiting.pop(0)
        rung.out += 1
        return self.trial(point, budget=rung.budget, parent=parent)

    def _repeats(self, trial: Trial) -> bool:
        return False  # a bracket's points are chosen when it opens, and come again with more budget

    def _opening(self, rng: np.random.Generator) -> _Rung | None:
        """The first rung of the next bracket; None where a finite space has been tried whole."""
        s = self._rungs - (self._bracket % (self._rungs + 1) if self._hyperband else 0)
        self._bracket += 1
        count = math.ceil((self._rungs + 1) / (s + 1) * self._eta**s)
        points: list[np.ndarray] = []
        while len(points) < count:
            point = self._first.pop(0) if self._first else self._new(rng)
            if point is None:
                break
            point = self.space.canonical(point)
            self._known.add(self.space.key(point))
            points.append(point)
        return _Rung(float(self._eta) ** -s, [(p, None) for p in points]) if points else None

    def _new(self, rng: np.random.Generator) -> np.ndarray | None:
        for _ in range(50):
            point = self.space.random(rng)
            if not self.space.finite or self.space.key(point) not in self._known:
                return point
        rest = [p for p in self.space.enumerate(1) if self.space.key(p) not in self._known]
        return rest[int(rng.integers(len(rest)))] if rest else None

    def _learn(self, trial: Trial, score: Score) -> None:
        rung = self._rung
        if rung is None:  # cannot be: a rung ends when all of its trials are told
            return
        rung.out -= 1
        rung.told.append((score.rank, trial))
        if rung.waiting or rung.out:
            return
        if rung.budget >= 1.0:
            self._rung = None
            return
        ranked = sorted(rung.told, key=lambda t: (t[0], t[1].index))
        kept = [t for rank, t in ranked if rank[0] < 2][: max(1, len(ranked) // self._eta)]
        self._rung = _Rung(min(1.0, rung.budget * self._eta), [(t.point, t.index) for t in kept]) if kept else None

    @property
    def parents(self) -> frozenset[int]:
        """See `Sampler.parents`."""
        if self._rung is None or (self._rung.budget >= 1.0 and not self._rung.waiting):
            return frozenset()
        waiting = {parent for _, parent in self._rung.waiting if parent is not None}
        return frozenset(waiting | {trial.index for _, trial in self._rung.told})

    @property
    def figures(self) -> dict[str, float]:
        """See `Sampler.figures`."""
        return {"bracket": float(self._bracket)}
