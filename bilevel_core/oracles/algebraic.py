"""The oracle for algebraic problems: CasADi differentiates the core's expressions, once per problem.

Columns of the program are split into x, the leader's, and y, those of all followers one after the other. Independent
followers form one lower level whose objective is the sum of theirs; a Nash game has no such objective and is refused.
Not here: solving the lower level (`bilevel_core.lower`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bilevel_core.backends.casadi_expression import CasadiTranslator
from bilevel_core.errors import MissingError, RefusedError
from bilevel_core.oracles.base import Curvature, NonFiniteError, Oracle, Rows, Vector, some_of
from bilevel_core.oracles.relaxation import random_point, relaxed_point
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.program import BilevelProgram, Function, Level, total
from bilevel_core.result import Values


@dataclass(frozen=True)
class _Sides:
    """One level's rows as functions ``<= 0`` and ``= 0``, with names and the number of the follower they belong to."""

    inequality: tuple[Function, ...]
    equality: tuple[Function, ...]
    inequality_names: tuple[str, ...]
    equality_names: tuple[str, ...]
    inequality_owner: np.ndarray
    equality_owner: np.ndarray


class AlgebraicOracle(Oracle):
    """Values and derivatives of an `AlgebraicProblem`. Vectors y are NumPy arrays.

    ``abs`` has the derivative 0 at 0, one of its subgradients.

    Attributes:
        problem, program: what the oracle was made for.
        x_columns, y_columns: the program's column behind each entry of x and of y.
        follower_of_row: for each lower inequality, and for each lower equality, the number of its follower.
        blocks: for each follower, the slice of y that is its own.

    Raises:
        MissingError: CasADi is not installed.
        RefusedError: a Nash game among followers, or a follower with integer variables.
    """

    form = "algebraic"

    def __init__(self, problem: AlgebraicProblem) -> None:
        super().__init__()
        self.problem = problem
        self.program: BilevelProgram = problem.program()
        _refuse(self.program)
        columns = self.program.columns
        self.x_columns = np.array(self.program.leader.columns, dtype=int)
        self.y_columns = np.array(self.program.lower_columns, dtype=int)
        self.nx, self.ny = len(self.x_columns), len(self.y_columns)
        self.x_lower = np.array([columns[i].lower for i in self.x_columns], dtype=float)
        self.x_upper = np.array([columns[i].upper for i in self.x_columns], dtype=float)
        self.y_lower = np.array([columns[i].lower for i in self.y_columns], dtype=float)
        self.y_upper = np.array([columns[i].upper for i in self.y_columns], dtype=float)
        ends = np.cumsum([0, *(len(f.columns) for f in self.program.followers)])
        self.blocks = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(ends))
        self._upper_sides = _sides((self.program.leader,))
        self._lower_sides = _sides(self.program.followers)
        self.follower_of_row = (self._lower_sides.inequality_owner, self._lower_sides.equality_owner)
        self._graphs: _Graphs | None = None

    @cached_property
    def _relaxed(self) -> np.ndarray | None:
        return relaxed_point(self.program.high_point())

    @cached_property
    def x_start(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride] - found out when asked for
        """x of the high-point relaxation's optimum, where it has one; else the middle of the bounds."""
        if self._relaxed is not None:
            return np.clip(self._relaxed[self.x_columns], self.x_lower, self.x_upper)
        both = np.isfinite(self.x_lower) & np.isfinite(self.x_upper)
        middle = 0.5 * (np.where(both, self.x_lower, 0.0) + np.where(both, self.x_upper, 0.0))
        return np.clip(middle, self.x_lower, self.x_upper)

    def random_start(self, rng: np.random.Generator) -> np.ndarray:
        """x of a random point of the high-point relaxation: a random vertex, or between one and the relaxation's
        optimum; as `Oracle.random_start` where the relaxation gives no point.
        """
        found = random_point(self.program.high_point(), self._relaxed, rng)
        if found is None:
            return super().random_start(rng)
        return np.clip(found[self.x_columns], self.x_lower, self.x_upper)

    def y_start(self) -> np.ndarray:
        """y of the high-point relaxation's optimum, where it has one; else zeros put within the bounds."""
        start = self.zeros() if self._relaxed is None else self._relaxed[self.y_columns]
        return np.clip(start, self.y_lower, self.y_upper)

    def zeros(self) -> np.ndarray:
        """See `Oracle.zeros`."""
        return np.zeros(self.ny)

    def to_numpy(self, y: Vector) -> np.ndarray:
        """See `Oracle.to_numpy`."""
        return np.array(y, dtype=float)

    def from_numpy(self, values: np.ndarray) -> np.ndarray:
        """See `Oracle.from_numpy`."""
        return np.array(values, dtype=float)

    def values(self, x: np.ndarray, y: Vector) -> np.ndarray:
        """The full vector of column values, shape (number of columns,)."""
        out = np.empty(len(self.program.columns))
        out[self.x_columns] = x
        out[self.y_columns] = y
        return out

    @property
    def graphs(self) -> _Graphs:
        """The compiled derivatives; made when first asked for."""
        if self._graphs is None:
            self._graphs = _Graphs(self, self._upper_sides, self._lower_sides)
        return self._graphs

    def upper(self, x: np.ndarray, y: Vector) -> float:
        """See `Oracle.upper`."""
        self.counts["upper_values"] += 1
        return _finite("upper(x, y)", self.graphs("F", x, y)[0]).item()

    def lower(self, x: np.ndarray, y: Vector) -> float:
        """See `Oracle.lower`."""
        self.counts["lower_values"] += 1
        return _finite("lower(x, y)", self.graphs("f", x, y)[0]).item()

    def upper_gradients(self, x: np.ndarray, y: Vector) -> tuple[float, np.ndarray, np.ndarray]:
        """See `Oracle.upper_gradients`."""
        self.counts["upper_gradients"] += 1
        value, by_x, by_y = self.graphs("F_grad", x, y)
        _finite("upper(x, y)", value)
        return (
            value.item(),
            _finite("gradient of upper by x", by_x).reshape(-1),
            _finite("gradient of upper by y", by_y).reshape(-1),
        )

    def lower_gradient(self, x: np.ndarray, y: Vector) -> tuple[float, np.ndarray]:
        """See `Oracle.lower_gradient`."""
        self.counts["lower_gradients"] += 1
        value, by_y = self.graphs("f_y", x, y)
        _finite("lower(x, y)", value)
        return value.item(), _finite("gradient of lower by y", by_y).reshape(-1)

    def lower_gradient_x(self, x: np.ndarray, y: Vector) -> np.ndarray:
        """See `Oracle.lower_gradient_x`."""
        self.counts["lower_gradients"] += 1
        return _finite("gradient of lower by x", self.graphs("f_x", x, y)[0]).reshape(-1)

    def upper_rows(self, x: np.ndarray, y: Vector, *, jacobian: bool = False) -> Rows:
        """See `Oracle.upper_rows`."""
        return self._rows("U", self._upper_sides, x, y, jacobian)

    def lower_rows(self, x: np.ndarray, y: Vector, *, jacobian: bool = False) -> Rows:
        """See `Oracle.lower_rows`."""
        return self._rows("L", self._lower_sides, x, y, jacobian)

    @property
    def has_upper_rows(self) -> bool:
        """See `Oracle.has_upper_rows`."""
        return bool(self._upper_sides.inequality or self._upper_sides.equality)

    @property
    def has_lower_rows(self) -> bool:
        """See `Oracle.has_lower_rows`."""
        return bool(self._lower_sides.inequality or self._lower_sides.equality)

    def curvature(
        self, x: np.ndarray, y: Vector, inequality: np.ndarray | None = None, equality: np.ndarray | None = None
    ) -> Curvature:
        """See `Oracle.curvature`."""
        m, p = len(self._lower_sides.inequality), len(self._lower_sides.equality)
        lam = np.zeros(m) if inequality is None else np.array(inequality, dtype=float)
        mu = np.zeros(p) if equality is None else np.array(equality, dtype=float)
        return _AlgebraicCurvature(self, np.array(x, dtype=float), self.to_numpy(y), lam, mu)

    def point(self, x: np.ndarray, y: Vector) -> tuple[Values, Values]:
        """See `Oracle.point`."""
        return self.problem.point(self.values(x, y))

    def entry(self, k: int, value: float) -> tuple[str, float]:
        """See `Oracle.entry`."""
        return self.program.columns[self.x_columns[k]].name, value

    @cached_property
    def told_entries(self) -> tuple[int, ...]:
        """See `Oracle.told_entries`: of the variables that the user wrote."""
        hidden = self.problem.hidden_columns()
        return some_of([k for k, column in enumerate(self.x_columns) if column not in hidden])

    def objectives(self, x: np.ndarray, y: Vector) -> tuple[float, float | tuple[float, ...]]:
        """See `Oracle.objectives`; from the user's own statement. One lower value per follower if there are several."""
        found = self.problem.evaluate(self.values(x, y))
        lower = found.lower_objectives
        return found.upper_objective, lower[0] if len(lower) == 1 else lower

    def _rows(self, level: str, sides: _Sides, x: np.ndarray, y: Vector, jacobian: bool) -> Rows:
        g_names, h_names = sides.inequality_names, sides.equality_names
        if not g_names and not h_names:
            none, by_x, by_y = np.zeros(0), np.zeros((0, self.nx)), np.zeros((0, self.ny))
            return Rows(none, none.copy(), by_x, by_y, by_x.copy(), by_y.copy()) if jacobian else Rows(none, none)
        g, h = (a.reshape(-1) for a in self.graphs(f"{level}_rows", x, y))
        _finite_rows("constraint", g, g_names)
        _finite_rows("constraint", h, h_names)
        if not jacobian:
            return Rows(g, h, g_names=g_names, h_names=h_names)
        g_x, g_y, h_x, h_y = self.graphs(f"{level}_jac", x, y)
        for matrix, names in ((g_x, g_names), (g_y, g_names), (h_x, h_names), (h_y, h_names)):
            _finite_rows("gradient of constraint", matrix, names)
        return Rows(g, h, g_x, g_y, h_x, h_y, g_names, h_names)


class _AlgebraicCurvature(Curvature):
    """Both matrices, evaluated when first needed at the point given."""

    def __init__(self, oracle: AlgebraicOracle, *point: np.ndarray) -> None:
        self._oracle = oracle
        self._point = point

    @cached_property
    def _yy(self) -> np.ndarray:
        matrix = self._oracle.graphs("L_yy", *self._point)[0]
        return _finite("second derivatives of the lower level by y", matrix)

    @cached_property
    def _yx(self) -> np.ndarray:
        matrix = self._oracle.graphs("L_yx", *self._point)[0]
        return _finite("mixed second derivatives of the lower level", matrix)

    def product(self, v: Vector) -> np.ndarray:
        """See `Curvature.product`."""
        self._oracle.counts["hessian_products"] += 1
        return self._yy @ v

    def mixed_x(self, q: Vector) -> np.ndarray:
        """See `Curvature.mixed_x`."""
        self._oracle.counts["mixed_products"] += 1
        return self._yx.T @ q

    def mixed_y(self, d: np.ndarray) -> np.ndarray:
        """See `Curvature.mixed_y`."""
        self._oracle.counts["mixed_products"] += 1
        return self._yx @ d

    def dense(self) -> np.ndarray:
        """See `Curvature.dense`. Counted as one Hessian product per column, which is what it saves."""
        self._oracle.counts["hessian_products"] += self._oracle.ny
        return self._yy.copy()

    def dense_mixed(self) -> np.ndarray:
        """See `Curvature.dense_mixed`."""
        self._oracle.counts["mixed_products"] += self._oracle.nx
        return self._yx.copy()


class _Graphs:
    """CasADi functions by name, compiled when first called. Results are dense arrays."""

    def __init__(self, oracle: AlgebraicOracle, upper: _Sides, lower: _Sides) -> None:
        try:
            import casadi
        except ImportError as error:
            raise MissingError("Derivatives of algebraic problems need CasADi: pip install casadi.") from error
        ca: Any = casadi
        self.ca = ca
        x, y = ca.SX.sym("x", oracle.nx), ca.SX.sym("y", oracle.ny)
        lam, mu = ca.SX.sym("lam", len(lower.inequality)), ca.SX.sym("mu", len(lower.equality))
        v: list[Any] = [None] * len(oracle.program.columns)
        for k, i in enumerate(oracle.x_columns):
            v[i] = x[k]
        for k, i in enumerate(oracle.y_columns):
            v[i] = y[k]
        translate = CasadiTranslator(ca, v)

        def stack(functions: Sequence[Function]) -> Any:
            return ca.vertcat(*(translate.function(f) for f in functions)) if functions else ca.SX(0, 1)

        upper_value = translate.function(oracle.program.leader.objective)
        lower_value = translate.function(total(f.objective for f in oracle.program.followers))
        g_upper, h_upper = stack(upper.inequality), stack(upper.equality)
        g, h = stack(lower.inequality), stack(lower.equality)

        def lagrangian_gradient() -> Any:
            return ca.gradient(lower_value + ca.dot(lam, g) + ca.dot(mu, h), y)

        # What each function returns; built when asked for, as second derivatives of large problems take a while.
        self._recipes: dict[str, tuple[list[Any], Callable[[], list[Any]]]] = {
            "F": ([x, y], lambda: [upper_value]),
            "f": ([x, y], lambda: [lower_value]),
            "F_grad": ([x, y], lambda: [upper_value, ca.gradient(upper_value, x), ca.gradient(upper_value, y)]),
            "f_y": ([x, y], lambda: [lower_value, ca.gradient(lower_value, y)]),
            "f_x": ([x, y], lambda: [ca.gradient(lower_value, x)]),
            "U_rows": ([x, y], lambda: [g_upper, h_upper]),
            "U_jac": ([x, y], lambda: [ca.jacobian(r, w) for r in (g_upper, h_upper) for w in (x, y)]),
            "L_rows": ([x, y], lambda: [g, h]),
            "L_jac": ([x, y], lambda: [ca.jacobian(r, w) for r in (g, h) for w in (x, y)]),
            "L_yy": ([x, y, lam, mu], lambda: [ca.jacobian(lagrangian_gradient(), y)]),
            "L_yx": ([x, y, lam, mu], lambda: [ca.jacobian(lagrangian_gradient(), x)]),
        }
        self._compiled: dict[str, Any] = {}

    def __call__(self, name: str, *point: np.ndarray) -> list[np.ndarray]:
        """Evaluate one function at a point."""
        function = self._compiled.get(name)
        if function is None:
            inputs, outputs = self._recipes[name]
            function = self._compiled[name] = self.ca.Function(name, inputs, outputs())
        return [np.array(out.full(), dtype=float) for out in function.call([self.ca.DM(p) for p in point])]


def _refuse(program: BilevelProgram) -> None:
    if program.is_game:
        raise RefusedError(
            "A Nash game among followers has no common lower-level objective to differentiate: use a solver that "
            "writes the followers' optimality conditions side by side, such as kkt."
        )
    for follower in program.followers:
        for i in follower.columns:
            column = program.columns[i]
            if column.integer and not column.fixed:
                raise RefusedError(
                    f"Follower {follower.name!r} has the integer variable {column.name!r}, and its answer no "
                    "derivatives: use a solver for mixed-integer followers."
                )


def _sides(levels: Sequence[Level]) -> _Sides:
    """Rows ``lower <= function <= upper`` as functions ``<= 0``, one per finite side, and ``= 0``."""
    inequality: list[tuple[Function, str, int]] = []
    equality: list[tuple[Function, str, int]] = []
    for k, level in enumerate(levels):
        for row in level.rows:
            if row.equality:
                equality.append((row.function - row.upper, row.name, k))
                continue
            both = np.isfinite(row.lower) and np.isfinite(row.upper)
            if np.isfinite(row.upper):
                inequality.append((row.function - row.upper, row.name + (" (upper side)" if both else ""), k))
            if np.isfinite(row.lower):
                inequality.append(
                    ((-row.function) + row.lower, row.name + (" (lower side)" if both else ""), k),
                )
    return _Sides(
        tuple(f for f, _, _ in inequality),
        tuple(f for f, _, _ in equality),
        tuple(n for _, n, _ in inequality),
        tuple(n for _, n, _ in equality),
        np.array([k for _, _, k in inequality], dtype=int),
        np.array([k for _, _, k in equality], dtype=int),
    )


def _finite(term: str, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise NonFiniteError(term)
    return values


def _finite_rows(term: str, values: np.ndarray, names: Sequence[str]) -> None:
    bad = ~np.isfinite(values.reshape(len(names), -1)).all(axis=1) if names else np.zeros(0, dtype=bool)
    if bad.any():
        raise NonFiniteError(f"{term} {names[int(np.flatnonzero(bad)[0])]!r}")
