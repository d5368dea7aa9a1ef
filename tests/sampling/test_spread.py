"""Trials through executors: the same run everywhere, workers that die, and a Dask cluster that loses one."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import warnings
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.run.executors import ProcessExecutor, WorkerDiedError
from bilevel_core.run.record import RunRecord
from bilevel_core.solvers.sample.send import reference_to
from bilevel_core.solvers.sample.task import EvaluationSettings

from . import problems
from .test_search import outcome

TESTS = str(Path(__file__).parents[1])
"""Where pytest's name of this package, ``sampling``, leads to."""


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Workers can import the tests' problems, and find where to leave marks."""
    path = os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("BILEVEL_TEST_MARKS", str(tmp_path))
    monkeypatch.setenv("BILEVEL_TEST_DEATHS", "0")
    monkeypatch.syspath_prepend(TESTS)
    assert problems.__name__ == "sampling.problems"
    return tmp_path


class Dying(Executor):
    """Loses the first so many tasks for each trial, in threads of this process."""

    workers = 2

    def __init__(self, deaths: dict[int, int]) -> None:
        self.deaths, self.sent, self._pool = dict(deaths), [], ThreadPoolExecutor(2)
        self.devices: list[str] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        (task,) = args[-1]
        self.sent.append(task.index)
        self.devices.append(task.device)
        if self.deaths.get(task.index, 0):
            self.deaths[task.index] -= 1
            future: Future[Any] = Future()
            future.set_exception(WorkerDiedError("killed"))
            return future
        return self._pool.submit(fn, *args, **kwargs)


@pytest.mark.parametrize("solver", ["sample.random", "sample.evolution"])
def test_the_run_is_the_same_wherever_it_is_computed(solver: str) -> None:
    options = {"lower_solves": 30, "parallel": 4}
    here = bl.solve(problems.mixed(), solver, options)
    with ThreadPoolExecutor(3) as pool:
        there = bl.solve(problems.mixed(), solver, options, executor=pool)
    assert outcome(here) == outcome(there)


def test_methods_that_do_not_learn_need_no_window_for_that() -> None:
    here = bl.solve(problems.mixed(), "sample.sobol", {"lower_solves": 20})
    with ThreadPoolExecutor(3) as pool:
        there = bl.solve(problems.mixed(), "sample.sobol", {"lower_solves": 20, "order": "arrival"}, executor=pool)
    assert sorted(e["objective"] for e in here.trace)[0] == sorted(e["objective"] for e in there.trace)[0]
    assert here.counts == there.counts


def test_a_dead_worker_costs_a_retry_and_a_second_one_the_trial() -> None:
    executor = Dying({3: 1, 5: 2})
    result = bl.solve(problems.mixed(), "sample.random", {"lower_solves": 10}, executor=executor)
    assert [executor.sent.count(k) for k in (2, 3, 5)] == [1, 2, 2]
    assert result.counts["trials"] == 10
    assert "1 of 10 trials failed" in result.message
    assert "died 2 times" in result.message
    lost = bl.solve(problems.mixed(), "sample.random", {"lower_solves": 10, "parallel": 2})
    assert result.upper_objective == lost.upper_objective


def test_devices_are_handed_out_evenly() -> None:
    executor = Dying({})
    options = {"lower_solves": 12, "devices": ("cpu", "cuda:7")}
    bl.solve(problems.mixed(), "sample.random", options, executor=executor)
    assert sorted(executor.devices[:2]) == ["cpu", "cuda:7"]
    assert set(executor.devices) == {"cpu", "cuda:7"}


def test_problems_of_the_command_line_are_sent_by_what_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registered name, and a file whose functions could not be pickled; the reference holds in any folder."""
    from bilevel_cli.reference import find_problem

    (tmp_path / "mine.py").write_text(
        "import bilevel_core as bl\n"
        "def build(top: int = 3):\n"
        "    return bl.NestedProblem((bl.Integer('k', 0, top),), lambda x, c: bl.Answer({'y': 0.0}, x['k'], 0.0))\n"
    )
    monkeypatch.chdir(tmp_path)
    found = [find_problem("classic/bard-511", {}), find_problem("mine.py", {"top": "5"})]
    monkeypatch.chdir(Path(__file__).parent)
    for problem, size in zip(found, (math.inf, 6), strict=True):
        reference = reference_to(problem, EvaluationSettings(), 0)
        assert reference.payload == b""
        assert reference.build().space.size == size
    with pytest.raises(bl.UsageError, match="cannot be pickled"):
        reference_to(bl.NestedProblem((bl.Integer("k", 0, 1),), lambda x, c: None), EvaluationSettings(), 0)


def test_threads_of_one_worker_do_not_share_what_has_a_state() -> None:
    """As in a Dask worker, which has a thread a core unless told otherwise."""
    problem = get_registry().problems["smd/smd1"].load()()
    options = {"lower_solves": 30, "parallel": 4}
    here = bl.solve(problem, "sample.sobol", options)
    with ThreadPoolExecutor(4) as pool:
        there = bl.solve(problem, "sample.sobol", options, executor=pool)
    assert outcome(here) == outcome(there)


def test_processes_give_the_same_run_and_survive_a_death(importable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"lower_solves": 40, "parallel": 2}
    here = bl.solve(problems.mortal(), "sample.evolution", options)
    monkeypatch.setenv("BILEVEL_TEST_DEATHS", "1")
    with ProcessExecutor(2) as pool:
        there = bl.solve(problems.mortal(), "sample.evolution", options, executor=pool, verify=False)
    assert len(list(importable.glob("death-*"))) >= 1
    assert there.counts == here.counts
    assert [e["objective"] for e in there.trace] == [e["objective"] for e in here.trace]


def test_a_dask_cluster_loses_a_worker_and_nothing_else(importable: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    from bilevel_core.run.clusters import DaskExecutor

    whole = bl.solve(problems.mortal(), "sample.evolution", {"lower_solves": 60, "parallel": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ports taken, clocks: the library's own matters
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="", silence_logs=50
        )
        client = distributed.Client(cluster, set_as_default=False)
        executor = DaskExecutor(client=client)
        killed: list[int] = []

        def kill(event: bl.Event) -> bool:
            if event.kind == "iteration" and event.data["iteration"] == 20:
                pids = client.run(os.getpid)
                killed.append(next(iter(pids.values())))
                threading.Thread(target=os.kill, args=(killed[0], signal.SIGKILL)).start()
                time.sleep(0.3)
            return False

        try:
            result = bl.solve(
                problems.mortal(),
                "sample.evolution",
                {"lower_solves": 60, "parallel": 2},
                executor=executor,
                out=tmp_path / "run",
                callbacks=[kill],
            )
        finally:
            executor.shutdown()
            client.close()
            cluster.close()
    assert killed
    assert outcome(result) == outcome(whole)
    assert len(RunRecord(tmp_path / "run").journaled()) == 60
    # Going on needs no cluster.
    more = bl.resume(problems.mortal(), tmp_path / "run", max_iterations=70)
    assert more.counts["trials"] == 70


def test_ray_gives_the_same_run(importable: Path) -> None:
    pytest.importorskip("ray")
    here = bl.solve(problems.mixed(), "sample.evolution", {"lower_solves": 30, "parallel": 2})
    there = bl.solve(problems.mixed(), "sample.evolution", {"lower_solves": 30, "parallel": 2}, executor="ray")
    assert outcome(here) == outcome(there)
