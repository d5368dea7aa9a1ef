"""MINRES: symmetric systems that need not be definite."""

from __future__ import annotations

import math

from bilevel_core.errors import UsageError
from bilevel_core.linear.base import Leg, Product, Solution, System, Vector, check_options, norm, nothing, pursue


def minres(
    product: Product,
    b: Vector,
    *,
    start: Vector | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
    preconditioner: Product | None = None,
) -> Solution:
    """Solve ``A v = b`` for a symmetric A, which may be indefinite or singular.

    Good at: indefinite systems, singular ones (least squares), residuals that must not rise. Bad at: nothing much, but
    on positive definite systems `cg` has the smaller error after as many steps and works with fewer vectors; a small
    residual says little about the error when A is ill-conditioned.

    Directions without positive curvature are met on the way (residuals r with ``r.A r <= 0``), confirmed with a
    product, and reported; they don't stop it.

    Args:
        product: v -> A v.
        b: right-hand side, shape (n,).
        start: where to start; dropped when its residual is no smaller than zero's.
        tolerance: on the true relative residual.
        max_iterations: the most steps.
        preconditioner: r -> M r with M symmetric positive definite.

    Raises:
        NonFiniteProductError: a product or b is NaN or infinite.
        UsageError: an option is out of range, or the preconditioner is not positive definite.

    Source:
        Paige and Saunders (1975); curvature test: Liu and Roosta (2022), "MINRES: From Negative Curvature Detection to
        Monotonicity Properties".
    """
    check_options(tolerance=tolerance, max_iterations=max_iterations)
    system = System(product, b)
    if system.size == 0:
        return nothing(b)
    met: list[Vector] = []

    def recursion(v: Vector, r: Vector, target: float, limit: int) -> Leg:
        return _recursion(system, preconditioner, met, v, r, target, limit)

    return pursue(system, recursion, start, tolerance, max_iterations, positive=False)


def _length(r: Vector, y: Vector) -> float:
    """The preconditioner's norm of r, y = M r."""
    square = float(r @ y)
    if not (square >= 0 and math.isfinite(square)):
        raise UsageError(
            f"The preconditioner must be symmetric positive definite; it gave r.M r = {square:g}. "
            "Leave it out, or damp it."
        )
    return math.sqrt(square)


def _recursion(
    system: System,
    preconditioner: Product | None,
    met: list[Vector],
    v: Vector,
    r: Vector,
    target: float,
    limit: int,
) -> Leg:
    """Letters as in the paper's program: Lanczos vectors y / beta, rotations (cs, sn), residual phibar.

    The target is on the residual in the preconditioner's norm, relative to where it starts; `pursue` looks at the true
    one. ``d`` is M times the residual.
    """
    y = r if preconditioner is None else preconditioner(r)
    r1 = r2 = r
    beta1 = beta = phibar = _length(r, y)
    goal = beta1 * target / norm(r)
    old_beta = dbar = epsln = sn = 0.0
    cs = -1.0
    w = w2 = r * 0.0
    d = y
    largest = 0.0
    for k in range(1, limit + 1):
        lanczos = y / beta
        y = system.apply(lanczos, "a Lanczos vector")
        if k > 1:
            y = y - (beta / old_beta) * r1
        alpha = system.check(float(lanczos @ y), "a Lanczos vector")
        y = y - (alpha / beta) * r2
        r1, r2 = r2, y
        y = r2 if preconditioner is None else preconditioner(r2)
        old_beta, beta = beta, _length(r2, y)
        largest = max(largest, math.hypot(alpha, beta, old_beta if k > 1 else 0.0))
        noise = system.epsilon * largest

        old_epsln, delta, gbar = epsln, cs * dbar + sn * alpha, sn * dbar - cs * alpha
        epsln, dbar = sn * beta, -cs * beta
        if not met and -cs * gbar <= noise and _confirmed(system, d, noise):
            met.append(d)
        gamma = math.hypot(gbar, beta)
        # The second is |A r| / |r| before this step: small when r is in the null space as far as one can see.
        if min(gamma, math.hypot(gbar, dbar)) <= 20 * noise:
            return Leg(v, k - 1, "inconsistent", met[0] if met else None)
        cs, sn = gbar / gamma, beta / gamma
        before, phi, phibar = phibar, cs * phibar, sn * phibar
        w, w2 = (lanczos - old_epsln * w2 - delta * w) / gamma, w
        # A pivot near rounding can throw the iterate far off for nothing. A restart finds out whether the operator is
        # singular, or the Lanczos vectors have only worn out.
        gain = before * cs * cs / (1 + sn)
        if noise * abs(phi) * norm(w) > max(system.epsilon**0.25 * gain, system.epsilon**0.5 * before):
            return Leg(v, k - 1, "met", met[0] if met else None)
        v = v + phi * w
        if phibar <= goal or beta <= noise or phibar <= system.epsilon * (beta1 + largest * norm(v)):
            return Leg(v, k, "met", met[0] if met else None)
        d = (sn * sn) * d - (phibar * cs / beta) * y
    return Leg(v, limit, "limit", met[0] if met else None)


def _confirmed(system: System, d: Vector, noise: float) -> bool:
    """Whether the recursion's word on d's curvature holds for the operator itself."""
    curvature = system.check(float(d @ system.apply(d, "a residual")), "a residual")
    return curvature <= noise * float(d @ d)
