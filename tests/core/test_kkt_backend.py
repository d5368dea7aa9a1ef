"""Which backend gets which options, and how large a bound may be for its tolerances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.backends import Solution
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.scip import Scip
from bilevel_core.errors import BackendError
from bilevel_core.program import Function, Level, Program, Row, Variable
from bilevel_core.run import RunContext
from bilevel_core.solvers.kkt.backend import Solves
from bilevel_core.solvers.kkt.solver import KKT
from bilevel_core.solvers.units import Unit

from .models import bard_511

HIGHS: dict[str, Any] = {"complementarity": "bigm", "backend_options": {"presolve": "off"}}


def test_options_of_one_backend_do_not_break_a_proof_by_another() -> None:
    """Bounds of big-M are not proven here, so SCIP's sets have the last word: without HiGHS's options."""
    for more in ({}, {"multiplier_bound": 0.5, "max_enlargements": 0}):
        r = bl.solve(no_answer(), solver="kkt", options={**HIGHS, **more})
        assert r.termination == "infeasible"
    assert "backend_options were for highs" in r.message


def no_answer() -> Any:
    """The follower takes y = 2, which the leader forbids."""
    m: Any = pyo.ConcreteModel()
    m.f = bl.Follower()
    m.x, m.f.y = pyo.Var(bounds=(0, 5)), pyo.Var()
    m.f.c = pyo.Constraint(expr=m.f.y + 0.0 * m.x <= 2)
    m.f.d = pyo.Constraint(expr=m.f.y + m.x <= 8)
    m.f.o = pyo.Objective(expr=-m.f.y)
    m.c = pyo.Constraint(expr=m.f.y <= 0)
    m.o = pyo.Objective(expr=-m.x)
    return m


def test_options_of_a_backend_that_breaks_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    solve: Callable[..., Solution] = Highs.solve

    def broken(self: Highs, program: Program, settings: Any = None) -> Solution:
        if program.has_integers:
            raise BackendError("broken")
        return solve(self, program, settings)

    monkeypatch.setattr(Highs, "solve", broken)
    r = bl.solve(bard_511(), solver="kkt", options=HIGHS)
    assert r.upper_objective == pytest.approx(-12.0)
    assert "backend_options were for highs; scip" in r.message


def test_scip_is_asked_again_without_conflict_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    solve: Callable[..., Solution] = Scip.solve

    def broken(self: Scip, program: Program, settings: Any = None) -> Solution:
        if settings.options.get("conflict/enable", True):
            raise BackendError("SCIP failed: error in input data!")
        return solve(self, program, settings)

    monkeypatch.setattr(Scip, "solve", broken)
    assert bl.solve(bard_511(), solver="kkt").upper_objective == pytest.approx(-12.0)
    r = bl.solve(bard_511(), solver="kkt", options={"backend_options": {"conflict/enable": True}})
    assert r.claim <= bl.Claim.FEASIBLE  # what was asked for is not changed: the point known before is shown
    assert "SCIP failed" in r.message


def test_an_option_that_the_backend_does_not_know_is_an_error_still() -> None:
    for mode in ("sos1", "bigm"):
        with pytest.raises(bl.UsageError, match="nonsense"):
            bl.solve(bard_511(), solver="kkt", options={"complementarity": mode, "backend_options": {"nonsense": 1}})


@pytest.mark.parametrize(
    ("curved", "options", "most"),
    [
        (False, {"backend": "scip"}, 1e6),
        (True, {"backend": "scip"}, 1e4),  # with quadratic rows SCIP's tolerance is 1e-7
        (False, {"backend": "scip", "backend_options": {"numerics/feastol": 1e-6}}, 1e3),
        (False, {}, 1e6),
        (False, {"backend_options": {"mip_feasibility_tolerance": 1e-7}}, 1e4),
        (False, {"backend_options": {"numerics/feastol": 1e-6}}, 1e6),  # not HiGHS's
    ],
)
def test_the_largest_trusted_bound_follows_the_tolerance(curved: bool, options: dict[str, Any], most: float) -> None:
    quadratic = {(0, 0): 1.0} if curved else {}
    row = Row("r", Function(linear={0: 1.0}, quadratic=quadratic), upper=1.0)
    program = Program((Variable("x"),), Function(linear={0: 1.0}), (row,))
    solves = Solves(KKT(complementarity="bigm", **options), RunContext(), Level("leader", Function()), Unit())
    assert solves.trusted(program) == pytest.approx(most)


def test_a_bound_beyond_the_tolerance_proves_nothing() -> None:
    """Multipliers up to 1e5: within SCIP's tolerance of 1e-9 for linear rows, not within 1e-7 with a quadratic one."""
    m: Any = pyo.ConcreteModel()
    m.f = bl.Follower()
    m.x, m.f.y = pyo.Var(bounds=(0, 1)), pyo.Var(bounds=(0, 1))
    m.f.c = pyo.Constraint(expr=m.f.y >= 0.5 * m.x)
    m.f.o = pyo.Objective(expr=1e5 * m.f.y)
    m.o = pyo.Objective(expr=m.f.y - m.x)
    options = {"complementarity": "bigm", "backend": "scip"}
    assert bl.solve(m, solver="kkt", options=options).status == "optimal"
    m.q = pyo.Constraint(expr=m.x * m.f.y <= 1)
    r = bl.solve(m, solver="kkt", options=options)
    assert r.status == "feasible"
    assert r.upper_objective == pytest.approx(-0.5, abs=1e-5)
    assert "too large for the backend's tolerances" in r.message
