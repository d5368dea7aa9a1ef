"""Direct solves with a symmetric matrix, for small systems."""

from __future__ import annotations

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.linear.base import NonFiniteProductError, Solution, check_options


def dense(matrix: np.ndarray, b: np.ndarray, *, tolerance: float = 1e-8) -> Solution:
    """Solve ``A v = b`` for a symmetric matrix: Cholesky where it is positive definite, else by its eigenvalues.

    Good at: up to some thousand unknowns, any conditioning; singular matrices get the least-squares solution of least
    norm, and it is said. Bad at: memory (n^2) and time (n^3).

    Args:
        matrix: A, shape (n, n).
        b: right-hand side, shape (n,).
        tolerance: ``converged`` says whether the relative residual is within this.

    Raises:
        NonFiniteProductError: A or b has NaN or infinite entries.
        UsageError: shapes don't match, or A is not symmetric.

    Source:
        Golub and Van Loan (2013), sections 4.2 and 8.
    """
    check_options(tolerance=tolerance)
    a, b = np.asarray(matrix, float), np.asarray(b, float)
    if b.ndim != 1 or a.shape != (b.size, b.size):
        raise UsageError(f"Expected a square matrix and a vector of one size. Got {a.shape} and {b.shape}.")
    if not np.isfinite(b).all():
        raise NonFiniteProductError("The right-hand side b of the linear system has NaN or infinite entries.")
    if not np.isfinite(a).all():
        raise NonFiniteProductError("The matrix of the linear system (a Hessian, usually) has NaN or infinite entries.")
    largest = float(np.abs(a).max(initial=0.0))
    if float(np.abs(a - a.T).max(initial=0.0)) > 1e-6 * largest:
        raise UsageError("The matrix is not symmetric: a Hessian must be. Look at the derivatives it was made of.")
    if not b.any():
        return Solution(np.zeros_like(b), 0.0, 0, 0, True)
    a = (a + a.T) / 2
    direction: np.ndarray | None = None
    message = ""
    value = _cholesky(a, b)
    if value is None:
        value, direction, message = _spectral(a, b)
    scale = float(np.abs(b).max())
    size = float(np.linalg.norm((b - a @ value) / scale) / np.linalg.norm(b / scale))
    return Solution(value, size, 0, 1, size <= tolerance, direction is not None, direction=direction, message=message)


def _cholesky(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The solution, or None where the matrix is not positive definite beyond rounding."""
    try:
        lower = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        return None
    pivots = np.diag(lower) ** 2
    if pivots.min() <= b.size * np.finfo(float).eps * pivots.max():
        return None
    from scipy.linalg import cho_solve

    return np.asarray(cho_solve((lower, True), b))


def _spectral(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, str]:
    values, vectors = np.linalg.eigh(a)
    noise = b.size * np.finfo(float).eps * float(np.abs(values).max())
    kept = np.abs(values) > noise
    parts = vectors.T @ b
    value = vectors[:, kept] @ (parts[kept] / values[kept])
    notes: list[str] = []
    direction: np.ndarray | None = None
    if values[0] <= noise:
        direction = vectors[:, 0] if parts[0] >= 0 else -vectors[:, 0]
    if values[0] < -noise:
        notes.append(f"The matrix has {int((values < -noise).sum())} negative eigenvalues, down to {values[0]:.3g}.")
    if not kept.all():
        notes.append(
            f"The matrix is singular to rounding (rank {int(kept.sum())} of {b.size}): least squares, least norm."
        )
    return value, direction, " ".join(notes)
