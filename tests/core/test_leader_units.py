"""Constants in the leader's objective, and its unit, change nothing but the value that is shown."""

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.program import BilevelProgram, Function, Level, Variable
from bilevel_core.solvers.units import Unit, restated

from .models import bard_511

MODES = ("sos1", "indicator", "bigm", "strong-duality", "relaxed", "penalised")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["number", "fixed"])
def test_a_large_constant_hides_no_difference(how: str, mode: str) -> None:
    """F = -3e6 - y + 0.1 x where the follower takes y = max(0, x/3 - 1): -3e6 - 7/3 + 1 at x = 10."""
    m: Any = pyo.ConcreteModel()
    m.f = bl.Follower()
    m.x, m.w, m.f.y = pyo.Var(bounds=(0, 10)), pyo.Var(), pyo.Var(bounds=(0, 10))
    m.w.fix(3.0)
    m.f.c = pyo.Constraint(expr=m.f.y >= m.x / 3 - 1)
    m.f.o = pyo.Objective(expr=m.f.y)
    m.o = pyo.Objective(expr=(-3e6 if how == "number" else -1e6 * m.w) - m.f.y + 0.1 * m.x)
    events: list[bl.Event] = []
    r = bl.solve(m, solver="kkt", options={"complementarity": mode}, callbacks=[lambda e: events.append(e) and False])
    assert r.upper_objective == pytest.approx(-3e6 - 7 / 3 + 1, abs=1e-5)
    assert float(r.x["x"]) == pytest.approx(10.0, abs=1e-5)
    if mode in MODES[:4]:
        assert r.status == "optimal"
        assert r.bound == pytest.approx(r.upper_objective, abs=1e-4)
    shown = [e.data["objective"] for e in events if e.kind == "incumbent"]
    assert all(v == pytest.approx(-3e6, abs=5) for v in shown)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("factor", [1e-10, 1e-7, 1e8, -1e-10])
def test_the_unit_of_the_leaders_objective_plays_no_part(factor: float, mode: str) -> None:
    """Bard's example: -12 at (4, 4) in any unit; a negative factor is for a leader that maximises."""
    m = bard_511()
    expr = m.objective.expr
    m.del_component("objective")
    m.objective = pyo.Objective(expr=factor * expr, sense=pyo.minimize if factor > 0 else pyo.maximize)
    r = bl.solve(m, solver="kkt", options={"complementarity": mode})
    assert float(r.x["x"]) == pytest.approx(4.0, abs=1e-5)
    assert float(r.y["follower.y"]) == pytest.approx(4.0, abs=1e-5)
    assert r.upper_objective == pytest.approx(-12.0 * factor, rel=1e-6)
    if mode in MODES[:4]:
        assert r.status == "optimal"
        assert r.bound == pytest.approx(-12.0 * factor, rel=1e-5)


def test_restated_objectives_and_their_way_back() -> None:
    columns = (Variable("x", 0.0, 1.0), Variable("w", 2.0, 2.0), Variable("y"))
    leader = Level("leader", Function(5.0, {0: 4e6, 1: 3.0}, {(1, 2): 2e6}), columns=(0, 1), maximise=True)
    program = BilevelProgram(columns, leader, (Level("f", Function(linear={2: 1.0}), columns=(2,)),))
    other, unit = restated(program)
    f = other.leader.objective
    assert f.constant == 0.0
    assert not f.quadratic
    assert f.size == pytest.approx(1.0, rel=0.5)
    point = (0.25, 2.0, 7.0)
    assert unit.back(f.evaluate(point)) == pytest.approx(leader.objective.evaluate(point), rel=1e-12)
    assert restated(BilevelProgram(columns, Level("l", Function(linear={0: 2.0}), columns=(0, 1)), ()))[1] == Unit()
