"""Linear systems with a symmetric operator that is known by its products only, and small dense ones.

Knows nothing of bilevel problems. Vectors are NumPy arrays or tensors; each solver returns a `Solution` with the true
residual, and says when it met a direction without positive curvature.
"""

from bilevel_core.linear.base import NonFiniteProductError, Product, Solution, Vector, norm
from bilevel_core.linear.cg import cg
from bilevel_core.linear.dense import dense
from bilevel_core.linear.minres import minres
from bilevel_core.linear.nystrom import NystromApproximation, nystrom, nystrom_approximation, nystrom_preconditioner
from bilevel_core.linear.solve import METHODS, solve
from bilevel_core.linear.spectrum import largest_eigenvalue
from bilevel_core.linear.stationary import fixed_point, neumann

__all__ = [
    "METHODS",
    "NonFiniteProductError",
    "NystromApproximation",
    "Product",
    "Solution",
    "Vector",
    "cg",
    "dense",
    "fixed_point",
    "largest_eigenvalue",
    "minres",
    "neumann",
    "norm",
    "nystrom",
    "nystrom_approximation",
    "nystrom_preconditioner",
    "solve",
]
