"""Estimates of the ends of a spectrum: for step lengths, and to tell a minimum from a saddle."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from bilevel_core.linear.base import (
    NonFiniteProductError,
    Product,
    Vector,
    cast,
    detached,
    magnitude,
    norm,
    precision,
    to_numpy,
)

STORED = 200
"""Size up to which Lanczos keeps its basis orthogonal, and gives the eigenvalue itself after as many steps."""


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
    diagonal: list[float] = []
    off: list[float] = []
    estimate = 0.0
    for _, alpha, beta in _lanczos(product, like, seed, iterations):
        diagonal.append(alpha)
        last, estimate = estimate, float(np.abs(np.linalg.eigvalsh(_tridiagonal(diagonal, off))).max())
        off.append(beta)
        if beta <= precision(like) * estimate or (len(diagonal) > 3 and estimate - last <= 1e-3 * estimate):
            break
    return estimate


@dataclass(frozen=True)
class Smallest:
    """An estimate of the smallest eigenvalue.

    Attributes:
        value: from above; ``v . A v`` itself where there is a vector.
        size: the largest eigenvalue in absolute value, estimated from below.
        vector: of length 1, with ``v . A v = value``; None where no negative value was found.
        products: how many were spent.
        exact: whether the value is the eigenvalue up to rounding, and no estimate.
    """

    value: float
    size: float
    vector: Vector | None
    products: int
    exact: bool = False


def smallest_eigenvalue(
    product: Product, like: Vector, seed: int = 0, iterations: int = 30, slack: float = 1e-12
) -> Smallest:
    """The smallest eigenvalue of a symmetric operator, estimated from above: a negative estimate proves one.

    Lanczos from a random vector, which no symmetry of the problem hides an eigenvector from; beyond `STORED` variables
    it ends once it has found a direction of negative curvature. Bad at: negative eigenvalues that are small beside the
    largest, which take many iterations; that none was found proves nothing.

    Args:
        product: v -> A v.
        like: a vector of the kind, type and shape (n,) that the product takes.
        seed: of the random start.
        iterations: the most steps; at least n of them with n up to `STORED` make the value exact. Beyond that size the
            vector takes the same products once more, and one, so that no basis is stored.
        slack: values above minus this times the largest count as zero.

    Raises:
        NonFiniteProductError: a product is NaN or infinite.

    Source:
        Lanczos (1950); Kuczynski and Wozniakowski (1992) for the random start.
    """
    if like.shape[0] == 0:
        return Smallest(math.inf, 0.0, None, 0)
    if like.shape[0] <= STORED:
        return _orthogonal(product, like, seed, iterations, slack)
    diagonal: list[float] = []
    off: list[float] = []
    value = size = 0.0
    weights = np.zeros(0)
    for _, alpha, beta in _lanczos(product, like, seed, iterations):
        diagonal.append(alpha)
        ritz, vectors = np.linalg.eigh(_tridiagonal(diagonal, off))
        off.append(beta)
        value, size, weights = float(ritz[0]), float(np.abs(ritz).max()), vectors[:, 0]
        if value < -slack * size or beta <= precision(like) * size:
            break
    products = len(diagonal)
    if value >= -slack * size:
        return Smallest(value, size, None, products)
    v = like * 0.0
    for weight, (q, _, _) in zip(weights.tolist(), _lanczos(product, like, seed, len(diagonal)), strict=True):
        v = v + weight * q
    v = v / norm(v)
    return Smallest(float(v @ detached(product(v))), size, v, 2 * products + 1)


def _orthogonal(product: Product, like: Vector, seed: int, iterations: int, slack: float) -> Smallest:
    """The same with the whole basis kept orthogonal, to the end: exact after n steps, or when the space is used up."""
    n = like.shape[0]
    basis, images = np.zeros((0, n)), np.zeros((0, n))
    q = np.random.default_rng(seed).normal(size=n)
    exact = False
    while True:
        q = q / np.linalg.norm(q)
        w = to_numpy(detached(product(cast(q, like))))
        if not np.isfinite(w).all():
            raise NonFiniteProductError(
                f"Product {len(basis) + 1} with the linear operator, of a random vector, is NaN or infinite."
            )
        basis, images = np.vstack([basis, q]), np.vstack([images, w])
        small = basis @ images.T
        ritz, vectors = np.linalg.eigh(0.5 * (small + small.T))
        value, size = float(ritz[0]), float(np.abs(ritz).max())
        for _ in range(2):
            w = w - basis.T @ (basis @ w)
        exact = len(basis) == n or float(np.linalg.norm(w)) <= 10.0 * math.sqrt(n) * precision(like) * size
        if exact or len(basis) >= iterations:
            break
        q = w
    if value >= -slack * size:
        return Smallest(value, size, None, len(basis), exact)
    v = basis.T @ vectors[:, 0]
    return Smallest(value, size, cast(v / np.linalg.norm(v), like), len(basis), exact)


def _lanczos(product: Product, like: Vector, seed: int, iterations: int) -> Generator[tuple[Vector, float, float]]:
    """The vectors of the recurrence with the tridiagonal matrix's entries: the diagonal's, and the next beside it."""
    size = like.shape[0]
    if size == 0:
        return
    draw = np.random.default_rng(seed).normal(size=size)
    q = cast(draw / np.linalg.norm(draw), like)
    before, beta = q * 0.0, 0.0
    for k in range(min(iterations, size)):
        w = detached(product(q))
        if not math.isfinite(magnitude(w)):
            raise NonFiniteProductError(
                f"Product {k + 1} with the linear operator, of a random vector, is NaN or infinite."
            )
        alpha = float(q @ w)
        w = w - alpha * q - beta * before
        beta = norm(w)
        yield q, alpha, beta
        if beta == 0.0:
            return
        before, q = q, w / beta


def _tridiagonal(diagonal: list[float], off: list[float]) -> np.ndarray:
    return np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
