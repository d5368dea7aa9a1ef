"""Hill climbing: from a point to a better neighbour, until there is none, and then from another point."""

from __future__ import annotations

import math

import numpy as np

from bilevel_core.sampling.base import Sampler, Score, Trial
from bilevel_core.sampling.space import Continuous, Integer, Space, levels


class LocalSampler(Sampler):
    """Neighbours of the best point of the current climb: one variable changed, or all continuous ones together.

    In a finite space every neighbour is tried before the climb ends: an integer one up and one down, every other
    choice. Continuous variables take normal steps that grow after a success and shrink after a failure (the rule of
    one success in five, Rechenberg 1973). A climb whose steps have become small, or whose neighbours are all known,
    is followed by one from a random point.

    Good at: refining; discrete spaces of many variables with few values. Bad at: narrow valleys.

    Args:
        space: what to sample.
        seed: for everything random.
        step: first step of continuous variables, as a share of their ranges.
        smallest: share at which a climb ends.
        starts: points to try first.
    """

    def __init__(
        self, space: Space, seed: int, step: float, smallest: float, starts: tuple[np.ndarray, ...] = ()
    ) -> None:
        super().__init__(space, seed, starts)
        self._first, self._smallest = step, smallest
        self._step = step
        self._best: tuple[np.ndarray, Score] | None = None
        self._climb = 0
        self._origin: dict[int, int] = {}

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        self._origin[self.asked] = self._climb
        if self._best is None:
            # While the first point of a climb is on its way, others are spent on random points.
            return self.trial(self._somewhere(rng))
        point = self._best[0]
        for neighbour in self._neighbours(point, rng):
            if self.space.key(neighbour) not in self.seen:
                return self.trial(neighbour)
        if any(self._origin[k] == self._climb for k in self.pending):
            return None
        self._restart()
        self._origin[self.asked] = self._climb
        return self.trial(self._somewhere(rng))

    def _learn(self, trial: Trial, score: Score) -> None:
        if self._origin.pop(trial.index, self._climb) != self._climb:
            return
        if self._best is None or score.rank < self._best[1].rank:
            grown = self._best is not None
            self._best = (trial.point, score)
            self._step = min(0.5, self._step * 1.5) if grown else self._step
            return
        self._step *= 1.5**-0.25
        if not self.space.finite and self._step < self._smallest:
            self._restart()

    def _restart(self) -> None:
        self._climb += 1
        self._best, self._step = None, self._first

    def _somewhere(self, rng: np.random.Generator) -> np.ndarray:
        found = self.untried(rng) if self.space.finite else self.space.random(rng)
        # Where nothing is left, `ask` notices.
        return self.space.random(rng) if found is None else found

    def _neighbours(self, point: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Discrete neighbours in a random order, and one step of each continuous variable."""
        found: list[np.ndarray] = []
        for k, v in enumerate(self.space.variables):
            if math.isnan(point[k]) or levels(v) <= 1:
                continue
            if isinstance(v, Continuous):
                found.append(self.space.mutate(point, rng, self._step, only=k))
                continue
            others = (
                [point[k] - 1.0, point[k] + 1.0]
                if isinstance(v, Integer)
                else [float(c) for c in range(len(v.choices))]
            )
            low, high = (v.lower, v.upper) if isinstance(v, Integer) else (0, len(v.choices) - 1)
            for value in others:
                if low <= value <= high and value != point[k]:
                    out = point.copy()
                    out[k] = value
                    found.append(self.space.canonical(out))
        moving = [
            k for k, v in enumerate(self.space.variables) if isinstance(v, Continuous) and not math.isnan(point[k])
        ]
        if len(moving) > 1:
            # Along no axis: else a climb ends where constraints or valleys run across them.
            u = self.space.to_unit(point)
            u[moving] = np.clip(u[moving] + self._step * rng.normal(size=len(moving)), 0.0, 1.0)
            raw = self.space.from_unit(u)
            joint = np.where(np.isin(np.arange(len(point)), moving), raw, point)
            found += [joint] * len(moving)
        return [found[int(k)] for k in rng.permutation(len(found))]
