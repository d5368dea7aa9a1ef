"""The linear system that the lower level's optimality conditions become at an answer, and its solves.

    [ L_yy   A' ] [ v ]   [ a ]
    [ A      0  ] [ s ] = [ b ]

with A the Jacobian by y of the active constraints; variables at active bounds are left out. The same matrix gives the
adjoint of a hypergradient and the follower's move along a direction in x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.hypergradients.active import active_set
from bilevel_core.hypergradients.base import HypergradientSettings
from bilevel_core.linear import Solution, cg, minres, solve
from bilevel_core.lower import Response
from bilevel_core.oracles import Curvature, Oracle, Vector, norm
from bilevel_core.oracles.vanishing import answer_curvature

INDEFINITE = "The lower Hessian is not positive definite at y (y is no strict minimum, or rounding hides it)"
LARGEST = 1500
"""Lower variables and constraints together up to which systems with constraints are solved, densely."""


@dataclass(frozen=True)
class Solved:
    """A solution of the system.

    Attributes:
        v: the part over y, a vector of the oracle's kind; zero at fixed variables.
        s: the part over the active rows, inequalities first.
        residual: relative residual.
        negative_curvature: the matrix is not positive definite on the directions that the active constraints leave.
        message: what was out of order.
    """

    v: Vector
    s: np.ndarray
    residual: float
    negative_curvature: bool = False
    message: str = ""


class OptimalitySystem:
    """The system at one answer; made once, solved for several right-hand sides.

    Args:
        oracle: the problem.
        x: upper variables, shape (nx,).
        response: the lower level's answer there.
        settings: method and accuracy of the solves.
        hold_weak: keep weakly active constraints at equality too.
    """

    def __init__(
        self,
        oracle: Oracle,
        x: np.ndarray,
        response: Response,
        settings: HypergradientSettings | None = None,
        *,
        hold_weak: bool = False,
    ) -> None:
        self.oracle = oracle
        self.settings = settings or HypergradientSettings()
        self.x = x
        self.rows = oracle.lower_rows(x, response.y, jacobian=True) if oracle.has_lower_rows else None
        self.curvature = self._curvature(response)
        self.active = active_set(oracle, x, response, self.rows, self.curvature)
        held = self.active.strong | self.active.weak if hold_weak else self.active.strong
        fixed = self.active.fixed | self.active.weak_bounds if hold_weak else self.active.fixed
        self.held, self.fixed = held, fixed
        self.row_x, self.row_y = self._jacobians(held)
        self._matrix: np.ndarray | None = None

    def _curvature(self, response: Response) -> Curvature:
        if self.settings.curvature == "gauss-newton":
            make: Any = self.oracle.curvature
            if self.oracle.form != "differentiable":
                raise UsageError("Gauss-Newton products are for differentiable problems; use curvature='hessian'.")
            return make(self.x, response.y, response.inequality, response.equality, gauss_newton=True)
        return answer_curvature(self.oracle, self.x, response.y, response.inequality, response.equality)

    def _jacobians(self, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows
        if rows is None:
            return np.zeros((0, self.oracle.nx)), np.zeros((0, self.oracle.ny))
        assert rows.g_x is not None
        assert rows.g_y is not None
        assert rows.h_x is not None
        assert rows.h_y is not None
        return np.vstack([rows.g_x[held], rows.h_x]), np.vstack([rows.g_y[held], rows.h_y])

    @property
    def row_count(self) -> int:
        """Active rows: inequalities held at equality, and equalities."""
        return self.row_y.shape[0]

    def solve(self, a: Vector, b: np.ndarray | None = None, start: Vector | None = None) -> Solved:
        """Solve for a right-hand side.

        Args:
            a: the part over y, a vector of the oracle's kind.
            b: the part over the active rows; zeros by default.
            start: an approximation of v to start from (iterative methods without constraints).

        Raises:
            UsageError: the mode is none for constrained lower levels, or the system is too large for a dense solve.
        """
        if self.row_count or self.settings.mode == "dense":
            if self.settings.mode not in ("cg", "minres", "dense"):
                raise UsageError(
                    f"Mode {self.settings.mode!r} takes no lower constraints: use 'cg', which solves the active set's "
                    "system."
                )
            return self._dense(a, np.zeros(self.row_count) if b is None else b)
        if self.fixed.any():
            mask = self.oracle.from_numpy((~self.fixed).astype(float))
            found = self._iterative(lambda v: mask * self._damped(mask * v), mask * a, start)
            return self._solved(found, mask * found.value)
        found = self._iterative(self._damped, a, start)
        return self._solved(found, found.value)

    def _damped(self, v: Vector) -> Vector:
        out = self.curvature.product(v)
        damping = self.settings.damping
        # Of Nystrom the damping belongs to the preconditioner.
        return out if damping == 0.0 or self.settings.mode == "nystrom" else out + damping * v

    def _solved(self, found: Solution, v: Vector) -> Solved:
        message = found.message
        if found.negative_curvature and INDEFINITE not in message:
            message = f"{INDEFINITE}. {message}".strip()
        if not found.converged and not message:
            message = f"The linear solve stopped at a relative residual of {found.residual:.2g}."
        return Solved(v, np.zeros(0), found.residual, found.negative_curvature, message)

    def _iterative(self, product: Any, b: Vector, start: Vector | None) -> Solution:
        s = self.settings
        if s.mode == "cg":
            found = cg(product, b, start=start, tolerance=s.tolerance, max_iterations=s.max_iterations)
            if not found.negative_curvature:
                return found
            # The system still has a solution: a method for indefinite ones finds it, and the flag stays.
            other = minres(product, b, start=start, tolerance=s.tolerance, max_iterations=s.max_iterations)
            message = f"{INDEFINITE}: the system was solved by MINRES. {other.message}"
            return Solution(
                other.value, other.residual, other.iterations, found.products + other.products, other.converged, True,
                found.direction, message=message.strip(),
            )  # fmt: skip
        options: dict[str, Any] = {"tolerance": s.tolerance}
        if s.mode == "neumann":
            options |= {"terms": s.steps, "step": s.step, "seed": s.seed}
        elif s.mode == "fixed-point":
            options |= {"max_iterations": s.max_iterations, "step": s.step, "start": start, "seed": s.seed}
        elif s.mode == "nystrom":
            options |= {"rank": s.rank, "damping": s.damping, "seed": s.seed, "max_iterations": s.max_iterations}
        else:
            options |= {"max_iterations": s.max_iterations, "start": start}
        return solve(product, b, s.mode, **options)

    # With constraints: dense.

    def _free(self) -> np.ndarray:
        return np.flatnonzero(~self.fixed)

    def _full_matrix(self) -> np.ndarray:
        if self._matrix is None:
            free, m = self._free(), self.row_count
            if free.size + m > LARGEST:
                raise UsageError(
                    f"The lower level has {free.size} free variables and {m} active constraints; systems with "
                    f"constraints are solved densely, up to {LARGEST}. Bounds alone have no such limit."
                )
            hessian = self.curvature.dense()[np.ix_(free, free)]
            rows = self.row_y[:, free]
            self._matrix = np.block([[hessian, rows.T], [rows, np.zeros((m, m))]])
            if self.settings.damping:
                self._matrix[: free.size, : free.size] += self.settings.damping * np.eye(free.size)
        return self._matrix

    def _dense(self, a: Vector, b: np.ndarray) -> Solved:
        free = self._free()
        matrix = self._full_matrix()
        right = np.concatenate([self.oracle.to_numpy(a)[free], b])
        size = float(np.linalg.norm(right))
        if size == 0.0 or not free.size:
            return Solved(self.oracle.zeros(), np.zeros(self.row_count), 0.0)
        message = ""
        try:
            found = np.linalg.solve(matrix, right)
            residual = float(np.linalg.norm(matrix @ found - right)) / size
        except np.linalg.LinAlgError:
            residual = math.inf
            found = right
        if not residual < 1e-8 or float(np.abs(found).max()) > 1e12 * max(1.0, size):
            found = np.linalg.lstsq(matrix, right, rcond=1e-11)[0]
            residual = float(np.linalg.norm(matrix @ found - right)) / size
            message = "The optimality system is singular: the follower's answer or its multipliers are not unique."
        v = np.zeros(self.oracle.ny)
        v[free] = found[: free.size]
        indefinite = self.reduced_curvature() < -1e-10
        if indefinite:
            message = f"{INDEFINITE}. {message}".strip()
        return Solved(self.oracle.from_numpy(v), found[free.size :], residual, indefinite, message)

    def reduced_curvature(self) -> float:
        """The smallest eigenvalue of L_yy, relative to its largest entry, on the directions that the active
        constraints leave free; infinity where they leave none. Dense.
        """
        free = self._free()
        hessian = self._full_matrix()[: free.size, : free.size]
        scale = max(1e-300, float(np.abs(hessian).max(initial=0.0)))
        basis = np.eye(free.size)
        if self.row_count:
            _, values, vectors = np.linalg.svd(self.row_y[:, free])
            rank = int((values > 1e-10 * max(1.0, values.max(initial=0.0))).sum())
            basis = vectors[rank:].T
        if basis.shape[1] == 0:
            return math.inf
        return float(np.linalg.eigvalsh(basis.T @ hessian @ basis)[0]) / scale

    def total(self, f_x: np.ndarray, found: Solved) -> np.ndarray:
        """f_x - L_xy v - A_x' s: d/dx of the function whose gradient by y was the right-hand side of ``found``."""
        out = f_x - self.curvature.mixed_x(found.v)
        return out - self.row_x.T @ found.s if self.row_count else out

    def bias(self, response: Response, found: Solved) -> float:
        """v . L_y + s . c, with c the values of the active rows: how far a function is from its value at the exact
        answer, to first order, where its gradient by y was the right-hand side of ``found``.
        """
        gradient = response.details.get("gradient")
        bias = response.residual * norm(found.v)
        if gradient is not None:
            bias = float(found.v @ gradient)
        if self.rows is not None:
            bias += float(found.s @ np.concatenate([self.rows.g[self.held], self.rows.h]))
        return bias

    def follow(self, d: np.ndarray, start: Vector | None = None) -> Solved:
        """The follower's move along a direction in x, shape (nx,): d_y as ``v``, the multipliers' as ``s``."""
        return self.solve(-self.curvature.mixed_y(d), -self.row_x @ d if self.row_count else None, start)

    def consistent(self, found: Solved) -> bool:
        """Whether the solve succeeded well enough to be used."""
        return found.residual <= max(1e-4, 10.0 * self.settings.tolerance)
