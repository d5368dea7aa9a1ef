"""Models of a vector that depends on x, learned from samples: the follower's answer y*(x), its optimal value."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

RIDGE = 1e-12
"""Added to normal equations, relative to their size: samples along a line determine no plane."""


class Mapping(ABC):
    """A model that has been fitted; called with one x, shape (n,), it gives a vector, shape (m,)."""

    @abstractmethod
    def __call__(self, u: np.ndarray) -> np.ndarray:
        """The value predicted."""


class Polynomial(Mapping):
    """Least squares over the nearest samples: quadratic where there are enough of them, else linear, else the nearest.

    Source: Sinha, Malo and Deb (2017), who approximate each lower variable by a quadratic function of the upper ones.

    Args:
        u: samples, shape (k, n).
        values: shape (k, m).
        centre: where the model is to be good, shape (n,): the samples nearest to it count.
    """

    def __init__(self, u: np.ndarray, values: np.ndarray, centre: np.ndarray) -> None:
        n = u.shape[1]
        distance = np.linalg.norm(u - centre, axis=1)
        full, flat = (n + 1) * (n + 2) // 2, n + 1
        kept = np.argsort(distance, kind="stable")[: max(full + n, 2 * flat)]
        self._centre = u[kept[0]]
        self._scale = max(float(distance[kept[-1]]), 1e-12)
        self._quadratic = len(kept) >= full
        self._nearest = values[kept[0]] if len(kept) < flat else None
        rows = self._features(u[kept])
        weights = 1.0 / (1e-3 + distance[kept] / self._scale)
        a, b = rows * weights[:, None], values[kept] * weights[:, None]
        gram = a.T @ a
        gram[np.diag_indices_from(gram)] += RIDGE * max(1.0, float(np.trace(gram)))
        self._coefficients = np.linalg.lstsq(gram, a.T @ b, rcond=None)[0]

    def _features(self, u: np.ndarray) -> np.ndarray:
        z = (np.atleast_2d(u) - self._centre) / self._scale
        parts = [np.ones((len(z), 1)), z]
        if self._quadratic:
            i, j = np.triu_indices(z.shape[1])
            parts.append(z[:, i] * z[:, j])
        return np.hstack(parts)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """See `Mapping.__call__`."""
        if self._nearest is not None:
            return self._nearest
        return (self._features(u) @ self._coefficients)[0]


class Kriging(Mapping):
    """Ordinary kriging with a Gaussian kernel over the nearest samples; the kernel's length by leave-one-out error.

    Source: Sinha and Shaikh (2021), who use kriging for both mappings of a bilevel problem.

    Args:
        u: samples, shape (k, n).
        values: shape (k, m).
        centre: the samples nearest to it count.
        most: how many of them.
    """

    def __init__(self, u: np.ndarray, values: np.ndarray, centre: np.ndarray, most: int = 60) -> None:
        distance = np.linalg.norm(u - centre, axis=1)
        kept = np.argsort(distance, kind="stable")[:most]
        self._u, y = u[kept], values[kept]
        self._mean = y.mean(axis=0)
        spread = y.std(axis=0)
        self._spread = np.where(spread > 0.0, spread, 1.0)
        z = (y - self._mean) / self._spread
        apart = np.linalg.norm(self._u[:, None] - self._u[None], axis=2)
        size = float(apart.max()) or 1.0
        best = np.inf
        for factor in (0.3, 1.0, 3.0, 10.0):
            length = factor * size
            inverse = np.linalg.pinv(np.exp(-0.5 * (apart / length) ** 2) + 1e-10 * np.eye(len(kept)), hermitian=True)
            # Leave-one-out residuals from one inverse (Dubrule 1983).
            error = float(np.sum((inverse @ z / np.diag(inverse)[:, None]) ** 2))
            if error < best:
                best, self._length, self._weights = error, length, inverse @ z

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """See `Mapping.__call__`."""
        k = np.exp(-0.5 * (np.linalg.norm(self._u - u, axis=1) / self._length) ** 2)
        return self._mean + self._spread * (k @ self._weights)
