"""The search loop through `bl.solve`: optima, claims, budgets, early ends, failures, several objectives."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.run import Event

from . import problems

LEARNING = ["sample.local", "sample.evolution", "sample.reinforce"]
OPTIONAL = {"sample.cma": "cma", "sample.nsga2": "pymoo", "sample.bayes": "optuna"}
EVERY = ["sample.grid", "sample.random", "sample.sobol", *LEARNING]
EVERY += [name for name, package in OPTIONAL.items() if importlib.util.find_spec(package)]
DISCRETE = {
    "classic/moore-bard": 9,
    "classic/mibs-manual": 7,
    "classic/knapsack-interdiction": 16,
    "trap/leaders-wish": 10,
}
"""Small problems of the library with an integer leader, and the points of its space."""


@functools.cache
def library(name: str) -> Any:
    return get_registry().problems[name].load()()


def options(solver: str, **more: Any) -> dict[str, Any]:
    return {**more, "model": "tpe"} if solver == "sample.bayes" else more


def outcome(result: bl.Result) -> dict[str, Any]:
    """All of a result but times."""
    data = result.to_dict()
    data["trace"] = [e["objective"] for e in data["trace"]]
    del data["wall_time"]
    return data


@pytest.mark.parametrize("solver", EVERY)
@pytest.mark.parametrize("name", DISCRETE)
def test_small_discrete_problems_by_enumeration_sized_budgets(solver: str, name: str) -> None:
    known = get_registry().problems[name].known
    assert known is not None
    result = bl.solve(library(name), solver, options(solver, lower_solves=40))
    assert result.counts["trials"] <= DISCRETE[name]
    if known.upper_objective is None:
        assert not result.has_point
        return
    assert result.upper_objective == pytest.approx(known.upper_objective, abs=1e-6)
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
    assert result.claim == ("global" if solver == "sample.grid" else "feasible")
    assert result.status == ("optimal" if solver == "sample.grid" else "feasible")


def test_an_infeasible_problem_is_proven_so_by_enumeration() -> None:
    result = bl.solve(library("trap/leaders-wish"), "sample.grid")
    assert result.termination == "infeasible"
    assert "Every point" in result.message
    assert bl.solve(library("trap/leaders-wish"), "sample.random").termination == "converged"


def test_a_grid_that_is_cut_short_claims_nothing_global() -> None:
    result = bl.solve(library("classic/moore-bard"), "sample.grid", {"lower_solves": 8})
    assert result.termination == "iteration-limit"
    assert result.claim == "feasible"
    fine = bl.solve(problems.trained(), "sample.grid", {"lower_solves": 50})
    assert fine.termination == "converged"
    assert fine.claim == "feasible"


@pytest.mark.parametrize("solver", EVERY)
def test_nested_problems_are_solved_and_checked(solver: str) -> None:
    result = bl.solve(problems.conditional(), solver, options(solver)) if solver != "sample.cma" else None
    if result is None:
        with pytest.raises(bl.UsageError, match="'kind'"):
            bl.solve(problems.conditional(), solver)
        return
    assert result.upper_objective == 2.5
    assert result.details["choice"] == {"kind": "net", "depth": 3, "act": "tanh"}
    assert result.counts["trials"] == 7
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
    assert bl.verify(problems.conditional(), result.x, result.y).verdict == "verified"
    assert bl.Result.from_json(result.to_json()) == result


def test_points_of_nested_problems_are_refuted_when_wrong() -> None:
    table = bl.TableProblem(
        (bl.Categorical("c", ("a", "b")),),
        [
            bl.Row({"c": "a"}, {"y": 1}, upper=1.0, lower=2.0),
            bl.Row({"c": "a"}, {"y": 2}, upper=3.0, lower=1.0),
            bl.Row({"c": "a"}, {"y": 4}, upper=2.0, lower=1.0),
            bl.Row({"c": "b"}, {"y": 1}, upper=9.0, lower=0.0, violation=1.0),
        ],
    )
    result = bl.solve(table, "sample.grid")
    assert (result.upper_objective, float(result.y["y"]), result.status) == (2.0, 4.0, "optimal")
    verdicts = {
        ("a", 1): ("refuted", "do better"),
        ("a", 2): ("verified", "as good"),
        ("a", 7): ("refuted", "no answer"),
        ("b", 1): ("refuted", "constraints"),
    }
    for (c, y), (verdict, text) in verdicts.items():
        found = bl.verify(table, {"c": c}, {"y": y})
        assert (found.verdict, text in found.reason) == (verdict, True), found
    assert bl.verify(table, {"c": "a"}, {"y": 2}).better_response == 2.0
    assert bl.verify(problems.mixed(), {"i": 5, "j": 2, "c": "b"}, {"y": 0.0}).verdict == "unverifiable"


@pytest.mark.parametrize("solver", ["sample.random", "sample.evolution", "sample.local", "sample.sobol", "bleaq"])
def test_the_seed_decides(solver: str) -> None:
    def run(seed: int) -> bl.Result:
        more = {} if solver in ("sample.random", "sample.sobol") else {"from_start": False}
        return bl.solve(library("classic/bard-511"), solver, {"lower_solves": 15, **more}, seed=seed)

    first = run(3)
    assert outcome(first) == outcome(run(3))
    assert [e["objective"] for e in first.trace] != [e["objective"] for e in run(4).trace]


def test_the_order_of_arrival_changes_nothing_where_there_is_one_worker() -> None:
    same = [bl.solve(problems.mixed(), "sample.local", {"lower_solves": 30, "order": o}) for o in ("index", "arrival")]
    assert [e["objective"] for e in same[0].trace] == [e["objective"] for e in same[1].trace]


def test_budget_patience_and_target() -> None:
    events: list[Event] = []
    result = bl.solve(problems.mixed(), "sample.random", {"lower_solves": 30}, callbacks=[events.append])
    assert result.termination == "iteration-limit"
    assert result.counts["lower_solves"] == result.counts["trials"] == 30
    incumbents = [e.data["objective"] for e in events if e.kind == "incumbent"]
    assert incumbents == [e["objective"] for e in result.trace] == sorted(incumbents, reverse=True)
    assert sum(e.kind == "iteration" for e in events) == 30

    result = bl.solve(problems.mixed(), "sample.evolution", {"target": 1.0, "lower_solves": 250})
    assert result.termination == "converged"
    assert result.upper_objective is not None
    assert result.upper_objective <= 1.0
    assert "target" in result.message

    result = bl.solve(problems.mixed(), "sample.random", {"patience": 5, "lower_solves": 250})
    assert result.termination == "converged"
    assert result.counts["trials"] < 250
    assert "last 5 trials" in result.message


def test_with_several_objectives_patience_ends_when_the_pareto_set_stands_still() -> None:
    calls: list[int] = []

    def follow(x: dict[str, Any], call: bl.Call) -> bl.Answer:
        calls.append(1)
        return bl.Answer({"y": 0.0}, (0.0, -float(min(len(calls), 20))), 0.0)

    problem = bl.NestedProblem((bl.Continuous("u", 0.0, 1.0),), follow, objectives=("still", "falling"))
    result = bl.solve(problem, "sample.random", {"patience": 4, "lower_solves": 60}, verify=False)
    assert result.counts["trials"] == 24
    assert result.details["pareto"][0]["falling"] == -20.0


def test_patience_counts_whole_solves_only() -> None:
    result = bl.solve(
        problems.trained(),
        "sample.halving",
        {"lower_solves": 100, "smallest_budget": 1 / 9, "scheme": "halving", "patience": 4},
    )
    assert result.counts["trials"] > 4 * 13  # each bracket has one whole solve among 13


def test_the_ends_of_a_range_can_be_taken() -> None:
    """The rows leave 1 <= x <= 4, and the optimum is at x = 4; a hair beyond the follower has no answer."""
    result = bl.solve(library("classic/bard-511"), "sample.grid", {"resolution": 4})
    assert result.x["x"] == pytest.approx(4.0, abs=1e-12)
    assert result.upper_objective == pytest.approx(-12.0, abs=1e-9)
    assert result.counts["trials"] == 4
    assert "no feasible answer" not in result.message


def test_a_grid_larger_than_the_budget_says_so() -> None:
    result = bl.solve(problems.two(), "sample.grid", {"lower_solves": 5, "resolution": 7})
    assert "14 points in all, in order; it came to 5" in result.message


def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, entry: bytes) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("bilevel_core.run.record.RunRecord.journal", full)
    result = bl.solve(problems.mixed(), "sample.random", {"lower_solves": 5}, out=tmp_path / "run")
    assert result.has_point
    assert result.message.count("no space left") == 1


def test_a_target_is_in_the_users_sense() -> None:
    problem = library("classic/mibs-manual")
    result = bl.solve(problem, "sample.random", {"target": -30.0})
    assert "target" in result.message
    assert result.upper_objective is not None
    assert result.upper_objective <= -30.0


def test_the_leaders_own_constraints_cost_no_solve() -> None:
    result = bl.solve(library("classic/knapsack-interdiction"), "sample.random")
    assert result.counts["trials"] == 16
    assert result.counts["lower_solves"] == 4


def test_parts_of_a_budget_count_as_parts_and_answers_are_gone_on_from() -> None:
    result = bl.solve(problems.trained(), "sample.halving", {"lower_solves": 12, "smallest_budget": 1 / 9})
    assert result.upper_objective is not None
    assert result.upper_objective < 0.1
    assert result.counts["lower_solves"] > 12  # solves begun; together they are 12 whole ones
    # 3 + 9 + 15 steps, each from where the last one ended, come as near as 27 at once.
    x = float(result.x["u"])
    assert float(result.y["y"]) == pytest.approx(x * (1 - 0.8**39), rel=1e-9) or float(result.y["y"]) == pytest.approx(
        x * (1 - 0.8**27), rel=1e-9
    )


def test_several_upper_objectives_give_a_pareto_set() -> None:
    pytest.importorskip("pymoo")
    result = bl.solve(problems.two(), "sample.nsga2", {"lower_solves": 300, "population": 20})
    rows = result.details["pareto"]
    near, far = np.array([[r["near"], r["far"]] for r in rows]).T
    assert len(rows) > 20
    assert (np.diff(near) > 0).all()
    assert (np.diff(far) < 0).all()
    u = np.array([r["u"] for r in rows])
    assert (u > -0.01).all()
    assert (u < 2.01).all()
    assert u.min() < 0.1
    assert u.max() > 1.9
    assert result.upper_objective == near[0]
    with pytest.raises(bl.UsageError, match=r"2 upper objectives.*nsga2"):
        bl.solve(problems.two(), "sample.local")
    assert len(bl.solve(problems.two(), "sample.sobol", {"lower_solves": 64}).details["pareto"]) > 3


def test_failures_cost_their_trials_only() -> None:
    def follow(x: dict[str, Any], call: bl.Call) -> bl.Answer:
        if x["k"] % 2:
            raise ValueError("odd")
        return bl.Answer({"y": 0.0}, float(x["k"]), math.nan if x["k"] == 0 else 0.0)

    problem = bl.NestedProblem((bl.Integer("k", 0, 9),), follow, exact=True)
    result = bl.solve(problem, "sample.grid")
    assert result.upper_objective == 2.0
    assert result.claim == "feasible"
    assert "5 of 10 trials failed" in result.message
    assert "ValueError: odd" in result.message

    def seldom(x: dict[str, Any], call: bl.Call) -> bl.Answer:
        if x["k"] == 9:
            raise ValueError("nine")
        return bl.Answer({"y": 0.0}, float(x["k"]), math.nan if x["k"] else 0.0)

    result = bl.solve(bl.NestedProblem((bl.Integer("k", 0, 9),), seldom), "sample.grid")
    assert "1 of 10 trials failed; for example: ValueError: nine" in result.message

    def broken(x: dict[str, Any], call: bl.Call) -> bl.Answer:
        raise KeyError("gone")

    problem = bl.NestedProblem((bl.Integer("k", 0, 99),), broken)
    result = bl.solve(problem, "sample.random")
    assert result.termination == "error"
    assert result.counts["trials"] == 10
    assert "KeyError: 'gone'" in result.message


def test_wrong_requests_are_refused() -> None:
    def wrong(x: dict[str, Any], call: bl.Call) -> Any:
        return 1.0

    with pytest.raises(bl.ModelError, match="expected an Answer"):
        bl.solve(bl.NestedProblem((bl.Integer("k", 0, 9),), wrong), "sample.random")
    with pytest.raises(bl.UsageError, match=r"lower_solves"):
        bl.solve(problems.mixed(), "sample.random", {"lower_solves": 0})
    with pytest.raises(bl.UsageError, match=r"lower = 'global' would have no effect"):
        bl.solve(problems.mixed(), "sample.random", {"lower": "global"})
    for solver, option in (("sample.evolution", {"from_start": False}), ("sample.random", {"lower_iterations": 5})):
        with pytest.raises(bl.UsageError, match=r"would have no effect.*algebraic or differentiable"):
            bl.solve(problems.mixed(), solver, option)
    with pytest.raises(bl.UsageError, match=r"devices.*differentiable or nested"):
        bl.solve(library("classic/bard-511"), "sample.random", {"devices": ("cpu",)})
    with pytest.raises(bl.RefusedError, match=r"budget to save"):
        bl.solve(library("classic/bard-511"), "sample.halving")
    with pytest.raises(bl.RefusedError, match=r"sample\.random"):
        bl.solve(problems.mixed())
    with pytest.raises(bl.RefusedError, match=r"integer"):
        bl.solve(library("classic/moore-bard"), "bleaq")


def test_a_leader_without_bounds_needs_a_box() -> None:
    import pyomo.environ as pyo

    m = pyo.ConcreteModel()
    m.x, m.follower = pyo.Var(), bl.Follower()
    m.follower.y = pyo.Var()
    m.obj = pyo.Objective(expr=(m.x - 3) ** 2 + m.follower.y**2)
    m.follower.obj = pyo.Objective(expr=(m.follower.y - m.x) ** 2)
    with pytest.raises(bl.UsageError, match=r"'x'.*box"):
        bl.solve(m, "sample.random")
    result = bl.solve(m, "sample.evolution", {"box": 10.0, "from_start": False})
    assert result.upper_objective == pytest.approx(4.5, abs=0.05)


def test_when_the_time_is_over_not_all_of_the_best_points_are_solved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def worse(self: Any, outcome: Any, seconds: float) -> Any:
        asked.append(outcome.index)
        return dataclasses.replace(outcome, score=dataclasses.replace(outcome.score, objectives=(1e9,)))

    monkeypatch.setattr("bilevel_core.solvers.sample.algebraic.AlgebraicEvaluation.confirm", worse)
    monkeypatch.setattr("bilevel_core.solvers.sample.result.GRACE", 0.0)

    def run(**limits: Any) -> bl.Result:
        return bl.solve(library("smd/smd3"), "sample.random", {"lower_solves": 12}, verify=False, **limits)

    assert len(asked) == 0
    assert "12 had another answer" in run().message
    assert len(asked) == 12
    asked.clear()
    monkeypatch.setattr("bilevel_core.run.context.RunContext.expired", property(lambda self: len(asked) > 2))
    assert "The time was over before" in run(time_limit=1000.0).message
    assert len(asked) == 3


def test_time_over_keeps_the_best_point() -> None:
    result = bl.solve(problems.mixed(), "sample.random", time_limit=0.0)
    assert result.termination == "time-limit"
    stops: list[Event] = []

    def stop(event: Event) -> bool:
        stops.append(event)
        return event.kind == "iteration" and event.data["iteration"] == 7

    result = bl.solve(problems.mixed(), "sample.random", callbacks=[stop])
    assert result.termination == "stopped-by-user"
    assert result.counts["trials"] == 7
    assert result.has_point


class Telling(bl.NestedProblem):
    """Says at length what a point is, or is interrupted while it does."""

    interrupted = False

    def details(self, x: Any, y: Any) -> dict[str, Any]:
        if self.interrupted:
            raise KeyboardInterrupt
        return {"told": "at length"}

    def brief_details(self, x: Any, y: Any) -> dict[str, Any]:
        return {"told": "in brief"}


def test_a_run_that_was_stopped_is_told_of_in_brief_and_its_point_outlives_an_interruption() -> None:
    problem = Telling([bl.Integer("n", 0, 9)], lambda x, call: bl.Answer({}, float(x["n"]), 0.0))
    whole = bl.solve(problem, "sample.random", {"lower_solves": 3})
    assert whole.details["told"] == "at length"
    cut = bl.solve(problem, "sample.random", {"lower_solves": 3}, callbacks=[lambda event: event.kind == "incumbent"])
    assert cut.termination is bl.Termination.STOPPED_BY_USER
    assert cut.details["told"] == "in brief"
    problem.interrupted = True
    kept = bl.solve(problem, "sample.random", {"lower_solves": 3})
    assert kept.termination is bl.Termination.STOPPED_BY_USER
    assert kept.x == whole.x
    assert "told" not in kept.details


def test_what_is_refused_without_a_solve_costs_nothing() -> None:
    """Four of five points are: still as many are solved as were asked for, and a grid that is whole proves its best."""

    def follow(x: Any, call: bl.Call) -> bl.Answer:
        if x["n"] % 5:
            return bl.Answer({}, 0.0, 0.0, violation=1.0, solved=False)
        return bl.Answer({}, float(x["n"]), 0.0)

    problem = bl.NestedProblem([bl.Integer("n", 0, 99)], follow, exact=True)
    result = bl.solve(problem, "sample.random", {"lower_solves": 8}, seed=3, verify=False)
    assert result.counts["lower_solves"] == 8
    assert result.counts["trials"] > 16
    whole = bl.solve(problem, "sample.grid", verify=False)
    assert whole.counts["lower_solves"] == 20
    assert whole.upper_objective == 0.0
    assert whole.claim is bl.Claim.GLOBAL
