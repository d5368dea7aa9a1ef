"""Where trials are solved: here, or through an executor by a reference to the problem. One place for retries, devices,
and workers that die.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import Any

from bilevel_core.errors import BilevelError, MissingError, UsageError
from bilevel_core.lower import LowerFailedError
from bilevel_core.oracles import NonFiniteError
from bilevel_core.plugins.specs import load
from bilevel_core.problems.base import Problem, as_problem
from bilevel_core.result import Termination
from bilevel_core.run.executors import SerialExecutor
from bilevel_core.solvers.iterative import CutShortError
from bilevel_core.solvers.sample.task import Evaluation, EvaluationSettings, Outcome, Task, make_evaluation

KEPT = 4
"""How many problems a worker keeps at hand."""
TRIES = 2
"""How often a task is sent whose worker dies."""
NO_ANSWER = (Termination.LOWER_INFEASIBLE, Termination.LOWER_UNBOUNDED)
"""Ends of a lower-level solve that show that there is no answer; only HiGHS and SCIP say so."""
POLL = 0.2
"""Seconds between looks at the time while workers are busy."""

_lock = threading.Lock()
_idle: OrderedDict[str, list[Evaluation]] = OrderedDict()
"""Evaluations at hand, by problem. One is taken out while it works: it has a state, and a worker may have threads."""


@dataclass(frozen=True)
class Reference:
    """How another process gets the problem.

    Attributes:
        maker, arguments: a function as ``module:attribute`` that makes it, and its arguments; "" where none is known.
        payload: the pickled problem, where there is no such function.
        settings: how its lower level is solved.
        seed: of the run.
    """

    maker: str
    arguments: tuple[Any, ...]
    payload: bytes
    settings: EvaluationSettings
    seed: int

    @property
    def digest(self) -> str:
        """What tells two references apart."""
        parts = (self.maker, self.arguments, self.payload, self.settings, self.seed)
        return hashlib.sha256(pickle.dumps(parts)).hexdigest()

    def build(self) -> Evaluation:
        """The evaluation, made anew.

        Raises:
            UsageError: the problem cannot be rebuilt here.
        """
        try:
            problem = load(self.maker)(*self.arguments) if self.maker else pickle.loads(self.payload)
        except BilevelError:
            raise
        except Exception as error:
            raise UsageError(
                f"The problem cannot be rebuilt in another process: {type(error).__name__}: {error}. Define it in a "
                "module that can be imported there, or leave the executor out."
            ) from error
        return make_evaluation(as_problem(problem), self.settings, self.seed)


def reference_to(problem: Problem, settings: EvaluationSettings, seed: int) -> Reference:
    """A reference by what makes the problem where that is known, else the problem itself.

    Raises:
        UsageError: it cannot be pickled.
    """
    if problem.reference is not None:
        maker, arguments = problem.reference
        return Reference(maker, arguments, b"", settings, seed)
    try:
        payload = pickle.dumps(problem)
    except Exception as error:
        raise UsageError(
            f"The problem cannot be sent to other processes: it cannot be pickled ({type(error).__name__}: {error}). "
            "Leave the executor out, or define the problem's functions at the top of a module."
        ) from error
    return Reference("", (), payload, settings, seed)


def solve_tasks(reference: Reference, digest: str, tasks: tuple[Task, ...]) -> list[Outcome]:
    """The work, in a worker: build or find the problem, and solve its lower level at one point, or at several together.

    Raises:
        UsageError, MissingError: the problem cannot be built; the same for every task.
    """
    evaluation = _taken(reference, digest)

    def hurry() -> bool:
        if tasks[0].deadline is not None and time.time() > tasks[0].deadline:
            raise CutShortError("The time is over.")
        return False

    try:
        return attempt_all(evaluation, tasks, hurry)
    finally:
        with _lock:
            _idle.setdefault(digest, []).append(evaluation)


def _taken(reference: Reference, digest: str) -> Evaluation:
    """An evaluation for the caller alone, until it puts it back."""
    with _lock:
        waiting = _idle.setdefault(digest, [])
        _idle.move_to_end(digest)
        while len(_idle) > KEPT:
            _idle.popitem(last=False)
        if waiting:
            return waiting.pop()
        # Under the lock too: not every modelling library can build two models at once.
        evaluation = reference.build()
        _one_thread()
        return evaluation


def attempt_all(evaluation: Evaluation, tasks: tuple[Task, ...], hurry: Callable[[], bool]) -> list[Outcome]:
    """Evaluate one task, or several as one program; see `attempt`."""
    if len(tasks) == 1:
        return [attempt(evaluation, tasks[0], hurry)]
    try:
        return evaluation.evaluate_many(tasks, hurry)
    except CutShortError:
        return [Outcome(task.index, task.point, cut=True) for task in tasks]


def attempt(evaluation: Evaluation, task: Task, hurry: Callable[[], bool]) -> Outcome:
    """Evaluate, and make an outcome of whatever goes wrong at this one point.

    Raises:
        UsageError, MissingError: what is wrong with the request as a whole.
        KeyboardInterrupt: from the user.
    """
    try:
        return evaluation.evaluate(task, hurry)
    except CutShortError:
        return Outcome(task.index, task.point, cut=True)
    except (LowerFailedError, NonFiniteError) as error:
        shown = isinstance(error, LowerFailedError) and error.termination in NO_ANSWER
        counts = {"lower_solves": 1}
        return Outcome(task.index, task.point, cost=task.budget, proven=shown, counts=counts, message=str(error))
    except (UsageError, MissingError):
        raise
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything at some x
        text = str(error) if isinstance(error, BilevelError) else f"{type(error).__name__}: {error}"
        return Outcome(task.index, task.point, cost=task.budget, message=text, failed=True)


def _one_thread() -> None:
    """One thread for torch where the environment asks for one, as executors set it in their workers: torch may have
    been imported before that.
    """
    torch = sys.modules.get("torch")
    if torch is not None and os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(1)


class Post:
    """Trials on their way.

    Args:
        evaluation: the problem here; used where there is no executor.
        problem: the same, to be sent.
        settings: how its lower level is solved.
        seed: of the run.
        executor: where tasks go; None for here.
        devices: to hand out, one a task; empty for the run's own.
        batch: how many trials are solved together, as one program.
        hurry: asked by a solve that runs here.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        problem: Problem,
        settings: EvaluationSettings,
        seed: int,
        executor: Executor | None,
        devices: tuple[str, ...],
        batch: int,
        hurry: Callable[[], bool],
    ) -> None:
        self.evaluation = evaluation
        self._executor = None if isinstance(executor, SerialExecutor) else executor
        self._hurry = hurry
        self._reference = reference_to(problem, settings, seed) if self._executor is not None else None
        self._digest = "" if self._reference is None else self._reference.digest
        self._batch = batch
        self._waiting: list[Task] = []
        self._futures: dict[Future[list[Outcome]], tuple[tuple[Task, ...], int]] = {}
        self._load = dict.fromkeys(devices, 0)

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return bool(self._waiting or self._futures)

    def send(self, task: Task) -> None:
        """Put a trial on its way; it leaves with the next `receive`."""
        self._waiting.append(task)

    def _group(self) -> tuple[Task, ...]:
        """The oldest trials that can be solved together, on the device with the least to do."""
        first = self._waiting[0]
        group = [task for task in self._waiting if task.budget == first.budget][: self._batch]
        taken = {task.index for task in group}
        self._waiting = [task for task in self._waiting if task.index not in taken]
        if not self._load:
            return tuple(group)
        device = min(self._load, key=lambda d: self._load[d])
        self._load[device] += len(group)
        return tuple(replace(task, device=device) for task in group)

    def _submit(self, group: tuple[Task, ...], tries: int) -> None:
        assert self._executor is not None
        assert self._reference is not None
        try:
            future = self._executor.submit(solve_tasks, self._reference, self._digest, group)
        except BrokenExecutor as error:
            raise MissingError(f"The executor is broken: {error}") from error
        self._futures[future] = (group, tries)

    def receive(self, patience: float | None) -> list[Outcome]:
        """The outcomes that have come in; here, those of the oldest group.

        Args:
            patience: seconds to wait for one at most; None to wait as long as it takes.

        Raises:
            UsageError, MissingError: as the tasks raise them.
        """
        if self._executor is None:
            group = self._group()
            return self._back(group, attempt_all(self.evaluation, group, self._hurry))
        while self._waiting:
            self._submit(self._group(), 1)
        done, _ = wait(self._futures, POLL if patience is None else min(POLL, patience), FIRST_COMPLETED)
        found: list[Outcome] = []
        for future in sorted(done, key=lambda f: self._futures[f][0][0].index):
            group, tries = self._futures.pop(future)
            try:
                found += self._back(group, future.result())
            except BrokenExecutor as error:
                if tries < TRIES:
                    self._submit(group, tries + 1)
                    continue
                text = f"Its worker died {TRIES} times: {error}"
                lost = [Outcome(t.index, t.point, cost=t.budget, message=text, failed=True) for t in group]
                found += self._back(group, lost)
            except CancelledError:
                continue
        return found

    def close(self) -> list[Outcome]:
        """Cancel what has not begun, and take what is done already."""
        for future in self._futures:
            future.cancel()
        done = [f for f in self._futures if f.done() and not f.cancelled() and f.exception() is None]
        found = [outcome for future in done for outcome in future.result()]
        self._futures.clear()
        self._waiting.clear()
        return found

    def _back(self, group: tuple[Task, ...], outcomes: list[Outcome]) -> list[Outcome]:
        device = group[0].device
        if device in self._load:
            self._load[device] -= len(group)
        return outcomes
