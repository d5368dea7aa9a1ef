"""REINFORCE with a recurrent controller: each choice is made in the light of those before it. Needs torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bilevel_core.errors import MissingError, UsageError
from bilevel_core.sampling.base import Sampler, Score, Trial
from bilevel_core.sampling.reinforce import reward_of, values_of
from bilevel_core.sampling.space import Space

WIDTH = 32


class RecurrentSampler(Sampler):
    """A small LSTM emits the values of the variables one after the other, and is taught by the policy gradient.

    Good at: discrete spaces whose variables matter jointly. Bad at: few trials. Refuses continuous variables.
    Source: Zoph and Le (2017), "Neural architecture search with reinforcement learning"; rewards as in
    `ReinforceSampler`.

    Args:
        space: what to sample.
        seed: for everything random.
        rate: learning rate of Adam.
        memory: how many past trials a reward is measured by.
        entropy: weight of the distributions' entropy.
        starts: points to try first.

    Raises:
        UsageError: a variable with too many values.
        MissingError: torch is not installed.
    """

    def __init__(
        self, space: Space, seed: int, rate: float, memory: int, entropy: float, starts: tuple[np.ndarray, ...] = ()
    ) -> None:
        super().__init__(space, seed, starts)
        sizes = [values_of(v) for v in space.variables]
        for v, size in zip(space.variables, sizes, strict=True):
            if size is None:
                raise UsageError(
                    f"The recurrent controller takes choices and short ranges of integers, and {v.name!r} is neither: "
                    "use controller=factorised."
                )
        try:
            import torch
        except ImportError as error:
            raise MissingError(
                "controller=recurrent needs torch: install it, or take controller=factorised."
            ) from error
        self._torch: Any = torch
        self._sizes = [n for n in sizes if n is not None]
        self._memory, self._entropy = memory, entropy
        self._past: list[tuple[int, float]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            self._cell = torch.nn.LSTMCell(WIDTH, WIDTH)
            self._embed = torch.nn.ModuleList(torch.nn.Embedding(n + 1, WIDTH) for n in [0, *self._sizes])
            self._heads = torch.nn.ModuleList(torch.nn.Linear(WIDTH, n) for n in self._sizes)
        parts = torch.nn.ModuleList([self._cell, self._embed, self._heads])
        self._adam = torch.optim.Adam(parts.parameters(), lr=rate)

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        with self._torch.no_grad():
            values, _, _ = self._walk(rng, None)
        return self.trial(self.space.canonical(values))

    def _learn(self, trial: Trial, score: Score) -> None:
        reward = reward_of(score, self._past, self._memory)
        _, log_p, entropy = self._walk(None, trial.point)
        loss = -reward * log_p - self._entropy * entropy
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()

    def _walk(self, rng: np.random.Generator | None, point: np.ndarray | None) -> tuple[np.ndarray, Any, Any]:
        """One pass over the variables: drawn with ``rng``, or along a given point. Values, log-probability, entropy."""
        torch = self._torch
        state: Any = None
        token, table = torch.zeros(1, dtype=torch.long), self._embed[0]
        out = np.full(len(self.space), math.nan)
        log_p, entropy = torch.zeros(()), torch.zeros(())
        for k, v in enumerate(self.space.variables):
            if not self.space.active(out, k):
                continue
            state = self._cell(table(token), state)
            logits = torch.log_softmax(self._heads[k](state[0])[0], dim=0)
            low = getattr(v, "lower", 0)
            if point is None:
                assert rng is not None
                p = logits.exp().double().numpy()
                choice = int(rng.choice(len(p), p=p / p.sum()))
            else:
                choice = int(point[k]) - low
            out[k] = float(choice + low)
            log_p = log_p + logits[choice]
            entropy = entropy - (logits.exp() * logits).sum()
            token, table = torch.tensor([choice]), self._embed[k + 1]
        return out, log_p, entropy
