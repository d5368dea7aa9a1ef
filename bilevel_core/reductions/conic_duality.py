"""Followers with second-order cones: optimality conditions with a dual cone in the place of a multiplier.

A row ``sqrt(w1 u1^2 + ...) - c t <= 0`` over columns of one follower is a second-order cone. Its function has no
derivative at the apex, so ``OptimalityConditions`` cannot hold there. The conditions of conic duality can (Lobo,
Vandenberghe, Boyd and Lebret 1998; Alizadeh and Goldfarb 2003): a dual vector ``(lambda, z)`` with

    sqrt(z1^2 / w1 + ...) <= lambda,    lambda c t + z.u = 0,    c t z_k + lambda w_k u_k = 0

and the Lagrangian ``f - lambda c t - z.u + ...``. The last equations follow from the others; they are written because
a tolerance e on the product alone leaves the direction of z open by sqrt(e).

Every condition is a linear or quadratic row, which SCIP takes globally. They are sufficient for optimality, and
necessary where the follower has a point inside its cones (Slater's condition).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.program import INF, BilevelProgram, Function, Program, Row, Variable, append_columns, collect, linear
from bilevel_core.program import expression as ex
from bilevel_core.reductions.base import Reduction
from bilevel_core.reductions.kkt import Multiplier, OptimalityConditions


@dataclass(frozen=True)
class Cone:
    """``sqrt(sum weight_k column_k^2) <= factor * bound`` with ``bound`` a column; all weights positive."""

    name: str
    bound: int
    factor: float
    columns: tuple[int, ...]
    weights: tuple[float, ...]


def cone_of(row: Row, own: Sequence[int] | frozenset[int] | set[int]) -> Cone | None:
    """The second-order cone that a row is over the columns ``own``; None for any other row."""
    f = row.function
    if f.nonlinear is None or f.quadratic or row.lower != -INF or row.upper != f.constant or len(f.linear) != 1:
        return None
    ((bound, slope),) = f.linear.items()
    match f.nonlinear:
        case ex.Call("sqrt", inside):
            pass
        case ex.Power(inside, ex.Constant(0.5)):
            pass
        case _:
            return None
    square = collect(inside)
    pairs = square.quadratic
    if square.constant or square.linear or square.nonlinear is not None or not pairs or slope >= 0.0:
        return None
    if any(i != j or c <= 0.0 or i == bound for (i, j), c in pairs.items()):
        return None
    columns = tuple(i for i, _ in pairs)
    return Cone(row.name, bound, -slope, columns, tuple(pairs.values())) if {bound, *columns} <= set(own) else None


def has_cones(program: BilevelProgram) -> bool:
    """Whether a follower has a row that is a second-order cone."""
    return any(cone_of(row, follower.columns) for follower in program.followers for row in follower.rows)


class ConicConditions(Reduction[BilevelProgram, Program]):
    """`OptimalityConditions` for followers that may have second-order cones; the same where they have none.

    Attributes:
        conditions: those of everything but the cones.
        multipliers: their multipliers; dual cones have no complementarity pair, and so do not appear.
        stationarity: the rows with the dual cones' parts.
        cones: the cones, with the columns of their dual vector: (cone, lambda, z).
    """

    def __init__(self) -> None:
        self.conditions = OptimalityConditions()
        self.stationarity: tuple[Row, ...] = ()
        self.cones: tuple[tuple[Cone, int, tuple[int, ...]], ...] = ()

    @property
    def multipliers(self) -> tuple[Multiplier, ...]:
        """See the class."""
        return self.conditions.multipliers

    def accepts(self, source: BilevelProgram) -> str | None:
        """Refuses what `OptimalityConditions` refuses, multipliers of cones in the leader's model, and fixed columns
        in a cone.
        """
        for follower in source.followers:
            for row in follower.rows:
                cone = cone_of(row, follower.columns)
                if cone is None:
                    continue
                if source.duals:
                    return f"the leader uses multipliers, and row {row.name!r} is a cone"
                fixed = [i for i in (cone.bound, *cone.columns) if source.columns[i].fixed]
                if fixed:
                    return f"column {source.columns[fixed[0]].name!r} of cone {row.name!r} is fixed"
        return self.conditions.accepts(source)

    def apply(self, source: BilevelProgram) -> Program:
        """The single-level program; see the module."""
        cones: list[Cone] = []
        followers = list(source.followers)
        for k, follower in enumerate(followers):
            found = [cone_of(row, follower.columns) for row in follower.rows]
            if any(found):
                cones += [c for c in found if c is not None]
                rest = (row for row, cone in zip(follower.rows, found, strict=True) if cone is None)
                followers[k] = replace(follower, rows=tuple(rest))
        system = self.conditions.apply(replace(source, followers=tuple(followers)))
        self.stationarity = self.conditions.stationarity
        own = [i for f in followers for i in f.columns if not source.columns[i].fixed]
        return self._with_cones(system, cones, own) if cones else system

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Drop multipliers, slacks and dual vectors."""
        return self.conditions.invert(values)

    def _with_cones(self, system: Program, cones: Sequence[Cone], own: Sequence[int]) -> Program:
        """The system with cones; ``own`` are the columns of its stationarity rows, which come last, in their order."""
        columns = list(system.columns)
        fresh: list[Variable] = []
        rows: list[Row] = []
        # What each column's stationarity row gains: minus its part in lambda c t + z.u.
        gains: dict[int, dict[int, float]] = {}
        placed: list[tuple[Cone, int, tuple[int, ...]]] = []
        for cone in cones:
            first = len(columns) + len(fresh)
            dual = tuple(range(first + 1, first + 1 + len(cone.columns)))
            fresh.append(Variable(f"lambda[{cone.name}]", 0.0))
            fresh += [Variable(f"z[{cone.name},{columns[i].name}]") for i in cone.columns]
            placed.append((cone, first, dual))
            gains.setdefault(cone.bound, {})[first] = -cone.factor
            for i, z in zip(cone.columns, dual, strict=True):
                gains.setdefault(i, {})[z] = -1.0
            bound = columns[cone.bound]
            columns[cone.bound] = replace(bound, lower=max(0.0, bound.lower))
            rows += _cone_rows(cone, first, dual)
        self.cones = tuple(placed)
        kept = system.rows[: len(system.rows) - len(own)]
        self.stationarity = tuple(
            replace(row, function=row.function + linear(gains[i])) if i in gains else row
            for i, row in zip(own, self.stationarity, strict=True)
        )
        return replace(system, columns=append_columns(columns, fresh), rows=(*kept, *self.stationarity, *rows))


def _cone_rows(cone: Cone, size: int, dual: tuple[int, ...]) -> list[Row]:
    """The cone, its dual cone, and their complementarity. Columns of a system come before those of its dual cones."""
    inside = {(i, i): w for i, w in zip(cone.columns, cone.weights, strict=True)}
    inside[cone.bound, cone.bound] = -(cone.factor**2)
    outside = {(z, z): 1.0 / w for z, w in zip(dual, cone.weights, strict=True)}
    outside[size, size] = -1.0
    product = {(cone.bound, size): cone.factor} | dict.fromkeys(zip(cone.columns, dual, strict=True), 1.0)
    rows = [
        Row(f"cone[{cone.name}]", Function(quadratic=inside), upper=0.0),
        Row(f"dual cone[{cone.name}]", Function(quadratic=outside), upper=0.0),
        Row(f"complementarity[{cone.name}]", Function(quadratic=product), 0.0, 0.0),
    ]
    for k, (i, z, w) in enumerate(zip(cone.columns, dual, cone.weights, strict=True)):
        parallel = Function(quadratic={(cone.bound, z): cone.factor, (i, size): w})
        rows.append(Row(f"complementarity[{cone.name},{k}]", parallel, 0.0, 0.0))
    return rows
