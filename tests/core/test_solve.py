"""`bl.solve` as a user meets it: choice, options, limits, callbacks, claims."""

from __future__ import annotations

import pickle
import sys
import types

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import CheckSpec
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.sos1 import Sos1

from .models import bard_511, quadratic_follower, tied_follower

BIG_M = {"complementarity": "bigm"}


@pytest.mark.parametrize("options", [{}, BIG_M, BIG_M | {"backend": "scip"}, BIG_M | {"backend": "highs"}])
def test_a_linear_problem(options: dict) -> None:
    r = bl.solve(bl.PyomoProblem(bard_511()), options=options)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(-12.0)
    assert r.lower_objective == pytest.approx(4.0)
    assert r.bound == pytest.approx(-12.0)
    assert (float(r.x["x"]), float(r.y["y"])) == pytest.approx((4.0, 4.0))
    assert r.solver == "kkt"
    assert r.problem == "bard"
    assert r.versions["bilevel"] == bl.__version__
    assert pickle.loads(pickle.dumps(r)).upper_objective == r.upper_objective
    assert bl.Result.from_json(r.to_json()).to_json() == r.to_json()


def test_a_bare_model_will_do_and_is_left_unchanged() -> None:
    m = bard_511()
    assert bl.solve(m).status == "optimal"
    assert m.x.value is None
    assert m.follower.y.value is None


def test_senses_are_the_users() -> None:
    m = bard_511(maximise_follower=True)
    m.objective.deactivate()
    m.profit = pyo.Objective(expr=4 * m.follower.y - m.x, sense=pyo.maximize)
    r = bl.solve(m)
    assert r.upper_objective == pytest.approx(12.0)
    assert r.bound == pytest.approx(12.0)
    assert r.lower_objective == pytest.approx(-4.0)
    assert r.certificate is not None
    assert r.certificate.lower_value == pytest.approx(-4.0)


def test_seed_reproduces() -> None:
    a, b = (bl.solve(quadratic_follower(), seed=5) for _ in range(2))
    np.testing.assert_array_equal(a.x["x"], b.x["x"])
    assert a.counts == b.counts


def test_without_a_check_nothing_is_called_optimal() -> None:
    r = bl.solve(bard_511(), verify=False)
    assert r.certificate is None
    assert r.status == "feasible"
    assert r.claim == "global"


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(bl.UsageError, match="'kkt'"):
        bl.solve(bard_511(), solver="ktk")
    with pytest.raises(bl.UsageError, match="complementarity"):
        bl.solve(bard_511(), solver="kkt", options={"complementarty": "sos1"})
    with pytest.raises(bl.UsageError, match="sos1"):
        bl.solve(bard_511(), solver="kkt", options={"complementarity": "sos2"})
    with pytest.raises(bl.UsageError, match="time limit"):
        bl.solve(bard_511(), time_limit=-1)
    with pytest.raises(bl.UsageError, match="CPU only"):
        bl.solve(bard_511(), device="cuda:0")
    with pytest.raises(bl.UsageError, match="str"):
        bl.solve("classic/bard-511")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "highs"}, "complementarity=bigm"),
        ({"backend": "scpi"}, "'scip'"),
        ({"multiplier_bound": 10.0}, "bigm"),
        (BIG_M | {"multiplier_bound": -1.0}, "positive"),
        (BIG_M | {"slack_bound": float("inf")}, "positive"),
        ({"gap": 1.0}, "gap"),
        (BIG_M | {"max_enlargements": -1}, "max_enlargements"),
        ({"backend_options": {"no/such": 1}}, "no/such"),
    ],
)
def test_bad_option_values(options: dict, message: str) -> None:
    with pytest.raises(bl.UsageError, match=message):
        bl.solve(bard_511(), solver="kkt", options=options)


def test_highs_refuses_what_it_cannot_and_says_why() -> None:
    with pytest.raises(bl.RefusedError, match="no quadratic objective together with integer"):
        bl.solve(quadratic_follower(), options=BIG_M | {"backend": "highs"})


def test_integer_and_nonconvex_followers_are_refused_with_what_could() -> None:
    m = bard_511()
    m.follower.y.domain = pyo.NonNegativeIntegers
    with pytest.raises(bl.RefusedError, match="branch-and-cut"):
        bl.solve(m, solver="kkt")
    m = bard_511()
    m.follower.objective.expr = -(m.follower.y**2)
    with pytest.raises(bl.RefusedError, match="nonconvex"):
        bl.solve(m, solver="kkt")
    m = bard_511()
    m.follower.objective.expr = pyo.exp(m.follower.y) - 0.001 * m.follower.y**4
    with pytest.raises(bl.RefusedError, match="convexity is not known"):
        bl.solve(m, solver="kkt")
    verdict = bl.classify(m).verdicts["kkt"]
    assert isinstance(verdict, bl.Refused)


def test_a_follower_of_unknown_convexity_gets_a_global_claim_from_the_global_solver_only() -> None:
    m = bard_511()
    m.follower.objective.expr = pyo.exp(m.follower.y) - 0.001 * m.follower.y**4
    assert bl.classify(m).chosen == "global"
    r = bl.solve(m, solver="auxiliary")
    assert r.upper_objective == pytest.approx(-12.0, abs=1e-5)
    assert r.claim <= bl.Claim.LOCAL
    assert r.status != "optimal"


def test_no_time_claims_nothing() -> None:
    r = bl.solve(bard_511(), time_limit=0.0)
    assert r.termination == "time-limit"
    assert r.claim == "none"
    assert r.status == "no-solution"
    assert not r.has_point


def test_events_and_stopping() -> None:
    kinds: list[str] = []

    def watch(event: bl.Event) -> None:
        kinds.append(event.kind)

    r = bl.solve(bard_511(), callbacks=[watch])
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert "incumbent" in kinds
    assert r.trace
    assert r.trace[-1]["objective"] == pytest.approx(-12.0)
    stopped = bl.solve(hard(40), callbacks=[lambda event: event.kind == "incumbent"], time_limit=60)
    assert stopped.termination == "stopped-by-user"
    assert stopped.claim <= bl.Claim.FEASIBLE
    assert stopped.status in ("feasible", "no-solution")


def hard(n: int) -> pyo.ConcreteModel:
    """A random dense linear-linear problem that takes the search some time."""
    rng = np.random.default_rng(7)
    m = pyo.ConcreteModel(name="hard")
    m.x = pyo.Var(range(n), bounds=(0, 10))
    m.f = bl.Follower()
    m.f.y = pyo.Var(range(n), bounds=(0, 10))
    a, b = rng.integers(-10, 11, (2, n, n))
    m.f.rows = pyo.Constraint(
        range(n),
        rule=lambda f, i: sum(a[i, j] * f.y[j] + b[i, j] * m.x[j] for j in range(n)) <= float(50 + i),
    )
    c = rng.integers(-10, 11, (3, n))
    m.objective = pyo.Objective(expr=sum(c[0, j] * m.x[j] + c[1, j] * m.f.y[j] for j in range(n)))
    m.f.objective = pyo.Objective(expr=sum(c[2, j] * m.f.y[j] for j in range(n)))
    return m


def test_a_limit_keeps_the_best_point_and_the_bound() -> None:
    r = bl.solve(hard(70), time_limit=4)
    assert r.termination == "time-limit"
    assert r.claim <= bl.Claim.FEASIBLE
    assert r.has_point
    assert r.status == "feasible"
    assert r.bound is not None
    assert r.bound <= r.upper_objective + 1e-6


def test_unbounded_is_said_as_such() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var()
    m.f = bl.Follower()
    m.f.y = pyo.Var()
    m.f.row = pyo.Constraint(expr=m.f.y >= -m.x)
    m.f.objective = pyo.Objective(expr=m.f.y)
    m.objective = pyo.Objective(expr=m.f.y - m.x)
    assert bl.solve(m).status == "unbounded"
    assert bl.solve(m, options=BIG_M).status in ("unbounded", "no-solution", "feasible")


def test_an_unbounded_relaxation_is_not_an_unbounded_problem() -> None:
    # The relaxation may take y to infinity; the follower keeps it at x, and x is bounded by 3.
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 3))
    m.f = bl.Follower()
    m.f.y = pyo.Var()
    m.f.row = pyo.Constraint(expr=m.f.y >= m.x)
    m.f.objective = pyo.Objective(expr=m.f.y)
    m.objective = pyo.Objective(expr=m.f.y + m.x, sense=pyo.maximize)
    r = bl.solve(m)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(6.0)


def test_bounds_that_are_too_small_are_enlarged_and_never_trusted() -> None:
    # The multiplier of y >= 100 x - 100 must reach 1; the slack of y >= 0 must reach 100.
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(None, 2))
    m.f = bl.Follower()
    m.f.y = pyo.Var(domain=pyo.NonNegativeReals)
    m.objective = pyo.Objective(expr=m.x + m.f.y, sense=pyo.maximize)
    m.f.objective = pyo.Objective(expr=m.f.y)
    m.f.row = pyo.Constraint(expr=100 * m.x - m.f.y <= 100)
    r = bl.solve(m, options=BIG_M | {"slack_bound": 10.0})
    assert r.upper_objective == pytest.approx(102.0)
    assert r.claim == "feasible", "a slack bound is not proven: nothing stronger may be claimed"
    held = bl.solve(m, options=BIG_M | {"slack_bound": 10.0, "max_enlargements": 0})
    assert held.status == "feasible"
    assert "leans on" in held.message


def test_complementarity_holds_pair_by_pair() -> None:
    for model in (bard_511(), quadratic_follower(), tied_follower()):
        problem = bl.PyomoProblem(model)
        conditions = OptimalityConditions()
        system = conditions.apply(problem.program())
        target = Sos1().apply(system)
        from bilevel_core.solvers.single_level import pick, polish

        solution = pick(target).solve(target)
        assert solution.values is not None
        clean = polish(system, solution.values)
        assert clean is not None
        assert clean.values is not None
        for i, j in system.complementarities:
            assert min(abs(clean.values[i]), abs(clean.values[j])) <= 1e-9


def test_a_nash_game_among_followers() -> None:
    # Two Cournot sellers with price 10 - q1 - q2 + x and no cost: q1 = q2 = (10 + x) / 3. The leader pays x^2 and
    # wants q1 + q2 as large as possible: max 2 (10 + x) / 3 - x^2 gives x = 1 / 3.
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 5))
    m.f = bl.Follower([1, 2])
    for i in (1, 2):
        m.f[i].q = pyo.Var(bounds=(0, 20))
    price = 10 - m.f[1].q - m.f[2].q + m.x
    for i in (1, 2):
        m.f[i].objective = pyo.Objective(expr=price * m.f[i].q, sense=pyo.maximize)
    m.objective = pyo.Objective(expr=m.f[1].q + m.f[2].q - m.x**2, sense=pyo.maximize)
    r = bl.solve(m)
    assert float(r.x["x"]) == pytest.approx(1 / 3, abs=1e-3)
    assert r.upper_objective == pytest.approx(2 * (10 + 1 / 3) / 3 - 1 / 9, abs=1e-6)
    assert r.certificate is not None
    assert r.certificate.verdict == "verified"
    assert isinstance(r.lower_objective, tuple)


def test_work_fans_out_through_an_executor() -> None:
    r = bl.solve(bard_511(), executor="processes:1")
    assert r.status == "optimal"
    with pytest.raises(bl.UsageError, match="'serial'"):
        bl.solve(bard_511(), executor="seral")


def test_the_printed_result_says_what_matters() -> None:
    text = str(bl.solve(bard_511()))
    assert "optimal" in text
    assert "-12" in text
    assert "follower.y" in text


def test_a_plugins_check_can_refute(monkeypatch: pytest.MonkeyPatch) -> None:
    class Objector:
        @bl.hookimpl
        def bilevel_checks(self) -> list[CheckSpec]:
            return [CheckSpec("strict", "objector:objects"), CheckSpec("broken", "objector:breaks")]

    def breaks(problem: object, x: object, y: object) -> str:
        raise RuntimeError("oh")

    module = types.ModuleType("objector")
    vars(module).update(objects=lambda problem, x, y: "I do not like it.", breaks=breaks)
    monkeypatch.setitem(sys.modules, "objector", module)
    try:
        registry = get_registry(extra=[("objector", Objector())])
        r = bl.solve(bard_511())
        assert r.status == "refuted"
        assert r.certificate is not None
        assert r.certificate.reason == "strict: I do not like it."
        assert registry.infos["objector"].status == "broken"
    finally:
        get_registry(fresh=True)
