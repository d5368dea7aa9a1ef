"""The problems of the outer race, on scikit-learn's digits, and the record of where a method stands over time.

Needs PyTorch, NumPy and scikit-learn only, so that it runs in the peers' environments, too.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

CLASSES = 10
RACES = ("digits", "cleaning")


class Race:
    """One problem: softmax regression whose answer the leader judges on held-out rows. float64.

    ``digits``: one L2 weight exp(x_c) a class, 10 variables. ``cleaning``: half the training labels are wrong, one
    weight sigmoid(x_i) a training row, 800 variables.

    Attributes:
        x, zero: starts of the two levels, shapes (10,) or (800,), and (650,).
        bounds: of every x.
        rate: step length 1 / L of plain gradient steps at the lower level, L a bound of the Hessian's largest
            eigenvalue at the start.
        outer_rate: of the Adam that the peers' recipes use at the upper level.
    """

    outer_rate = 0.1

    def __init__(self, name: str) -> None:
        self.name = name
        self.train, self.held_out = rows(800, 400)
        count = len(self.train[1])
        self.zero = torch.zeros(self.train[0].shape[1] * CLASSES, dtype=torch.float64)
        largest = float(torch.linalg.eigvalsh(self.train[0].T @ self.train[0] / count)[-1])
        if name == "digits":
            self.x, self.bounds = torch.full((CLASSES,), -3.0, dtype=torch.float64), (-10.0, 1.0)
            self.rate = 1.0 / (0.5 * largest + 0.3)
        elif name == "cleaning":
            self.x, self.bounds = torch.zeros(count, dtype=torch.float64), (-12.0, 12.0)
            rng = np.random.default_rng(1)
            wrong = rng.random(count) < 0.5
            labels = self.train[1].numpy().copy()
            labels[wrong] = (labels[wrong] + rng.integers(1, CLASSES, wrong.sum())) % CLASSES
            self.train = self.train[0], torch.tensor(labels)
            self.rate = 1.0 / (0.5 * largest + 1e-3)
        else:
            raise ValueError(f"There is no race {name!r}: {' or '.join(RACES)}.")

    def lower(self, x: Any, y: Any) -> Any:
        """The follower's objective, of (x, y)."""
        scores = self.train[0] @ y.view(-1, CLASSES)
        if self.name == "digits":
            weights = y.view(-1, CLASSES)
            return cross_entropy(scores, self.train[1]) + 0.5 * (x.exp() * weights * weights).sum() / CLASSES
        losses = cross_entropy(scores, self.train[1], reduction="none")
        return (torch.sigmoid(x) * losses).mean() + 0.5e-3 * (y * y).sum()

    def upper(self, x: Any, y: Any) -> Any:
        """The leader's objective, of (x, y)."""
        return cross_entropy(self.held_out[0] @ y.view(-1, CLASSES), self.held_out[1])

    def answer(self, x: Any, start: Any, tolerance: float = 1e-8) -> Any:
        """The follower's answer, by Newton's method with conjugate gradients, to this gradient norm.

        The races are judged by it, so it shares no code with what takes part in them.
        """
        y = start.clone()
        for _ in range(100):
            y = y.detach().requires_grad_(True)
            value = self.lower(x, y)
            (slope,) = torch.autograd.grad(value, y, create_graph=True)
            size = float(slope.detach().norm())
            if size <= tolerance:
                return y.detach()
            step = -conjugate(slope, y, min(0.1, math.sqrt(size)))
            length, falls = 1.0, float(slope.detach() @ step)
            with torch.no_grad():
                while float(self.lower(x, y + length * step)) > float(value) + 1e-4 * length * falls + 1e-15:
                    length *= 0.5
                    if length < 1e-8:
                        raise ArithmeticError(f"The follower could not be solved to {tolerance:g}.")
                y = y + length * step
        raise ArithmeticError(f"The follower could not be solved to {tolerance:g} in 100 steps.")


def conjugate(slope: Any, y: Any, tolerance: float) -> Any:
    """The Hessian's inverse times the slope, to a relative residual."""
    b = slope.detach()
    v, r = torch.zeros_like(b), b
    p, square = r, float(r @ r)
    goal = tolerance**2 * square
    for _ in range(300):
        if square <= goal:
            break
        (image,) = torch.autograd.grad(slope, y, p, retain_graph=True)
        length = square / float(p @ image)
        v, r = v + length * p, r - length * image
        p, square = r + float(r @ r) / square * p, float(r @ r)
    return v


def rows(train: int, held_out: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(inputs, labels) of the two sets: 8 x 8 images as 64 numbers in [0, 1] and a constant."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("The race needs scikit-learn for its data: pip install scikit-learn")
    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    inputs = np.hstack([inputs[order] / 16.0, np.ones((len(labels), 1))])
    a, b = torch.tensor(inputs), torch.tensor(labels[order])
    return (a[:train], b[:train]), (a[train : train + held_out], b[train : train + held_out])


cross_entropy: Any = torch.nn.functional.cross_entropy


class OverError(Exception):
    """The time of a method is over."""


class Record:
    """Where a method stood, and after how many CPU seconds of this process.

    Args:
        seconds: how long a method may take; calls after that raise `OverError`.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.process_time()
        self.history: list[tuple[float, Any]] = []

    @property
    def spent(self) -> float:
        """CPU seconds since the start."""
        return time.process_time() - self.start

    def __call__(self, x: Any) -> None:
        """Keep a point of the method's path."""
        spent = self.spent
        self.history.append((spent, torch.as_tensor(x).detach().clone()))
        if spent > self.seconds:
            raise OverError

    def judged(self, race: Race, most: int = 40) -> list[tuple[float, float]]:
        """(seconds, true F) along the path, at up to ``most`` points, denser at its beginning.

        F is that of the follower's exact answer; infinity where x is not finite or the answer can't be had.
        """
        count = len(self.history)
        if not count:
            return []
        picked = {round(k) - 1 for k in np.geomspace(1, count, min(count, most))} | set(range(min(count, most // 2)))
        y, found = race.zero, []
        for k in sorted(picked):
            spent, x = self.history[k]
            try:
                y = race.answer(x, y)
                found.append((spent, float(race.upper(x, y))))
            except ArithmeticError:
                found.append((spent, math.inf))
        return found


def run(race: Race, method: Callable[[Record], None], seconds: float) -> Record:
    """Run one method until it ends or its time is over."""
    record = Record(seconds)
    with contextlib.suppress(OverError):
        method(record)
    return record
