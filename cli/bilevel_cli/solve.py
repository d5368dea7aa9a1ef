"""`bilevel solve`: from a request to a printed result and an exit code."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bilevel_cli.exits import Exit, exit_of
from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_cli.progress import Progress
from bilevel_cli.reference import find_problem
from bilevel_cli.settings import Settings
from bilevel_core.problems.base import Problem
from bilevel_core.result import Result, Termination, plain
from bilevel_core.run import Callback, Event
from bilevel_core.run.record import RunRecord, event_dict, new_folder


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
    problem = find_problem(request.problem, request.parameters)
    if request.explain:
        return _explain(problem, request)
    s = request.settings
    record = _record(request)
    progress = Progress(s.progress)
    events: list[Event] = []
    callbacks: list[Callback] = [progress, events.append if record is None else record.event]
    if s.format == "jsonl":
        callbacks.append(_print_event)
    with _closing(progress):
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
    if record is None and result.termination is Termination.STOPPED_BY_USER and result.has_point:
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
    else:
        echo_json(result.to_dict(), indent=None if form == "jsonl" else 2)


def _print_event(event: Event) -> None:
    print(json.dumps(event_dict(event), allow_nan=False), flush=True)


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
    """An interrupted run is written down even when nobody asked for it: its point is not lost."""
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
