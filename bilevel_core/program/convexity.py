"""Whether a symmetric matrix is positive (semi)definite, up to its own rounding and whatever its entries' scale."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-13
"""What a smallest eigenvalue may lack, for the rounding of entries that are sums of products; the matrix is scaled to a
unit diagonal.
"""
DEFINITE = 1e-9
"""A smallest eigenvalue of the scaled matrix above this is positive beyond doubt."""


def positive_semidefinite(matrix: np.ndarray) -> bool:
    """Eigenvalues of the matrix scaled to a unit diagonal, so that small curvature is not lost beside large.

    A negative entry of the diagonal is negative curvature, however large the others are: what another variable's terms
    are, says nothing of its rounding (`total` drops what is left when terms of one monomial cancel).

    Args:
        matrix: symmetric, shape (n, n).
    """
    diagonal = np.diag(matrix)
    if (diagonal < 0.0).any():
        return False
    flat = diagonal == 0.0
    if matrix[flat].any():
        return False  # a zero on the diagonal with something beside it
    least = _least(matrix[~flat][:, ~flat])
    return least >= -ROUNDING


def positive_definite(matrix: np.ndarray) -> bool:
    """Whether the smallest eigenvalue, scaled as in `positive_semidefinite`, is positive beyond doubt.

    Args:
        matrix: symmetric, shape (n, n).
    """
    return bool((np.diag(matrix) > 0.0).all()) and _least(matrix) > DEFINITE


def _least(matrix: np.ndarray) -> float:
    """The smallest eigenvalue after scaling to a unit diagonal; 1 for a matrix without entries."""
    if matrix.size == 0:
        return 1.0
    scale = 1.0 / np.sqrt(np.diag(matrix))
    return float(np.linalg.eigvalsh(matrix * np.outer(scale, scale))[0])
