"""Events tell of the leader's variables, and the figure `path` draws their way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.oracles import some_of
from bilevel_core.oracles.base import TOLD
from bilevel_core.run.stored import StoredRun, read_run


def rosenbrock(size: int) -> Any:
    """The follower copies x; the leader minimises a Rosenbrock function of the copy."""
    torch = pytest.importorskip("torch")

    def upper(x: Any, y: Any) -> Any:
        return ((1.0 - y) ** 2).sum() + 10.0 * ((y[1:] - y[:-1] ** 2) ** 2).sum()

    def lower(x: Any, y: Any) -> Any:
        return ((y - x) ** 2).sum()

    zero: Any = torch.zeros(size, dtype=torch.float64)
    return bl.TorchProblem(upper, lower, zero, zero.clone(), name="test/rosenbrock")


def follow(x: dict[str, Any], call: Any) -> bl.Answer:
    worse = 0.0 if x["kind"] == "good" else 1.0
    return bl.Answer({"w": x["a"]}, upper=(x["a"] - 0.3) ** 2 + worse, lower=0.0)


def nested() -> bl.NestedProblem:
    return bl.NestedProblem((bl.Continuous("a", 0.0, 1.0), bl.Categorical("kind", ("bad", "good"))), follow)


def drawn(run: StoredRun) -> Any:
    pytest.importorskip("matplotlib")
    from bilevel_core.figures.path import path

    return path(run)


def named(figure: Any) -> dict[str, Any]:
    found = figure.axes[0].get_lines()
    return {line.get_label(): line for line in found if not line.get_label().startswith("_")}


def test_all_of_a_few_and_some_of_many() -> None:
    assert some_of(range(TOLD)) == tuple(range(TOLD))
    many = some_of(range(1000))
    assert (len(set(many)), many[0], many[-1]) == (TOLD, 0, 999)
    assert some_of(range(5), 1) == (0,)


@pytest.mark.parametrize("solver", ["hypergradient", "auxiliary", "trust-region", "penalty"])
def test_iterations_tell_of_x(solver: str, tmp_path: Path) -> None:
    result = bl.solve(rosenbrock(3), solver, {"max_iterations": 8}, verify=False, out=tmp_path / "run")
    events = read_run(tmp_path / "run").of_kind("iteration")
    assert len(events) >= 2
    assert all(list(e["x"]) == ["x[0]", "x[1]", "x[2]"] for e in events)
    points = [list(e["x"].values()) for e in events]
    assert any(np.allclose(p, result.x["x"], rtol=0, atol=1e-12) for p in points)
    assert points[0] != points[-1]


def test_algebraic_variables_go_by_their_names(tmp_path: Path) -> None:
    import pyomo.environ as pyo

    m: Any = pyo.ConcreteModel()
    m.price = pyo.Var([1, 2], bounds=(0, 4))
    m.follower = bl.Follower()
    m.follower.y = pyo.Var([1, 2])
    m.objective = pyo.Objective(expr=sum((m.follower.y[k] - k) ** 2 for k in (1, 2)))
    m.follower.objective = pyo.Objective(expr=sum((m.follower.y[k] - m.price[k]) ** 2 for k in (1, 2)))
    bl.solve(bl.PyomoProblem(m), "hypergradient", verify=False, out=tmp_path / "run")
    (last,) = read_run(tmp_path / "run").of_kind("iteration")[-1:]
    assert last["x"] == pytest.approx({"price[1]": 1.0, "price[2]": 2.0}, abs=1e-5)


def test_many_variables_cost_the_log_no_more_than_a_few(tmp_path: Path) -> None:
    bl.solve(rosenbrock(300), "hypergradient", {"max_iterations": 3}, verify=False, out=tmp_path / "run")
    run = read_run(tmp_path / "run")
    for event in run.of_kind("iteration"):
        assert len(event["x"]) == TOLD
        assert list(event["x"])[-1] == "x[299]"
    figure = drawn(run)
    assert figure.axes[0].get_title(loc="left") == "24 of 300 variables; those named moved furthest"
    assert len(named(figure)) == 12
    assert len(figure.axes[0].get_lines()) == TOLD


def test_the_path_goes_where_the_run_went(tmp_path: Path) -> None:
    result = bl.solve(rosenbrock(2), "hypergradient", {"max_iterations": 9}, verify=False, out=tmp_path / "run")
    figure = drawn(read_run(tmp_path / "run"))
    lines = named(figure)
    assert set(lines) == {"x[0]", "x[1]"}
    assert [float(lines[f"x[{k}]"].get_ydata()[-1]) for k in (0, 1)] == pytest.approx(list(result.x["x"]), abs=1e-6)
    assert figure.axes[0].get_title(loc="left") == ""


def test_a_resumed_run_has_one_path(tmp_path: Path) -> None:
    problem = rosenbrock(2)
    options = {"max_iterations": 4, "checkpoint_every": 0}
    bl.solve(problem, "hypergradient", options, verify=False, out=tmp_path / "run")
    bl.resume(problem, tmp_path / "run", max_iterations=7)
    run = read_run(tmp_path / "run")
    again = StoredRun(run.folder, run.request, (*run.events, *run.events[-6:]), run.result)
    for one in (run, again):
        line = named(drawn(one))["x[0]"]
        assert list(line.get_xdata()) == list(range(8))


def test_of_several_starts_the_best_one_is_drawn() -> None:
    events = [
        {"event": "iteration", "time": 0.0, "iteration": k, "start": s, "x": {"a": 10.0 * s + k}}
        for s in (0, 1, 2)
        for k in range(3)
    ]
    best = {"event": "incumbent", "time": 0.0, "iteration": 2, "start": 1, "objective": 1.0, "x": {"a": 12.0}}
    run = StoredRun(Path("nowhere"), {}, (*events, best))
    assert list(named(drawn(run))["a"].get_ydata()) == [10.0, 11.0, 12.0]


def test_sampled_points_and_the_best_so_far(tmp_path: Path) -> None:
    result = bl.solve(nested(), "sample.random", {"lower_solves": 30}, out=tmp_path / "run")
    run = read_run(tmp_path / "run")
    events = run.of_kind("iteration")
    assert len(events) == 30
    assert {e["x"]["kind"] for e in events} == {"bad", "good"}
    line = named(drawn(run))["a"]
    assert float(line.get_ydata()[-1]) == float(result.x["a"])
    assert list(line.get_xdata())[-1] == 30
    (dots,) = [other for other in drawn(run).axes[0].get_lines() if other.get_marker() == "."]
    assert sorted(dots.get_ydata()) == sorted(e["x"]["a"] for e in events)


def test_runs_that_tell_nothing_of_x_have_no_path() -> None:
    run = StoredRun(Path("nowhere"), {}, ({"event": "iteration", "time": 0.0, "iteration": 1, "bound": 2.0},))
    assert drawn(run) is None
