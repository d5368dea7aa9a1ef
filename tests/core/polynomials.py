"""Random small polynomial bilevel programs, and their optimum on a fine grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevel_core.program import BilevelProgram, Function, Level, Row, Variable, collect
from bilevel_core.program import expression as ex

COEFFICIENTS = (-1.0, -0.5, 0.5, 1.0)


@dataclass(frozen=True)
class Polynomial:
    """``sum c * prod v_i^p_i``; the columns of x come first."""

    terms: tuple[tuple[float, tuple[int, ...]], ...]

    def function(self) -> Function:
        """In the core's form."""
        parts = [ex.multiply(ex.Constant(c), *(_power(i, p) for i, p in enumerate(powers))) for c, powers in self.terms]
        return collect(ex.add(*parts))

    def __call__(self, *v: np.ndarray) -> np.ndarray:
        """On arrays that broadcast."""
        total = np.zeros(np.broadcast_shapes(*(a.shape for a in v)))
        for c, powers in self.terms:
            total = total + c * np.prod(np.broadcast_arrays(*(a**p for a, p in zip(v, powers, strict=True))), axis=0)
        return total


def _power(i: int, p: int) -> ex.Expression:
    return ex.power(ex.Column(i), ex.Constant(float(p)))


@dataclass(frozen=True)
class Case:
    """A bilevel program over boxes [-1, 1], and the functions that it is made of."""

    upper: Polynomial
    lower: Polynomial
    row: Polynomial | None
    coupling: Polynomial | None
    sizes: tuple[int, int]
    integers: tuple[bool, ...]

    def program(self) -> BilevelProgram:
        """``row`` is the follower's, ``coupling`` the leader's: both at most zero."""
        nx, ny = self.sizes
        names = [f"x{i}" for i in range(nx)] + [f"y{i}" for i in range(ny)]
        columns = tuple(Variable(n, -1.0, 1.0, whole) for n, whole in zip(names, self.integers, strict=True))
        upper_rows = () if self.coupling is None else (Row("coupling", self.coupling.function(), upper=0.0),)
        lower_rows = () if self.row is None else (Row("row", self.row.function(), upper=0.0),)
        return BilevelProgram(
            columns,
            Level("leader", self.upper.function(), upper_rows, tuple(range(nx))),
            (Level("follower", self.lower.function(), lower_rows, tuple(range(nx, nx + ny))),),
        )


def random_case(seed: int) -> Case:
    """One or two variables a level, cubic or quartic in the follower's; some with rows, some with integers."""
    rng = np.random.default_rng([2718, seed])
    nx, ny = (1, 1) if seed % 4 else (2, 1) if seed % 8 else (1, 2)
    n = nx + ny
    integers = [False] * n
    if seed % 5 == 0:
        integers[int(rng.integers(n))] = True

    def monomial(degrees: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        return float(rng.choice(COEFFICIENTS)), degrees

    def powers(**given: int) -> tuple[int, ...]:
        return tuple(given.get(f"v{i}", 0) for i in range(n))

    upper = [monomial(powers(**{f"v{i}": 1})) for i in range(n)]
    upper += [monomial(powers(**{f"v{i}": 2})) for i in range(n) if rng.random() < 0.5]
    lower: list[tuple[float, tuple[int, ...]]] = []
    for j in range(nx, n):
        lower.append(monomial(powers(**{f"v{j}": 3 if seed % 3 else 4})))
        lower.append(monomial(powers(**{f"v{j}": 2})))
        lower += [monomial(powers(**{f"v{j}": 1 + int(rng.integers(2)), f"v{i}": 1})) for i in range(nx)]
    row = coupling = None
    if seed % 3 == 1:  # feasible at y = 0 for every x, so that the follower always has an answer
        row = Polynomial(
            (monomial(powers(**{f"v{n - 1}": 1})), (1.0, powers(v0=1, **{f"v{n - 1}": 2})), (-0.4, powers()))
        )
    if seed % 7 == 3:
        coupling = Polynomial((monomial(powers(v0=1)), monomial(powers(**{f"v{n - 1}": 1})), (-0.3, powers())))
    return Case(Polynomial(tuple(upper)), Polynomial(tuple(lower)), row, coupling, (nx, ny), tuple(integers))


def grid_optimum(case: Case, *, step: float, slack: float) -> tuple[float, float]:
    """The leader's least value over a grid of x, where the follower chooses from a grid of y.

    Args:
        case: the program.
        step: of the grid.
        slack: by how much the leader's constraint may be violated.

    Returns:
        The value, and that at answers that are optimal for the follower within ``slack``.
    """
    nx, ny = case.sizes
    axes = [np.array([-1.0, 0.0, 1.0]) if whole else np.arange(-1.0, 1.0 + step / 2, step) for whole in case.integers]
    grid = np.meshgrid(*axes, indexing="ij")
    f, upper = case.lower(*grid), case.upper(*grid)
    if case.row is not None:
        f = np.where(case.row(*grid) <= 1e-9, f, np.inf)
    if case.coupling is not None:
        upper = np.where(case.coupling(*grid) <= slack, upper, np.inf)
    answers = tuple(range(nx, nx + ny))
    best = f.min(axis=answers, keepdims=True)
    return float(np.where(f <= best, upper, np.inf).min()), float(np.where(f <= best + slack, upper, np.inf).min())
