"""Journals: a run that was cut short goes on exactly, on any executor; a changed problem is not gone on with."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.run.record import RunRecord

from . import problems
from .test_search import outcome

METHODS: dict[str, dict[str, Any]] = {
    "sample.random": {},
    "sample.sobol": {},
    "sample.grid": {"resolution": 40},
    "sample.local": {},
    "sample.evolution": {},
    "sample.reinforce": {},
    "bleaq": {},
}
OPTIONAL = {"sample.cma": "cma", "sample.nsga2": "pymoo", "sample.bayes": "optuna"}
METHODS |= {
    name: {"model": "tpe"} if package == "optuna" else {}
    for name, package in OPTIONAL.items()
    if importlib.util.find_spec(package)
}
LIMIT = 18


def problem() -> Any:
    return get_registry().problems["classic/bard-511"].load()()


def stop_at(trial: int) -> Any:
    return lambda event: event.kind == "iteration" and event.data["iteration"] == trial


@pytest.mark.parametrize(
    ("solver", "order"), [*((s, "index") for s in METHODS), ("sample.random", "arrival"), ("sample.local", "arrival")]
)
def test_a_resumed_run_is_the_uninterrupted_one(solver: str, order: str, tmp_path: Path) -> None:
    options = {"lower_solves": LIMIT, "parallel": 3, "order": order, **METHODS[solver]}
    whole = bl.solve(problem(), solver, options, seed=5)
    cut = bl.solve(problem(), solver, options, seed=5, out=tmp_path / "run", callbacks=[stop_at(9)])
    assert cut.termination == "stopped-by-user"
    assert outcome(bl.resume(problem(), tmp_path / "run")) == outcome(whole)


def test_halving_resumes_in_the_middle_of_a_bracket(tmp_path: Path) -> None:
    options = {"lower_solves": 8, "smallest_budget": 1 / 9}
    whole = bl.solve(problems.trained(), "sample.halving", options)
    bl.solve(problems.trained(), "sample.halving", options, out=tmp_path / "run", callbacks=[stop_at(10)])
    assert outcome(bl.resume(problems.trained(), tmp_path / "run")) == outcome(whole)


@pytest.mark.parametrize(
    ("solver", "more", "packages"),
    [
        ("sample.reinforce", {"controller": "recurrent"}, ("torch",)),
        ("sample.bayes", {"model": "gp", "initial": 4}, ("optuna", "torch")),
    ],
)
def test_methods_that_learn_networks_and_models_resume(
    solver: str, more: dict[str, Any], packages: tuple[str, ...], tmp_path: Path
) -> None:
    for package in packages:
        pytest.importorskip(package)
    options = {"lower_solves": 6, **more}
    whole = bl.solve(problems.mixed(), solver, options, seed=2)
    bl.solve(problems.mixed(), solver, options, seed=2, out=tmp_path / "run", callbacks=[stop_at(5)])
    assert outcome(bl.resume(problems.mixed(), tmp_path / "run")) == outcome(whole)


def test_a_killed_run_has_its_journal_and_a_cut_off_entry_is_left_out(tmp_path: Path) -> None:
    options = {"lower_solves": LIMIT}
    whole = bl.solve(problem(), "sample.local", options)

    class Killed(BaseException):
        """What no code of ours catches."""

    def kill(event: bl.Event) -> bool:
        if event.kind == "iteration" and event.data["iteration"] == 12:
            raise Killed
        return False

    with pytest.raises(Killed):
        bl.solve(problem(), "sample.local", options, out=tmp_path / "run", callbacks=[kill])
    journal = tmp_path / "run" / "journal"
    assert len(RunRecord(tmp_path / "run").journaled()) == 12
    journal.write_bytes(journal.read_bytes()[:-3])
    assert len(RunRecord(tmp_path / "run").journaled()) == 11
    assert outcome(bl.resume(problem(), tmp_path / "run")) == outcome(whole)
    assert len(RunRecord(tmp_path / "run").journaled()) == LIMIT


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(tmp_path: Path) -> None:
    bl.solve(problem(), "sample.evolution", {"lower_solves": 12}, out=tmp_path / "run")
    more = bl.resume(problem(), tmp_path / "run", max_iterations=LIMIT)
    whole = bl.solve(problem(), "sample.evolution", {"lower_solves": LIMIT})
    assert [e["objective"] for e in more.trace] == [e["objective"] for e in whole.trace]
    assert more.counts == whole.counts


def test_a_run_goes_on_with_its_executor_or_with_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def make(spec: Any, registry: Any = None) -> Any:
        asked.append(spec)
        if spec == "dask:gone":
            raise bl.UsageError("No Dask scheduler answers.")
        return None

    monkeypatch.setattr("bilevel_core.api.make_executor", make)
    options = {"lower_solves": 5}
    bl.solve(problem(), "sample.random", options, out=tmp_path / "run", executor="processes:3")
    bl.resume(problem(), tmp_path / "run", max_iterations=7)
    bl.resume(problem(), tmp_path / "run", max_iterations=9, executor="serial")
    assert asked == ["processes:3", "processes:3", "serial"]
    bl.solve(problem(), "sample.random", options, out=tmp_path / "here")
    bl.resume(problem(), tmp_path / "here", max_iterations=7)
    assert asked[3:] == [None, None]
    request = tmp_path / "run" / "run.json"
    request.write_text(request.read_text().replace("processes:3", "dask:gone"))
    with pytest.raises(bl.UsageError, match=r"answers\. The run was made with that executor.*'serial'"):
        bl.resume(problem(), tmp_path / "run", max_iterations=9)


def test_another_problem_is_refused(tmp_path: Path) -> None:
    def build(shift: float, names: tuple[str, ...] = ("k", "l"), objective: str = "time") -> bl.NestedProblem:
        def follow(x: dict[str, Any], call: bl.Call) -> bl.Answer:
            return bl.Answer({"y": 0.0}, sum(float(v) for v in x.values()) + shift, 0.0)

        return bl.NestedProblem([bl.Integer(n, 0, 9) for n in names], follow, objectives=[objective])

    bl.solve(build(0.0), "sample.random", {"lower_solves": 5}, out=tmp_path / "run")
    with pytest.raises(bl.UsageError, match="variables or objectives differ"):
        bl.resume(build(0.0, ("k", "m")), tmp_path / "run", max_iterations=9)
    with pytest.raises(bl.UsageError, match="objectives differ"):
        bl.resume(build(1.0, objective="revenue"), tmp_path / "run", max_iterations=9)

    changed = get_registry().problems["classic/bard-511"].load()()
    bl.solve(problem(), "sample.random", {"lower_solves": 5}, out=tmp_path / "two")
    changed.model.objective.expr = changed.model.objective.expr + 1.0
    with pytest.raises(bl.UsageError, match="has changed"):
        bl.resume(bl.PyomoProblem(changed.model, name=problem().name), tmp_path / "two", max_iterations=9)
