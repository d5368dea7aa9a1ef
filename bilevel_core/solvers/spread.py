"""The starts of an iterative solver through an executor, with the same outcome as one after the other."""

from __future__ import annotations

import pickle
import tempfile
import time
from concurrent.futures import BrokenExecutor, CancelledError, Future, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevel_core.errors import UsageError
from bilevel_core.run import Event, RunContext
from bilevel_core.run.checkpoint import loads
from bilevel_core.solvers.outcome import Saved

if TYPE_CHECKING:
    from bilevel_core.solvers.driver import Run


def spread(run: Run, problem: Any) -> None:
    """Run the starts that are not over. Each is one task; a worker that dies costs only its start.

    Raises:
        UsageError: the problem cannot be pickled, or not be rebuilt in another process.
    """
    context = run.context
    payload = _pickled(problem, run)
    with tempfile.TemporaryDirectory(prefix="bilevel-") as folder:
        # Tasks on this machine look for the file now and then; on others they run to their ends.
        stop = Path(folder) / "stop"
        left = context.remaining()
        deadline = None if left is None else time.time() + left
        futures: dict[Future[bytes], int] = {}
        done: dict[int, Saved] = {}
        try:
            for number in range(run.solver.starts):
                task = (payload, number, context.seed, context.device, deadline, str(stop))
                futures[context.executor.submit(one_start, *task)] = number  # pyright: ignore[reportOptionalMemberAccess]
            for future in as_completed(futures):
                _take(run, future, futures[future], done)
                if context.stopped:
                    _stop(stop, futures)
        except BaseException:
            _stop(stop, futures)
            raise
        finally:
            _merge(run, futures, done)


def one_start(payload: bytes, number: int, seed: int, device: str, deadline: float | None, stop: str) -> bytes:
    """The task: one start from its beginning. Returns a checkpoint that holds only this start.

    Raises:
        UsageError: the problem cannot be rebuilt here.
    """
    from bilevel_core.solvers.driver import Run

    try:
        problem, solver = pickle.loads(payload)
    except Exception as error:
        raise UsageError(
            f"The problem cannot be rebuilt in another process: {type(error).__name__}: {error}. Define it in a module "
            "that can be imported, or leave the executor out."
        ) from error
    path = Path(stop)

    def stopping(event: Event) -> bool:
        return path.exists()

    left = None if deadline is None else max(0.0, deadline - time.time())
    context = RunContext(time_limit=left, seed=seed, device=device, callbacks=(stopping,))
    run = Run(solver, solver.make_oracle(problem, context), context)
    try:
        run.go_on(number)
    except KeyboardInterrupt:
        context.stop()
    return run.packed()


def _pickled(problem: Any, run: Run) -> bytes:
    try:
        return pickle.dumps((problem, run.solver))
    except Exception as error:
        raise UsageError(
            f"The problem cannot be sent to other processes: it cannot be pickled ({type(error).__name__}: {error}). "
            "Leave the executor out, or define the problem's functions at the top of a module."
        ) from error


def _take(run: Run, future: Future[bytes], number: int, done: dict[int, Saved]) -> None:
    """One start's outcome, and the news of it."""
    try:
        content = future.result()
    except BrokenExecutor as error:
        run.lost[number] = str(error)
        return
    except CancelledError:
        return
    part = run.unpacked(loads(content, f"The outcome of start {number}"))
    done[number] = part
    record = part.records.get(number)
    if record is None:
        return
    before = run.saved.best
    # For checkpoints meanwhile, and for whoever interrupts; put in order when all are there.
    run.saved = replace(run.saved, records={**run.saved.records, number: record})
    best = run.saved.best
    where: dict[str, Any] = {"start": number, "iteration": record.iterations}
    where |= run.told(None if record.best is None else record.best.x)
    if record.best is not None and record.best.feasible and record.best.better(before):
        run.context.report("incumbent", objective=run.user_objective(record.best), **where)
    run.context.report(
        "iteration",
        objective=None if record.best is None else run.user_objective(record.best),
        best=run.user_objective(best) if best is not None and best.feasible else None,
        **where,
    )


def _stop(stop: Path, futures: dict[Future[bytes], int]) -> None:
    stop.touch()
    for future in futures:
        future.cancel()


def _merge(run: Run, futures: dict[Future[bytes], int], done: dict[int, Saved]) -> None:
    """Put all together in the order of the starts, as if they had run one after the other."""
    for future, number in futures.items():
        if number not in done and future.done() and not future.cancelled() and future.exception() is None:
            done[number] = run.unpacked(loads(future.result(), f"The outcome of start {number}"))
    saved = replace(run.saved, records={})
    trace: list[dict[str, float | None]] = []
    for number, part in sorted(done.items()):
        record = part.records.get(number)
        previous = saved.best
        bar = run.user_objective(previous) if previous is not None and previous.feasible else None
        for entry in part.trace:
            if bar is None or run.smaller(entry["objective"], bar):
                trace.append(dict(entry))
                bar = entry["objective"]
        counts = {k: saved.counts.get(k, 0) + part.counts.get(k, 0) for k in (*saved.counts, *part.counts)}
        notes = (*saved.notes, *(n for n in part.notes if n not in saved.notes))
        records = saved.records if record is None else {**saved.records, number: record}
        saved = replace(saved, records=records, counts=counts, notes=notes)
        if record is not None and record.fatal:
            break  # the later ones would not have been begun
    run.context.trace[:] = trace
    run.saved = saved
