"""The oracle interface. Solvers, hypergradients and lower-level solvers see a problem only through it.

Conventions, the same for all implementations:

- Both levels are minimised. Objectives in the user's sense come back only from `Oracle.objectives`.
- ``x`` is a NumPy array of float64, shape (nx,). The upper level is small enough to be handled on the CPU.
- ``y`` is a flat vector of the oracle's own kind, shape (ny,): a NumPy array, or a tensor on its device and of its
  dtype. Generic code uses only ``+ - * @``, `norm` and the oracle's `zeros`, `to_numpy`, `from_numpy` on it.
- Constraints are ``g <= 0`` and ``h = 0`` with values and Jacobians as dense float64 arrays. Bounds are not among
  them: they are `x_lower`, `x_upper`, `y_lower`, `y_upper`, with infinities where absent.
- Every evaluation is counted in `counts`, and a NaN or infinity raises `NonFiniteError` with the name of the term.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from bilevel_core.errors import BilevelError
from bilevel_core.result import Values

TOLD = 24
"""Of how many of the leader's variables the events of a run tell: enough to see the way, few enough for any log."""
Vector = Any
"""A flat vector of the oracle's own kind: a one-dimensional NumPy array or tensor."""


class NonFiniteError(BilevelError):
    """A value or derivative is NaN or infinite. ``term`` names it, such as ``lower(x, y)``."""

    def __init__(self, term: str, detail: str = "") -> None:
        self.term = term
        super().__init__(f"{term} is not finite{': ' + detail if detail else ''}.")


@dataclass(frozen=True)
class Rows:
    """One level's constraints at a point, linearised.

    Attributes:
        g: values of the inequality constraints ``g <= 0``, shape (m,).
        h: values of the equality constraints ``h = 0``, shape (p,).
        g_x, g_y, h_x, h_y: their Jacobians, shapes (m, nx), (m, ny), (p, nx), (p, ny); None when not asked for.
        g_names, h_names: what to call each row in messages.
    """

    g: np.ndarray
    h: np.ndarray
    g_x: np.ndarray | None = None
    g_y: np.ndarray | None = None
    h_x: np.ndarray | None = None
    h_y: np.ndarray | None = None
    g_names: tuple[str, ...] = ()
    h_names: tuple[str, ...] = ()

    @property
    def violation(self) -> float:
        """The largest violation, 0 when all rows hold."""
        return max(0.0, float(self.g.max(initial=0.0)), float(np.abs(self.h).max(initial=0.0)))


class Curvature(ABC):
    """Second derivatives of the lower level's Lagrangian L = f + g.lambda + h.mu at one fixed point.

    Made once a point and used for many products: implementations keep what they need (a graph, a matrix), and are not
    affected by what happens to the point's storage afterwards. Products raise `NonFiniteError`.
    """

    @abstractmethod
    def product(self, v: Vector) -> Vector:
        """``L_yy v``, shape (ny,)."""

    @abstractmethod
    def mixed_x(self, q: Vector) -> np.ndarray:
        """``L_xy q``: the derivative by x of ``L_y . q``, shape (nx,)."""

    @abstractmethod
    def mixed_y(self, d: np.ndarray) -> Vector:
        """``L_yx d``: how ``L_y`` changes along ``d`` in x, shape (ny,)."""

    @abstractmethod
    def dense(self) -> np.ndarray:
        """``L_yy`` as an array, shape (ny, ny). For small lower levels only."""

    @abstractmethod
    def dense_mixed(self) -> np.ndarray:
        """``L_yx`` as an array, shape (ny, nx). For small problems only."""


class AdjointCurvature(ABC):
    """Second derivatives of ``F(x, y) - v . f_y(x, y)`` at one point, for one adjoint v of a hypergradient."""

    @abstractmethod
    def product(self, d: np.ndarray, along_y: Vector) -> tuple[np.ndarray, Vector]:
        """How its gradients by x and by y change along ``d`` in x and ``along_y`` in y."""


class Oracle(ABC):
    """Values and derivatives of one problem. Holds no iterate: every method takes the point.

    Attributes:
        counts: work done, by kind: ``upper_values``, ``lower_values``, ``upper_gradients``, ``lower_gradients``,
            ``hessian_products``, ``mixed_products``, ``third_derivative_products``,
            ``lower_solves``; merged into the result's counts.
        notes: sentences for the result's message (a fallback that was taken, say), each once.
        nx, ny: numbers of upper and lower variables.
        x_lower, x_upper, y_lower, y_upper: bounds, float64 arrays with infinities where absent.
        x_start: the starting point of the upper level, shape (nx,).
    """

    form: ClassVar[str]
    nx: int
    ny: int
    x_lower: np.ndarray
    x_upper: np.ndarray
    y_lower: np.ndarray
    y_upper: np.ndarray
    x_start: np.ndarray

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []

    # Vectors of y's kind.

    @abstractmethod
    def y_start(self) -> Vector:
        """The starting point of the lower level."""

    @abstractmethod
    def zeros(self) -> Vector:
        """The zero vector of y's kind."""

    @abstractmethod
    def to_numpy(self, y: Vector) -> np.ndarray:
        """A float64 copy on the CPU."""

    @abstractmethod
    def from_numpy(self, values: np.ndarray) -> Vector:
        """The reverse, in the oracle's own dtype and place."""

    # Objectives.

    @abstractmethod
    def upper(self, x: np.ndarray, y: Vector) -> float:
        """F(x, y)."""

    @abstractmethod
    def lower(self, x: np.ndarray, y: Vector) -> float:
        """f(x, y)."""

    @abstractmethod
    def upper_gradients(self, x: np.ndarray, y: Vector) -> tuple[float, np.ndarray, Vector]:
        """F, its gradient by x, its gradient by y."""

    @abstractmethod
    def lower_gradient(self, x: np.ndarray, y: Vector) -> tuple[float, Vector]:
        """f and its gradient by y."""

    @abstractmethod
    def lower_gradient_x(self, x: np.ndarray, y: Vector) -> np.ndarray:
        """The gradient of f by x."""

    # Constraints. Levels without rows return empty arrays.

    @abstractmethod
    def upper_rows(self, x: np.ndarray, y: Vector, *, jacobian: bool = False) -> Rows:
        """G and H, bounds apart."""

    @abstractmethod
    def lower_rows(self, x: np.ndarray, y: Vector, *, jacobian: bool = False) -> Rows:
        """g and h, bounds apart."""

    @property
    @abstractmethod
    def has_upper_rows(self) -> bool:
        """Whether the upper level has constraints besides bounds."""

    @property
    @abstractmethod
    def has_lower_rows(self) -> bool:
        """Whether the lower level has constraints besides bounds."""

    @property
    def is_random(self) -> bool:
        """Whether a level draws random numbers, so that values hold for one draw only."""
        return False

    @property
    def precision(self) -> float:
        """The unit roundoff of objective values: differences below a few of it, relative, mean nothing."""
        return 2.0**-52

    @property
    def has_lower_bounds(self) -> bool:
        """Whether a lower variable is bounded."""
        return bool(np.isfinite(self.y_lower).any() or np.isfinite(self.y_upper).any())

    @property
    def lower_constrained(self) -> bool:
        """Whether the lower level has any constraint, bounds included."""
        return self.has_lower_rows or self.has_lower_bounds

    # Second order.

    @abstractmethod
    def curvature(
        self, x: np.ndarray, y: Vector, inequality: np.ndarray | None = None, equality: np.ndarray | None = None
    ) -> Curvature:
        """Second derivatives of the Lagrangian with multipliers of g and h (zeros by default)."""

    def adjoint_curvature(self, x: np.ndarray, y: Vector, adjoint: Vector) -> AdjointCurvature | None:
        """Second derivatives of ``F - adjoint . f_y``; None where there are none."""
        return None

    # In the user's terms.

    @abstractmethod
    def point(self, x: np.ndarray, y: Vector) -> tuple[Values, Values]:
        """The dictionaries ``x`` and ``y`` of a result."""

    def progress(self, x: np.ndarray, y: Vector) -> dict[str, float]:
        """What the problem shows of a better point while it is solved; see `TorchProblem.progress`."""
        return {}

    @abstractmethod
    def objectives(self, x: np.ndarray, y: Vector) -> tuple[float, float | tuple[float, ...]]:
        """Upper and lower objective in the user's sense."""

    def entry(self, k: int, value: float) -> tuple[str, float]:
        """What logs and figures call an entry of x, and the value in units that people know."""
        return f"x[{k}]", value

    @cached_property
    def told_entries(self) -> tuple[int, ...]:
        """The entries of x that events tell of."""
        return some_of(range(self.nx))

    def told(self, x: np.ndarray) -> dict[str, float]:
        """What events say of a point: all of a few variables, some of many, by name."""
        return dict(self.entry(k, float(x[k])) for k in self.told_entries)

    def random_start(self, rng: np.random.Generator) -> np.ndarray:
        """A random point of the upper level to start from, shape (nx,): uniform in the bounds where both are finite,
        else normal around `x_start`, put within the bounds.
        """
        both = np.isfinite(self.x_lower) & np.isfinite(self.x_upper)
        normal = self.x_start + rng.normal(size=self.nx) * np.maximum(1.0, np.abs(self.x_start))
        low, high = np.where(both, self.x_lower, 0.0), np.where(both, self.x_upper, 1.0)
        drawn = np.where(both, rng.uniform(low, high), normal)
        return np.clip(drawn, self.x_lower, self.x_upper)

    def memory(self) -> Any:
        """What the oracle carries from one evaluation to the next, and a checkpoint must keep; None for nothing."""
        return None

    def restore(self, memory: Any) -> None:
        """Take back what `memory` gave."""
        if memory is not None:
            raise ValueError(f"{type(self).__name__} keeps no memory, and was given one.")

    def advance(self) -> None:
        """Draw anew what is random in the problem; without randomness there is nothing to do."""
        return

    def note(self, text: str, stem: str = "") -> None:
        """Add a sentence for the result's message, once. With a stem it replaces those that begin with the stem."""
        if stem:
            self.notes[:] = [note for note in self.notes if not note.startswith(stem)]
        if text not in self.notes:
            self.notes.append(text)


def some_of(items: Sequence[int], most: int = TOLD) -> tuple[int, ...]:
    """All of them where they are at most so many, else so many, spread evenly from the first to the last."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[round(k * (len(items) - 1) / max(1, most - 1))] for k in range(most))


def norm(v: Vector) -> float:
    """Euclidean length of a flat vector of either kind."""
    return math.sqrt(float(v @ v))
