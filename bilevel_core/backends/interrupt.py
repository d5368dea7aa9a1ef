"""Running a solver's C++ code so that Ctrl-C stops it and keeps its best point."""

from __future__ import annotations

import threading
from collections.abc import Callable


def run_interruptibly(work: Callable[[], object], stop: Callable[[], object]) -> None:
    """Do ``work`` in a thread of its own, since signals reach only Python code in the main one.

    On a KeyboardInterrupt ``stop`` is called and the work waited for: what it found is worth more than the exception,
    and its status says interrupted. An exception of the work is raised here.

    The wait is on an event, not on the thread: an interrupted ``join`` leaves the thread marked as finished while it
    still runs (Python 3.11).
    """
    done = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    while not done.is_set():
        try:
            done.wait(0.1)
        except KeyboardInterrupt:
            stop()
    if failures:
        raise failures[0]
