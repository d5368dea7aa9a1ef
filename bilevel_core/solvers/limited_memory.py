"""A limited-memory curvature estimate of the reduced objective, and steps that minimise its model within bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS = 20
ENOUGH = 1e-3
"""The model's minimum is near when a round gains less than this share of what was gained."""


@dataclass(frozen=True)
class Memory:
    """Steps and gradient changes, newest last, shapes (k, nx): the curvature estimate of limited-memory BFGS.

    Source: Nocedal and Wright (2006), chapter 7, with the usual scaling of the initial matrix.
    """

    steps: np.ndarray
    changes: np.ndarray

    @classmethod
    def empty(cls, n: int) -> Memory:
        """No pairs yet."""
        return cls(np.zeros((0, n)), np.zeros((0, n)))

    def updated(self, step: np.ndarray, change: np.ndarray, most: int) -> Memory:
        """With one pair more, if it has positive curvature; the oldest drops out."""
        if not float(step @ change) > 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)):
            return self
        steps = np.vstack([self.steps, step])[-most:]
        return Memory(steps, np.vstack([self.changes, change])[-most:])

    def direction(self, x: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """From x to the minimiser of the quadratic model within the bounds, or near it, so that x plus it keeps them.

        In each round the minimiser along the projected gradient's path decides which bounds are met, then the model
        is minimised over the other variables and the result brought back within the bounds. Without pairs: -g,
        shortened to length 1 at most, and cut at the bounds.

        Args:
            x: shape (nx,), within the bounds.
            gradient: g there.
            lower, upper: bounds, which may be infinite.

        Source: Byrd, Lu, Nocedal and Zhu (1995); the projection: Morales and Nocedal (2011).
        """
        compact = _Compact.of(self.steps, self.changes)
        if compact is None:
            return np.clip(x - gradient / max(1.0, float(np.linalg.norm(gradient))), lower, upper) - x
        z = x
        slope, value = gradient, 0.0
        for _ in range(ROUNDS):
            better = _round(compact, z, slope, lower, upper)
            moved = better - x
            image = compact.product(moved)
            lowered = float(gradient @ moved) + 0.5 * float(moved @ image)
            if not lowered < value:
                break
            z, slope, gained, value = better, gradient + image, value - lowered, lowered
            if gained <= ENOUGH * -value:
                break
        return z - x

    def matrix(self, initial: float) -> np.ndarray:
        """B itself, dense, shape (nx, nx). ``initial`` scales the identity where there is no pair."""
        n = self.steps.shape[1]
        scale = initial
        if len(self.steps):
            s, c = self.steps[-1], self.changes[-1]
            scale = float(c @ c) / float(s @ c)
        b = scale * np.eye(n)
        for s, c in zip(self.steps, self.changes, strict=True):
            bs = b @ s
            b = b - np.outer(bs, bs) / float(s @ bs) + np.outer(c, c) / float(s @ c)
        return 0.5 * (b + b.T)


@dataclass(frozen=True)
class _Compact:
    """``B = theta I - W M W'``, the compact form of limited-memory BFGS.

    Attributes:
        theta: scale of the initial matrix.
        w: W, shape (nx, 2k).
        m: M, shape (2k, 2k).
    """

    theta: float
    w: np.ndarray
    m: np.ndarray

    @classmethod
    def of(cls, steps: np.ndarray, changes: np.ndarray) -> _Compact | None:
        """The form of some pairs; None without any, or where rounding has made them contradict each other."""
        if not len(steps):
            return None
        theta = float(changes[-1] @ changes[-1]) / float(steps[-1] @ changes[-1])
        products = steps @ changes.T
        below = np.tril(products, -1)
        inverse = np.block([[-np.diag(np.diag(products)), below.T], [below, theta * (steps @ steps.T)]])
        try:
            m = np.linalg.inv(inverse)
        except np.linalg.LinAlgError:
            return None
        return cls(theta, np.vstack([changes, theta * steps]).T, m) if np.all(np.isfinite(m)) else None

    def product(self, v: np.ndarray) -> np.ndarray:
        """B v."""
        return self.theta * v - self.w @ (self.m @ (self.w.T @ v))

    def subspace(self, gradient: np.ndarray, moved: np.ndarray, free: np.ndarray, image: np.ndarray) -> np.ndarray:
        """From the Cauchy point to the model's minimiser over the free variables; zero in the others.

        Args:
            gradient: g at x, shape (nx,).
            moved: Cauchy point minus x.
            free: which variables may move, shape (nx,).
            image: W' times moved.
        """
        step = np.zeros_like(gradient)
        if not free.any():
            return step
        w = self.w[free]
        r = gradient[free] + self.theta * moved[free] - w @ (self.m @ image)
        small = np.eye(len(self.m)) - self.m @ (w.T @ w) / self.theta
        try:
            v = np.linalg.solve(small, self.m @ (w.T @ r))
        except np.linalg.LinAlgError:
            v = np.zeros(len(self.m))
        step[free] = -r / self.theta - w @ v / self.theta**2
        return step


def _round(compact: _Compact, x: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """A better point of the model, if x is not its minimiser: the Cauchy point, improved over its free variables."""
    cauchy, free, image = _cauchy(compact, x, gradient, lower, upper)
    step = compact.subspace(gradient, cauchy - x, free, image)
    room = np.where(step > 0.0, upper - cauchy, lower - cauchy)[step != 0.0]
    share = min(1.0, float((room / step[step != 0.0]).min(initial=1.0)))

    def model(point: np.ndarray) -> float:
        moved = point - x
        return float(gradient @ moved) + 0.5 * float(moved @ compact.product(moved))

    return min((np.clip(cauchy + length * step, lower, upper) for length in (1.0, share)), key=model)


def _cauchy(
    compact: _Compact, x: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first minimiser of the model along the projected path ``x - t g``.

    Returns:
        The point; which variables are not at a bound that the path met; W' times its distance from x.
    """
    theta, w, m = compact.theta, compact.w, compact.m
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(gradient < 0.0, (x - upper) / gradient, (x - lower) / gradient)
    ends = np.where(gradient == 0.0, np.inf, room)
    d = np.where(ends > 0.0, -gradient, 0.0)
    point, image = x.copy(), np.zeros(w.shape[1])
    p = w.T @ d
    fall = -float(d @ d)
    bend = -theta * fall - float(p @ m @ p)
    # Rounding may take the curvature, a difference of large numbers, below zero.
    least = np.finfo(float).eps * theta * -fall
    passed = 0.0
    for i in np.argsort(ends, kind="stable"):
        t = float(ends[i])
        if t <= 0.0:
            continue
        if fall >= 0.0 or -fall / max(bend, least) < t - passed:
            break
        dt = t - passed
        point[i] = upper[i] if d[i] > 0.0 else lower[i]
        image = image + dt * p
        g, row = float(gradient[i]), w[i]
        fall += dt * bend + g * g + theta * g * float(point[i] - x[i]) - g * float(row @ m @ image)
        bend -= theta * g * g + 2.0 * g * float(row @ m @ p) + g * g * float(row @ m @ row)
        p = p + g * row
        d[i] = 0.0
        passed = t
        least = np.finfo(float).eps * theta * float(d @ d)
        if least == 0.0:
            return point, np.zeros(x.size, dtype=bool), image
    dt = max(0.0, -fall / max(bend, least)) if least > 0.0 else 0.0
    moving = d != 0.0
    point[moving] = x[moving] + (passed + dt) * d[moving]
    image = image + dt * p
    free = moving | (gradient == 0.0)
    return point, free, image
