"""Followers' multipliers in the leader's model: signs, scaling, checks, and a market that pays them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.program import BilevelProgram, Dual, Function, Level, Row, Variable
from bilevel_core.reductions.kkt import OptimalityConditions

SIDES = ("<=", ">=", "==", "range")


def priced(side: str, *, maximise: bool, right: float = 2.0, factor: float = 1.0) -> pyo.ConcreteModel:
    """One row that binds, of each kind: the leader's objective is x plus the row's multiplier, and x must be 1.

    The follower's optimal value is 3 b, at u + v = b with v = 0.
    """
    m = pyo.ConcreteModel(name="priced")
    m.x = pyo.Var(bounds=(1, 2))
    m.follower = f = bl.Follower()
    f.u = pyo.Var(bounds=(0, 100))
    f.v = pyo.Var(bounds=(0, 100))
    body = factor * (f.u + f.v)
    # Minimising 3 u + 4 v wants little of both, minimising -3 u - 2 v much; and the other way round when maximising.
    little = side in (">=", "==")
    cost = 3 * f.u + 4 * f.v if little else -3 * f.u - 2 * f.v
    f.objective = pyo.Objective(expr=-cost if maximise else cost, sense=pyo.maximize if maximise else pyo.minimize)
    b = factor * right
    rows = {"<=": body <= b, ">=": body >= b, "==": body == b, "range": pyo.inequality(b - factor, body, b)}
    f.row = pyo.Constraint(expr=rows[side])
    m.objective = pyo.Objective(expr=m.x + f.dual[f.row])
    return m


@pytest.mark.parametrize("maximise", [False, True])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("factor", [1.0, 1e4, 1e-3])
def test_a_multiplier_is_the_derivative_of_the_optimal_value(side: str, maximise: bool, factor: float) -> None:
    r = bl.solve(priced(side, maximise=maximise, factor=factor), solver="kkt")
    assert r.status == "optimal"

    def value(right: float) -> float:
        result = bl.solve(priced(side, maximise=maximise, factor=factor, right=right), solver="kkt")
        assert isinstance(result.lower_objective, float)
        return result.lower_objective

    slope = (value(2.5) - value(1.5)) / factor
    assert slope != 0.0
    assert float(r.y["follower.dual[row]"]) == pytest.approx(slope, rel=1e-6)
    assert r.upper_objective == pytest.approx(1.0 + slope, rel=1e-6)


CONDITIONS = """\
minimise -x + price
slack[cap]: x - y - slack[cap] + 3 = 0
slack[cap:lower]: -x + y - slack[cap:lower] + 1 = 0
mix: y + z = 4
price: price + lambda[cap] - lambda[cap:lower] = 0
worth: worth + mu[mix] = 0
stationarity[y]: lambda[cap] - lambda[cap:lower] + mu[mix] + 1 = 0
stationarity[z]: mu[mix] - 2 = 0
lambda[cap] _|_ slack[cap]
lambda[cap:lower] _|_ slack[cap:lower]
x in [0, 1] real
y in [-inf, inf] real
z in [-inf, inf] real
price in [-inf, inf] real
worth in [-inf, inf] real
lambda[cap] in [0, inf] real
slack[cap] in [0, inf] real
lambda[cap:lower] in [0, inf] real
slack[cap:lower] in [0, inf] real
mu[mix] in [-inf, inf] real"""


def priced_program(*, maximise: bool = False) -> BilevelProgram:
    """The follower: min y - 2 z over -1 <= y - x <= 3 and y + z = 4; both rows' multipliers are columns."""
    names = ("x", "y", "z", "price", "worth")
    return BilevelProgram(
        columns=(Variable("x", 0.0, 1.0), *(Variable(n) for n in names[1:])),
        leader=Level("leader", Function(0.0, {0: -1.0, 3: 1.0}), (), (0,)),
        followers=(
            Level(
                "f",
                Function(0.0, {1: 1.0, 2: -2.0}),
                (
                    Row("cap", Function(0.0, {0: -1.0, 1: 1.0}), -1.0, 3.0),
                    Row("mix", Function(0.0, {1: 1.0, 2: 1.0}), 4.0, 4.0),
                ),
                (1, 2),
                maximise=maximise,
            ),
        ),
        duals=(Dual(3, 0, 0), Dual(4, 0, 1)),
    )


def test_columns_are_tied_to_multipliers() -> None:
    assert OptimalityConditions().apply(priced_program()).text() == CONDITIONS


def test_a_maximising_follower_turns_the_signs() -> None:
    lines = OptimalityConditions().apply(priced_program(maximise=True)).text().splitlines()
    assert "price: price - lambda[cap] + lambda[cap:lower] = 0" in lines
    assert "worth: worth - mu[mix] = 0" in lines


def test_the_bilevel_program_as_text() -> None:
    assert priced_program().text().splitlines()[-2:] == [
        "price in [-inf, inf] real, the multiplier of cap",
        "worth in [-inf, inf] real, the multiplier of mix",
    ]


def test_a_row_without_the_followers_variables_has_the_multiplier_zero() -> None:
    m = priced(">=", maximise=False)
    m.follower.plain = pyo.Constraint(expr=m.x <= 2)
    m.objective.expr = m.x + m.follower.dual[m.follower.plain]
    r = bl.solve(m, solver="kkt")
    assert r.status == "optimal"
    assert r.y["follower.dual[plain]"] == 0.0


def quadratic() -> pyo.ConcreteModel:
    """The follower: min (y - 1)^2 over y >= x; the multiplier is 2 (x - 1) for x >= 1, else 0."""
    m = pyo.ConcreteModel(name="quadratic")
    m.x = pyo.Var(bounds=(0, 4))
    m.follower = f = bl.Follower()
    f.y = pyo.Var(bounds=(-9, 9))
    f.row = pyo.Constraint(expr=f.y - m.x >= 0)
    f.objective = pyo.Objective(expr=(f.y - 1) ** 2)
    m.objective = pyo.Objective(expr=(m.x - 4) ** 2 + f.dual[f.row])
    return m


def test_a_quadratic_follower() -> None:
    r = bl.solve(quadratic(), solver="kkt")
    # (x - 4)^2 + 2 (x - 1) is least at x = 3.
    assert r.status == "optimal"
    assert float(r.x["x"]) == pytest.approx(3.0, abs=1e-4)
    assert float(r.y["dual[row]"]) == pytest.approx(4.0, abs=1e-4)
    wrong = bl.verify(bl.PyomoProblem(quadratic()), {"x": 3.0}, {"y": 3.0, "dual[row]": 3.9})
    assert wrong.verdict == "refuted"
    assert "'follower.dual[row]' is 3.9, but valid values are 4." in wrong.reason


def test_the_leader_may_bound_a_multiplier() -> None:
    def bounded(how: Callable[[pyo.ConcreteModel], None]) -> float:
        m = quadratic()
        how(m)
        r = bl.solve(m, solver="kkt")
        assert r.status == "optimal"
        return float(r.x["x"])

    def by_row(m: pyo.ConcreteModel) -> None:
        m.cap = pyo.Constraint(expr=m.follower.dual[m.follower.row] <= 1)

    def by_bound(m: pyo.ConcreteModel) -> None:
        m.follower.dual[m.follower.row].setub(1)

    for how in (by_row, by_bound):
        assert bounded(how) == pytest.approx(1.5, abs=1e-6)
    m = quadratic()
    by_bound(m)
    c = bl.verify(bl.PyomoProblem(m), {"x": 3.0}, {"y": 3.0, "dual[row]": 4.0})
    assert c.verdict == "refuted"
    assert "leader's" in c.reason


def knife_edge() -> pyo.ConcreteModel:
    """Supply that meets demand exactly: any price in [1, 5] is valid, and the leader wants a high one."""
    m = pyo.ConcreteModel(name="edge")
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = f = bl.Follower()
    f.cheap = pyo.Var(bounds=(0, 4))
    f.dear = pyo.Var(bounds=(0, 4))
    f.balance = pyo.Constraint(expr=f.cheap + f.dear == 4)
    f.objective = pyo.Objective(expr=f.cheap + 5 * f.dear)
    m.objective = pyo.Objective(expr=m.x + f.dual[f.balance], sense=pyo.maximize)
    return m


def test_of_several_multipliers_the_leader_has_the_best() -> None:
    r = bl.solve(knife_edge(), solver="kkt")
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("price", "verdict"), [(1.0, "verified"), (3.0, "verified"), (5.0, "verified"), (0.9, "refuted"), (5.1, "refuted")]
)
def test_every_valid_multiplier_passes_the_check_and_no_other(price: float, verdict: str) -> None:
    problem = bl.PyomoProblem(knife_edge())
    c = bl.verify(problem, {"x": 1.0}, {"cheap": 4.0, "dear": 0.0, "dual[balance]": price})
    assert c.verdict == verdict
    if verdict == "refuted":
        assert "between 1 and 5" in c.reason
    elif price < 5.0:
        assert c.better_response == pytest.approx(6.0)
        assert "multiplier" in c.reason
    else:
        assert c.better_response is None


def test_a_global_claim_with_a_worse_multiplier_is_refuted() -> None:
    problem = bl.PyomoProblem(knife_edge())
    point = bl.Result(
        bl.Termination.CONVERGED,
        bl.Claim.GLOBAL,
        x=bl.result.Values(x=1.0),
        y=bl.result.Values({"cheap": 4.0, "dear": 0.0, "dual[balance]": 3.0}),
        upper_objective=4.0,
    )
    c = bl.verify(problem, point)
    assert c.verdict == "refuted"
    assert "multiplier" in c.reason


def test_multipliers_that_are_valid_one_by_one_but_not_together_are_refuted() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = f = bl.Follower()
    f.y = pyo.Var()
    f.a = pyo.Constraint(expr=f.y >= 1)
    f.b = pyo.Constraint(expr=2 * f.y >= 2)
    f.objective = pyo.Objective(expr=f.y)
    m.objective = pyo.Objective(expr=m.x + f.dual[f.a] + f.dual[f.b])
    problem = bl.PyomoProblem(m)
    # The multipliers satisfy a + 2 b = 1.
    valid = [(1.0, 0.0), (0.0, 0.5), (0.5, 0.25)]
    for a, b in (*valid, (1.0, 0.5)):
        c = bl.verify(problem, {"x": 0.0}, {"y": 1.0, "dual[a]": a, "dual[b]": b})
        assert c.verdict == ("verified" if (a, b) in valid else "refuted")
    assert "not together" in c.reason


def test_where_there_are_no_multipliers_the_check_says_so() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = f = bl.Follower()
    f.y = pyo.Var()
    f.row = pyo.Constraint(expr=f.y**2 <= m.x)
    f.objective = pyo.Objective(expr=(f.y - 3) ** 2)
    m.objective = pyo.Objective(expr=m.x + f.dual[f.row])
    c = bl.verify(bl.PyomoProblem(m), {"x": 0.0}, {"y": 0.0, "dual[row]": -1.0})
    assert c.verdict == "unverifiable"
    assert "constraint qualification" in c.reason


def test_elements_of_an_indexed_constraint_stand_in_one_array() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = f = bl.Follower()
    f.y = pyo.Var(["a", "b", "c"])
    f.row = pyo.Constraint(["a", "b", "c"], rule=lambda b, k: b.y[k] - m.x >= 0)
    f.objective = pyo.Objective(expr=f.y["a"] + 2 * f.y["b"] + 3 * f.y["c"])
    m.objective = pyo.Objective(expr=m.x + f.dual[f.row["c"]] + f.dual[f.row["a"]])
    program = bl.PyomoProblem(m).program()
    assert program.names[-2:] == ["follower.dual[row[a]]", "follower.dual[row[c]]"]
    r = bl.solve(m, solver="kkt")
    assert r.y["follower.dual[row]"].tolist() == pytest.approx([1.0, 3.0])
    assert bl.Result.from_json(r.to_json()) == r
    copy = m.clone()
    assert bl.PyomoProblem(copy).program().text() == program.text()


def test_several_followers_have_multipliers_each() -> None:
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.f = bl.Follower([1, 2])
    for i in (1, 2):
        m.f[i].y = pyo.Var()
        m.f[i].row = pyo.Constraint(expr=m.f[i].y - m.x >= 0)
        m.f[i].objective = pyo.Objective(expr=i * m.f[i].y)
    m.objective = pyo.Objective(expr=m.x - 2 * m.f[2].dual[m.f[2].row] + m.f[1].dual[m.f[1].row])
    r = bl.solve(m, solver="kkt")
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(-3.0)
    with pytest.raises(bl.ModelError, match=r"not one of follower 'f\[1\]'"):
        m.f[1].dual[m.f[2].row]


def test_what_is_not_a_constraint_of_the_follower_is_refused_by_name() -> None:
    m = priced("==", maximise=False)
    m.own = pyo.Constraint(expr=m.x <= 2)
    m.follower.many = pyo.Constraint([1, 2], rule=lambda b, k: b.u <= 10 * k)
    with pytest.raises(bl.ModelError, match="'own' is not one of follower 'follower'"):
        m.follower.dual[m.own]
    with pytest.raises(bl.ModelError, match=r"many.*indexed"):
        m.follower.dual[m.follower.many]
    with pytest.raises(bl.ModelError, match="write the bound as a constraint"):
        m.follower.dual[m.follower.u]


def test_followers_may_not_use_multipliers() -> None:
    m = priced("==", maximise=False)
    m.follower.objective.expr += m.follower.dual[m.follower.row]
    with pytest.raises(bl.ModelError, match="only the leader's"):
        bl.PyomoProblem(m)


def test_multipliers_of_what_is_inactive_or_gone_are_errors() -> None:
    m = priced("==", maximise=False)
    m.follower.row.deactivate()
    with pytest.raises(bl.ModelError, match="not active"):
        bl.PyomoProblem(m)
    m = priced("==", maximise=False)
    m.follower.del_component(m.follower.row)
    with pytest.raises(bl.ModelError, match=r"dual\[row\]"):
        bl.PyomoProblem(m)


def test_a_suffix_of_that_name_is_left_alone() -> None:
    m = knife_edge()
    m.objective.expr = m.x
    m.follower.del_component("dual[balance]")
    m.follower.dual = pyo.Suffix(direction=pyo.Suffix.IMPORT)
    assert not bl.PyomoProblem(m).program().duals
    assert isinstance(m.follower.dual, pyo.Suffix)


def test_only_solvers_that_have_multipliers_take_such_problems() -> None:
    found = bl.classify(knife_edge())
    assert found.traits.duals
    assert found.chosen == "kkt"
    for name, verdict in found.verdicts.items():
        if name != "kkt":
            reason = verdict.reason  # type: ignore[union-attr]
            assert any(word in reason for word in ("multipliers", "callables", "problems only"))
    with pytest.raises(bl.RefusedError):
        bl.solve(knife_edge(), solver="penalty")


DEMAND, CAP, COST = (100.0, 150.0, 75.0), 100.0, 10.0
RIVALS = ((12.0, 40.0), (30.0, 50.0), (45.0, 60.0))


def income(offer: float, quantity: float, demand: float) -> float:
    """The leader's best income in one hour, by merit order and by the price interval at which the market clears."""
    steps = sorted([*RIVALS, (CAP, 1e9), (offer, quantity)])
    best = -1e9
    rest = demand
    taken: list[tuple[float, float, float]] = []
    for cost, most in steps:
        taken.append((cost, most, min(rest, most)))
        rest -= taken[-1][2]
    # Prices that support this: no step with output left over is cheaper, none in use is dearer.
    low = max((c for c, _, q in taken if q > 0.0), default=0.0)
    high = min((c for c, most, q in taken if q < most), default=CAP)
    tied = [t for t in taken if t[0] == offer]
    total = sum(q for _, _, q in tied)
    own = min(quantity, total)  # among steps of the same cost the leader goes first
    for price in (low, high):
        if low <= high:
            best = max(best, (price - COST) * own)
    return best


@pytest.mark.parametrize("hours", [1, 2, 3])
def test_the_strategic_generator_against_brute_force(hours: int) -> None:
    grid = itertools.product([float(o) for o in range(101)], [0.5 * q for q in range(121)])
    best = max(sum(income(o, q, d) for d in DEMAND[:hours]) for o, q in grid)
    spec = get_registry().problems["market/strategic-generator"]
    r = bl.solve(spec.load()(hours=hours), solver="kkt", time_limit=60)
    assert r.status == "optimal"
    assert r.upper_objective == pytest.approx(best, rel=1e-6)
    assert r.y["follower.dual[balance]"].shape == (hours,)
    if hours == 2:
        assert spec.known is not None
        assert spec.known.upper_objective == pytest.approx(best)


def test_a_market_price_that_was_not_paid_is_refuted() -> None:
    problem = get_registry().problems["market/strategic-generator"].load()(hours=1)
    r = bl.solve(problem, solver="kkt", time_limit=60)
    for price, verdict in ((30.0, "verified"), (31.0, "refuted"), (44.0, "refuted")):
        assert bl.verify(problem, r.x, dict(r.y) | {"follower.dual[balance]": [price]}).verdict == verdict


@pytest.mark.parametrize("mode", ["sos1", "indicator", "bigm", "strong-duality"])
def test_multipliers_beyond_the_basic_ones_are_not_cut_off(mode: str) -> None:
    """The valid multipliers of y >= 1 and y <= 1 are a ray; the only basic one is 1, and the leader may have 50."""
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.follower = f = bl.Follower()
    f.y = pyo.Var()
    f.a = pyo.Constraint(expr=f.y >= 1)
    f.b = pyo.Constraint(expr=f.y <= 1)
    f.objective = pyo.Objective(expr=f.y)
    m.cap = pyo.Constraint(expr=f.dual[f.a] <= 50)
    m.objective = pyo.Objective(expr=f.dual[f.a] + m.x, sense=pyo.maximize)
    r = bl.solve(m, solver="kkt", options={"complementarity": mode}, time_limit=30)
    assert r.upper_objective == pytest.approx(51.0)
    assert r.status == "optimal" or mode == "bigm"
