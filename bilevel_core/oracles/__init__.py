"""What iterative solvers ask of a problem at a point: values, gradients, curvature, constraints. One interface, two
implementations: PyTorch's automatic differentiation, and CasADi's symbolic derivatives of the algebraic form.
"""

from bilevel_core.oracles.base import (
    AdjointCurvature,
    Curvature,
    NonFiniteError,
    Oracle,
    Rows,
    Vector,
    norm,
    some_of,
)
from bilevel_core.oracles.make import make_oracle

__all__ = [
    "AdjointCurvature",
    "Curvature",
    "NonFiniteError",
    "Oracle",
    "Rows",
    "Vector",
    "make_oracle",
    "norm",
    "some_of",
]
