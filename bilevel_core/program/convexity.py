"""Whether a symmetric matrix is positive semidefinite, up to rounding and whatever the scale of its entries."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-12
TOLERANCE = 1e-9


def positive_semidefinite(matrix: np.ndarray) -> bool:
    """Eigenvalues of the matrix scaled to a unit diagonal, so that small curvature is not lost beside large.

    Args:
        matrix: symmetric, shape (n, n).
    """
    if matrix.size == 0:
        return True
    largest = float(np.abs(matrix).max())
    diagonal = np.diag(matrix)
    if (diagonal < -ROUNDING * largest).any():
        return False
    flat = diagonal <= ROUNDING * largest
    if (np.abs(matrix[flat]) > ROUNDING * largest).any():
        return False  # a zero on the diagonal with something beside it
    kept = matrix[~flat][:, ~flat]
    if kept.size == 0:
        return True
    scale = 1.0 / np.sqrt(np.diag(kept))
    return bool(np.linalg.eigvalsh(kept * np.outer(scale, scale))[0] >= -TOLERANCE)
