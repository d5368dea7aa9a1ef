"""Estimates of the spectrum, for step lengths."""

from __future__ import annotations

import math

import numpy as np

from bilevel_core.linear.base import NonFiniteProductError, Product, Vector, cast, detached, magnitude, norm, precision


def largest_eigenvalue(product: Product, like: Vector, seed: int = 0, iterations: int = 20) -> float:
    """The largest eigenvalue in absolute value of a symmetric operator, that is its norm, estimated from below.

    Lanczos from a random vector: a few steps give two digits, and a step of 1 over it is safe by a factor of almost 2.
    Bad at: operators with one outlying eigenvalue whose eigenvector the random start all but misses.

    Args:
        product: v -> A v.
        like: a vector of the kind, type and shape (n,) that the product takes.
        seed: of the random start.
        iterations: the most products; fewer are spent once the estimate has settled to 0.1%.

    Raises:
        NonFiniteProductError: a product is NaN or infinite.

    Source:
        Kuczynski and Wozniakowski (1992) for the random start.
    """
    size = like.shape[0]
    if size == 0:
        return 0.0
    draw = np.random.default_rng(seed).normal(size=size)
    q = cast(draw / np.linalg.norm(draw), like)
    before = q * 0.0
    diagonal: list[float] = []
    off: list[float] = []
    estimate = beta = 0.0
    for _ in range(min(iterations, size)):
        w = detached(product(q))
        if not math.isfinite(magnitude(w)):
            raise NonFiniteProductError(
                f"Product {len(diagonal) + 1} with the linear operator, of a random vector, is NaN or infinite."
            )
        alpha = float(q @ w)
        w = w - alpha * q - beta * before
        diagonal.append(alpha)
        last, ritz = estimate, np.linalg.eigvalsh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
        estimate = float(np.abs(ritz).max())
        beta = norm(w)
        if beta <= precision(like) * estimate or (len(diagonal) > 3 and estimate - last <= 1e-3 * estimate):
            break
        before, q = q, w / beta
        off.append(beta)
    return estimate
