"""`bilevel solve`: from a request to a printed result and an exit code."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from bilevel_cli.exits import Exit, exit_of
from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_cli.progress import Progress
from bilevel_cli.reference import find_problem
from bilevel_cli.settings import Settings
from bilevel_core.errors import unknown
from bilevel_core.plugins.registry import get_registry
from bilevel_core.problems.base import Problem
from bilevel_core.result import Result, Termination, plain
from bilevel_core.run import Callback, Event
from bilevel_core.run.record import RunRecord, event_dict, new_folder

FORMATS = ("text", "json", "jsonl")
CUT_SHORT = (Termination.STOPPED_BY_USER, Termination.TIME_LIMIT, Termination.ITERATION_LIMIT)
"""Ends after which the best point is saved even when nobody asked for a record."""


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    problem: str
    options: dict[str, str]
    parameters: dict[str, str]
    verify: bool
    explain: bool
    settings: Settings


def run(request: Request) -> Exit:
    """Solve, print, record. Returns the exit code."""
    from bilevel_core.api import solve

    echo_warnings()
    _check_format(request.settings.format)
    # Whatever a user's file or a library prints is no result: stdout is kept for that.
    with contextlib.redirect_stdout(sys.stderr):
        problem = find_problem(request.problem, request.parameters)
    if request.explain:
        return _explain(problem, request)
    s = request.settings
    record = _record(request)
    progress = Progress(s.progress)
    events: list[Event] = []
    callbacks: list[Callback] = [progress, _keeper(events) if record is None else record.event]
    if s.format == "jsonl":
        callbacks.append(_EventPrinter(sys.stdout))
    with _closing(progress), contextlib.redirect_stdout(sys.stderr):
        result = solve(
            problem,
            s.solver,
            request.options,
            time_limit=s.time_limit,
            seed=s.seed,
            device=s.device,
            callbacks=callbacks,
            verify=request.verify,
            executor=s.executor,
        )
    if record is None and result.termination in CUT_SHORT and result.has_point:
        record = _late_record(request, events)
    if record is not None:
        record.finish(result)
        print(f"The run is in {record.folder}", file=sys.stderr)
    _print(result, s.format)
    echo_warnings()
    return exit_of(result)


def _print(result: Result, form: str) -> None:
    if form == "text":
        echo(str(result))
    elif form not in FORMATS:
        echo(str(get_registry().find("reporters", form).load()(result)))
    else:
        echo_json(result.to_dict(), indent=None if form == "jsonl" else 2)


def _check_format(form: str) -> None:
    reporters = get_registry().reporters
    if form not in FORMATS and form not in reporters:
        raise unknown("format", form, [*FORMATS, *reporters])


class _EventPrinter:
    """Prints each event as a line of JSON; asks the solver to stop once nobody reads them any more."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.gone = False

    def __call__(self, event: Event) -> bool:
        if not self.gone:
            try:
                print(json.dumps(event_dict(event), allow_nan=False), file=self.stream, flush=True)
            except BrokenPipeError:
                self.gone = True  # raised inside a backend's callback it could be lost, or end the process
        return self.gone


def _keeper(events: list[Event]) -> Callback:
    """Keeps events in case the run is recorded after all; not iterations, of which there may be millions."""

    def keep(event: Event) -> None:
        if event.kind != "iteration":
            events.append(event)

    return keep


@contextlib.contextmanager
def _closing(progress: Progress) -> Generator[None]:
    try:
        yield
    finally:
        progress.close()


def _request_dict(request: Request) -> dict[str, Any]:
    return {
        "problem": request.problem,
        "parameters": request.parameters,
        "options": request.options,
        "verify": request.verify,
        "settings": asdict(request.settings),
        "directory": str(Path.cwd()),
        "command": sys.argv[1:],
    }


def _record(request: Request) -> RunRecord | None:
    out = request.settings.out
    if out is None:
        return None
    record = RunRecord(new_folder() if out == "auto" else Path(out))
    record.start(_request_dict(request))
    return record


def _late_record(request: Request, events: list[Event]) -> RunRecord:
    """A run that was cut short is written down even when nobody asked for it: its point is not lost."""
    record = RunRecord(new_folder())
    record.start(_request_dict(request))
    for event in events:
        record.event(event)
    return record


def _explain(problem: Problem, request: Request) -> Exit:
    from bilevel_core.choose import build_solver, classification

    found = classification(problem)
    name = request.settings.solver
    if name == "auto" and found.chosen is None:
        _print_explanation(request, problem, str(found), plain(found))
        return Exit.USAGE
    name, _, accepted = build_solver(problem, name, request.options)
    text = f"{found}\n\nwould run {name}: {accepted.how}; claims at most {accepted.claim}; the point is then checked"
    if not request.verify:
        text = text.replace("; the point is then checked", "; the check is left out")
    data = {**plain(found), "would_run": {"solver": name, "how": accepted.how, "claim": accepted.claim}}
    _print_explanation(request, problem, text, data)
    return Exit.OK


def _print_explanation(request: Request, problem: Problem, text: str, data: dict[str, Any]) -> None:
    if request.settings.format == "text":
        echo(f"problem   {problem.name}\n{text}")
    else:
        echo_json({"problem": problem.name, **data})
