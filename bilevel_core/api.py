"""`solve`, `resume`, `verify`, `classify`: the way data takes through the rooms, written down once.

problem -> traits -> chosen solver (its chain of reductions, its backend) -> point -> verification -> result
"""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import bilevel_core
from bilevel_core.certify import certificate_of, claimed_gap
from bilevel_core.choose import Classification, build_solver, classification, options_with
from bilevel_core.errors import MissingError, UsageError
from bilevel_core.plugins.registry import Registry, get_registry
from bilevel_core.problems.base import Problem, as_problem
from bilevel_core.result import Certificate, Claim, Result, Termination, Verdict
from bilevel_core.run import Callback, Event, RunContext
from bilevel_core.run.checkpoint import read
from bilevel_core.run.executors import end, make_executor
from bilevel_core.run.record import (
    CHECKPOINT,
    RESULT,
    RunRecord,
    as_given,
    as_record,
    read_options,
    read_request,
    read_result,
)
from bilevel_core.solvers.base import Solver
from bilevel_core.verification import CHECK_LIMIT

LEAST_CHECK = 5.0
"""Seconds that the check after a run may take, however short the run's limit."""

log = logging.getLogger("bilevel")


def solve(
    problem: Any,
    solver: str | Solver | type[Solver] = "auto",
    options: Mapping[str, Any] | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    device: str = "auto",
    callbacks: Sequence[Callback] = (),
    verify: bool = True,
    executor: Executor | str | None = None,
    out: str | os.PathLike[str] | RunRecord | None = None,
) -> Result:
    """Solve a bilevel problem and have the answer checked.

    Args:
        problem: a problem (`PyomoProblem`, ...) or a Pyomo model with `Follower` blocks.
        solver: a solver's name, ``module:Class``, a class or an instance; ``auto`` for the best that takes the problem.
        options: the solver's options, before those of an instance; strings are converted as on the command line.
        time_limit: seconds for the solver; None for none. The check may take as long again, but at least 5 seconds;
            without a limit 60 seconds, or as long as the solver took.
        seed: for everything random.
        device: ``auto``, ``cpu`` or a torch device; refused by solvers that use none.
        callbacks: called with each `Event`; one that returns True stops the run, which keeps its best point.
        verify: whether to check the point independently.
        executor: where independent work goes: None, ``"serial"``, ``"processes:4"``, or an executor.
        out: folder for the record of the run: what was asked, events, checkpoint, result. None for none.

    Raises:
        UsageError: an unknown solver or option, or a bad value; a folder that cannot be used.
        ModelError: the problem is not a bilevel problem that can be read.
        RefusedError: the solver does not take this class of problem.
        MissingError: a backend or plugin is missing.
    """
    start = time.monotonic()
    problem = as_problem(problem)
    if not isinstance(seed, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"Expected an integer seed, got {seed!r}.")
    _check_time_limit(time_limit)
    registry = get_registry()
    name, method, _ = build_solver(problem, solver, options or {}, registry)
    _check_device(name, method, device)
    record = None if out is None else as_record(out)
    pool = make_executor(executor, registry)
    try:
        if record is not None:
            record.start(
                {
                    "problem": problem.name,
                    "name": problem.name,
                    "solver": name,
                    "options": as_given(options_with(solver, options or {})),
                    "seed": seed,
                    "time_limit": time_limit,
                    "device": device,
                    "executor": executor if isinstance(executor, str) else None,
                    "verify": verify,
                }
            )
        context = RunContext(
            time_limit=time_limit,
            seed=seed,
            device=device,
            callbacks=_callbacks(callbacks, record, registry),
            executor=pool,
            keeper=record,
        )
        return _solve(problem, name, method, context, record, start=start, verify=verify)
    finally:
        for text in registry.new_warnings():
            log.warning(text)
        if pool is not None and pool is not executor:
            end(pool)


def resume(
    problem: Any,
    folder: str | os.PathLike[str] | RunRecord,
    *,
    time_limit: float | None = None,
    max_iterations: int | None = None,
    callbacks: Sequence[Callback] = (),
    device: str = "auto",
    executor: Executor | str | None = None,
) -> Result:
    """Go on with a recorded run from its checkpoint, with its own solver, options and seed.

    On a CPU the outcome is, bit by bit, that of a run that was never interrupted; only times differ. A run that came
    to its end gives its result again.

    Args:
        problem: the problem that the run solved.
        folder: the run's folder (``out`` of `solve`, ``--out`` of the command line).
        time_limit: seconds from now; None for none.
        max_iterations: replaces the option of that name: most iterations of each start, counted from its beginning; for
            sampling solvers the budget of lower-level solves.
        callbacks: as for `solve`.
        device: as for `solve`.
        executor: as for `solve`; None for that of the run, if it was given as a text. What it computed before is on
            disk, so it need not be the same.

    Raises:
        UsageError: the folder holds no run or no checkpoint, or that of another problem; a solver without checkpoints;
            the run's executor cannot be reached.
        MissingError: the run's solver, its executor or torch is not installed.
    """
    start = time.monotonic()
    problem = as_problem(problem)
    _check_time_limit(time_limit)
    record = as_record(folder)
    registry = get_registry()
    name, method, request = _resumable(problem, record, registry)
    if max_iterations is not None:
        method = method.limited(max_iterations)
    _check_device(name, method, device)
    stored = read(record.folder / CHECKPOINT)
    before = float(stored.entry("elapsed"))
    # A run that came to an end took longer than its solver: there was a check too.
    took = max(before, read_result(record.folder).wall_time if (record.folder / RESULT).exists() else 0.0)
    pool = _executor_again(executor, request.get("executor"), registry)
    record.reopen()
    try:
        context = RunContext(
            time_limit=time_limit,
            seed=request["seed"],
            device=device,
            callbacks=_callbacks(callbacks, record, registry),
            executor=pool,
            keeper=record,
            restored=stored,
            journaled=record.journaled(),
            elapsed_before=took,
        )
        verify = bool(request.get("verify", True))
        return _solve(problem, name, method, context, record, start=start - took, verify=verify)
    finally:
        for text in registry.new_warnings():
            log.warning(text)
        if pool is not None and pool is not executor:
            end(pool)


def verify(
    problem: Any,
    x: Mapping[str, Any] | Result,
    y: Mapping[str, Any] | None = None,
    *,
    time_limit: float | None = CHECK_LIMIT,
) -> Certificate:
    """Check a point independently of every solver.

    Args:
        problem: as for `solve`.
        x: the leader's values by variable name, or a whole `Result`.
        y: the followers' values by variable name; left out with a `Result`.
        time_limit: seconds for the whole check; None for no limit.

    Raises:
        UsageError: a variable is missing or unknown, or the result holds no point; a bad time limit.
    """
    problem = as_problem(problem)
    _check_time_limit(time_limit)
    claim, response, gap = Claim.NONE, "optimistic", 0.0
    if isinstance(x, Result):
        if y is not None:
            raise UsageError("A result brings its own y: leave the third argument out.")
        if not x.has_point:
            raise UsageError(f"The result holds no point to check: it ended {x.termination}.")
        response, gap = str(x.options.get("response", "optimistic")), claimed_gap(x)
        x, y, claim = x.x, x.y, x.claim
    if y is None:
        raise UsageError("Expected y, the followers' values by name, as third argument.")
    return certificate_of(problem, x, y, claim, None, response, time_limit, gap)


def classify(problem: Any) -> Classification:
    """Traits of a problem, and what each solver says of it. Solves nothing."""
    return classification(as_problem(problem))


def _solve(
    problem: Problem,
    name: str,
    method: Solver,
    context: RunContext,
    record: RunRecord | None,
    *,
    start: float,
    verify: bool,
) -> Result:
    """Run, check, tell the plugins, and record."""
    registry = get_registry()
    registry.emit("bilevel_solve_start", run=context)
    context.report("start", problem=problem.name, solver=name)
    try:
        result = _run(method, problem, context)
        result = dataclasses.replace(
            result,
            solver=name,
            options=dataclasses.asdict(method) if dataclasses.is_dataclass(method) else {},
            seed=context.seed,
            versions=_versions(result.versions),
            problem=problem.name,
        )
        if result.has_point:
            result = _with_check(problem, result, context, verify=verify)
    except Exception as error:
        registry.emit("bilevel_solve_error", run=context, error=error)
        raise
    result = dataclasses.replace(result, wall_time=time.monotonic() - start)
    context.report("end", status=result.status.value, objective=result.upper_objective, bound=result.bound)
    registry.emit("bilevel_solve_end", run=context, result=result)
    if record is not None:
        record.finish(result)
    return result


def _resumable(problem: Problem, record: RunRecord, registry: Registry) -> tuple[str, Any, dict[str, Any]]:
    """The solver of a recorded run, made with its options, and what ``run.json`` says."""
    folder = record.folder
    request = read_request(folder)
    missing = [key for key in ("name", "solver", "options", "seed") if key not in request]
    if missing:
        raise UsageError(f"{folder / 'run.json'} lacks {', '.join(missing)}: the run cannot be resumed.")
    if problem.name != request["name"]:
        raise UsageError(f"The run in {folder} solved {request['name']!r}; the problem given is {problem.name!r}.")
    name, method, _ = build_solver(problem, request["solver"], read_options(request, folder), registry)
    if not method.resumable:
        raise UsageError(
            f"Solver {name!r} keeps no checkpoints, so the run in {folder} cannot be resumed: solve it again."
        )
    if not (folder / CHECKPOINT).is_file():
        raise UsageError(f"{folder} holds no checkpoint: the run ended before its first one. Solve it again.")
    return name, method, request


def _executor_again(given: Executor | str | None, recorded: Any, registry: Registry) -> Executor | None:
    """The executor of a run that goes on: the one given, or else that of the run."""
    if given is not None or not isinstance(recorded, str):
        return make_executor(given, registry)
    try:
        return make_executor(recorded, registry)
    except (UsageError, MissingError) as error:
        raise type(error)(
            f"{error} The run was made with that executor. It can go on with another one: give executor, such as "
            "'serial' for this process."
        ) from error


def _callbacks(callbacks: Sequence[Callback], record: RunRecord | None, registry: Registry) -> tuple[Callback, ...]:
    """The record comes first: a callback that raises must not keep an event from it."""
    return (*(() if record is None else (record.event,)), *callbacks, *_hook_callback(registry))


def _check_time_limit(time_limit: Any) -> None:
    is_number = isinstance(time_limit, int | float)
    if time_limit is not None and not (is_number and time_limit >= 0.0):
        raise UsageError(f"Expected a time limit of at least 0 seconds, got {time_limit!r}.")


def _check_device(name: str, method: Any, device: str) -> None:
    if device not in ("auto", "cpu") and not method.uses_device:
        raise UsageError(f"Solver {name!r} runs on the CPU only; leave out device={device!r}.")


def _run(method: Any, problem: Problem, context: RunContext) -> Result:
    try:
        return method.run(problem, context)
    except KeyboardInterrupt:
        return Result(Termination.STOPPED_BY_USER, trace=tuple(context.trace), message="Interrupted before a point.")


def _with_check(problem: Problem, result: Result, context: RunContext, *, verify: bool) -> Result:
    ask = problem.brief_details if context.stopped or context.expired else problem.details
    try:
        result = dataclasses.replace(result, details={**result.details, **ask(result.x, result.y)})
    except KeyboardInterrupt:  # the point is there, and must not be lost with what is said of it
        return dataclasses.replace(result, termination=Termination.STOPPED_BY_USER)
    if not verify:
        return result
    context.report("phase", message="checking the point independently")
    try:
        response = str(result.options.get("response", "optimistic"))
        limit = (
            max(LEAST_CHECK, context.time_limit)
            if context.time_limit is not None
            else max(CHECK_LIMIT, context.elapsed)
        )
        certificate = certificate_of(
            problem, result.x, result.y, result.claim, context, response, limit, claimed_gap(result)
        )
    except KeyboardInterrupt:
        certificate = Certificate(Verdict.UNVERIFIABLE, reason="The check was interrupted.")
        result = dataclasses.replace(result, termination=Termination.STOPPED_BY_USER)
    return dataclasses.replace(result, certificate=certificate)


def _hook_callback(registry: Registry) -> tuple[Callback, ...]:
    def forward(event: Event) -> bool:
        if event.kind not in ("iteration", "incumbent"):
            return False
        return any(answer is True for answer in registry.emit("bilevel_iteration", event=event))

    return (forward,)


def _versions(backends: Mapping[str, str]) -> dict[str, str]:
    return {"bilevel": bilevel_core.__version__, "python": platform.python_version(), **backends}
