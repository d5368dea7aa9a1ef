"""Richardson's iteration, as a truncated Neumann series or run to a tolerance."""

from __future__ import annotations

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.linear.base import Product, Solution, System, Vector, check_options, norm, nothing
from bilevel_core.linear.spectrum import largest_eigenvalue


def neumann(
    product: Product,
    b: Vector,
    *,
    terms: int = 50,
    step: float | None = None,
    start: Vector | None = None,
    tolerance: float = 1e-8,
    seed: int = 0,
) -> Solution:
    """Approximate ``A v = b`` by the series ``sum over k < terms of (I - step A)^k step b``.

    Good at: cheap, smooth approximations of well-conditioned systems. Bad at: ill-conditioned ones: the error after K
    terms is about ``(1 - 1 / condition)^K``. Diverges for indefinite operators and steps over 2 over the largest
    eigenvalue; both are detected, and the best iterate returned.

    Args:
        product: v -> A v.
        b: right-hand side, shape (n,).
        terms: how many; each costs one product.
        step: its length; one over the largest eigenvalue, estimated (`largest_eigenvalue`), when None. The solution
            names it.
        start: continue the series from here instead of zero.
        tolerance: fewer terms are taken once the relative residual is within this.
        seed: of the estimate.

    Raises:
        NonFiniteProductError: a product or b is NaN or infinite.
        UsageError: an option is out of range.

    Source:
        Lorraine, Vicol, Duvenaud (2020), "Optimizing Millions of Hyperparameters by Implicit Differentiation".
    """
    check_options(tolerance=tolerance, terms=terms, step=step)
    return _richardson(product, b, start, step, tolerance, terms, seed, "terms")


def fixed_point(
    product: Product,
    b: Vector,
    *,
    step: float | None = None,
    start: Vector | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
    seed: int = 0,
) -> Solution:
    """Iterate ``v <- v - step (A v - b)`` until the relative residual is within the tolerance.

    The same iteration as `neumann`, with a tolerance in the place of a number of terms; what is said there holds.

    Args:
        product: v -> A v.
        b: right-hand side, shape (n,).
        step: as in `neumann`.
        start: where to start; zero by default.
        tolerance: on the true relative residual.
        max_iterations: the most steps, each of one product.
        seed: of the estimate of the step.

    Raises:
        NonFiniteProductError: a product or b is NaN or infinite.
        UsageError: an option is out of range.

    Source:
        Grazzi, Franceschi, Pontil, Salzo (2020), "On the Iteration Complexity of Hypergradient Computation".
    """
    check_options(tolerance=tolerance, max_iterations=max_iterations, step=step)
    return _richardson(product, b, start, step, tolerance, max_iterations, seed, "max_iterations")


BENT = (
    "Met a direction of negative curvature: the series diverges for this operator, and the value is the last iterate "
    "before it. Use minres, or add damping to the operator."
)


def _bent(system: System, r: Vector, ar: Vector) -> Vector | None:
    """A direction of negative curvature in the span of r and A r, from one more product; None when there is none.

    With a step within 1 / |A| a rising residual proves that there is one: A positive semidefinite gives
    ``|r - step A r| <= |r|``, and the two-dimensional restriction already has the negative determinant.
    """
    first = r / norm(r)
    slope = ar / norm(r)
    rest = slope - float(first @ slope) * first
    size = norm(rest)
    if size <= system.epsilon * norm(slope):
        return None
    second = rest / size
    image = system.apply(second, "a residual's image")
    corner = system.check(float(second @ image), "a residual's image")
    values, ways = np.linalg.eigh(np.array([[float(first @ slope), size], [size, corner]]))
    if values[0] >= -8 * system.epsilon * float(np.abs(values).max()):
        return None
    found = float(ways[0, 0]) * first + float(ways[1, 0]) * second
    return found if float(found @ r) >= 0 else -found


def _richardson(
    product: Product,
    b: Vector,
    start: Vector | None,
    step: float | None,
    tolerance: float,
    limit: int,
    seed: int,
    limit_name: str,
) -> Solution:
    if step == 0:
        raise UsageError("step must be positive. Got 0.")
    system = System(product, b)
    if system.size == 0:
        return nothing(b)
    v, r, size = system.b * 0.0, system.b, 1.0
    if start is not None:
        v = system.scaled(start)
        r, size = system.residual(v)
    if size <= tolerance:
        return system.solution(v, size, 0, True, step=step)
    note = ""
    if step is None:
        lipschitz = largest_eigenvalue(lambda q: system.apply(q, "a random vector"), system.b, seed)
        if lipschitz == 0:
            return system.solution(
                v, size, 0, False, direction=r, message="The operator is zero: there is no step and no solution."
            )
        step = 1.0 / lipschitz
        note = f"Step {step:.4g}, one over the estimated largest eigenvalue."
    largest, used = 0.0, 0
    direction: Vector | None = None
    message = ""
    while size > tolerance:
        if used >= limit:
            message = f"Stopped at {limit_name} = {limit} with residual {size:.2g}; raise it, or use cg."
            break
        ahead = v + step * r
        new_r, new_size = system.residual(ahead)
        used += 1
        # r - new_r is step A r: curvature along the residual costs no product.
        change = r - new_r
        squared = float(r @ r)
        curvature = float(r @ change) / (step * squared)
        largest = max(largest, norm(change) / (step * squared**0.5))
        rounding = 8 * system.epsilon * (1.0 + largest * norm(ahead) / system.size)
        if size <= rounding and new_size >= size:
            message = f"Stagnated at residual {size:.2g}, which is what products in this precision attain."
            break
        if curvature * size < -largest * rounding:
            direction = r
            message = BENT
            break
        if new_size > size + rounding:
            direction = _bent(system, r, change / step)
            message = (
                BENT
                if direction is not None
                else (
                    f"The residual rises from {size:.2g} to {new_size:.2g}: step {step:.4g} is too long for this "
                    f"operator, or it is indefinite. Use a step of at most {1.0 / largest:.4g}, or minres."
                )
            )
            break
        v, r, size = ahead, new_r, new_size
    return system.solution(
        v,
        size,
        used,
        size <= tolerance,
        direction=direction,
        step=step,
        message=" ".join(part for part in (message, note) if part),
    )
