"""The Hessian of the reduced objective Phi(x) = F(x, y(x)), by products."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients.base import HypergradientSettings
from bilevel_core.hypergradients.system import OptimalitySystem, Solved
from bilevel_core.lower import Response
from bilevel_core.oracles import Oracle, Vector

DENSE = 500
"""Lower variables up to which the lower Hessian is written out and factored once, for all products at a point."""


class ReducedHessian:
    """Products with the Hessian of Phi at an answer of the lower level; no further lower-level solve is needed.

    The hypergradient is ``Psi_x`` with ``Psi = F - v . f_y`` and v such that ``Psi_y = 0``. Along a direction d in x
    the answer moves by ``e = -f_yy^-1 f_yx d`` and the adjoint by ``w = f_yy^-1 (Psi_yx d + Psi_yy e)``, so that

        Hessian d = Psi_xx d + Psi_xy e - f_xy w

    Two linear solves and one product with second derivatives of Psi, that is third ones of f. Lower variables at bounds
    are held there: the derivative of the piece that the answer lies on.

    Source: Wang, Navon, Le Dimet, Zou (1992), The second order adjoint analysis: theory and applications, Meteorology
    and Atmospheric Physics 50.

    Args:
        oracle: the problem; its lower level has no constraints besides bounds.
        x: upper variables, shape (nx,).
        response: the lower level's answer there.
        adjoint: v of the hypergradient there.
        settings: method and accuracy of the linear solves.

    Raises:
        UsageError: constraints of the lower level, or no second derivatives of the adjoint.
    """

    def __init__(
        self,
        oracle: Oracle,
        x: np.ndarray,
        response: Response,
        adjoint: Vector,
        settings: HypergradientSettings | None = None,
    ) -> None:
        if oracle.has_lower_rows:
            raise UsageError(
                "The reduced Hessian takes lower bounds, but no lower constraints: leave out hessian=exact."
            )
        curved = oracle.adjoint_curvature(x, response.y, adjoint)
        if curved is None:
            raise UsageError(f"There are no third derivatives for {oracle.form} problems: leave out hessian=exact.")
        self._oracle, self._curved = oracle, curved
        self._system = OptimalitySystem(oracle, x, response, settings)
        self._free = np.flatnonzero(~self._system.fixed)
        self._factor = self._factored() if oracle.ny <= DENSE and self._system.settings.mode == "cg" else None

    def product(self, d: np.ndarray) -> np.ndarray:
        """The Hessian times a direction, shape (nx,)."""
        moved = self._solved(-self._system.curvature.mixed_y(d))
        by_x, by_y = self._curved.product(d, moved.v)
        return self._system.total(by_x, self._solved(by_y))

    def _factored(self) -> Any:
        """The Cholesky factor of f_yy on the free variables; None where it is not positive definite."""
        matrix = self._system.curvature.dense()[np.ix_(self._free, self._free)]
        matrix[np.diag_indices(self._free.size)] += self._system.settings.damping
        try:
            return scipy.linalg.cho_factor(matrix, lower=True)
        except np.linalg.LinAlgError:
            return None

    def _solved(self, a: Vector) -> Solved:
        if self._factor is None:
            return self._system.solve(a)
        v = np.zeros(self._oracle.ny)
        v[self._free] = scipy.linalg.cho_solve(self._factor, self._oracle.to_numpy(a)[self._free])
        return Solved(self._oracle.from_numpy(v), np.zeros(0), 0.0)
