"""Reading Pyomo models: who owns what, and errors that name the part at fault."""

from __future__ import annotations

import math

import numpy as np
import pyomo.environ as pyo
import pytest
from pyomo.gdp import Disjunct

import bilevel_core as bl

from .models import bard_511

BARD = """\
leader: minimise x - 4 follower.y
  x in [0, inf] real
follower: minimise follower.y
  follower.rows[1]: x + follower.y >= 3
  follower.rows[2]: -2 x + follower.y <= 0
  follower.rows[3]: 2 x + follower.y <= 12
  follower.rows[4]: 3 x - 2 follower.y <= 4
  follower.y in [0, inf] real"""


def test_a_model_as_text() -> None:
    assert bl.PyomoProblem(bard_511()).program().text() == BARD


def test_maximisation_is_stored_as_minimisation_and_reported_as_written() -> None:
    problem = bl.PyomoProblem(bard_511(maximise_follower=True))
    follower = problem.program().followers[0]
    assert follower.maximise
    assert follower.objective.linear == {1: 1.0}
    assert problem.evaluate(np.array([4.0, 4.0])).lower_objectives == (-4.0,)


def test_several_followers_indexed_blocks_and_shapes() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(["a", "b"], bounds=(0, 1))
    m.part = pyo.Block()
    m.part.z = pyo.Var(domain=pyo.Binary)
    m.follower = bl.Follower([1, 2])
    for i, name in ((1, "a"), (2, "b")):
        block = m.follower[i]
        block.y = pyo.Var(["u", "v"], domain=pyo.NonNegativeReals)
        block.objective = pyo.Objective(expr=block.y["u"] - m.x[name] * block.y["v"], sense=pyo.maximize)
        block.row = pyo.Constraint(expr=block.y["u"] + block.y["v"] <= 1 + m.part.z)
    m.objective = pyo.Objective(expr=sum(m.x[k] for k in m.x) + m.part.z)
    problem = bl.PyomoProblem(m, name="two")
    program = problem.program()
    assert [f.name for f in program.followers] == ["follower[1]", "follower[2]"]
    assert [len(f.columns) for f in program.followers] == [2, 2]
    assert program.leader.columns == (0, 1, 2)
    assert program.columns[2].integer
    x, y = problem.point(np.arange(7.0))
    assert {k: v.shape for k, v in x.items()} == {"x": (2,), "part.z": ()}
    assert {k: v.shape for k, v in y.items()} == {"follower[1].y": (2,), "follower[2].y": (2,)}
    np.testing.assert_array_equal(problem.vector(x, y), np.arange(7.0))
    assert not program.is_game
    traits = bl.classify(problem).traits
    assert traits.label == "mixed-integer linear leader over 2 x LP"
    assert not traits.linking_integers


def test_fixed_variables_are_constants_and_inactive_parts_are_skipped() -> None:
    m = bard_511()
    m.extra = pyo.Var()
    m.extra.fix(2.5)
    m.off = pyo.Constraint(expr=m.x >= 100)
    m.off.deactivate()
    m.row = pyo.Constraint(expr=m.x * m.extra <= 10)
    program = bl.PyomoProblem(m).program()
    (row,) = program.leader.rows
    assert row.function.linear == {0: 2.5}
    assert program.columns[1].fixed


def test_values_of_the_model_are_left_alone() -> None:
    m = bard_511()
    m.x.set_value(1.25)
    problem = bl.PyomoProblem(m)
    assert problem.evaluate(np.array([4.0, 4.0])).upper_objective == -12.0
    assert m.x.value == 1.25
    assert m.follower.y.value is None


def test_short_names_where_unambiguous() -> None:
    problem = bl.PyomoProblem(bard_511())
    x, y = problem.point(np.array([1.0, 2.0]))
    assert y["y"] == y["follower.y"] == 2.0
    np.testing.assert_array_equal(problem.vector({"x": 1.0}, {"y": [2.0]}), [1.0, 2.0])
    with pytest.raises(KeyError):
        x["y"]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ({"z": 1.0}, {"y": 1.0}, r"x has no variable 'z'"),
        ({"x": [1.0, 2.0]}, {"y": 1.0}, r"Expected 1 value\(s\) for x\['x'\], got 2"),
        ({"x": 1.0}, {}, r"y needs a finite value for follower\.y"),
        ({"x": 1.0}, {"y": math.nan}, r"y needs a finite value for follower\.y"),
    ],
)
def test_bad_points(x: dict, y: dict, message: str) -> None:
    with pytest.raises(bl.UsageError, match=message):
        bl.PyomoProblem(bard_511()).vector(x, y)


def test_all_operators_are_read_rightly() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var()
    m.p = pyo.Param(initialize=3.0, mutable=True)
    m.f = bl.Follower()
    m.f.y = pyo.Var()
    x, y = m.x, m.f.y
    m.e = pyo.Expression(expr=x + m.p * y)
    m.objective = pyo.Objective(
        expr=(x - 1) ** 2 / m.p
        + pyo.exp(x) * y
        + abs(x)
        + pyo.log10(y + 1)
        + x / (y + 2)
        - (-x)
        + m.e * y
        + 2**x
        + pyo.sqrt(y + m.p)
        + pyo.sin(x) * pyo.cos(y)
        + sum(m.p * v for v in (x, y))
        + x**3
    )
    m.f.objective = pyo.Objective(expr=y)
    problem = bl.PyomoProblem(m)
    function = problem.program().leader.objective
    for at in ([0.5, 1.5], [2.0, 0.1], [-1.5, 3.0]):
        assert function.evaluate(np.array(at)) == pytest.approx(
            problem.evaluate(np.array(at)).upper_objective, rel=1e-12
        )


def no_follower(m: pyo.ConcreteModel) -> None:
    m.del_component(m.follower)


def no_lower_objective(m: pyo.ConcreteModel) -> None:
    m.follower.objective.deactivate()


def two_objectives(m: pyo.ConcreteModel) -> None:
    m.second = pyo.Objective(expr=m.x)


def nested(m: pyo.ConcreteModel) -> None:
    m.follower.inner = bl.Follower()
    m.follower.inner.objective = pyo.Objective(expr=m.x)


def foreign_variable(m: pyo.ConcreteModel) -> None:
    other = pyo.ConcreteModel()
    other.w = pyo.Var()
    m.row = pyo.Constraint(expr=m.x + other.w <= 1)


def disjunct(m: pyo.ConcreteModel) -> None:
    m.choice = Disjunct()


def division_by_zero(m: pyo.ConcreteModel) -> None:
    m.zero = pyo.Param(initialize=0.0, mutable=True)
    m.row = pyo.Constraint(expr=m.x / m.zero <= 1)


def no_value(m: pyo.ConcreteModel) -> None:
    m.unset = pyo.Param(mutable=True)
    m.row = pyo.Constraint(expr=m.x * m.unset <= 1)


def conditional(m: pyo.ConcreteModel) -> None:
    m.row = pyo.Constraint(expr=pyo.Expr_if(m.x >= 1, m.x, 2 * m.x) <= 1)


def variable_sides(m: pyo.ConcreteModel) -> None:
    m.w = pyo.Var()
    m.row = pyo.Constraint(expr=(0, m.x, 1 + m.w))


def unknown_function(m: pyo.ConcreteModel) -> None:
    m.row = pyo.Constraint(expr=pyo.ceil(m.x) <= 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_follower, "no active follower"),
        (no_lower_objective, "'follower' has no active objective"),
        (two_objectives, "2 active objectives"),
        (nested, r"'follower\.inner' stands inside follower 'follower'"),
        (foreign_variable, "'row' contains variable 'w'"),
        (disjunct, "'choice' of type Disjunct"),
        (division_by_zero, "'row'"),
        (no_value, "'row' contains unset"),
        (conditional, "'row' contains .* cannot be read"),
        (unknown_function, "ceil"),
        (variable_sides, "'row' has a side that contains variables"),
    ],
)
def test_bad_models(spoil, message: str) -> None:
    m = bard_511()
    spoil(m)
    with pytest.raises(bl.ModelError, match=message):
        bl.PyomoProblem(m)


def test_not_a_model() -> None:
    with pytest.raises(bl.ModelError, match="Expected a Pyomo model, got int"):
        bl.PyomoProblem(3)
    with pytest.raises(bl.ModelError, match="abstract"):
        bl.PyomoProblem(pyo.AbstractModel())


def test_a_variable_outside_the_followers_is_the_leaders() -> None:
    m = bard_511()
    m.w = pyo.Var(bounds=(0, 1))
    m.follower.more = pyo.Constraint(expr=m.follower.y <= 5 + m.w)
    program = bl.PyomoProblem(m).program()
    assert program.leader.columns == (0, 1)
    assert program.followers[0].columns == (2,)


def test_a_game_among_followers_is_recognised() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.f = bl.Follower([1, 2])
    for i in (1, 2):
        m.f[i].y = pyo.Var(bounds=(0, 1))
    for i, j in ((1, 2), (2, 1)):
        m.f[i].objective = pyo.Objective(expr=(m.f[i].y - m.f[j].y - m.x) ** 2)
    m.objective = pyo.Objective(expr=m.x)
    assert bl.PyomoProblem(m).program().is_game
