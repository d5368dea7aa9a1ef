"""Strong duality: its row keeps every true term, and integers start at an integer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.program import BilevelProgram, Function, Level, Program, Row, Variable
from bilevel_core.reductions import Chain
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.strong_duality import StrongDuality


def program(x: Variable, follower: Level, *more: Variable) -> BilevelProgram:
    columns = (x, *more)
    return BilevelProgram(columns, Level("leader", Function(linear={0: 1.0}), columns=(0,)), (follower,))


@pytest.mark.parametrize("as_row", [False, True])
@pytest.mark.parametrize("size", [1e2, 1e10, 1e12])
def test_a_huge_bound_drops_no_term(size: float, as_row: bool) -> None:
    """min y - x where the follower takes the least y >= 0.5 x: -5 at x = 10, however large the follower's own limit."""
    m: Any = pyo.ConcreteModel()
    m.f = bl.Follower()
    m.x = pyo.Var(bounds=(0, 10))
    m.f.y = pyo.Var(bounds=(0, None if as_row else size))
    m.f.c = pyo.Constraint(expr=m.f.y - 0.5 * m.x >= 0)
    if as_row:
        m.f.d = pyo.Constraint(expr=m.f.y <= size)
    m.f.o = pyo.Objective(expr=m.f.y)
    m.o = pyo.Objective(expr=m.f.y - m.x)
    r = bl.solve(m, solver="kkt", options={"complementarity": "strong-duality"})
    assert r.upper_objective == pytest.approx(-5.0, abs=1e-5)
    assert r.status == "optimal"


def test_the_gap_has_no_products_with_the_followers_columns() -> None:
    """Equalities of one name are told apart by their place: none is left out, none taken for another."""
    rows = (
        Row("same", Function(linear={1: 1.0, 2: 1.0, 0: -1.0}), 0.0, 0.0),
        Row("same", Function(linear={1: 1.0, 2: 1.0, 0: 3.0}), 2.0, 2.0),
        Row("low", Function(linear={1: 1e12, 0: 1e-3}), lower=5.0),
    )
    follower = Level("f", Function(linear={1: 1.0, 2: -1.0}), rows, (1, 2))
    p = program(Variable("x", 0.0, 1.0), follower, Variable("y"), Variable("z", 0.0))
    conditions = OptimalityConditions()
    system: Program = Chain(p).then(conditions).target
    gap = StrongDuality(p, conditions).gap(0, system)
    names = system.names
    found = {frozenset(names[i] for i in pair): c for pair, c in gap.quadratic.items()}
    assert found.keys() == {frozenset(("x", m)) for m in ("mu[same]", "mu[same]_2", "lambda[low:lower]")}
    assert found[frozenset(("x", "mu[same]"))] == 1.0
    assert found[frozenset(("x", "mu[same]_2"))] == -3.0
    assert found[frozenset(("x", "lambda[low:lower]"))] == pytest.approx(1e-15)  # its row was divided by 1e12


@pytest.mark.parametrize(("low", "high", "at"), [(0.5, 3.5, 2.0), (-1.5, 1.2, -1.0), (1.0 + 1e-12, 2.7, 1.0)])
def test_a_fractional_bound_of_an_integer(low: float, high: float, at: float) -> None:
    """The follower min y, y >= x: its gap is zero at y = x with multiplier 1, for every integer x within the bounds."""
    row = Row("r", Function(linear={1: 1.0, 0: -1.0}), lower=0.0)
    p = program(
        Variable("x", low, high, integer=True), Level("f", Function(linear={1: 1.0}), (row,), (1,)), Variable("y")
    )
    conditions = OptimalityConditions()
    system: Program = Chain(p).then(conditions).target
    reduction = StrongDuality(p, conditions, None, {m.column: (0.0, 2.0) for m in conditions.multipliers})
    target = reduction.apply(system)
    point = np.array([at, at, 1.0, 0.0])
    assert system.violation(point) < 1e-9
    full = reduction.extend(point)
    gap = next(r for r in target.rows if r.name == "strong-duality[f]")
    assert gap.function.evaluate(full) == pytest.approx(0.0, abs=1e-9)
    assert target.violation(full) < 1e-9


def test_a_point_within_tolerances_only_is_not_given_where_an_exact_one_is_known() -> None:
    """Calamai and Vicente (1994), optimum 0.3125: the search meets points of 0.0625 that are complementary to 1e-4."""
    problem = get_registry().problems["bolib/CalamaiVicente1994c"].load()()
    found = bl.solve(problem, "kkt", {"complementarity": "strong-duality"}, time_limit=4.0)
    assert found.claim <= bl.Claim.FEASIBLE
    assert not found.has_point or float(found.upper_objective) >= 0.3125 - 1e-5
