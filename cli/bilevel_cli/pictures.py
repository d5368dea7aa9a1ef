"""`bilevel plot` and `bilevel report`: a recorded run as pictures, and as one page."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bilevel_cli.exits import Exit
from bilevel_cli.output import echo, echo_warnings
from bilevel_cli.stored import problem_of
from bilevel_core.errors import MissingError, UsageError
from bilevel_core.figures.base import FORMATS, Drawn, draw, save
from bilevel_core.run.stored import StoredRun, read_run


def plot(folder: Path, names: Sequence[str], out: Path | None, forms: Sequence[str]) -> Exit:
    """Write the figures of a run, and print where they are.

    Raises:
        UsageError: there is no run, or no figure of that name; or the run has nothing to show in the figures asked for.
        MissingError: matplotlib is not installed.
    """
    echo_warnings()
    run = _run(folder)
    with contextlib.redirect_stdout(sys.stderr):
        figures, notes = draw(run, names)
    for note in notes:
        print(f"bilevel: {note}", file=sys.stderr)
    if not figures:
        asked = f"of {', '.join(names)}" if names else "that could be drawn"
        raise UsageError(f"The run in {folder} has nothing {asked}: it recorded no such figures.")
    for path in save(figures, folder / "figures" if out is None else out, forms or FORMATS):
        echo(str(path))
    return Exit.ERROR if notes else Exit.OK


def report(folder: Path, out: Path | None) -> Exit:
    """Write the page of a run, and print where it is. Without matplotlib it has no figures, and says so.

    Raises:
        UsageError: there is no run, or the page cannot be written.
    """
    from bilevel_core.figures.page import page

    echo_warnings()
    run = _run(folder)
    figures: list[Drawn] = []
    try:
        with contextlib.redirect_stdout(sys.stderr):
            figures, notes = draw(run)
    except MissingError as error:
        notes = [str(error)]
    for note in notes:
        print(f"bilevel: {note}", file=sys.stderr)
    path = folder / "report.html" if out is None else out
    try:
        path.write_text(page(run, figures, notes), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
    echo(str(path))
    return Exit.OK


def _run(folder: Path) -> StoredRun:
    """The run, with a way to make its problem again where it says how."""
    run = read_run(folder)

    def make() -> Any:
        return problem_of(dict(run.request), str(folder))

    return StoredRun(run.folder, run.request, run.events, run.result, make)
