"""The Hessian of the reduced objective Phi(x) = F(x, y(x)), by products."""

from __future__ import annotations

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients.base import HypergradientSettings
from bilevel_core.hypergradients.system import OptimalitySystem
from bilevel_core.lower import Response
from bilevel_core.oracles import Oracle, Vector


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
            raise UsageError("The Hessian of the reduced objective takes lower bounds, but no lower constraints.")
        curved = oracle.adjoint_curvature(x, response.y, adjoint)
        if curved is None:
            raise UsageError(f"There are no third derivatives for {oracle.form} problems.")
        self._curved = curved
        self._system = OptimalitySystem(oracle, x, response, settings)

    def product(self, d: np.ndarray) -> np.ndarray:
        """The Hessian times a direction, shape (nx,)."""
        moved = self._system.follow(d)
        by_x, by_y = self._curved.product(d, moved.v)
        return self._system.total(by_x, self._system.solve(by_y))
