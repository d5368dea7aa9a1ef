"""Samplers that do not learn: every point of a grid, random points, and a low-discrepancy sequence."""

from __future__ import annotations

import math

import numpy as np

from bilevel_core.sampling.base import Sampler, Trial
from bilevel_core.sampling.space import Space, levels


class GridSampler(Sampler):
    """Every combination once: all integers and choices, continuous variables at even levels.

    Good at: small finite spaces, which it enumerates. Bad at: more than a few variables.

    Args:
        space: what to sample.
        seed: unused; a grid is what it is.
        resolution: levels of a continuous variable, ends included.
    """

    def __init__(self, space: Space, seed: int, resolution: int) -> None:
        super().__init__(space, seed)
        self._points = space.enumerate(resolution)
        counts = [levels(v) for v in space.variables]
        self._count = math.prod(resolution if math.isinf(n) else n for n in counts)

    @property
    def whole(self) -> float | None:
        """See `Sampler.whole`: not known where variables are conditional."""
        return None if self.space.conditional else self._count

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        point = next(self._points, None)
        if point is None:
            self._over = True
            return None
        return self.trial(point)


class RandomSampler(Sampler):
    """Points drawn evenly and independently.

    Good at: a baseline, any number of workers. Bad at: coming close to an optimum.
    """

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        return self.trial(self.space.random(rng))


class SobolSampler(Sampler):
    """A scrambled Sobol sequence (`scipy.stats.qmc.Sobol`; Sobol 1967, Owen 1998).

    Good at: covering the space evenly. Bad at: coming close to an optimum, as random points are.
    """

    def __init__(self, space: Space, seed: int, starts: tuple[np.ndarray, ...] = ()) -> None:
        super().__init__(space, seed, starts)
        from scipy.stats import qmc

        self._engine = qmc.Sobol(max(1, len(space)), scramble=True, rng=np.random.default_rng([seed % 2**64]))
        self._block: list[np.ndarray] = []
        self._drawn = 0

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        if not self._block:
            # The sequence is balanced at powers of two, so it is drawn in blocks that end there.
            power = 6 if self._drawn == 0 else int(math.log2(self._drawn))
            self._block = list(self._engine.random_base2(power))
            self._drawn += len(self._block)
        return self.trial(self.space.from_unit(self._block.pop(0)[: len(self.space)]))
