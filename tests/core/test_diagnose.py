"""Why there is no solution: the leader's fault, the followers', or no bound; also where multipliers prove nothing."""

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.program import BilevelProgram, Function, Level, Row, Variable
from bilevel_core.solvers.diagnose import always_unbounded

EXACT = ("sos1", "bigm")


def model(x: dict[str, Any], y: dict[str, Any] | None = None) -> Any:
    m: Any = pyo.ConcreteModel()
    m.f = bl.Follower()
    m.x, m.f.y = pyo.Var(**x), pyo.Var(**(y or {}))
    m.o = pyo.Objective(expr=-m.x)
    m.f.o = pyo.Objective(expr=m.f.y)
    return m


def leader_alone(x: dict[str, Any]) -> Any:
    m = model(x, {"bounds": (0, 9)})
    m.f.c = pyo.Constraint(expr=m.f.y >= m.x)
    return m


def curved(room: Any) -> Any:
    """A follower with y^2 <= room(x, z), z free."""
    m = model({"bounds": (0, 1)})
    m.f.z = pyo.Var()
    m.f.c = pyo.Constraint(expr=m.f.y**2 <= room(m))
    return m


def curved_unbounded() -> Any:
    m = curved(lambda m: m.x + m.f.z)
    m.f.o.set_value(-m.f.z)
    return m


def by_leaders_row() -> Any:
    m = model({"bounds": (0, 5)}, {"bounds": (0, 9)})
    m.f.c = pyo.Constraint(expr=m.f.y <= m.x - 4)
    m.k = pyo.Constraint(expr=m.x <= 3)
    return m


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize(
    ("build", "termination"),
    [
        (lambda: leader_alone({"bounds": (5, 2)}), "infeasible"),
        (lambda: leader_alone({"bounds": (0.2, 0.8), "domain": pyo.Integers}), "infeasible"),
        (by_leaders_row, "infeasible"),
        (lambda: curved(lambda m: m.x - 2 + 0 * m.f.z), "lower-infeasible"),
        (curved_unbounded, "lower-unbounded"),
    ],
    ids=["crossed bounds", "no integer", "leader's row", "curved and empty", "curved and unbounded"],
)
def test_the_reason_is_told(build: Any, termination: str, mode: str) -> None:
    r = bl.solve(build(), solver="kkt", options={"complementarity": mode}, time_limit=20)
    assert r.termination == termination
    assert not r.has_point
    assert r.message


def test_a_curved_follower_without_multipliers_proves_nothing() -> None:
    """y^2 <= 0: the answer y = 0 exists and has no multiplier."""
    m = curved(lambda m: 0 * m.x)
    m.f.z.setlb(0)
    m.f.z.setub(0)
    r = bl.solve(m, solver="kkt", time_limit=20)
    assert r.claim <= bl.Claim.STATIONARY
    assert r.message


@pytest.mark.parametrize(
    ("objective", "row", "endless"),
    [
        (Function(linear={1: -1.0}), None, True),
        (Function(linear={1: -1.0}), Function(linear={0: 1.0, 1: -1.0}), True),  # x - y <= 1
        (Function(linear={1: -1.0}), Function(linear={0: 1.0, 1: 1.0}), False),  # x + y <= 1
        (Function(quadratic={(0, 1): -1.0}), None, False),  # not at x = 0
        (Function(linear={1: -1.0}, quadratic={(1, 1): 1.0}), None, False),
        (Function(linear={2: -1.0}, quadratic={(1, 1): 1.0}), None, True),
        (Function(linear={2: -1.0}), Function(linear={2: 1.0}, quadratic={(1, 1): 1.0}), False),
        (Function(linear={2: -1.0}), Function(linear={2: -1.0}, quadratic={(1, 1): 1.0}), True),
    ],
)
def test_directions_that_hold_whatever_the_leader_does(
    objective: Function, row: Function | None, endless: bool
) -> None:
    columns = (Variable("x", 0.0, 1.0), Variable("y"), Variable("z"))
    rows = () if row is None else (Row("r", row, upper=1.0),)
    follower = Level("f", objective, rows, (1, 2))
    program = BilevelProgram(columns, Level("leader", Function(), columns=(0,)), (follower,))
    assert always_unbounded(program, 0) is endless
