"""Evolution without generations: differential evolution, and regularised evolution, whose oldest members die."""

from __future__ import annotations

from collections import deque

import numpy as np

from bilevel_core.sampling.base import Sampler, Score, Trial
from bilevel_core.sampling.space import Categorical, Space


class DifferentialSampler(Sampler):
    """Differential evolution, ``current-to-best/1`` with binomial crossover, one vector at a time.

    Vectors live in the unit cube; integers are rounded, and categorical variables are taken over whole from one of the
    members. A trial takes the place of its target when it is told, if it is not worse (feasibility first), so no worker
    waits for a generation. Scale and crossover rate are drawn anew for each trial.

    Good at: continuous and integer variables, many local optima. Bad at: more than some dozens of variables.
    Source: Storn and Price (1997); Deb (2000) for the ranking.

    Args:
        space: what to sample.
        seed: for everything random.
        population: number of members, at least 4.
        starts: points to try first.
    """

    def __init__(self, space: Space, seed: int, population: int, starts: tuple[np.ndarray, ...] = ()) -> None:
        super().__init__(space, seed, starts)
        self._size = population
        self._members: list[tuple[np.ndarray, np.ndarray, Score]] = []
        self._targets: dict[int, int] = {}

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        if self.asked < self._size or len(self._members) < 4:
            return self.trial(self.space.random(rng))
        members = self._members
        target = self.asked % len(members)
        best = min(range(len(members)), key=lambda k: members[k][2].rank)
        others = [k for k in range(len(members)) if k != target]
        a, b = (members[int(k)] for k in rng.choice(others, 2, replace=False))
        scale, rate = rng.uniform(0.4, 0.9), rng.choice([0.2, 0.9])
        here, goal = members[target][0], members[best][0]
        donor = here + scale * (goal - here) + scale * (a[0] - b[0])
        for k, v in enumerate(self.space.variables):
            if isinstance(v, Categorical):
                donor[k] = (goal, a[0], b[0])[int(rng.integers(3))][k]
        taken = rng.random(len(here)) < rate
        taken[int(rng.integers(len(here)))] = True
        # Beyond the range: back inside, between the member and the edge.
        donor = np.where(donor < 0.0, here * rng.random(), donor)
        donor = np.where(donor > 1.0, 1.0 - (1.0 - here) * rng.random(), donor)
        point = self.space.from_unit(np.clip(np.where(taken, donor, here), 0.0, 1.0))
        if self.space.key(point) in self.seen:
            point = self.space.mutate(point, rng)
        self._targets[self.asked] = target
        return self.trial(point)

    def _learn(self, trial: Trial, score: Score) -> None:
        target = self._targets.pop(trial.index, None)
        member = (self.space.to_unit(trial.point), trial.point, score)
        if target is None and len(self._members) < self._size:
            self._members.append(member)
        elif target is not None and score.rank <= self._members[target][2].rank:
            self._members[target] = member

    @property
    def figures(self) -> dict[str, float]:
        """See `Sampler.figures`."""
        if len(self._members) < 2:
            return {}
        return {"spread": float(np.mean(np.std([m[0] for m in self._members], axis=0)))}


class AgeingSampler(Sampler):
    """Regularised evolution: the winner of a small tournament gets a mutated child, and the oldest member dies.

    Good at: categorical and conditional spaces, noise (a lucky value does not live for ever). Bad at: continuous
    variables to many digits. Source: Real, Aggarwal, Huang and Le (2019), "Regularized evolution for image classifier
    architecture search", AAAI 33.

    Args:
        space: what to sample.
        seed: for everything random.
        population: number of members.
        tournament: how many of them compete to have a child.
        starts: points to try first.
    """

    def __init__(
        self, space: Space, seed: int, population: int, tournament: int, starts: tuple[np.ndarray, ...] = ()
    ) -> None:
        super().__init__(space, seed, starts)
        self._size, self._tournament = population, tournament
        self._members: deque[tuple[np.ndarray, Score]] = deque(maxlen=population)

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        if self.asked < self._size or not self._members:
            return self.trial(self.space.random(rng))
        chosen = rng.choice(len(self._members), min(self._tournament, len(self._members)), replace=False)
        parent = min((self._members[int(k)] for k in chosen), key=lambda m: m[1].rank)[0]
        child = parent
        for _ in range(10):
            child = self.space.mutate(parent, rng)
            if self.space.key(child) not in self.seen:
                break
        return self.trial(child)

    def _learn(self, trial: Trial, score: Score) -> None:
        self._members.append((trial.point, score))
