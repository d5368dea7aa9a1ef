"""Executors on clusters: the workers of a Dask scheduler, or of Ray. Imported when one is asked for.

Both look like any `concurrent.futures.Executor`: a worker that dies shows as `WorkerDiedError` on its task's future.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from bilevel_core.errors import MissingError, UsageError
from bilevel_core.run.executors import THREAD_VARIABLES, WorkerDiedError

P = ParamSpec("P")
T = TypeVar("T")

SECONDS = 30
"""How long to wait for a scheduler to answer, and for a first worker."""


class DaskExecutor(Executor):
    """Tasks on the workers of a Dask scheduler, each with one thread for numerical libraries where we start them.

    Args:
        address: of the scheduler, such as ``tcp://host:8786``; "" starts a cluster of processes on this machine, ended
            by `shutdown`.
        client: a Dask client to use instead; it is not closed.

    Raises:
        UsageError: no scheduler answers at the address.
    """

    def __init__(self, address: str = "", client: Any = None) -> None:
        from dask.distributed import Client, LocalCluster

        self._cluster: Any = None
        self._own = client is None
        if client is None:
            if not address:
                self._cluster = LocalCluster(threads_per_worker=1, dashboard_address="", silence_logs=logging.ERROR)
            try:
                client = Client(self._cluster or address, timeout=SECONDS, set_as_default=False)
            except (OSError, ValueError) as error:
                raise UsageError(f"No Dask scheduler answers at {address!r}: {error}.") from error
        self._client: Any = client
        self._pending: dict[Any, Future[Any]] = {}

    @property
    def workers(self) -> int:
        """How many threads the cluster's workers have now, at least 1."""
        return max(1, sum(self._client.nthreads().values()))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Send a task. What it raises is raised by the future; `WorkerDiedError` where workers keep dying of it."""
        future: Future[T] = Future()
        # Not pure: the same call sent again, after a failure, must not find the old one. No retries: the caller's part.
        remote = self._client.submit(fn, *args, pure=False, retries=0, **kwargs)
        self._pending[remote] = future

        def follow(done: Future[T]) -> None:
            if done.cancelled():
                remote.cancel()

        future.add_done_callback(follow)
        remote.add_done_callback(self._done)
        return future

    def _done(self, remote: Any) -> None:
        future = self._pending.pop(remote, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if remote.status == "finished":
            try:
                future.set_result(remote.result(timeout=SECONDS))
            except Exception as error:  # noqa: BLE001 - the worker may be gone before its result is fetched
                future.set_exception(WorkerDiedError(f"A result was lost on its way: {error}"))
        elif remote.status == "error":
            error = remote.exception()
            lost = type(error).__name__ in ("KilledWorker", "NoValidWorkerError", "CommClosedError")
            future.set_exception(WorkerDiedError(f"Its Dask worker died: {error}") if lost else error)
        else:
            future.set_exception(WorkerDiedError(f"Dask gave the task up ({remote.status})."))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; the scheduler that was given goes on, a cluster of our own ends."""
        if cancel_futures:
            self._client.cancel(list(self._pending), force=True)
        elif wait:
            from dask.distributed import wait as wait_for

            if self._pending:
                wait_for(list(self._pending))
        if self._own:
            self._client.close()
            if self._cluster is not None:
                self._cluster.close()


class RayExecutor(Executor):
    """Tasks on a Ray cluster, one core each.

    Args:
        address: of the cluster, or ``auto``; "" starts one on this machine, ended by `shutdown`.

    Raises:
        UsageError: no cluster answers at the address.
    """

    def __init__(self, address: str = "") -> None:
        import ray  # pyright: ignore[reportMissingImports]

        self._ray: Any = ray
        self._own = not ray.is_initialized()
        if self._own:
            where: dict[str, Any] = (
                {"address": address} if address else {"address": "local", "include_dashboard": False}
            )
            try:
                ray.init(
                    **where,
                    runtime_env={"env_vars": dict.fromkeys(THREAD_VARIABLES, "1")},
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            except Exception as error:
                # Ray raises anything from ConnectionError to a bare Exception.
                said = f"No Ray cluster answers at {address!r}" if address else "Ray could not start a cluster here"
                raise UsageError(f"{said}: {error}") from error
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="bilevel-ray")

    @property
    def workers(self) -> int:
        """How many cores the cluster has, at least 1."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Send a task; `WorkerDiedError` where its worker dies."""
        return self._threads.submit(self._run, fn, *args, **kwargs)

    def _run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        ray = self._ray
        task: Any = ray.remote(max_retries=0)(fn)
        try:
            return ray.get(task.remote(*args, **kwargs))
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            raise WorkerDiedError(f"Its Ray worker died: {error}") from error
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from error

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; a cluster of our own ends."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        if self._own:
            self._ray.shutdown()


def dask(argument: str = "") -> Executor:
    """The executor ``dask[:ADDRESS]``.

    Raises:
        MissingError: Dask is not installed.
        UsageError: no scheduler answers.
    """
    try:
        import dask.distributed  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise MissingError("Executor 'dask' needs Dask. Install it with: pip install 'bilevel[dask]'") from error
    return DaskExecutor(argument)


def ray(argument: str = "") -> Executor:
    """The executor ``ray[:ADDRESS]``.

    Raises:
        MissingError: Ray is not installed.
        UsageError: no cluster answers.
    """
    try:
        import ray as _  # noqa: F401  # pyright: ignore[reportMissingImports,reportUnusedImport]
    except ImportError as error:
        raise MissingError("Executor 'ray' needs Ray. Install it with: pip install ray") from error
    return RayExecutor(argument)
