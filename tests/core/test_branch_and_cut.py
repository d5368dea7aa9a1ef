"""Branch and cut on problems whose answers are known, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.program import INF, BilevelProgram, Level, Row, Variable, linear
from bilevel_core.run import Event
from bilevel_core.run.record import read_result
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.pessimistic import ReducedProblem

from .enumerated import enumerate_all, problem, random_program

LIBRARY = get_registry().problems
INTEGER = [n for n, s in LIBRARY.items() if "integer" in s.tags and not s.needs]


@pytest.mark.parametrize("name", INTEGER)
def test_problems_with_integer_followers(name: str) -> None:
    """Optima: recomputed by enumeration (tests/problems); Moore and Bard (1990), the manual of MibS."""
    known = LIBRARY[name].known
    assert known is not None
    assert bl.classify(LIBRARY[name].load()()).chosen == "branch-and-cut"
    result = bl.solve(LIBRARY[name].load()())
    assert result.status == "optimal"
    assert result.upper_objective == known.upper_objective
    assert result.bound == pytest.approx(known.upper_objective, abs=1e-6)
    assert {"nodes", "cuts", "lower_solves"} <= set(result.counts)
    assert set(result.versions) >= {"scip", "highs"}


def test_a_leaders_constraint_does_not_help_the_follower_choose() -> None:
    result = bl.solve(LIBRARY["trap/leaders-wish"].load()(), solver="branch-and-cut")
    assert result.termination == "infeasible"
    assert "do not restrict what a follower chooses" in result.message


def model(**bounds: Any) -> pyo.ConcreteModel:
    m = pyo.ConcreteModel(name="small")
    m.x = pyo.Var(domain=pyo.Integers, bounds=(0, 5))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(domain=pyo.Integers, **({"bounds": (0, 10)} | bounds))
    m.follower.objective = pyo.Objective(expr=m.follower.y)
    m.objective = pyo.Objective(expr=m.x - 2 * m.follower.y)
    return m


def test_a_follower_without_a_limit() -> None:
    m = model(bounds=(None, 10))
    m.follower.row = pyo.Constraint(expr=m.x + m.follower.y <= 20)
    result = bl.solve(m)
    assert result.termination == "lower-unbounded"
    assert not result.has_point


def test_a_follower_without_an_answer() -> None:
    m = model()
    m.follower.row = pyo.Constraint(expr=m.x + m.follower.y <= -1)
    result = bl.solve(m)
    assert result.termination == "lower-infeasible"


def test_a_linking_variable_without_bounds_is_named() -> None:
    m = model()
    m.x.setub(None)
    m.follower.row = pyo.Constraint(expr=m.x + m.follower.y >= 3)
    with pytest.raises(bl.RefusedError, match=r"'x'.*no upper bound"):
        bl.solve(m)


def test_an_unbounded_leader() -> None:
    m = model()
    m.z = pyo.Var()
    m.objective.expr = m.z
    m.follower.row = pyo.Constraint(expr=m.x + m.follower.y >= 3)
    result = bl.solve(m)
    assert result.termination == "unbounded"
    assert not result.has_point
    m.follower.row.deactivate()
    m.never = pyo.Constraint(expr=m.follower.y >= 1)
    assert bl.solve(m).termination == "infeasible"


def test_a_leader_whom_only_the_follower_limits_is_told_what_to_bound() -> None:
    m = model(bounds=(0, None))
    m.follower.row = pyo.Constraint(expr=m.x + m.follower.y >= 3)
    with pytest.raises(bl.RefusedError, match=r"unbounded over the high-point relaxation.*bound follower.y"):
        bl.solve(m)


def test_bounds_of_linking_variables_are_derived() -> None:
    m = model()
    m.x.setub(None)
    m.leader = pyo.Constraint(expr=3 * m.x + m.follower.y <= 16)
    m.follower.row = pyo.Constraint(expr=m.x + m.follower.y >= 6)
    result = bl.solve(m)
    # The follower answers max(0, 6 - x), and 3 x + 6 - x <= 16 lets x be at most 5: best is x = 0, y = 6.
    assert result.status == "optimal"
    assert result.upper_objective == -12.0


def test_several_integer_followers() -> None:
    for seed in (3, 7, 12, 19):
        program = random_program(seed, followers=2)
        for response in ("optimistic", "pessimistic"):
            known = enumerate_all(program, pessimistic=response == "pessimistic")
            result = bl.solve(problem(program), options={"response": response})
            assert (result.upper_objective if result.has_point else INF) == pytest.approx(known)


def tied() -> BilevelProgram:
    """The follower is indifferent between y = 0 and y = 2 at x = 0 and has to take y = 1 at x = 1.

    min 5 x - y, x binary; the follower minimises 0 over y >= x, y <= 2 - x, and y even where x is 0 (y = 2 t + x).
    """
    columns = (
        Variable("x", 0.0, 1.0, True),
        Variable("y", 0.0, 2.0, True),
        Variable("t", 0.0, 1.0, True),
    )
    rows = (
        Row("even", linear({0: -1.0, 1: 1.0, 2: -2.0}), 0.0, 0.0),
        Row("low", linear({0: 1.0, 1: -1.0}), -INF, 0.0),
        Row("high", linear({0: 1.0, 1: 1.0}), -INF, 2.0),
    )
    leader = Level("leader", linear({0: 5.0, 1: -10.0}), (), (0,))
    return BilevelProgram(columns, leader, (Level("follower", linear({}), rows, (1, 2)),), name="tied")


def test_ties_in_the_leaders_favour_and_against_it() -> None:
    best = bl.solve(problem(tied()), solver="branch-and-cut")
    assert best.upper_objective == -20.0
    assert best.certificate is not None
    assert best.certificate.response == "ties"
    worst = bl.solve(problem(tied()), options={"response": "pessimistic"})
    # x = 0 risks y = 0, worth 0; x = 1 makes sure of y = 1, worth 5 - 10.
    assert worst.upper_objective == -5.0
    assert worst.status == "optimal"


def test_a_pessimistic_leader_may_have_no_safe_choice() -> None:
    program = tied()
    wish = Row("wish", linear({1: 1.0}), 1.5, INF)
    leader = Level("leader", program.leader.objective, (wish,), (0,))
    program = BilevelProgram(program.columns, leader, program.followers, name="wish")
    assert bl.solve(problem(program), solver="branch-and-cut").upper_objective == -20.0
    result = bl.solve(problem(program), options={"response": "pessimistic"})
    assert result.termination == "infeasible"
    assert "not all of them" in result.message


def continuous_x() -> BilevelProgram:
    """min y - x over x in [0, 2]; the integer y in {0, 1} answers 1 as soon as x >= 1 lets it (y <= x): inf at x -> 1.

    The follower maximises y, so y = 0 for x < 1: the leader's infimum -1 is not attained.
    """
    columns = (Variable("x", 0.0, 1.5), Variable("y", 0.0, 1.0, True))
    follower = Level("follower", linear({1: -1.0}), (Row("lets", linear({0: -1.0, 1: 1.0}), -INF, 0.0),), (1,), True)
    return BilevelProgram(columns, Level("leader", linear({0: -1.0, 1: 1.0}), (), (0,)), (follower,), name="infimum")


def test_an_infimum_that_is_not_attained_is_refused_and_approached_on_request() -> None:
    with pytest.raises(bl.RefusedError, match=r"\(x\) are continuous.*infimum need not be attained.*epsilon"):
        bl.solve(problem(continuous_x()), solver="branch-and-cut")
    for epsilon in (1e-1, 1e-3, 1e-6):
        result = bl.solve(problem(continuous_x()), solver="branch-and-cut", options={"epsilon": epsilon})
        assert result.upper_objective == pytest.approx(-1.0 + epsilon, abs=1e-5)
        assert result.status == "feasible"
        assert "infimum need not be attained" in result.message


def verdict(m: Any, **options: Any) -> Any:
    from bilevel_core.solvers.branch_cut.solver import BranchAndCut
    from bilevel_core.traits import derive_traits

    p = bl.PyomoProblem(m)
    solver = BranchAndCut(**options)
    found = solver.accepts(derive_traits(p))
    return solver.refuses(p) or found if isinstance(found, Accepted) else found


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 1e-7])
def test_distances_below_the_tolerances_are_refused(epsilon: float) -> None:
    with pytest.raises(bl.UsageError, match=r"at least 1e-06 for epsilon"):
        bl.solve(problem(continuous_x()), solver="branch-and-cut", options={"epsilon": epsilon})


def test_quadratic_terms_are_for_the_global_solver() -> None:
    """The follower takes the y in 0..3 nearest to x / 2 + 0.3; the leader's best x of 0..6 by looking at all."""
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(domain=pyo.Integers, bounds=(0, 6))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(domain=pyo.Integers, bounds=(0, 3))
    m.follower.objective = pyo.Objective(expr=(m.follower.y - 0.5 * m.x - 0.3) ** 2)
    m.objective = pyo.Objective(expr=(m.x - 5) ** 2 + (m.follower.y - 1) ** 2)
    refused = verdict(m)
    assert "leader's objective is quadratic" in refused.reason
    assert "global" in refused.instead
    result = bl.solve(m)
    assert result.solver == "global"
    assert result.status == "optimal"
    answers = {x: min(range(4), key=lambda y: (y - 0.5 * x - 0.3) ** 2) for x in range(7)}
    best = min((x - 5) ** 2 + (y - 1) ** 2 for x, y in answers.items())
    assert result.upper_objective == pytest.approx(best, abs=1e-3)


def test_what_it_does_not_take_is_refused_by_name() -> None:
    m = model()
    assert isinstance(verdict(m), Accepted)
    m.objective.expr = m.x**2
    assert "leader's objective is quadratic" in verdict(m).reason
    m = model()
    m.follower.objective.expr = (m.follower.y - 2) ** 2
    assert "'follower' has a convex quadratic objective" in verdict(m).reason
    m = model()
    m.follower.objective.expr = m.x * m.follower.y
    assert "(x times follower.y)" in verdict(m).reason
    m = model()
    m.follower.row = pyo.Constraint(expr=m.x * m.follower.y <= 3)
    assert isinstance(verdict(m), Refused)
    m = model()
    m.x.domain = pyo.Reals
    m.follower.z = pyo.Var(bounds=(0, 1))
    m.follower.row = pyo.Constraint(expr=m.x + m.follower.z >= 1)
    assert "so is part of its own answer" in verdict(m, epsilon=1e-3).reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap": 1.0}, "gap"),
        ({"max_nodes": 0}, "max_nodes"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": 0.1, "response": "pessimistic"}, "epsilon"),
        ({"backend_options": {"no/such": 1}}, "no/such"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(bl.UsageError, match=message):
        bl.solve(model(), solver="branch-and-cut", options=options)


def hard() -> ReducedProblem:
    """An interdicted knapsack of 24 items with weights near profits: several hundred nodes."""
    r = np.random.default_rng(5)
    n = 24
    weight = r.integers(20, 100, n).astype(float)
    profit, price = weight + r.integers(-5, 6, n), r.integers(20, 100, n).astype(float)
    columns = tuple(Variable(f"x{j}", 0.0, 1.0, True) for j in range(n))
    columns += tuple(Variable(f"y{j}", 0.0, 1.0, True) for j in range(n))
    rows = [Row("capacity", linear({n + j: weight[j] for j in range(n)}), -INF, float(weight.sum() // 2))]
    rows += [Row(f"taken{j}", linear({j: 1.0, n + j: 1.0}), -INF, 1.0) for j in range(n)]
    value = {n + j: profit[j] for j in range(n)}
    budget = Row("budget", linear({j: price[j] for j in range(n)}), -INF, float(price.sum() // 3))
    leader = Level("leader", linear(value), (budget,), tuple(range(n)))
    follower = Level("follower", linear({j: -c for j, c in value.items()}), tuple(rows), tuple(range(n, 2 * n)))
    return ReducedProblem(BilevelProgram(columns, leader, (follower,), name="hard"))


def test_a_limit_keeps_point_and_bound() -> None:
    result = bl.solve(hard(), solver="branch-and-cut", options={"max_nodes": 5})
    assert result.termination == "iteration-limit"
    assert result.status == "feasible"
    assert result.upper_objective is not None
    assert result.bound is not None
    assert result.bound < result.upper_objective
    assert bl.solve(hard(), solver="branch-and-cut", time_limit=0.0).termination == "time-limit"


def test_a_callback_stops_the_search_and_sees_figures(tmp_path: Path) -> None:
    seen: list[Event] = []

    def callback(event: Event) -> bool:
        seen.append(event)
        return event.kind == "incumbent"

    result = bl.solve(hard(), solver="branch-and-cut", callbacks=[callback])
    assert result.termination == "stopped-by-user"
    assert result.has_point
    told = next(e for e in seen if e.kind == "incumbent").data
    assert {"objective", "bound", "nodes", "cuts"} <= set(told)


class KilledError(Exception):
    """Stands for the end of the process."""


def test_a_killed_run_leaves_incumbent_and_bound(tmp_path: Path) -> None:
    incumbents: list[float] = []

    def kill(event: Event) -> bool:
        if event.kind == "incumbent":
            incumbents.append(event.data["objective"])
        if event.kind == "iteration" and incumbents:
            raise KilledError
        return False

    with pytest.raises(KilledError):
        bl.solve(hard(), solver="branch-and-cut", callbacks=[kill], out=tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    left = read_result(tmp_path / "run")
    assert left.upper_objective == incumbents[-1]
    assert left.bound is not None
    assert left.bound <= left.upper_objective
    assert left.termination == "stopped-by-user"
    assert bl.verify(hard(), left).verdict == "verified"
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert any(e["event"] == "incumbent" and {"bound", "nodes", "cuts"} <= set(e) for e in events)
