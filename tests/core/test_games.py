"""Several followers: independent or in a Nash game, with constraints of the leader's on their answers."""

from __future__ import annotations

import pyomo.environ as pyo
import pytest

import bilevel_core as bl

MODES = ("sos1", "bigm")


def cournot() -> pyo.ConcreteModel:
    """Two firms of costs 1 and 2 with price 10 - q1 - q2, and a leader that taxes each unit.

    At tax t: q1 = (10 - t) / 3, q2 = (7 - t) / 3, while both are positive (t <= 7); beyond that firm 1 alone produces
    (9 - t) / 2. The income t (q1 + q2) = t (17 - 2 t) / 3 is largest at t = 17 / 4: 289 / 24.
    """
    m = pyo.ConcreteModel(name="cournot")
    m.tax = pyo.Var(bounds=(0, 10))
    m.firm = bl.Follower([1, 2])
    for i in (1, 2):
        m.firm[i].q = pyo.Var(domain=pyo.NonNegativeReals)
    total = m.firm[1].q + m.firm[2].q
    for i in (1, 2):
        m.firm[i].profit = pyo.Objective(expr=(10 - total - i - m.tax) * m.firm[i].q, sense=pyo.maximize)
    m.objective = pyo.Objective(expr=m.tax * total, sense=pyo.maximize)
    return m


@pytest.mark.parametrize("mode", MODES)
def test_a_tax_on_a_duopoly(mode: str) -> None:
    r = bl.solve(cournot(), solver="kkt", options={"complementarity": mode})
    assert r.upper_objective == pytest.approx(289 / 24, rel=1e-5)
    assert float(r.x["tax"]) == pytest.approx(17 / 4, abs=1e-2)
    t = float(r.x["tax"])
    assert float(r.y["firm[1].q"]) == pytest.approx((10 - t) / 3, abs=1e-5)
    assert float(r.y["firm[2].q"]) == pytest.approx((7 - t) / 3, abs=1e-5)
    assert r.status == "optimal" or mode == "bigm"
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    assert "Nash" in r.certificate.reason


def test_the_kind_of_game_is_told() -> None:
    assert "Nash game" in bl.classify(cournot()).traits.label
    assert bl.PyomoProblem(cournot()).program().is_game


@pytest.mark.parametrize(
    ("q", "verdict"),
    [((7 / 3, 4 / 3), "verified"), ((7 / 3, 1.2), "refuted"), ((2.0, 4 / 3), "refuted"), ((3.0, 0.0), "refuted")],
)
def test_each_follower_is_resolved_given_the_others(q: tuple[float, float], verdict: str) -> None:
    c = bl.verify(bl.PyomoProblem(cournot()), {"tax": 3.0}, {"firm[1].q": q[0], "firm[2].q": q[1]})
    assert c.verdict == verdict
    assert c.better_response is None
    if verdict == "verified":
        assert "Whether another equilibrium suits the leader better is not checked" in c.reason


def test_a_cooperating_pair_is_no_equilibrium() -> None:
    """Adding the followers' objectives up would give the cartel's output, all of it by the cheap firm."""
    c = bl.verify(bl.PyomoProblem(cournot()), {"tax": 3.0}, {"firm[1].q": 3.0, "firm[2].q": 0.0})
    assert c.verdict == "refuted"
    assert "'firm[2]'" in c.reason


def coordination() -> pyo.ConcreteModel:
    """Two equilibria for every x: y1 minimises (y1 - y2)^2, y2 has the linear payoff (2 y1 - 1) y2 on [0, 1].

    y2 is 1 where y1 > 1/2 and 0 where y1 < 1/2, and anything in between; y1 = y2. Equilibria: 0, 1/2, 1.
    """
    m = pyo.ConcreteModel(name="coordination")
    m.x = pyo.Var(bounds=(0, 1))
    m.a = bl.Follower()
    m.b = bl.Follower()
    m.a.y = pyo.Var(bounds=(0, 1))
    m.b.y = pyo.Var(bounds=(0, 1))
    m.a.objective = pyo.Objective(expr=(m.a.y - m.b.y) ** 2)
    m.b.objective = pyo.Objective(expr=(2 * m.a.y - 1) * m.b.y, sense=pyo.maximize)
    m.objective = pyo.Objective(expr=m.x + m.a.y)
    return m


@pytest.mark.parametrize(("sense", "value"), [(pyo.minimize, 0.0), (pyo.maximize, 2.0)])
@pytest.mark.parametrize("mode", MODES)
def test_of_several_equilibria_the_leader_has_the_best(sense: int, value: float, mode: str) -> None:
    m = coordination()
    m.objective.sense = sense
    r = bl.solve(m, solver="kkt", options={"complementarity": mode})
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(value, abs=1e-6)


def test_a_leaders_constraint_selects_an_equilibrium_but_does_not_make_one() -> None:
    m = coordination()
    m.low = pyo.Constraint(expr=m.a.y >= 0.2)
    r = bl.solve(m, solver="kkt")
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(0.5, abs=1e-6)
    m = coordination()
    m.low = pyo.Constraint(expr=m.a.y >= 0.2)
    m.high = pyo.Constraint(expr=m.a.y <= 0.4)
    r = bl.solve(m, solver="kkt")
    assert r.status == "infeasible"


def test_a_game_without_an_equilibrium() -> None:
    # a wants to equal b, b wants to be at the other end: no equilibrium in pure strategies but 1/2, which is cut off.
    m = coordination()
    m.b.objective.sense = pyo.minimize
    m.cut = pyo.Constraint(expr=(m.a.y - 0.5) ** 2 >= 0.01)
    r = bl.solve(m, solver="kkt")
    assert r.status == "infeasible"


def sharing(*, both: bool) -> pyo.ConcreteModel:
    """Two followers want as much as they can of what the leader provides: y1 + y2 <= 1, with worths 1 and 2.

    With the row in both followers' problems every split of the whole is a generalised equilibrium. Equal multipliers,
    which the worths rule out, are not asked for.
    """
    m = pyo.ConcreteModel(name="sharing")
    m.x = pyo.Var(bounds=(0, 1))
    m.f = bl.Follower([1, 2])
    for i in (1, 2):
        m.f[i].y = pyo.Var(bounds=(0, 1))
        m.f[i].objective = pyo.Objective(expr=i * m.f[i].y, sense=pyo.maximize)
    for i in (1, 2) if both else (1,):
        m.f[i].share = pyo.Constraint(expr=m.f[1].y + m.f[2].y <= 1)
    m.objective = pyo.Objective(expr=m.x + m.f[2].y)
    return m


def test_shared_constraints_give_all_generalised_equilibria() -> None:
    r = bl.solve(sharing(both=True), solver="kkt")
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(0.0, abs=1e-9)
    assert float(r.y["f[1].y"]) == pytest.approx(1.0)
    problem = bl.PyomoProblem(sharing(both=True))
    for split in (0.0, 0.3, 1.0):
        assert bl.verify(problem, {"x": 0.0}, {"f[1].y": split, "f[2].y": 1.0 - split}).verdict == "verified"
    assert bl.verify(problem, {"x": 0.0}, {"f[1].y": 0.3, "f[2].y": 0.6}).verdict == "refuted"


def test_a_row_binds_only_the_follower_that_it_belongs_to() -> None:
    # Follower 2 has no such row: it takes 1, and follower 1 is left with nothing.
    r = bl.solve(sharing(both=False), solver="kkt")
    assert r.status == "optimal"
    assert float(r.y["f[2].y"]) == pytest.approx(1.0)
    assert float(r.y["f[1].y"]) == pytest.approx(0.0, abs=1e-9)


def two(limit: float, *, tied: bool = False) -> pyo.ConcreteModel:
    """A leader's constraint on follower 1 of two: y1 >= limit, where follower i answers y_i = x_i (or any value)."""
    m = pyo.ConcreteModel(name="two")
    m.x = pyo.Var([1, 2], bounds=(0, 1))
    m.f = bl.Follower([1, 2])
    for i in (1, 2):
        m.f[i].y = pyo.Var(bounds=(0, 1))
        m.f[i].objective = pyo.Objective(expr=0 * m.f[i].y if tied else (m.f[i].y - m.x[i]) ** 2)
    m.row = pyo.Constraint(expr=m.f[1].y >= limit)
    m.objective = pyo.Objective(expr=m.x[1] + m.x[2] + m.f[1].y + m.f[2].y)
    return m


@pytest.mark.parametrize("mode", MODES)
def test_a_leaders_constraint_on_one_of_two_followers(mode: str) -> None:
    r = bl.solve(two(0.5), solver="kkt", options={"complementarity": mode})
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(1.0, abs=1e-6)
    assert r.x["x"].tolist() == pytest.approx([0.5, 0.0], abs=1e-6)
    assert float(r.y["f[2].y"]) == pytest.approx(0.0, abs=1e-6)


def test_a_leaders_constraint_does_not_bend_the_follower() -> None:
    c = bl.verify(bl.PyomoProblem(two(0.5)), {"x": [0.0, 0.0]}, {"f[1].y": 0.5, "f[2].y": 0.0})
    assert c.verdict == "refuted"
    assert "'f[1]'" in c.reason


@pytest.mark.parametrize("mode", MODES)
def test_ties_of_one_follower_are_broken_for_the_leaders_constraint(mode: str) -> None:
    r = bl.solve(two(0.5, tied=True), solver="kkt", options={"complementarity": mode})
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(0.5, abs=1e-6)
    # What the leader risks: both followers at 1.
    assert r.certificate is not None
    assert r.certificate.worst_response == pytest.approx(2.0)
