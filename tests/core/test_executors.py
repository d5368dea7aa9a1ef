"""Executors: names and arguments, and that a task, or a worker, that fails costs only that task."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bilevel_core import hookimpl
from bilevel_core.errors import MissingError, UsageError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import ExecutorSpec
from bilevel_core.run.executors import (
    THREAD_VARIABLES,
    ProcessExecutor,
    SerialExecutor,
    WorkerDiedError,
    end,
    make_executor,
    processes,
)


@pytest.fixture
def grid() -> Iterator[Any]:
    """A registry with executors of a plugin."""

    @hookimpl
    def bilevel_executors() -> list[ExecutorSpec]:
        return [
            ExecutorSpec("grid", "bilevel_core.run.executors:processes"),
            ExecutorSpec("odd", "builtins:str"),
            ExecutorSpec("absent", "package_that_is_not_there:connect", install="pip install grid"),
        ]

    yield get_registry(extra=[("grid", SimpleNamespace(bilevel_executors=bilevel_executors))])
    get_registry(fresh=True)


def test_serial_runs_at_once_in_this_thread() -> None:
    executor = make_executor("serial")
    assert isinstance(executor, SerialExecutor)
    with executor:
        future = executor.submit(threading.get_ident)
        assert future.done()
        assert future.result() == threading.get_ident()
        assert list(executor.map(divmod, [7, 9], [2, 4])) == [(3, 1), (2, 1)]
        failed = executor.submit(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            failed.result()
        assert executor.submit(int, "3", base=8).result() == 3
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)


def test_serial_lets_an_interrupt_through() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SerialExecutor().submit(interrupt)


def test_processes() -> None:
    """One pool for all, as a process takes a second to start."""
    with processes("2") as executor:
        assert isinstance(executor, ProcessExecutor)
        assert executor.workers == 2
        assert list(executor.map(divmod, [7, 9], [2, 4])) == [(3, 1), (2, 1)]
        assert executor.submit(os.getpid).result() != os.getpid()
        for variable in THREAD_VARIABLES:
            assert executor.submit(os.getenv, variable).result() == "1"
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result()
        with pytest.raises(Exception, match="pickle"):
            executor.submit(lambda: 1).result()

        # A worker that dies takes its own task with it, and none of those queued behind it.
        futures = [executor.submit(abs, -n) for n in range(4)]
        fatal = [executor.submit(os._exit, 3) for _ in range(2)]
        futures += [executor.submit(abs, -n) for n in range(4, 8)]
        for future in fatal:
            with pytest.raises(WorkerDiedError, match="_exit died"):
                future.result(timeout=60)
        assert [future.result(timeout=60) for future in futures] == list(range(8))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_the_end_of_a_run_waits_for_nothing() -> None:
    executor = processes("1")
    assert executor.submit(abs, -1).result() == 1
    busy, queued = executor.submit(time.sleep, 600), executor.submit(abs, -2)
    while not busy.running():
        time.sleep(0.01)
    end(executor)
    assert queued.cancelled()
    with pytest.raises(WorkerDiedError):
        busy.result(timeout=60)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


@pytest.mark.skipif(os.name != "posix", reason="processes are killed by a signal")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from bilevel_core.run.executors import processes\n"
        "if __name__ == '__main__':\n"
        "    executor = processes('1')\n"
        "    print(executor.submit(os.getpid).result(), flush=True)\n"
        "    executor.submit(time.sleep, 600)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.kill()
    deadline = time.monotonic() + 60.0
    while _alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(process: int) -> bool:
    """Whether a process that is nobody's child here goes on; one that has ended may wait for being reaped."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and ") Z " in status.read_text())


def test_shutdown_without_waiting_finishes_what_was_queued() -> None:
    executor = processes("1")
    futures = [executor.submit(abs, -n) for n in range(3)]
    executor.shutdown(wait=False)
    assert [future.result(timeout=60) for future in futures] == [0, 1, 2]


def test_processes_by_default_one_a_core() -> None:
    with processes() as executor:
        assert isinstance(executor, ProcessExecutor)
        assert 1 <= executor.workers <= (os.cpu_count() or 1)


@pytest.mark.parametrize("argument", ["0", "-1", "two", "1.5", "²"])
def test_wrong_number_of_processes(argument: str) -> None:
    with pytest.raises(UsageError, match=rf"Expected 'processes:4', got 'processes:{argument}'"):
        make_executor(f"processes:{argument}")


def test_serial_takes_no_argument() -> None:
    with pytest.raises(UsageError, match="'serial' takes no argument"):
        make_executor("serial:2")


def test_what_is_an_executor_already_is_handed_back() -> None:
    assert make_executor(None) is None
    with ThreadPoolExecutor(1) as executor:
        assert make_executor(executor) is executor
    with pytest.raises(UsageError, match="got int"):
        make_executor(4)  # type: ignore[arg-type]


def test_unknown_executor() -> None:
    with pytest.raises(UsageError, match=r"no executor named 'process'\. Did you mean 'processes'"):
        make_executor("process:4")


def test_executors_of_plugins(grid: Any) -> None:
    executor = make_executor("grid:3", grid)
    assert isinstance(executor, Executor)
    executor.shutdown()
    made = make_executor("grid:2")
    assert isinstance(made, ProcessExecutor)
    assert made.workers == 2
    made.shutdown()
    with pytest.raises(MissingError, match=r"'odd' is broken: builtins:str gave str"):
        make_executor("odd:x", grid)
    with pytest.raises(MissingError, match="pip install grid"):
        make_executor("absent:x", grid)
