"""`bilevel solve`: from a request to a printed result and an exit code."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from bilevel_cli.exits import Exit, exit_of
from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_cli.progress import Progress
from bilevel_cli.reference import find_problem, modules_here
from bilevel_cli.settings import Settings
from bilevel_core.errors import unknown
from bilevel_core.plugins.registry import get_registry
from bilevel_core.problems.base import Problem
from bilevel_core.result import Result, plain
from bilevel_core.run import Callback, Event
from bilevel_core.run.record import LateRecord, RunRecord, event_dict, new_folder

FORMATS = ("text", "json", "jsonl")


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
    check_format(request.settings.format)
    # Whatever a user's file or a library prints is no result: stdout is kept for that.
    modules_here(request.settings.solver)
    with contextlib.redirect_stdout(sys.stderr):
        problem = find_problem(request.problem, request.parameters)
    if request.explain:
        return _explain(problem, request)
    s = request.settings
    record = _record(request)
    progress = Progress(s.progress)
    callbacks = callbacks_for(progress, s.format)
    with closing(progress), contextlib.redirect_stdout(sys.stderr):
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
            out=record,
        )
    return conclude(result, record, s.format)


def callbacks_for(progress: Progress, form: str) -> list[Callback]:
    """What is told of events: the progress shown, and for ``jsonl`` what is stdout now."""
    return [progress, *([_EventPrinter(sys.stdout)] if form == "jsonl" else [])]


def conclude(result: Result, record: RunRecord, form: str) -> Exit:
    """Print a result, and where it is kept. Returns the exit code."""
    if record.written:
        print(f"The run is in {record.folder}", file=sys.stderr)
    _print(result, form)
    echo_warnings()
    return exit_of(result)


def _print(result: Result, form: str) -> None:
    if form == "text":
        echo(str(result))
    elif form not in FORMATS:
        echo(str(get_registry().find("reporters", form).load()(result)))
    else:
        echo_json(result.to_dict(), indent=None if form == "jsonl" else 2)


def check_format(form: str) -> None:
    """See that there is such a format, before anything is solved.

    Raises:
        UsageError: there is none.
    """
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


@contextlib.contextmanager
def closing(progress: Progress) -> Generator[None]:
    """Wipes the line of progress at the end, whatever happens."""
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


def _record(request: Request) -> RunRecord:
    """Where the run is kept; without a folder only what is cut short is written down."""
    out = request.settings.out
    asked = _request_dict(request)
    if out is None:
        return LateRecord(request=asked)
    return RunRecord(new_folder() if out == "auto" else Path(out), asked)


def _explain(problem: Problem, request: Request) -> Exit:
    from bilevel_core.choose import build_solver, classification

    found = classification(problem, options=request.options)
    name = request.settings.solver
    if name == "auto" and found.chosen is None:
        _print_explanation(request, problem, str(found), plain(found))
        return Exit.USAGE
    name, _, accepted = build_solver(problem, name, request.options)
    found = replace(found, verdicts={**found.verdicts, name: accepted})  # what it would do with the options given
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
