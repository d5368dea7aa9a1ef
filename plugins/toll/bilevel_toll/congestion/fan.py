"""Ways downhill one after the other, or through an executor, with the same outcome."""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from dataclasses import replace
from functools import partial
from pathlib import Path

from bilevel_core.errors import UsageError
from bilevel_core.run import RunContext
from bilevel_core.run.executors import SerialExecutor
from bilevel_toll.congestion.answers import Answers, Entry
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
        answers: where ways are recorded, and recorded ones come from.
    """

    def __init__(self, problem: TrafficProblem, context: RunContext, answers: Answers) -> None:
        self._problem, self._context, self._answers = problem, context, answers
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
        """Whether the run is over: by time, or because somebody asked. Recorded answers are told to their end first."""
        return not self._answers.replaying and (self._context.stopped or self._context.expired)

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
                yield self._recorded(replace(task, budget=left()), tell)
            return
        for number, task in enumerate(tasks):
            if not self._answers.replaying:
                yield from self._elsewhere(self._executor, tasks[number:], left)
                return
            yield self._recorded(replace(task, budget=left()))

    def _recorded(self, task: Task, tell: Told | None = None, go: Callable[[], Way] | None = None) -> Way:
        """A way as it was recorded, or else gone now; one that was cut short by time or the user is not recorded."""
        gone: Way | None = None

        def compute() -> Entry | None:
            nonlocal gone
            gone = walk(self._problem, task, self.halted, tell) if go is None else go()
            # Only with its budget used up: who cut it short may have had another clock.
            if gone.ended and gone.count < task.budget:
                return None
            return {
                "better": gone.better,
                "ledger": gone.ledger,
                "ended": gone.ended,
                "lost": gone.lost,
                "budget": task.budget,
            }

        def whole(answer: Entry) -> bool:
            # With more budget than then, a way that used it up goes on.
            return not answer["ended"] or task.budget <= answer["budget"]

        entry = self._answers.ask("way", task.x, compute, whole, groups=task.groups)
        if gone is not None:
            return gone
        assert entry is not None
        return Way(entry["better"], entry["ledger"], entry["ended"], entry["lost"])

    def _elsewhere(
        self, executor: Executor, tasks: Sequence[Task], left: Callable[[], int]
    ) -> Generator[Way, None, None]:
        """Go all of them through the executor."""
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
            given = [replace(task, budget=left()) for task in tasks]
            for task in given:
                futures.append(executor.submit(walk_there, self._payload, task, deadline, str(stop)))
            for task, future in zip(given, futures, strict=True):
                while not future.done():
                    if self.halted():
                        stop.touch()
                        halt = halt or time.monotonic()
                        if time.monotonic() > halt + PATIENCE:
                            yield Way(ended=True)
                            return
                    wait([future], timeout=POLL)
                yield self._recorded(task, None, partial(_outcome, future))
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


def _outcome(future: Future[Way]) -> Way:
    try:
        return future.result()
    except BrokenExecutor as error:
        return Way(lost=str(error))


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
