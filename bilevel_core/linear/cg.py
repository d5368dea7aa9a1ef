"""Conjugate gradients, truncated at negative curvature and, if asked, at a ball."""

from __future__ import annotations

import math

from bilevel_core.errors import UsageError
from bilevel_core.linear.base import (
    Leg,
    Product,
    Solution,
    System,
    Vector,
    check_options,
    norm,
    nothing,
    pursue,
)


def cg(
    product: Product,
    b: Vector,
    *,
    start: Vector | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
    preconditioner: Product | None = None,
    radius: float | None = None,
) -> Solution:
    """Solve ``A v = b`` for a symmetric positive definite A.

    Good at: large, matrix-free, well-conditioned or well-preconditioned systems; the error falls with every step, so a
    truncated solve is useful too. Bad at: indefinite systems (it stops at the first direction without positive
    curvature; `minres` goes on).

    At ``max_iterations`` the last iterate is returned: its error is the smallest, though an earlier one may have had a
    smaller residual. At negative curvature the last iterate before it is returned, which is zero (or the start) when
    the first direction has it already; iterates with a larger residual than zero's don't count there, as a curvature
    just above zero has thrown them far off.

    Args:
        product: v -> A v.
        b: right-hand side, shape (n,).
        start: where to start; dropped when zero is the better start (by ``v.A v / 2 - b.v``).
        tolerance: on the true relative residual.
        max_iterations: the most steps.
        preconditioner: r -> M r with M symmetric positive definite and close to A's inverse.
        radius: stop where the iterate leaves the ball of this radius; at negative curvature go to its boundary, too.

    Raises:
        NonFiniteProductError: a product or b is NaN or infinite.
        UsageError: an option is out of range, the start lies outside the ball, or the preconditioner is not positive
            definite.

    Source:
        Hestenes and Stiefel (1952); with a radius, Steihaug (1983). Restarts on the true residual: van der Vorst and
        Ye (2000).
    """
    check_options(tolerance=tolerance, max_iterations=max_iterations, radius=radius)
    system = System(product, b)
    if system.size == 0:
        return nothing(b)
    bound = None if radius is None else radius / system.scale
    if bound is not None and start is not None and norm(system.scaled(start)) > bound:
        raise UsageError(f"start lies outside the ball of radius {radius:g}; shorten it, or leave it out.")
    if bound == 0:
        return system.solution(system.b * 0.0, 1.0, 0, False, at_radius=True, message="The ball has radius 0.")

    def recursion(v: Vector, r: Vector, target: float, limit: int) -> Leg:
        return _recursion(system, preconditioner, bound, v, r, target, limit)

    return pursue(system, recursion, start, tolerance, max_iterations, positive=True)


def _recursion(
    system: System,
    preconditioner: Product | None,
    bound: float | None,
    v: Vector,
    r: Vector,
    target: float,
    limit: int,
) -> Leg:
    z, rz, size = _preconditioned(preconditioner, r)
    p = z
    largest = 0.0
    safe = v
    length = norm(v)  # An upper bound of |v| from here on: saves a dot product a step.
    for k in range(1, limit + 1):
        ap = system.apply(p, "a search direction")
        curvature = system.check(float(p @ ap), "a search direction")
        pp = float(p @ p)
        largest = max(largest, abs(curvature) / pp)
        if curvature <= system.epsilon * largest * pp:
            if bound is not None:
                return Leg(v + _to_boundary(v, p, bound) * p, k, "radius", p)
            return Leg(safe, k - 1, "curvature", p)
        alpha = rz / curvature
        ahead = v + alpha * p
        if bound is not None and norm(ahead) >= bound:
            return Leg(v + _to_boundary(v, p, bound) * p, k, "radius")
        v = ahead
        r = r - alpha * ap
        length += alpha * math.sqrt(pp)
        z, new, size = _preconditioned(preconditioner, r)
        safe = v if size <= system.size else safe
        if size <= max(target, system.epsilon * (system.size + largest * length)) and (
            size <= target or size <= system.epsilon * (system.size + largest * norm(v))
        ):
            return Leg(v, k, "met")
        p = z + (new / rz) * p
        rz = new
    return Leg(v, limit, "limit")


def _preconditioned(preconditioner: Product | None, r: Vector) -> tuple[Vector, float, float]:
    """M r, r.M r and the length of r."""
    square = float(r @ r)
    if preconditioner is None or square == 0:
        return r, square, math.sqrt(square)
    z = preconditioner(r)
    rz = float(r @ z)
    if not (rz > 0 and math.isfinite(rz)):
        raise UsageError(
            f"The preconditioner must be symmetric positive definite; it gave r.M r = {rz:g} for a residual r. "
            "Leave it out, or damp it."
        )
    return z, rz, math.sqrt(square)


def _to_boundary(v: Vector, p: Vector, bound: float) -> float:
    """The t >= 0 with |v + t p| = bound."""
    pp, vp, gap = float(p @ p), float(v @ p), max(bound * bound - float(v @ v), 0.0)
    root = math.sqrt(vp * vp + pp * gap)
    # Of the two forms of the root, the one without cancellation.
    return gap / (vp + root) if vp > 0 else (root - vp) / pp
