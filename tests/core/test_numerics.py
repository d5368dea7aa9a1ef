"""Badly scaled problems, and backends' tolerances that once made wrong answers look optimal or right ones refuted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.backends import Solution, SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import BackendError
from bilevel_core.program import Function, positive_semidefinite, total
from bilevel_core.reductions.bigm import PairBounds

MODES = [{}, {"complementarity": "bigm"}]


def model(x: tuple[float, float], **y: Any) -> Any:
    m: Any = pyo.ConcreteModel(name="scaled")
    m.x = pyo.Var(bounds=x)
    m.f = bl.Follower()
    m.f.y = pyo.Var(*y.pop("index", ()), **y)
    return m


def tiny_multiplier() -> Any:
    """The second cost is 1e-8 of the first: the true multiplier of its row is 1e-7."""
    m = model((0, 50), index=([1, 2],), bounds=(0, 50))
    m.o = pyo.Objective(expr=2 * m.x - m.f.y[2])
    m.f.o = pyo.Objective(expr=1e5 * m.f.y[1] + 1e-3 * m.f.y[2])
    m.f.c = pyo.Constraint(expr=1e4 * m.f.y[2] >= 1e4 * m.x)
    m.f.d = pyo.Constraint(expr=m.f.y[1] >= 1)
    return m


def large_constant() -> Any:
    m = model((0, 50), bounds=(0, 50))
    m.o = pyo.Objective(expr=2 * m.x - m.f.y)
    m.f.o = pyo.Objective(expr=1e5 + 1e-3 * m.f.y)
    m.f.c = pyo.Constraint(expr=1e4 * m.f.y >= 1e4 * m.x)
    return m


def small_everything() -> Any:
    m = model((0, 0.005), bounds=(0, 0.005))
    m.o = pyo.Objective(expr=1e5 * (2 * m.x - m.f.y))
    m.f.o = pyo.Objective(expr=1e-4 * m.f.y)
    m.f.c = pyo.Constraint(expr=1e5 * m.f.y >= 1e5 * m.x)
    return m


def steep_leader() -> Any:
    """A tolerance on the follower's optimality is worth 1e7 times as much to the leader."""
    m = model((0, 1), bounds=(0, 10))
    m.o = pyo.Objective(expr=2e3 * m.x - 1e3 * m.f.y)
    m.f.o = pyo.Objective(expr=1e-4 * m.f.y)
    m.f.c = pyo.Constraint(expr=m.f.y >= m.x)
    return m


def regularised() -> Any:
    """HiGHS adds 1e-7 to the diagonal of a Hessian unless told not to: x came out as 683.3."""
    m = model((0, 1000))
    m.o = pyo.Objective(expr=(m.x - 700) ** 2 + m.f.y)
    m.f.o = pyo.Objective(expr=1e3 * (m.f.y - m.x) ** 2)
    m.f.c = pyo.Constraint(expr=m.f.y == 600)
    return m


def flat_quadratic() -> Any:
    m = model((-1e5, 1e5), bounds=(-1e5, 1e5))
    m.o = pyo.Objective(expr=(m.x - 1234.5) ** 2 + (m.f.y - 10) ** 2)
    m.f.o = pyo.Objective(expr=1e-4 * (m.f.y - 2 * m.x) ** 2)
    return m


def relaxed_bounds() -> Any:
    """Ipopt relaxes bounds by 1e-8 unless told not to: the follower then had no feasible answer. Optimum -3.75."""
    m = model((0, 2), bounds=(0, 2))
    m.z = pyo.Var(bounds=(0, 2))
    m.o = pyo.Objective(expr=-m.x * m.z - m.f.y)
    m.f.o = pyo.Objective(expr=m.f.y)
    m.f.rows = pyo.ConstraintList()
    for row in (m.f.y >= m.x, m.f.y <= m.z, m.x + m.z <= 3):
        m.f.rows.add(row)
    return m


CASES: list[tuple[Callable[[], Any], float]] = [
    (tiny_multiplier, 0.0),
    (large_constant, 0.0),
    (small_everything, 0.0),
    (steep_leader, 0.0),
    (regularised, 600.0),
    # min (x - 1234.5)^2 + (2x - 10)^2: x = (1234.5 + 20) / 5
    (flat_quadratic, (250.9 - 1234.5) ** 2 + (501.8 - 10) ** 2),
    (relaxed_bounds, -3.75),
]


@pytest.mark.parametrize("options", MODES, ids=["sos1", "bigm"])
@pytest.mark.parametrize(("build", "optimum"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_badly_scaled_problems(build: Callable[[], Any], optimum: float, options: dict[str, Any]) -> None:
    r = bl.solve(build(), options=options)
    assert r.upper_objective == pytest.approx(optimum, rel=1e-6, abs=1e-5)
    assert r.status in ("optimal", "feasible")
    if not options:
        assert r.status == "optimal"


def test_a_point_that_is_too_good_for_the_leader_is_refuted() -> None:
    """The follower's gap hides in its large constant; what the leader gains by it does not."""
    c = bl.verify(large_constant(), {"x": 0.0}, {"y": 50.0})
    assert c.verdict == "refuted"


@pytest.mark.parametrize("options", [{"gap": 0.9}, {"backend_options": {"limits/gap": 0.9}}])
def test_a_loose_gap_is_not_a_proof(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    n = 14
    m: Any = pyo.ConcreteModel(name="loose")
    m.x = pyo.Var(range(n), domain=pyo.Binary)
    m.f = bl.Follower()
    m.f.y = pyo.Var(range(n), bounds=(0, 1))
    w, v = rng.integers(5, 30, n), rng.integers(5, 30, n)
    m.budget = pyo.Constraint(expr=sum(int(w[i]) * m.x[i] for i in range(n)) <= int(w.sum() // 3))
    m.o = pyo.Objective(expr=sum(int(v[i]) * m.f.y[i] for i in range(n)))
    m.f.o = pyo.Objective(expr=sum(int(v[i]) * m.f.y[i] for i in range(n)), sense=pyo.maximize)
    m.f.cap = pyo.Constraint(expr=sum(int(w[i]) * m.f.y[i] for i in range(n)) <= int(w.sum() // 2))
    m.f.gone = pyo.Constraint(range(n), rule=lambda f, i: f.y[i] <= 1 - m.x[i])
    exact = bl.solve(m)
    assert exact.status == "optimal"
    loose = bl.solve(m, options=options)
    assert loose.upper_objective is not None
    assert loose.upper_objective == pytest.approx(exact.upper_objective) or loose.status == "feasible"


def test_a_reference_does_not_change_who_owns_a_variable() -> None:
    m = model((0, 10), index=([1, 2],), bounds=(0, 10))
    m.f.r = pyo.Reference(m.x)
    m.all = pyo.Reference(m.f.y)
    m.o = pyo.Objective(expr=m.x + m.f.y[1])
    m.f.o = pyo.Objective(expr=m.f.y[1] + m.f.y[2], sense=pyo.maximize)
    m.f.c = pyo.Constraint(expr=m.f.y[1] + m.f.y[2] + m.f.r[None] <= 12)
    m.f.d = pyo.Constraint(expr=m.f.y[2] <= 3 + m.x)
    r = bl.solve(m)
    assert r.upper_objective == pytest.approx(4.5)
    assert set(r.x) == {"x"}
    assert set(r.y) == {"f.y"}


def test_small_concave_parts_beside_large_convex_ones_are_seen() -> None:
    m = model((0, 2), bounds=(0, 2))
    m.f.z = pyo.Var(bounds=(-1e3, 1e3))
    m.o = pyo.Objective(expr=m.x)
    m.f.o = pyo.Objective(expr=1e5 * (m.f.y - m.x) ** 2 - 5e-5 * m.f.z**2)
    with pytest.raises(bl.RefusedError, match="nonconvex"):
        bl.solve(m, solver="kkt")
    assert positive_semidefinite(np.array([[1e5, -1e5], [-1e5, 1e5]]))
    assert not positive_semidefinite(np.array([[1e5, 0.0], [0.0, -1e-4]]))
    for largest in (1.0, 1e12, 1e20):  # however large the curvature elsewhere
        assert not positive_semidefinite(np.array([[largest, 0.0], [0.0, -0.5]]))
        assert not positive_semidefinite(np.array([[largest, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    assert not positive_semidefinite(np.array([[1e12 - 1.0, -1e12 - 1.0], [-1e12 - 1.0, 1e12 - 1.0]]))
    cancelled = total([Function(quadratic={(0, 0): 0.1 * 0.1}), Function(quadratic={(0, 0): -0.01})])
    assert not cancelled.quadratic
    assert not positive_semidefinite(np.array([[0.0, 1.0], [1.0, 5.0]]))
    assert not positive_semidefinite(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_nonlinear_in_x_only_is_linear_for_the_follower() -> None:
    m = model((0, 2), bounds=(0, 1))
    m.o = pyo.Objective(expr=(m.x - 0.5) ** 2 - m.f.y)
    m.f.o = pyo.Objective(expr=m.f.y * m.x**3 - m.f.y)
    assert bl.classify(m).traits.followers[0].label == "LP"
    r = bl.solve(m)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(-1.0, abs=1e-5)  # x = 0.5 < 1 makes y = 1 optimal


def test_unbounded_needs_a_ray() -> None:
    m = model((0, 2e10), bounds=(0, None))
    m.o = pyo.Objective(expr=-m.x)
    m.f.o = pyo.Objective(expr=m.f.y)
    m.f.c = pyo.Constraint(expr=m.f.y >= m.x)
    r = bl.solve(m)
    assert r.status != "unbounded"
    assert r.upper_objective == pytest.approx(-2e10)


def test_bounds_beyond_the_tolerances_are_not_a_proof() -> None:
    """Costs of 7000 beside 0.002 make proven bounds of 5e7, with which binaries once called 22.47 optimal."""
    m: Any = pyo.ConcreteModel(name="bounds")
    m.x = pyo.Var([0, 1], domain=pyo.Integers, bounds=(0, 3))
    m.f = bl.Follower()
    m.f.y = pyo.Var([0, 1, 2], bounds=lambda f, j: (0, (50, 1000, 1000)[j]))
    x, y = m.x, m.f.y
    m.o = pyo.Objective(expr=9 * x[0] - x[1] - 2 * y[0] - 4 * y[1] + 7 * y[2])
    m.f.o = pyo.Objective(expr=-0.002 * y[0] + 0.002 * y[1] - 7000 * y[2])
    m.f.rows = pyo.ConstraintList()
    m.f.rows.add(-2 * x[0] + 4 * x[1] - 5 * y[0] + 4 * y[1] + 3 * y[2] <= 3)
    m.f.rows.add(-x[0] + 2 * y[0] - 3 * y[1] - 2 * y[2] <= 20)
    m.f.rows.add(5 * x[0] + 5 * y[0] + 2 * y[1] + 3 * y[2] <= 19)
    exact = bl.solve(m)
    assert exact.status == "optimal"
    assert exact.upper_objective == pytest.approx(46 / 15)
    loose = bl.solve(m, options={"complementarity": "bigm"})
    assert loose.status != "optimal"
    assert "too large" in loose.message


def test_auto_goes_on_with_another_backend_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, program: object, settings: object) -> Solution:
        raise BackendError("HiGHS: Solve error")

    m = steep_leader()
    wanted = bl.solve(m, options=MODES[1]).upper_objective
    monkeypatch.setattr("bilevel_core.solvers.kkt.exact.polish", lambda *args: None)
    monkeypatch.setattr(Highs, "_solve", fail)
    monkeypatch.setattr("bilevel_core.solvers.kkt.exact.derive_bounds", lambda *args: [PairBounds(1e3, 1e3)] * 3)
    r = bl.solve(m, options=MODES[1], verify=False)
    assert r.upper_objective == pytest.approx(wanted, abs=1e-4)
    assert "scip" in r.versions
    with pytest.raises(BackendError):
        bl.solve(m, options=MODES[1] | {"backend": "highs"}, verify=False)


def test_a_backend_that_breaks_down_loses_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, program: Any, settings: object) -> Solution:
        if program.sos1:
            raise BackendError("SCIP failed: error in LP solver!")
        return wanted(self, program, settings)  # type: ignore[arg-type]

    wanted = Scip._solve
    monkeypatch.setattr(Scip, "_solve", fail)
    r = bl.solve(steep_leader())
    assert r.termination == "error"
    assert r.status == "error"
    assert r.claim == "feasible"
    assert r.has_point
    assert "LP solver" in r.message


@pytest.mark.parametrize(("status", "termination"), [("infeasible", "converged"), ("time-limit", "time-limit")])
def test_a_search_without_a_point_loses_none(monkeypatch: pytest.MonkeyPatch, status: str, termination: str) -> None:
    def empty(self: object, program: Any, settings: Any) -> Solution:
        return Solution(SolveStatus(status)) if program.sos1 else wanted(self, program, settings)  # type: ignore[arg-type]

    wanted = Scip._solve
    monkeypatch.setattr(Scip, "_solve", empty)
    r = bl.solve(steep_leader())
    assert r.termination == termination
    assert r.claim == "feasible"
    assert r.status == "feasible"
