"""Where independent pieces of work run: in this process, in worker processes here, or wherever a plugin says.

Tasks are pure and picklable. The outcome of a task does not depend on where it runs, so seeds come from its index.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from bilevel_core.errors import BilevelError, MissingError, UsageError

if TYPE_CHECKING:
    from bilevel_core.plugins.registry import Registry

P = ParamSpec("P")
T = TypeVar("T")

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""What tells numerical libraries how many threads to use; 1 in every worker process, as there is a process a core."""


class WorkerDiedError(BilevelError, BrokenExecutor):
    """The process that ran a task ended before the task did: killed, out of memory, or crashed in compiled code."""


class SerialExecutor(Executor):
    """Runs each task in `submit`, in this process; the future that comes back is done."""

    def __init__(self) -> None:
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the task now. What it raises is raised by the future's ``result()``.

        Raises:
            RuntimeError: after `shutdown`.
        """
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - an executor hands on whatever a task raises
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks. All that were submitted are done already, so there is nothing to wait for or cancel."""
        self._closed = True


class ProcessExecutor(Executor):
    """Runs tasks in worker processes, each of which is replaced when it dies, so that only its task is lost.

    The standard pool gives up all pending tasks when one worker dies; here every worker is a pool of its own, served
    by one thread. Workers are started afresh (``spawn``), as forking a process with threads is unsafe, so a script
    needs the usual ``if __name__ == "__main__":``. Each imports anew what its tasks need; short tasks don't repay it.

    Args:
        workers: number of processes, at least 1; each starts when it is first needed.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="bilevel-process")
        self._here = threading.local()
        self._pools: list[ProcessPoolExecutor] = []
        self._lock = threading.Lock()
        self._ended = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a task. Its future raises `WorkerDiedError` when the process that runs it dies.

        Raises:
            RuntimeError: after `shutdown`.
        """
        return self._threads.submit(self._run, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; with ``wait`` return when the queued ones are done and the processes have ended."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        with self._lock:
            pools, self._pools = self._pools, []
        if wait:
            for pool in pools:
                pool.shutdown()
        # Without waiting, the threads still own their pools; each process ends when its thread has no more tasks.

    def terminate(self) -> None:
        """End at once: what is queued is cancelled, and the processes are ended in the middle of what they do."""
        with self._lock:
            self._ended = True
            pools = list(self._pools)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            # Public as `terminate_workers` from Python 3.14 on.
            workers: dict[int, Any] = dict(getattr(pool, "_processes", None) or {})
            for worker in workers.values():
                worker.terminate()
        self._threads.shutdown()

    def _run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        pool = self._pool()
        try:
            with self._lock:
                if self._ended:
                    raise WorkerDiedError("The executor was ended before the task began.")
                future = pool.submit(fn, *args, **kwargs)  # starts the process, which `terminate` must see
            return future.result()
        except WorkerDiedError:
            raise
        except BrokenExecutor as error:
            self._drop(pool)
            raise WorkerDiedError(
                f"The process that ran {getattr(fn, '__qualname__', fn)!s} died before it was done: killed, out of "
                "memory, or crashed in compiled code. Other tasks go on; use fewer processes if memory is short."
            ) from error

    def _pool(self) -> ProcessPoolExecutor:
        """The one-process pool of this thread."""
        pool: ProcessPoolExecutor | None = getattr(self._here, "pool", None)
        if pool is None:
            pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin)
            self._here.pool = pool
            with self._lock:
                self._pools.append(pool)
        return pool

    def _drop(self, pool: ProcessPoolExecutor) -> None:
        self._here.pool = None
        with self._lock:
            if pool in self._pools:
                self._pools.remove(pool)
        pool.shutdown(wait=False)


def _begin() -> None:
    """First thing in a worker process."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    # An interrupt from the keyboard reaches all processes of the terminal; what it means is decided by the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed tells nobody: without this its workers would wait for tasks for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def end(executor: Executor) -> None:
    """End an executor that a run has made for itself, when the run is over: nobody waits for what it still does."""
    terminate = getattr(executor, "terminate", None)
    if callable(terminate):
        terminate()
    else:
        executor.shutdown(cancel_futures=True)


def serial(argument: str = "") -> Executor:
    """The executor ``serial``: one task after the other, in this process.

    Raises:
        UsageError: it takes no argument.
    """
    if argument:
        raise UsageError(f"Executor 'serial' takes no argument. Expected 'serial', got 'serial:{argument}'.")
    return SerialExecutor()


def processes(argument: str = "") -> Executor:
    """The executor ``processes[:N]``: N worker processes on this machine, by default one for each core it may use.

    Raises:
        UsageError: the argument is not a whole number of at least 1.
    """
    if not argument:
        return ProcessExecutor(_cores())
    workers = int(argument) if argument.isascii() and argument.isdigit() else 0
    if workers < 1:
        raise UsageError(
            f"Executor 'processes' takes a number of at least 1. Expected 'processes:4', got 'processes:{argument}'."
        )
    return ProcessExecutor(workers)


def _cores() -> int:
    """Cores that this process may use, which in a container or under a scheduler are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def make_executor(spec: str | Executor | None, registry: Registry | None = None) -> Executor | None:
    """The executor for a text such as ``serial``, ``processes:4`` or ``NAME:ARGUMENT`` of a plugin.

    Args:
        spec: the text; an executor is handed back as it is, and so is None. Whoever gave a text closes the executor.
        registry: where names are looked up; by default that of this process.

    Raises:
        UsageError: no executor has the name (the message gives the nearest), or the argument is wrong.
        MissingError: its package is not installed, or its plugin does not give an executor.
    """
    if spec is None or isinstance(spec, Executor):
        return spec
    if not isinstance(spec, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise UsageError(
            "Expected the name of an executor, such as 'processes:4', or a concurrent.futures.Executor, "
            f"got {type(spec).__name__}."
        )
    if registry is None:
        from bilevel_core.plugins.registry import get_registry

        registry = get_registry()
    name, _, argument = spec.strip().partition(":")
    found = registry.find("executors", name)
    executor: Any = found.load()(argument)
    if not isinstance(executor, Executor):
        raise MissingError(
            f"Executor {name!r} is broken: {found.factory} gave {type(executor).__name__}. "
            "Expected a concurrent.futures.Executor."
        )
    return executor
