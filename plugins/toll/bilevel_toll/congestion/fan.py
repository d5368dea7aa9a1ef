"""Ways downhill one after the other, or through an executor, with the same outcome."""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, Future, wait
from dataclasses import replace
from pathlib import Path

from bilevel_core.errors import UsageError
from bilevel_core.run import RunContext
from bilevel_core.run.executors import SerialExecutor
from bilevel_toll.congestion.asking import Task, Told, Way, walk
from bilevel_toll.congestion.problem import TrafficProblem

POLL = 0.2
"""Seconds between looks at the clock while others work."""
PATIENCE = 10.0
"""Seconds to wait for those that are told to stop: an equilibrium takes less. Then the run ends without them."""


class Fan:
    """Goes ways downhill. A context manager, to be entered once.

    Args:
        problem: whose.
        context: of the run; its executor is used where it has one.
    """

    def __init__(self, problem: TrafficProblem, context: RunContext) -> None:
        self._problem, self._context = problem, context
        executor = context.executor
        self._executor = None if isinstance(executor, SerialExecutor) else executor
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._payload = b""
        self._batches = 0

    def __enter__(self) -> Fan:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def halted(self) -> bool:
        """Whether the run is over: by time, or because somebody asked."""
        return self._context.stopped or self._context.expired

    def ways(
        self, tasks: Sequence[Task], left: Callable[[], int], told: Sequence[Told | None]
    ) -> Generator[Way, None, None]:
        """Go all of them; outcomes come in the order of the tasks. Closing the generator ends those not needed.

        Args:
            tasks: what to do; their budgets are set to what is left.
            left: equilibria that are left of the run's budget.
            told: for each task whom to tell of better points at once; not called from other processes.

        Raises:
            UsageError: the problem cannot be sent to other processes.
        """
        if self._executor is None:
            for task, tell in zip(tasks, told, strict=True):
                yield walk(self._problem, replace(task, budget=left()), self.halted, tell)
            return
        if self._folder is None:
            self._payload = self._pickled()
            self._folder = tempfile.TemporaryDirectory(prefix="bilevel-")
        # Tasks on this machine look for the file now and then; on others they run to their ends.
        self._batches += 1
        stop = Path(self._folder.name) / f"stop{self._batches}"
        seconds = self._context.remaining()
        deadline = None if seconds is None else time.time() + seconds
        futures: list[Future[Way]] = []
        halt: float | None = None
        try:
            for task in tasks:
                mine = replace(task, budget=left())
                futures.append(self._executor.submit(walk_there, self._payload, mine, deadline, str(stop)))
            for future in futures:
                while not future.done():
                    if self.halted():
                        stop.touch()
                        halt = halt or time.monotonic()
                        if time.monotonic() > halt + PATIENCE:
                            yield Way(ended=True)
                            return
                    wait([future], timeout=POLL)
                try:
                    yield future.result()
                except BrokenExecutor as error:
                    yield Way(lost=str(error))
        finally:
            stop.touch()
            for future in futures:
                future.cancel()
            spent = 0.0 if halt is None else time.monotonic() - halt
            wait([f for f in futures if not f.cancelled()], timeout=max(0.0, PATIENCE - spent))

    def _pickled(self) -> bytes:
        try:
            return pickle.dumps(self._problem)
        except Exception as error:
            raise UsageError(
                f"The problem cannot be sent to other processes: it cannot be pickled ({type(error).__name__}: "
                f"{error}). Leave the executor out."
            ) from error


def walk_there(payload: bytes, task: Task, deadline: float | None, stop: str) -> Way:
    """`walk` in another process.

    Raises:
        UsageError: the problem cannot be rebuilt there.
    """
    path = Path(stop)
    try:
        problem = pickle.loads(payload)
    except Exception as error:
        raise UsageError(
            f"The problem cannot be rebuilt in another process ({type(error).__name__}: {error}). Leave the executor "
            "out."
        ) from error
    here = path.parent.exists()

    def halted() -> bool:
        # The folder goes when the run is over and could not wait for this task.
        asked = path.exists() or (here and not path.parent.exists())
        return asked or (deadline is not None and time.time() > deadline)

    return walk(problem, task, halted)
