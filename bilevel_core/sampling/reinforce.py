"""REINFORCE: a controller that draws points and is taught by what came of them."""

from __future__ import annotations

import math

import numpy as np

from bilevel_core.sampling.base import Sampler, Score, Trial
from bilevel_core.sampling.space import Continuous, Integer, Space

CHOICES = 64
"""Integers with more values than this are drawn as numbers, not as so many choices."""


class ReinforceSampler(Sampler):
    """A factorised controller: every variable has a distribution of its own, moved along the policy gradient.

    Categorical variables and short ranges of integers have a probability for each value; others a normal distribution
    over the unit interval. The reward of a trial is its place among the last ones (feasibility first), from -1 to 1, so
    that scale and outliers of the objective play no part.

    Good at: discrete spaces whose variables matter one by one. Bad at: variables that matter jointly.
    Source: Williams (1992); Zoph and Le (2017), without their recurrence (`RecurrentSampler` has it).

    Args:
        space: what to sample.
        seed: for everything random.
        rate: learning rate.
        memory: how many past trials a reward is measured by.
        entropy: weight of the distributions' entropy, which keeps them from narrowing too early.
        starts: points to try first.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        rate: float,
        memory: int,
        entropy: float,
        starts: tuple[np.ndarray, ...] = (),
    ) -> None:
        super().__init__(space, seed, starts)
        self._rate, self._memory, self._entropy = rate, memory, entropy
        self._past: list[tuple[int, float]] = []
        self._logits = {k: np.zeros(n) for k, v in enumerate(space.variables) if (n := values_of(v)) is not None}
        self._normal = {k: np.array([0.5, math.log(0.3)]) for k in range(len(space)) if k not in self._logits}

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        raw = np.zeros(len(self.space))
        u = np.zeros(len(self.space))
        for k in range(len(self.space)):
            if k in self._logits:
                p = softmax(self._logits[k])
                u[k] = (float(rng.choice(len(p), p=p)) + 0.5) / len(p)
            else:
                mean, width = self._normal[k]
                u[k] = min(max(mean + math.exp(width) * rng.normal(), 0.0), 1.0)
        raw = self.space.from_unit(u)
        return self.trial(raw)

    def _learn(self, trial: Trial, score: Score) -> None:
        reward = reward_of(score, self._past, self._memory)
        u = self.space.to_unit(trial.point)
        for k in range(len(self.space)):
            if math.isnan(trial.point[k]):
                continue
            if k in self._logits:
                p = softmax(self._logits[k])
                chosen = np.zeros(len(p))
                chosen[min(int(u[k] * len(p)), len(p) - 1)] = 1.0
                spread = -p * (np.log(p) - float(p @ np.log(p)))
                self._logits[k] = np.clip(
                    self._logits[k] + self._rate * (reward * (chosen - p) + self._entropy * spread), -20.0, 20.0
                )
            else:
                mean, width = self._normal[k]
                z = (u[k] - mean) / math.exp(width)
                # Natural gradient: steps in units of the distribution's own width.
                mean = min(max(mean + 0.5 * self._rate * reward * z * math.exp(width), 0.0), 1.0)
                change = 0.25 * self._rate * (reward * (z * z - 1.0) + self._entropy)
                width = min(max(width + min(max(change, -0.2), 0.2), math.log(1e-6)), math.log(0.5))
                self._normal[k] = np.array([mean, width])


def values_of(v: object) -> int | None:
    """Number of values of a variable that is drawn value by value; None where it is drawn as a number."""
    if isinstance(v, Continuous):
        return None
    if isinstance(v, Integer):
        count = v.upper - v.lower + 1
        return count if count <= CHOICES else None
    return len(v.choices)  # type: ignore[attr-defined]


def reward_of(score: Score, past: list[tuple[int, float]], memory: int) -> float:
    """A score's place among the last ones, from -1 (worst) to 1 (best); it is then one of them."""
    worse = sum(1 for p in past if p > score.rank) - sum(1 for p in past if p < score.rank)
    reward = worse / len(past) if past else 0.0
    past.append(score.rank)
    del past[:-memory]
    return reward


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities in proportion to exp(logits)."""
    e = np.exp(logits - logits.max())
    return e / e.sum()
