"""`bilevel resume`: a recorded run goes on from its checkpoint."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from bilevel_cli.exits import Exit
from bilevel_cli.output import echo_warnings
from bilevel_cli.progress import Progress
from bilevel_cli.reference import modules_here
from bilevel_cli.settings import Settings
from bilevel_cli.solve import callbacks_for, check_format, closing, conclude
from bilevel_cli.stored import problem_of
from bilevel_core.errors import UsageError
from bilevel_core.run.record import CUT_SHORT, RESULT, RunRecord, read_request, read_result


@dataclass(frozen=True)
class Continuation:
    """What the user asked for.

    Attributes:
        folder: the run.
        time_limit: seconds from now, or None.
        max_iterations: replaces the solver's option of that name, or None.
        executor: where parallel work runs, or None for where it ran.
        settings: how to print and what to show; what is said of the solve itself is that of the run.
    """

    folder: Path
    time_limit: float | None
    max_iterations: int | None
    executor: str | None
    settings: Settings


def run(request: Continuation) -> Exit:
    """Resume, print, record. Returns the exit code."""
    from bilevel_core.api import resume

    echo_warnings()
    s = request.settings
    check_format(s.format)
    folder = request.folder
    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is no folder of a run (bilevel solve --out).")
    asked = read_request(folder)
    record = RunRecord(folder)
    if (folder / RESULT).exists():
        result = read_result(folder)
        if result.termination not in CUT_SHORT:
            print(f"There is nothing to resume: the run ended {result.termination}.", file=sys.stderr)
            return conclude(result, record, s.format)
    problem = problem_of(asked, str(folder))
    modules_here(str(asked.get("solver", "")))
    progress = Progress(s.progress)
    callbacks = callbacks_for(progress, s.format)
    with closing(progress), contextlib.redirect_stdout(sys.stderr):
        result = resume(
            problem,
            record,
            time_limit=request.time_limit,
            max_iterations=request.max_iterations,
            callbacks=callbacks,
            device=s.device,
            executor=request.executor,
        )
    return conclude(result, record, s.format)
