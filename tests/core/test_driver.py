"""The loop around iterative solvers: limits, failures, interruptions, starts, events, resume."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bilevel_core.errors import UsageError
from bilevel_core.oracles import Rows
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import Event, RunContext
from bilevel_core.run.checkpoint import read
from bilevel_core.run.executors import processes
from bilevel_core.run.record import RunRecord
from bilevel_core.solvers.iterative import Candidate, CutShortError

from .fake_iterative import FakeOracle, FakeProblem, FakeSolver

PROBLEM = FakeProblem()

KINDS = ["numpy", "torch"] if importlib.util.find_spec("torch") else ["numpy"]
"""Kinds of state to try; torch is optional."""


def run(solver: FakeSolver, problem: Any = PROBLEM, **context: Any) -> Result:
    return solver.run(problem, RunContext(**context))


def outcome(result: Result) -> dict[str, Any]:
    """All of a result but times."""
    data = result.to_dict()
    data["trace"] = [e["objective"] for e in data["trace"]]
    return data


class Memory:
    """Keeps checkpoints in memory."""

    periodic = True

    def __init__(self) -> None:
        self.all: list[bytes] = []

    def checkpoint(self, content: bytes) -> None:
        self.all.append(content)


def restored(content: bytes, tmp_path: Path) -> Any:
    path = tmp_path / "checkpoint"
    path.write_bytes(content)
    return read(path)


def stop_at(iteration: int, *, interrupt: bool = False, start: int = 0) -> Any:
    def stop(event: Event) -> bool:
        there = event.kind == "iteration" and event.data["iteration"] == iteration and event.data["start"] == start
        if there and interrupt:
            raise KeyboardInterrupt
        return there

    return stop


def test_converges() -> None:
    result = run(FakeSolver())
    assert result.termination is Termination.CONVERGED
    assert result.claim is Claim.LOCAL
    assert abs(FakeSolver().make_oracle(PROBLEM, None).slope(result.y["y"])).max() < 1e-6
    np.testing.assert_array_equal(result.x["x"], result.y["y"])
    assert result.counts["iterations"] == result.counts["lower_solves"] - 1 > 50
    assert "The step is small." in result.message
    assert "The third step was taken." in result.message
    objectives = [e["objective"] for e in result.trace]
    assert objectives == sorted(objectives, reverse=True)


def test_maximised_in_the_users_sense() -> None:
    events: list[Event] = []
    result = run(FakeSolver(), FakeProblem(maximise=True), callbacks=[events.append])
    assert result.upper_objective == -run(FakeSolver()).upper_objective  # type: ignore[operator]
    objectives = [e["objective"] for e in result.trace]
    assert objectives == sorted(objectives)  # type: ignore[type-var]
    assert events[-1].data["best"] == result.trace[-1]["objective"]


def test_limits() -> None:
    result = run(FakeSolver(max_iterations=7))
    assert (result.termination, result.claim) == (Termination.ITERATION_LIMIT, Claim.FEASIBLE)
    assert result.counts["iterations"] == 7
    assert result.has_point
    result = run(FakeSolver(max_iterations=0))
    assert (result.termination, result.counts["iterations"], result.x["x"].tolist()) == (
        Termination.ITERATION_LIMIT,
        0,
        [0.0, 0.0],
    )
    result = run(FakeSolver(), time_limit=0.0)
    assert (result.termination, result.has_point) == (Termination.TIME_LIMIT, False)


def test_time_limit_keeps_the_best_point(monkeypatch: pytest.MonkeyPatch) -> None:
    context = RunContext(time_limit=1e6, callbacks=[stop_at(6)])
    monkeypatch.setattr(context, "stop", lambda: None)
    monkeypatch.setattr(type(context), "expired", property(lambda self: self._stopped))
    monkeypatch.setattr(type(context), "stopped", property(lambda self: False))
    result = FakeSolver().run(PROBLEM, context)
    assert (result.termination, result.claim, result.counts["iterations"]) == (
        Termination.TIME_LIMIT,
        Claim.FEASIBLE,
        6,
    )


@pytest.mark.parametrize("interrupt", [True, False])
def test_stopped_by_the_user(interrupt: bool) -> None:
    result = run(FakeSolver(), callbacks=[stop_at(6, interrupt=interrupt)])
    assert (result.termination, result.claim) == (Termination.STOPPED_BY_USER, Claim.FEASIBLE)
    assert result.counts["iterations"] == 6
    assert result.upper_objective == result.trace[-1]["objective"]


def test_interrupt_in_a_step_and_before_a_point() -> None:
    result = run(FakeSolver(trouble={"all": "interrupt"}))
    assert (result.termination, result.counts["iterations"]) == (Termination.STOPPED_BY_USER, 4)
    assert result.has_point
    result = run(FakeSolver(trouble={"all": "interrupt"}, at=0))
    assert (result.termination, result.has_point) == (Termination.STOPPED_BY_USER, False)


def test_nan_is_named_and_the_point_kept() -> None:
    result = run(FakeSolver(trouble={"all": "nan"}, starts=3))
    assert result.termination is Termination.ERROR
    assert "lower(x, y) is not finite: log of a negative number" in result.message
    assert result.claim is Claim.FEASIBLE
    assert result.counts["iterations"] == 4
    again = run(FakeSolver(trouble={"others": "nan"}, starts=3, at=0))
    assert (again.termination, again.claim) == (Termination.CONVERGED, Claim.LOCAL)
    assert "2 of 3 starts failed" in again.message


def test_a_candidate_that_is_not_finite_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSolver, "_candidate", lambda self, x, y, oracle: Candidate(x, y, math.nan if x[0] else 1.0))
    result = run(FakeSolver())
    assert (result.termination, result.upper_objective is None) == (Termination.ERROR, False)
    assert "upper(x, y) is not finite" in result.message


def test_a_failed_start_costs_only_itself() -> None:
    whole = run(FakeSolver(starts=4))
    result = run(FakeSolver(starts=4, trouble={"first": "lower"}, at=0))
    assert result.termination is Termination.CONVERGED
    assert result.upper_objective == whole.upper_objective
    assert "Start 0: The follower has no answer here." in result.message
    assert "1 of 4 starts failed" in result.message


def test_all_starts_fail() -> None:
    result = run(FakeSolver(starts=3, trouble={"all": "lower"}, at=0))
    assert (result.termination, result.has_point) == (Termination.LOWER_INFEASIBLE, False)
    assert "3 of 3 starts failed" in result.message
    later = run(FakeSolver(trouble={"all": "lower"}))
    assert (later.termination, later.has_point, later.claim) == (Termination.ERROR, True, Claim.FEASIBLE)


def test_an_infeasible_point_is_not_reported() -> None:
    result = run(FakeSolver(violation=1e-3))
    assert (result.termination, result.has_point, result.claim) == (Termination.CONVERGED, False, Claim.NONE)
    assert "0.001" in result.message
    assert result.trace == ()
    assert run(FakeSolver(violation=1e-7)).has_point


@pytest.mark.parametrize(("row", "feasible"), [(1e-7, True), (1e-3, False)])
def test_violations_are_measured_by_the_driver_whatever_the_method_says(
    row: float, feasible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(self: Any, x: np.ndarray, y: Any) -> Rows:
        self.counts["upper_rows"] += 1
        return Rows(np.array([row]), np.zeros(0))

    monkeypatch.setattr(FakeOracle, "has_upper_rows", True)
    monkeypatch.setattr(FakeOracle, "upper_rows", rows)
    for told in (0.0, 1.0):
        result = run(FakeSolver(violation=told, max_iterations=3))
        assert result.has_point == feasible
        assert "upper_rows" not in result.counts


def test_more_starts_find_more_and_depend_on_the_seed() -> None:
    one, many = run(FakeSolver()), run(FakeSolver(starts=8))
    assert many.upper_objective < one.upper_objective - 0.1  # type: ignore[operator]
    assert outcome(run(FakeSolver(starts=8))) == outcome(many)
    assert run(FakeSolver(starts=2), seed=1).counts != run(FakeSolver(starts=2), seed=2).counts
    assert run(FakeSolver(starts=2), seed=-1).has_point


def test_a_better_point_passed_on_the_way_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def candidate(self: Any, x: np.ndarray, y: Any, oracle: Any) -> Candidate:
        return Candidate(x, y, oracle.upper(x, y) if x[0] else -100.0, 0.0, Claim.LOCAL)

    monkeypatch.setattr(FakeSolver, "_candidate", candidate)
    result = run(FakeSolver())
    assert (result.termination, result.claim, result.x["x"].tolist()) == (
        Termination.CONVERGED,
        Claim.FEASIBLE,
        [0.0, 0.0],
    )
    assert "passed a better point" in result.message


def test_a_global_claim_is_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        FakeSolver, "_candidate", lambda self, x, y, o: Candidate(x, y, o.upper(x, y), claim=Claim.GLOBAL)
    )
    assert run(FakeSolver()).claim is Claim.LOCAL


def test_a_step_may_give_up_only_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Any, oracle: Any, state: Any, context: Any) -> Any:
        raise CutShortError("no time")

    monkeypatch.setattr(FakeSolver, "step", step)
    with pytest.raises(CutShortError):
        run(FakeSolver())


def test_events() -> None:
    events: list[Event] = []
    result = run(FakeSolver(starts=2), callbacks=[events.append])
    steps = [e.data for e in events if e.kind == "iteration"]
    last = [[d["iteration"] for d in steps if d["start"] == start] for start in (0, 1)]
    assert last == [list(range(len(numbers))) for numbers in last]
    assert result.counts["iterations"] == sum(numbers[-1] for numbers in last)
    assert steps[3]["step"] > 0.0
    assert steps[-1]["best"] == result.trace[-1]["objective"]
    assert len([e for e in events if e.kind == "incumbent"]) == len(result.trace)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"max_iterations": -1}, "max_iterations"), ({"starts": 0}, "starts"), ({"checkpoint_every": -1.0}, "checkpoint")],
)
def test_wrong_options(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        FakeSolver(**options)


def test_better() -> None:
    x = np.zeros(1)
    good, worse, bad = Candidate(x, x, 1.0), Candidate(x, x, 2.0), Candidate(x, x, 0.0, 1.0)
    assert good.better(None)
    assert good.better(worse)
    assert not worse.better(good)
    assert worse.better(bad)
    assert not bad.better(worse)
    assert Candidate(x, x, 5.0, 0.5).better(bad)


# Resume.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 1, 17])
def test_resumed_is_as_never_interrupted(kind: str, at: int, tmp_path: Path) -> None:
    problem = FakeProblem(kind=kind, maximise=True)
    solver = FakeSolver(starts=3, checkpoint_every=0.0)
    whole = run(solver, problem)
    memory = Memory()
    run(solver, problem, keeper=memory, callbacks=[stop_at(at, interrupt=True, start=1)])
    again = run(solver, problem, restored=restored(memory.all[-1], tmp_path))
    assert outcome(again) == outcome(whole)
    # From any earlier checkpoint too, as after a crash.
    crashed = run(solver, problem, restored=restored(memory.all[5], tmp_path))
    assert outcome(crashed) == outcome(whole)


def test_interrupted_inside_a_step_counts_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(FakeSolver())
    memory = Memory()
    slope = FakeOracle.slope

    def interrupted(self: Any, y: Any) -> Any:
        found = slope(self, y)
        if self.counts["upper_gradients"] == 9:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(FakeOracle, "slope", interrupted)
        assert run(FakeSolver(), keeper=memory).termination is Termination.STOPPED_BY_USER
    again = run(FakeSolver(), restored=restored(memory.all[-1], tmp_path))
    assert outcome(again) == outcome(whole)


def test_a_higher_limit_lets_a_run_go_on(tmp_path: Path) -> None:
    memory = Memory()
    short = run(FakeSolver(max_iterations=10), keeper=memory)
    assert short.termination is Termination.ITERATION_LIMIT
    same = run(FakeSolver(max_iterations=10), restored=restored(memory.all[-1], tmp_path))
    assert outcome(same) == outcome(short)
    longer = run(FakeSolver(max_iterations=20), restored=restored(memory.all[-1], tmp_path))
    assert outcome(longer) == outcome(run(FakeSolver(max_iterations=20)))


def test_checkpoints_come_at_most_so_often(tmp_path: Path) -> None:
    memory = Memory()
    result = run(FakeSolver(checkpoint_every=1e6), keeper=memory)
    assert len(memory.all) == 2  # after the first point, and at the end
    every = Memory()
    run(FakeSolver(checkpoint_every=0.0), keeper=every)
    assert len(every.all) == result.counts["iterations"] + 2
    late = Memory()
    late.periodic = False
    run(FakeSolver(checkpoint_every=0.0), keeper=late)
    assert len(late.all) == 1


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    class Full(Memory):
        def checkpoint(self, content: bytes) -> None:
            raise OSError(28, "No space left on device")

    result = run(FakeSolver(), keeper=Full())
    assert result.termination is Termination.CONVERGED
    assert result.message.count("No space left") == 1


def test_a_checkpoint_of_another_problem_is_refused(tmp_path: Path) -> None:
    memory = Memory()
    run(FakeSolver(max_iterations=3), keeper=memory)
    with pytest.raises(UsageError, match="2 upper and 2 lower"):
        run(FakeSolver(), FakeProblem(size=3), restored=restored(memory.all[-1], tmp_path))


# Executors.


def test_the_executor_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Workers import the fakes under a name that is found on the path.
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    fakes: Any = importlib.import_module("fake_iterative")
    FakeProblem, FakeSolver = fakes.FakeProblem, fakes.FakeSolver
    problem = FakeProblem()
    monkeypatch.setenv("FAKE_PARENT", str(os.getpid()))
    with processes("2") as executor:
        for kind in KINDS:
            solver, other = FakeSolver(starts=4), FakeProblem(kind=kind, maximise=True)
            assert outcome(run(solver, other, executor=executor)) == outcome(run(solver, other))
        for trouble in ({"first": "nan"}, {"others": "nan"}, {"first": "lower"}):
            solver = FakeSolver(starts=3, trouble=trouble)
            assert outcome(run(solver, problem, executor=executor)) == outcome(run(solver, problem)), trouble
        # A worker that dies costs its start only, which is tried again when the run is resumed.
        memory = Memory()
        solver = FakeSolver(starts=3, trouble={"first": "die"})
        result = run(solver, problem, executor=executor, keeper=memory)
        assert result.termination is Termination.CONVERGED
        assert "Start 0: The process that ran one_start died" in result.message
        again = run(solver, problem, restored=restored(memory.all[-1], tmp_path))
        assert again.upper_objective == run(FakeSolver(starts=3), problem).upper_objective
        # A callback can stop it, and the time limit holds in workers.
        stopped = run(FakeSolver(starts=6), problem, executor=executor, callbacks=[lambda event: True])
        assert stopped.termination is Termination.STOPPED_BY_USER
        assert stopped.has_point
        expired = run(FakeSolver(starts=2), problem, executor=executor, time_limit=0.0)
        assert (expired.termination, expired.has_point) == (Termination.TIME_LIMIT, False)


def test_a_problem_that_cannot_be_sent_is_refused() -> None:
    problem = FakeProblem()
    problem.function = lambda x: x  # type: ignore[attr-defined]
    with processes("1") as executor, pytest.raises(UsageError, match=r"cannot be pickled.*Leave the executor out"):
        run(FakeSolver(starts=2), problem, executor=executor)


def test_records_hold_the_checkpoint(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "run")
    record.start({"problem": "fake"})
    context = RunContext(keeper=record, callbacks=[record.event, stop_at(4)])
    FakeSolver(checkpoint_every=0.0).run(PROBLEM, context)
    assert read(tmp_path / "run" / "checkpoint").entry("solver") == "FakeSolver"
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines if '"iteration"}' not in line][-1] == 4


def test_a_note_replaces_those_with_its_stem_also_after_a_checkpoint() -> None:
    """What was noted is all that is kept: a resumed run goes on from the sentences alone."""
    fakes: Any = importlib.import_module("tests.core.fake_iterative")
    first, resumed = (fakes.FakeOracle(fakes.FakeProblem()) for _ in range(2))
    first.note("Worst so far: 3.", "Worst so far:")
    first.note("Something else.")
    resumed.notes[:] = first.notes
    for oracle in (first, resumed):
        oracle.note("Worst so far: 2.", "Worst so far:")
        oracle.note("Something else.")
        assert oracle.notes == ["Something else.", "Worst so far: 2."]
