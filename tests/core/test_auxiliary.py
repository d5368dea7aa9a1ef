"""The auxiliary program on algebraic problems: directions by hand, kinks, leader's rows, flat stretches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.hypergradients import OptimalitySystem, reduced_gradient
from bilevel_core.lower import respond
from bilevel_core.oracles.algebraic import AlgebraicOracle
from bilevel_core.solvers.auxiliary.program import AuxiliaryProgram, Direction
from bilevel_core.solvers.auxiliary.search import bracketed, breakpoints
from tests.core.models import bard_511, quadratic_follower, tied_follower


def model(upper: Any, lower: Any, rows: Any = None, leader: Any = None, **bounds: Any) -> bl.PyomoProblem:
    """One x and one y; functions of (x, y)."""
    m = pyo.ConcreteModel(name="small")
    m.x = pyo.Var(bounds=bounds.get("x", (-10, 10)))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=bounds.get("y", (None, None)))
    x, y = m.x, m.follower.y
    m.objective = pyo.Objective(expr=upper(x, y))
    m.follower.objective = pyo.Objective(expr=lower(x, y))
    m.follower.rows = pyo.ConstraintList()
    for row in [] if rows is None else rows(x, y):
        m.follower.rows.add(row)
    m.rows = pyo.ConstraintList()
    for row in [] if leader is None else leader(x, y):
        m.rows.add(row)
    return bl.PyomoProblem(m)


def program_at(problem: bl.PyomoProblem, x: float, weight: float = 1e3) -> tuple[AuxiliaryProgram, OptimalitySystem]:
    oracle = AlgebraicOracle(problem)
    at = np.array([x])
    response = respond(oracle, at)
    system = OptimalitySystem(oracle, at, response)
    _, f_x, f_y = oracle.upper_gradients(at, response.y)
    upper = oracle.upper_rows(at, response.y, jacobian=True)
    return AuxiliaryProgram(oracle, at, response.y, system, (f_x, f_y), upper, weight), system


def direction_at(problem: bl.PyomoProblem, x: float) -> Direction:
    found = program_at(problem, x)[0].solve(1.0)
    assert found is not None
    return found


def test_the_direction_without_constraints_is_minus_the_hypergradients_sign() -> None:
    """y = x / 2, F = (y - 3)^2 + x: dF/dx = (x/2 - 3) + 1."""
    problem = model(lambda x, y: (y - 3) ** 2 + x, lambda x, y: y**2 - x * y)
    found = direction_at(problem, 2.0)
    assert (found.x[0], found.y[0]) == (pytest.approx(1.0), pytest.approx(0.5))
    assert found.value == pytest.approx(-1.0)
    assert direction_at(problem, 4.0).value == pytest.approx(0.0, abs=1e-9)
    oracle = AlgebraicOracle(problem)
    g = reduced_gradient(oracle, np.array([2.0]), respond(oracle, np.array([2.0])))
    assert g.value[0] == pytest.approx(found.value)


def test_a_strongly_active_row_is_held() -> None:
    """min y with y >= x: the follower moves with the row, whatever its objective's curvature."""
    found = direction_at(model(lambda x, y: x - 3 * y, lambda x, y: y, lambda x, y: [y >= x, y >= -20]), 1.0)
    assert (found.x[0], found.y[0]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.slope == pytest.approx(-2.0)


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0), (-1.0, -1.0)])
def test_a_weakly_active_row_is_held_or_released(slope: float, expected: float) -> None:
    """y = max(x, 0) at x = 0: to the left y stays, to the right it moves. F = y + a x falls to the left for a > 0."""
    problem = model(lambda x, y: y - 0.5 * slope * x, lambda x, y: (y - x) ** 2, lambda x, y: [y >= 0])
    program, system = program_at(problem, 0.0)
    assert not system.active.strict
    found = program.solve(1.0)
    assert found is not None
    assert found.pairs == 1
    # slope 1: right 1 - 0.5, left +0.5: stationary. slope -1: left falls by 0.5.
    assert found.value == pytest.approx(0.5 * expected, abs=1e-9)
    assert (found.x[0] == pytest.approx(-1.0)) == (expected < 0.0)
    if expected < 0.0:
        assert found.y[0] == pytest.approx(0.0)
        assert found.released == 0


def test_more_pairs_than_branches_go_to_sets() -> None:
    m = pyo.ConcreteModel(name="many")
    m.x = pyo.Var(bounds=(-1, 1))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(range(8), bounds=(0, None))
    m.objective = pyo.Objective(expr=sum(m.follower.y[i] for i in range(8)) + m.x)
    m.follower.objective = pyo.Objective(expr=sum((m.follower.y[i] - m.x) ** 2 for i in range(8)))
    found = direction_at(bl.PyomoProblem(m), 0.0)
    assert found.pairs == 8
    assert found.value == pytest.approx(-1.0)
    assert found.x[0] == pytest.approx(-1.0)
    m.objective.expr = sum(m.follower.y[i] for i in range(8)) - 2 * m.x  # rises by 6 to the right, by 2 to the left
    assert direction_at(bl.PyomoProblem(m), 0.0).value == pytest.approx(0.0, abs=1e-9)
    m.objective.expr = -sum(m.follower.y[i] for i in range(8))
    assert direction_at(bl.PyomoProblem(m), 0.0).value == pytest.approx(-8.0)


def test_the_quadratic_program_lands_on_the_minimum_of_its_model() -> None:
    """Phi(x) = (x/2 - 3)^2 + x has its minimum at 4; with its true second derivative 1/2 one step gets there."""
    problem = model(lambda x, y: (y - 3) ** 2 + x, lambda x, y: y**2 - x * y)
    found = program_at(problem, 0.0)[0].solve(100.0, np.array([[0.5]]))
    assert found is not None
    assert (found.x[0], found.y[0]) == (pytest.approx(4.0), pytest.approx(2.0))


def test_leaders_rows_bend_the_direction_and_are_elastic() -> None:
    rows = {"leader": lambda x, y: [x + y <= 3]}
    problem = model(lambda x, y: -x, lambda x, y: (y - x) ** 2, **rows)
    found = program_at(problem, 1.0)[0].solve(1.0)
    assert found is not None
    assert found.x[0] == pytest.approx(0.5)
    violated = program_at(problem, 2.0)[0].solve(1.0)
    assert violated is not None
    assert violated.x[0] == pytest.approx(-0.5)
    assert violated.relief == pytest.approx(1.0)


def test_breakpoints_are_where_rows_become_active_and_multipliers_end() -> None:
    """y = clip(x, 1, 2): from x = 0 (y held at 1, multiplier 2 (1 - x)) the row lets go at x = 1."""
    problem = model(lambda x, y: -y - x, lambda x, y: (y - x) ** 2, lambda x, y: [y >= 1, y <= 2])
    for start, expected in ((0.0, 1.0), (1.5, 0.5)):
        program, system = program_at(problem, start)
        found = program.solve(1.0)
        assert found is not None
        response = respond(system.oracle, np.array([start]))
        lengths = breakpoints(system, np.array([start]), response.y, response, found)
        assert lengths[0] == pytest.approx(expected)


def test_bracketing() -> None:
    assert bracketed(lambda t: (t - 3.0) ** 2, 1.0) == pytest.approx(3.0, rel=0.1)
    assert bracketed(lambda t: (t - 1e-3) ** 2, 1.0) == pytest.approx(1e-3, rel=0.2)
    assert bracketed(lambda t: t, 1.0) == 0.0


@pytest.mark.parametrize("norm", ["auto", "2", "inf", "quasi-newton"])
@pytest.mark.parametrize(("build", "optimum"), [(bard_511, -12.0), (quadratic_follower, 17.0), (tied_follower, -1.0)])
def test_known_optima_in_every_norm(build: Any, optimum: float, norm: str) -> None:
    r = bl.solve(build(), "auxiliary", {"norm": norm, "starts": 4})
    assert r.upper_objective == pytest.approx(optimum, abs=1e-5)
    assert r.claim <= bl.Claim.LOCAL
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"


def test_a_kink_that_is_a_minimum_is_reported_as_stationary() -> None:
    """y = max(x, 0), F = y - x / 2: the minimum lies at the kink x = 0, where no gradient vanishes."""
    problem = model(lambda x, y: y - 0.5 * x, lambda x, y: (y - x) ** 2, lambda x, y: [y >= 0])
    r = bl.solve(problem, "auxiliary")
    assert r.upper_objective == pytest.approx(0.0, abs=1e-7)
    assert r.claim is bl.Claim.LOCAL
    assert r.x["x"] == pytest.approx(0.0, abs=1e-6)


def test_a_flat_stretch_is_left_by_a_trust_region_step_and_said() -> None:
    """Beyond the rival's price of 4 nobody buys and revenue is flat at 0; the best price is 4."""
    m = pyo.ConcreteModel(name="priced-off")
    m.x = pyo.Var(bounds=(0, 10), initialize=8)
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(bounds=(0, 1))
    m.follower.z = pyo.Var(bounds=(0, 1))
    m.objective = pyo.Objective(expr=m.x * m.follower.y, sense=pyo.maximize)
    m.follower.objective = pyo.Objective(expr=m.x * m.follower.y + 4 * m.follower.z)
    m.follower.all = pyo.Constraint(expr=m.follower.y + m.follower.z == 1)
    problem = bl.PyomoProblem(m)
    assert direction_at(problem, 8.0).value == pytest.approx(0.0, abs=1e-9)
    oracle = AlgebraicOracle(problem)
    oracle.x_start = np.array([8.0])
    from bilevel_core.run import RunContext
    from bilevel_core.solvers.auxiliary.solver import Auxiliary

    solver = Auxiliary()
    state = solver.init(oracle, np.array([8.0]), RunContext())
    assert state.candidate is not None
    assert state.candidate.objective == pytest.approx(0.0)
    while solver.done(state) is None:
        state = solver.step(oracle, state, RunContext())
    assert state.candidate is not None
    assert state.candidate.objective == pytest.approx(-4.0)
    assert any("trust-region step" in note for note in oracle.notes)
    still = Auxiliary(max_leaps=0)
    state = still.init(oracle, np.array([8.0]), RunContext())
    while still.done(state) is None:
        state = still.step(oracle, state, RunContext())
    assert state.candidate is not None
    assert state.candidate.objective == pytest.approx(0.0)


def test_leaders_rows_that_cannot_be_met_give_no_point() -> None:
    problem = model(lambda x, y: x, lambda x, y: (y - x) ** 2, leader=lambda x, y: [x + y <= -1, x + y >= 1])
    r = bl.solve(problem, "auxiliary", {"max_iterations": 60})
    assert not r.has_point
    assert r.claim is bl.Claim.NONE


def test_what_it_refuses() -> None:
    m = bard_511()
    m.x.domain = pyo.NonNegativeIntegers
    with pytest.raises(bl.RefusedError, match="integer variable"):
        bl.solve(m, "auxiliary")
    m = bard_511()
    m.follower.objective.expr = -(m.follower.y**2)
    with pytest.raises(bl.RefusedError, match="nonconvex"):
        bl.solve(m, "auxiliary")
    with pytest.raises(bl.UsageError, match="CPU only"):
        bl.solve(bard_511(), "auxiliary", device="cuda:0")
    for name, value in (("tolerance", 0.0), ("damping", -1.0), ("memory", 0), ("lower_iterations", 0)):
        with pytest.raises(bl.UsageError, match=name):
            bl.solve(bard_511(), "auxiliary", {name: value})


def test_a_program_that_no_backend_solves_promises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsolved(self: AuxiliaryProgram, radius: float, curvature: np.ndarray | None = None) -> Direction | None:
        return None

    monkeypatch.setattr(AuxiliaryProgram, "solve", unsolved)
    r = bl.solve(bard_511(), "auxiliary", {"max_leaps": 0})
    assert "nan" not in r.message
    assert "No backend solved the auxiliary program" in r.message
    assert r.claim <= bl.Claim.FEASIBLE
