"""What all linear solvers share: the solution, the scaled system with its counted product, restarts.

Vectors are flat and of either kind (NumPy arrays or tensors, any precision and device). Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel_core.errors import BilevelError, UsageError

Vector = Any
"""A flat vector: a one-dimensional NumPy array or tensor."""

Product = Callable[[Any], Any]
"""The operator: takes a flat vector v and gives A v, of the same kind and shape."""


class NonFiniteProductError(BilevelError, FloatingPointError):
    """A product with the operator, or the right-hand side, is NaN or infinite. It is never replaced by zeros."""


@dataclass(frozen=True)
class Solution:
    """The answer of a linear solver to ``A v = b``.

    Attributes:
        value: v, shape (n,), of b's kind.
        residual: the true ``|b - A v| / |b|``, from a product with v itself and not from a recursion; 0 for b = 0.
        iterations: steps of the method.
        products: products with A, those for residuals and estimates included.
        converged: whether ``residual`` is within the tolerance.
        negative_curvature: a direction p with ``p.A p <= 0`` up to rounding (``eps |A| |p|^2``) was met: A is not
            positive definite.
        direction: such a direction, of length 1 and not pointing against ``b - A v`` of the
            iterate where it was met; None when none was met.
        at_radius: the value was cut off at the ball asked for.
        step: the step length that was used, of methods that have one.
        message: why the solver stopped, when not because of the tolerance, and what to do about it.
    """

    value: Vector
    residual: float
    iterations: int
    products: int
    converged: bool
    negative_curvature: bool = False
    direction: Vector | None = None
    at_radius: bool = False
    step: float | None = None
    message: str = ""


def norm(v: Vector) -> float:
    """Euclidean length of a flat vector of either kind, without overflow or underflow in its squares."""
    scale = magnitude(v)
    if scale == 0 or not math.isfinite(scale):
        return scale
    scaled = v / scale
    return scale * math.sqrt(float(scaled @ scaled))


def magnitude(v: Vector) -> float:
    """The largest absolute entry; 0 of an empty vector, NaN where there is one."""
    return float(abs(v).max()) if v.shape[0] else 0.0


def precision(v: Vector) -> float:
    """The unit roundoff of the vector's type."""
    name = str(v.dtype).rsplit(".", 1)[-1]
    return {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}.get(name, 2.0**-52)


def cast(values: np.ndarray, like: Vector) -> Vector:
    """An array as a vector or matrix of another one's kind, type and device."""
    if isinstance(like, np.ndarray):
        return values.astype(like.dtype if like.dtype.kind == "f" else float)
    return like.new_tensor(values)


def detached(v: Vector) -> Vector:
    """The vector without its graph: iterates that kept one would hold all memory of the solve."""
    return v.detach() if getattr(v, "requires_grad", False) else v


def to_numpy(v: Vector) -> np.ndarray:
    """A float64 copy on the CPU."""
    if isinstance(v, np.ndarray):
        return v.astype(float)
    return v.detach().double().cpu().numpy().copy()


def check_options(**options: float | None) -> None:
    """Raise `UsageError` for a negative or non-finite option. None stands for "not given"."""
    for name, value in options.items():
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise UsageError(f"{name} must be a finite number that is not negative. Got {value!r}.")


class System:
    """``A v = b`` scaled so that b's largest entry is about 1, with products counted and checked.

    The scale is a power of two: it costs no accuracy, and keeps squares of tiny or huge entries inside float32's range.
    """

    def __init__(self, product: Product, b: Vector) -> None:
        b = detached(b)
        largest = magnitude(b)
        self.epsilon = precision(b)
        if not math.isfinite(largest):
            raise NonFiniteProductError("The right-hand side b of the linear system has NaN or infinite entries.")
        self._product = product
        self.scale = (
            math.ldexp(1.0, max(math.frexp(largest)[1] - 1, -1000 if self.epsilon < 1e-10 else -120))
            if largest > 0
            else 1.0
        )
        self.b = b / self.scale
        self.size = norm(self.b)
        self.products = 0

    def apply(self, v: Vector, what: str = "a vector") -> Vector:
        """A v, not checked: for callers that look at a dot product with it anyway, see `check`."""
        self.products += 1
        out = self._product(v)
        if getattr(out, "shape", None) != v.shape:
            raise UsageError(
                f"The product A v must have v's shape. Expected {tuple(v.shape)}. "
                f"Got {tuple(getattr(out, 'shape', ()))} for {what}."
            )
        return detached(out)

    def check(self, figure: float, what: str) -> float:
        """A figure made from the last product; NaN and infinity raise."""
        if not math.isfinite(figure):
            raise NonFiniteProductError(
                f"Product {self.products} with the linear operator (a Hessian, usually), of {what}, is NaN or "
                "infinite; look for a NaN in the second derivatives of the lower objective at this point."
            )
        return figure

    def residual(self, v: Vector) -> tuple[Vector, float]:
        """``b - A v`` and its length relative to b's."""
        r = self.b - self.apply(v, "an iterate")
        return r, self.check(norm(r), "an iterate") / self.size

    def scaled(self, start: Vector) -> Vector:
        """A start given by the caller, in this system's scale."""
        if start.shape != self.b.shape:
            raise UsageError(f"start must have b's shape. Expected {tuple(self.b.shape)}. Got {tuple(start.shape)}.")
        v = detached(start) / self.scale
        if not math.isfinite(magnitude(v)):
            raise UsageError("start has NaN or infinite entries; leave it out to start from zero.")
        return v

    def solution(self, v: Vector, residual: float, iterations: int, converged: bool, **more: Any) -> Solution:
        """The solution in the caller's scale."""
        direction = more.pop("direction", None)
        if direction is not None:
            direction = direction / norm(direction)
        value = v * self.scale
        return Solution(
            value, residual, iterations, self.products, converged, direction is not None, direction=direction, **more
        )


def nothing(b: Vector) -> Solution:
    """The solution for b = 0, at once."""
    return Solution(b * 0.0, 0.0, 0, 0, True)


@dataclass
class Leg:
    """One uninterrupted recursion of a Krylov method.

    Attributes:
        value: the iterate it ended at.
        iterations: its steps.
        stop: "met" (its own residual says so), "limit", "curvature", "radius" or "inconsistent".
        direction: one without positive curvature.
    """

    value: Vector
    iterations: int
    stop: str
    direction: Vector | None = None


Recursion = Callable[[Vector, Vector, float, int], Leg]
"""(v, r, target, limit): starts at v with its true residual r, and stops when its own residual is within the target, or
after so many steps."""


MESSAGES = {
    "limit": "Stopped at max_iterations = {limit} with residual {residual:.2g}; raise it, or use a preconditioner.",
    "curvature": "Met a direction without positive curvature: the operator is not positive definite, and the value is "
    "the last iterate before it. Use minres, or add damping to the operator.",
    "radius": "Stopped at the boundary of the ball.",
    "bent": "Followed a direction without positive curvature to the boundary of the ball.",
    "inconsistent": "The operator is singular and b is not in its range: the value is a least-squares solution with "
    "residual {residual:.2g}.",
    "floor": "Stagnated at residual {residual:.2g}, which is what products in this precision attain; raise the "
    "tolerance, or use a higher precision.",
}


def pursue(
    system: System,
    recursion: Recursion,
    start: Vector | None,
    tolerance: float,
    max_iterations: int,
    *,
    positive: bool,
) -> Solution:
    """Run a recursion until the true residual meets the tolerance, restarting it where its own residual has drifted.

    A restart that doesn't halve the true residual ends it: the precision is used up.

    Args:
        system: what is solved.
        recursion: the method.
        start: in the caller's scale.
        tolerance: on the true relative residual.
        max_iterations: over all restarts.
        positive: the method wants a positive definite operator, so that starts are judged by ``v.A v / 2 - b.v``.
    """
    direction: Vector | None = None
    v, r, size = system.b * 0.0, system.b, 1.0
    if start is not None:
        warm = system.scaled(start)
        warm_r, warm_size = system.residual(warm)
        pushed = float(warm @ (system.b - warm_r))
        bent = positive and magnitude(warm) > 0 and pushed < -system.epsilon * norm(warm) * norm(system.b - warm_r)
        if bent and warm_size > tolerance:
            direction = warm if float(warm @ system.b) >= 0 else -warm
        elif warm_size <= tolerance or (float(warm @ (system.b + warm_r)) > 0 if positive else warm_size < 1):
            v, r, size = warm, warm_r, warm_size
    used, legs, stop = 0, 0, "met"
    while size > tolerance:
        if used >= max_iterations:
            stop = "limit"
            break
        leg = recursion(v, r, tolerance * system.size, max_iterations - used)
        used, legs, stop = used + leg.iterations, legs + 1, leg.stop
        direction = leg.direction if leg.direction is not None else direction
        if leg.iterations == 0:
            break
        new_r, new_size = system.residual(leg.value)
        # Only a recursion that rounding has taken over ends with more than it began with; a conjugate gradient method
        # that ran out of steps may, too, and has the smaller error all the same.
        if new_size > max(size, 1.0) and not (positive and stop in ("limit", "radius")):
            stop = "floor" if stop == "met" else stop
            break
        if legs > 1 and new_size > 0.5 * size and stop in ("met", "limit"):
            if new_size < size:
                v, size = leg.value, new_size
            stop = "floor" if stop == "met" else stop
            break
        v, r, size = leg.value, new_r, new_size
        if stop != "met":
            break
    message = ""
    if size > tolerance or stop == "radius":
        kind = "bent" if stop == "radius" and direction is not None else "floor" if stop == "met" else stop
        message = MESSAGES[kind].format(limit=max_iterations, residual=size)
    return system.solution(
        v, size, used, size <= tolerance, direction=direction, at_radius=stop == "radius", message=message
    )
