"""The Nystrom approximation of an operator, as an approximate inverse and as a preconditioner."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.linear.base import (
    NonFiniteProductError,
    Product,
    Solution,
    System,
    Vector,
    cast,
    check_options,
    detached,
    magnitude,
    nothing,
    precision,
    to_numpy,
)
from bilevel_core.linear.cg import cg


@dataclass(frozen=True)
class NystromApproximation:
    """``A ~ U diag(values) U'`` with orthonormal columns; ``basis`` holds them as rows, shape (rank, n).

    Attributes:
        basis: U', a matrix of the vectors' kind.
        values: eigenvalues, positive, falling, shape (rank,).
        damping: stands for the part of the spectrum that the approximation does not see; 0 lets the smallest value do.
        direction: one of negative curvature met while sampling; then the rest is empty.
        products: what it cost.
    """

    basis: Vector
    values: np.ndarray
    damping: float
    direction: Vector | None
    products: int

    def solve(self, b: Vector) -> Vector:
        """``(U diag(values) U' + damping I)^-1 b``; without damping, the smallest value on the complement of U."""
        if not self.values.size:
            return b / self.damping if self.damping > 0 else b
        rest = self.damping if self.damping > 0 else float(self.values[-1])
        weights = 1.0 / (self.values + self.damping) - 1.0 / rest
        return b / rest + self.basis.T @ (cast(weights, b) * (self.basis @ b))


def nystrom_approximation(
    product: Product, like: Vector, *, rank: int = 20, damping: float = 0.0, seed: int = 0
) -> NystromApproximation:
    """Sample a positive semidefinite operator with ``rank`` products.

    The sample is made of random orthonormal vectors, not of columns of A as in Hataya and Yamada (2023): as many
    products, and a better approximation. Vectors are kept: rank times n numbers; the factors are computed in float64 on
    the CPU.

    Args:
        product: v -> A v.
        like: a vector of the kind, type and shape (n,) that the product takes.
        rank: of the approximation; at most n is used.
        damping: added to the operator that is inverted.
        seed: of the sample.

    Raises:
        NonFiniteProductError: a product is NaN or infinite.
        UsageError: an option is out of range.

    Source:
        Frangella, Tropp, Udell (2023), "Randomized Nystrom Preconditioning", algorithm 2.1.
    """
    check_options(damping=damping)
    if rank < 1:
        raise UsageError(f"rank must be at least 1. Got {rank}.")
    size = like.shape[0]
    rank = min(rank, size)
    sample = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, rank)))[0]
    images = np.empty_like(sample)
    for j in range(rank):
        image = detached(product(cast(np.ascontiguousarray(sample[:, j]), like)))
        if not np.isfinite(magnitude(image)):
            raise NonFiniteProductError(
                f"Product {j + 1} with the linear operator, of a random vector, is NaN or infinite."
            )
        images[:, j] = to_numpy(image)
    core = sample.T @ images
    core = (core + core.T) / 2
    spread = float(np.linalg.norm(images, 2)) if rank else 0.0
    noise = precision(like) * np.sqrt(size) * spread
    bends, ways = np.linalg.eigh(core)
    if bends[0] < -noise:
        return NystromApproximation(
            cast(np.zeros((0, size)), like), np.zeros(0), damping, cast(sample @ ways[:, 0], like), rank
        )
    kept = bends > noise
    if not kept.any():
        return NystromApproximation(cast(np.zeros((0, size)), like), np.zeros(0), damping, None, rank)
    # A's factor is images core^(-1/2); directions in which the sample saw nothing but rounding are left out.
    factor = images @ (ways[:, kept] / np.sqrt(bends[kept]))
    left, singular, _ = np.linalg.svd(factor, full_matrices=False)
    return NystromApproximation(cast(np.ascontiguousarray(left.T), like), singular**2, damping, None, rank)


def nystrom_preconditioner(
    product: Product, like: Vector, *, rank: int = 20, damping: float = 0.0, seed: int = 0
) -> Product:
    """A preconditioner for `cg`, made with ``rank`` products: the approximation's inverse.

    Good at: spectra that fall fast, and many right-hand sides with the same or nearly the same A. Bad at: flat spectra,
    where it costs its products and saves none. Where sampling met negative curvature it does nothing (A is not positive
    definite, and `cg` will say so).

    Args, raises and source: see `nystrom_approximation`.
    """
    return nystrom_approximation(product, like, rank=rank, damping=damping, seed=seed).solve


def nystrom(
    product: Product,
    b: Vector,
    *,
    rank: int = 20,
    damping: float = 0.0,
    seed: int = 0,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
) -> Solution:
    """Solve ``A v = b`` with a Nystrom approximation of A, corrected to the tolerance by preconditioned `cg`.

    With ``max_iterations = 0`` the approximate inverse is applied and left at that, which is the method of Hataya and
    Yamada: ``rank`` products and one for the residual, which says what the damping and the missing rank cost. The
    damping belongs to the approximation only: it is no part of the system that is solved.

    Good at: spectra that fall fast (networks). Bad at: flat spectra; memory for rank vectors.

    Args:
        product: v -> A v.
        b: right-hand side, shape (n,).
        rank: of the approximation.
        damping: stands for the spectrum it misses; the smallest eigenvalue of the approximation when 0.
        seed: of the sample.
        tolerance: on the true relative residual.
        max_iterations: the most steps of `cg`.

    Raises:
        NonFiniteProductError: a product or b is NaN or infinite.
        UsageError: an option is out of range.

    Source:
        Hataya and Yamada (2023), "Nystrom Method for Accurate and Scalable Implicit Differentiation"; Frangella, Tropp,
        Udell (2023), "Randomized Nystrom Preconditioning".
    """
    check_options(tolerance=tolerance, max_iterations=max_iterations, damping=damping)
    if rank < 1:
        raise UsageError(f"rank must be at least 1. Got {rank}.")
    system = System(product, b)
    if system.size == 0:
        return nothing(b)
    sampled = nystrom_approximation(product, b / system.scale, rank=rank, damping=damping, seed=seed)
    if max_iterations == 0 and sampled.direction is None:
        v = sampled.solve(system.b)
        _, size = system.residual(v)
        system.products += sampled.products
        done = size <= tolerance
        note = "" if done else f"Inverse of rank {sampled.values.size}, not corrected; residual {size:.2g}."
        return system.solution(v, size, 0, done, message=note)
    bent = sampled.direction is not None
    solution = cg(
        product,
        b,
        start=None if bent else sampled.solve(b),
        tolerance=tolerance,
        max_iterations=max_iterations,
        preconditioner=None if bent else sampled.solve,
    )
    solution = replace(solution, products=solution.products + sampled.products)
    if sampled.direction is None:
        return solution
    sign = 1.0 if float(sampled.direction @ b) >= 0 else -1.0
    note = "Sampling met a direction of negative curvature, so there was no preconditioner."
    return replace(
        solution,
        negative_curvature=True,
        direction=sign * sampled.direction if solution.direction is None else solution.direction,
        message=f"{note} {solution.message}".strip(),
    )
