"""Every mode on every problem of the library that it takes: the known optimum, no wrong claim, reasons told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.run import RunContext
from bilevel_core.solvers.kkt.local import LocalRun
from bilevel_core.solvers.kkt.solver import KKT

from .models import bard_511, quadratic_follower

LIBRARY = {
    n: s
    for n, s in get_registry().problems.items()
    if n.startswith(("classic/", "trap/")) and not s.needs and "integer" not in s.tags
}
KNOWN = [n for n, s in LIBRARY.items() if s.known is not None and s.known.upper_objective is not None]
POINTLESS = [n for n in LIBRARY if n not in KNOWN]
EXACT = ("indicator", "strong-duality")  # sos1 and bigm: tests/problems/test_library.py
LOCAL = ("relaxed", "penalised")
# A row of the follower's is quadratic in x: one row by strong duality would be cubic.
REFUSED = {("classic/bard-1988-3", "strong-duality")}
# The gap's row is leaned on within tolerances, and sets have the last word.
LEANING = {("classic/shimizu-aiyoshi-1", "strong-duality")}


def solve(name: str, mode: str) -> bl.Result:
    return bl.solve(LIBRARY[name].load()(), solver="kkt", options={"complementarity": mode})


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("name", KNOWN)
def test_exact_modes_find_the_optimum(name: str, mode: str) -> None:
    if (name, mode) in REFUSED:
        with pytest.raises(bl.RefusedError, match="complementarity=sos1"):
            solve(name, mode)
        return
    r = solve(name, mode)
    known = LIBRARY[name].known
    assert known is not None
    assert r.upper_objective == pytest.approx(known.upper_objective, rel=1e-5, abs=1e-5)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    assert r.status == "optimal"
    assert ("sets took its place" in r.message) == ((name, mode) in LEANING)


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("name", POINTLESS)
def test_exact_modes_tell_why_there_is_no_solution(name: str, mode: str) -> None:
    r = solve(name, mode)
    assert LIBRARY[name].known is not None
    assert r.termination == LIBRARY[name].known.termination  # type: ignore[union-attr]
    assert not r.has_point


@pytest.mark.parametrize("mode", ["sos1", "bigm", *EXACT])
def test_an_unbounded_leader_is_told(mode: str) -> None:
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(within=pyo.NonNegativeReals)
    m.f = bl.Follower()
    m.f.y = pyo.Var(within=pyo.NonNegativeReals)
    m.o = pyo.Objective(expr=-m.x - m.f.y)
    m.f.o = pyo.Objective(expr=m.f.y)
    m.f.c = pyo.Constraint(expr=m.f.y >= m.x)
    assert bl.solve(m, options={"complementarity": mode}).status == "unbounded"


@pytest.mark.parametrize("mode", LOCAL)
@pytest.mark.parametrize("name", ["classic/bard-511", "classic/bard-1988-1", "trap/small-bound", "classic/outrata-1a"])
def test_local_modes_find_points_and_claim_no_more_than_stationary(name: str, mode: str) -> None:
    r = solve(name, mode)
    known = LIBRARY[name].known
    assert known is not None
    assert r.upper_objective == pytest.approx(known.upper_objective, rel=1e-5, abs=1e-5)
    assert r.claim == "stationary"
    assert r.bound is None
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"


@pytest.mark.parametrize("mode", LOCAL)
def test_local_modes_leave_a_point_where_another_piece_is_better(mode: str) -> None:
    """At (0, 0) multiplier and slack of y >= 0 both vanish: on one piece y = 0 (F = 0.9 at x = -1), on the other y = x
    (F = 0.0975 at x = 0.95). The better one has to be entered, whichever the search came from.
    """
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(-1, 1))
    m.f = bl.Follower()
    m.f.y = pyo.Var(bounds=(0, 2))
    m.o = pyo.Objective(expr=(m.f.y - 1) ** 2 + 0.1 * m.x)
    m.f.o = pyo.Objective(expr=(m.f.y - m.x) ** 2)
    search = LocalRun(KKT(complementarity=mode), bl.PyomoProblem(m), RunContext())  # type: ignore[arg-type]
    origin = np.zeros(len(search.system.columns))
    for pair in search.conditions.multipliers:
        origin[pair.slack_column] = pair.slack.evaluate(origin)
    assert search.system.violation(origin) == 0.0
    values, settled = search.settle(origin)
    assert settled
    assert search.unit.back(search.system.objective.evaluate(values)) == pytest.approx(0.0975, abs=1e-6)


def two_followers() -> Any:
    return LIBRARY["trap/two-followers"].load()()


MIXED = [
    {"modes.follower[1]": "bigm"},
    {"modes.follower[1]": "strong-duality", "modes.follower[2]": "indicator"},
    {"modes.follower[1].rows[1]": "bigm", "modes.follower[1].z:lower": "indicator"},
    {"complementarity": "bigm", "modes.follower[2].rows[2]": "sos1", "modes.follower[2].z": "indicator"},
    {"complementarity": "strong-duality", "modes.follower[2]": "bigm"},
]


@pytest.mark.parametrize("options", MIXED, ids=lambda o: ",".join(o.values()))
def test_modes_can_be_mixed(options: dict[str, str]) -> None:
    r = bl.solve(two_followers(), options=options)
    assert r.upper_objective == pytest.approx(18.5)
    assert r.status == "optimal"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes.follower[3]": "bigm"}, r"follower\[1\]|follower\[2\]"),
        ({"modes.follower[1].rows[9]": "bigm"}, "Did you mean"),
        ({"modes.follower[1]": "bigmm"}, "'bigm'"),
        ({"modes.follower[1]": "relaxed"}, "cannot be mixed"),
        ({"modes.follower[1].rows[1]": "strong-duality"}, "all constraints of follower"),
        ({"complementarity": "bigm", "slack_bounds.nothing": 3.0}, "slack_bounds"),
        ({"modes.follower[1]": "bigm", "multiplier_bounds.follower[2]": 3.0}, "mode bigm"),
        ({"multiplier_bounds.follower[1]": 3.0}, "complementarity=bigm"),
        ({"complementarity": "bigm", "slack_bounds.follower[1]": -3.0}, "positive"),
        ({"complementarity": "relaxed", "backend": "scip"}, "Ipopt"),
        ({"complementarity": "relaxed", "gap": 0.1}, "gap"),
        ({"starts": 3}, "starts"),
        ({"complementarity": "indicator", "backend": "highs"}, "indicators"),
    ],
)
def test_wrong_modes_and_bounds_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(bl.UsageError, match=message):
        bl.solve(two_followers(), solver="kkt", options=options)


def test_a_users_bound_for_one_constraint_is_used_and_never_trusted() -> None:
    """The slack of y >= 0 must reach 100 (trap/small-bound): 10 is too small, touched, and enlarged."""
    load = LIBRARY["trap/small-bound"].load()
    options: dict[str, Any] = {"complementarity": "bigm", "slack_bounds.follower.y": 10.0}
    r = bl.solve(load(), options=options)
    assert r.upper_objective == pytest.approx(102.0)
    assert r.claim == "feasible"
    held = bl.solve(load(), options=options | {"max_enlargements": 0})
    assert held.claim == "feasible"
    assert "leans on" in held.message


def integer_leader() -> Any:
    """min -3x - 2y over integer x in [-2, 5]; the follower maximises y over y <= 4 - x, y <= x + 3, y >= 0."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(domain=pyo.Integers, bounds=(-2, 5))
    m.f = bl.Follower()
    m.f.y = pyo.Var(bounds=(0, 50))
    m.o = pyo.Objective(expr=m.x - 2 * m.f.y)
    m.f.o = pyo.Objective(expr=m.f.y, sense=pyo.maximize)
    m.f.c = pyo.Constraint(expr=m.f.y <= 4 - m.x)
    m.f.d = pyo.Constraint(expr=m.f.y <= m.x + 3)
    return m


def test_strong_duality_with_integer_leaders_is_linear() -> None:
    """Products are exact by binaries, so that HiGHS takes the program."""
    best = min(x - 2 * min(4 - x, x + 3) for x in range(-2, 5))
    r = bl.solve(integer_leader(), options={"complementarity": "strong-duality", "backend": "highs"})
    assert r.upper_objective == pytest.approx(best)
    assert r.status == "optimal"


def convex_nonlinear(*, coefficient: float = 1.0) -> Any:
    """The follower minimises exp(y) - x y, so that y = log x; the leader wants y = 1 and pays 0.1 x."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(1, 10))
    m.f = bl.Follower()
    m.f.y = pyo.Var(bounds=(-1, 3))
    m.o = pyo.Objective(expr=(m.f.y - 1) ** 2 + 0.1 * m.x)
    m.f.o = pyo.Objective(expr=pyo.exp(m.f.y) - m.x * m.f.y + (coefficient - 1) * m.f.y**4)
    return m


@pytest.mark.parametrize("mode", ["sos1", "indicator", "bigm", "relaxed", "penalised"])
def test_convex_nonlinear_followers(mode: str) -> None:
    grid = np.linspace(1.0, 10.0, 900_001)
    best = float(((np.log(grid) - 1) ** 2 + 0.1 * grid).min())
    assert bl.classify(convex_nonlinear()).traits.followers[0].label == "convex NLP"
    r = bl.solve(convex_nonlinear(), solver="kkt", options={"complementarity": mode})
    assert r.upper_objective == pytest.approx(best, abs=1e-5)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    assert r.status == "optimal" if mode in ("sos1", "indicator") else r.claim <= bl.Claim.STATIONARY


def test_unknown_convexity_is_refused_by_exact_modes_and_taken_locally() -> None:
    m = convex_nonlinear(coefficient=0.7)  # exp(y) - 0.3 y^4 bends down at y = 1
    assert bl.classify(m).traits.followers[0].convex is None
    with pytest.raises(bl.RefusedError, match="not known"):
        bl.solve(m, solver="kkt")
    r = bl.solve(m, solver="kkt", options={"complementarity": "relaxed"})
    assert r.claim <= bl.Claim.STATIONARY
    assert "convexity is not known" in r.message


def test_strong_duality_of_models_with_quadratic_followers() -> None:
    for model, optimum in ((bard_511(maximise_follower=True), -12.0), (quadratic_follower(), 17.0)):
        r = bl.solve(model, options={"complementarity": "strong-duality"})
        assert r.upper_objective == pytest.approx(optimum, abs=1e-5)
        assert r.status == "optimal"
