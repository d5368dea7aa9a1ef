"""Running a solver's C++ code so that Ctrl-C stops it and keeps its best point."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class _Worker:
    """A thread that lives as long as the process and does one piece of work after the other."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Callable[[], object], list[BaseException], threading.Event]]
        self._tasks = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="bilevel-backend").start()

    def start(self, work: Callable[[], object]) -> tuple[list[BaseException], threading.Event]:
        """Begin a piece of work; the event is set at its end, and the list then holds what it raised."""
        failures: list[BaseException] = []
        done = threading.Event()
        self._tasks.put((work, failures, done))
        return failures, done

    def _run(self) -> None:
        while True:
            work, failures, done = self._tasks.get()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                failures.append(error)
            finally:
                del work
                done.set()


_idle: list[_Worker] = []
_lock = threading.Lock()


def run_interruptibly(work: Callable[[], object], stop: Callable[[], object]) -> None:
    """Do ``work`` in another thread, since signals reach only Python code in the main one.

    On a KeyboardInterrupt ``stop`` is called and the work waited for: what it found is worth more than the exception,
    and its status says interrupted. An exception of the work is raised here.

    Threads are used again: the automatic differentiation inside SCIP numbers every thread that ever called it, and
    crashes the process at the 64th. The wait is on an event, not on the thread, because an interrupted ``join`` leaves
    the thread marked as finished while it still runs (Python 3.11).
    """
    with _lock:
        worker = _idle.pop() if _idle else _Worker()
    failures, done = worker.start(work)
    while not done.is_set():
        try:
            done.wait(0.1)
        except KeyboardInterrupt:
            stop()
    with _lock:
        _idle.append(worker)
    if failures:
        raise failures[0]
