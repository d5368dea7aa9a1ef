"""`bilevel verify` and `bilevel show`: points and runs on disk."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, cast

from bilevel_cli.exits import Exit, exit_of_check
from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_cli.reference import find_problem
from bilevel_core.errors import UsageError
from bilevel_core.problems.base import Problem
from bilevel_core.report import certificate_text
from bilevel_core.result import SCHEMA, Result, plain
from bilevel_core.run.record import as_result, read_request, read_result


def show_run(folder: Path, *, as_json: bool) -> None:
    """Print a stored result."""
    result = read_result(folder)
    if as_json:
        echo_json(result.to_dict())
    else:
        echo(str(result))


def verify_point(target: str, point: Path | None, parameters: dict[str, str], *, as_json: bool) -> Exit:
    """Check the point of a run, or of a file for a problem that is named."""
    from bilevel_core.api import verify

    echo_warnings()
    if point is None:
        if not Path(target).is_dir():
            raise UsageError(f"{target!r} is no folder of a run. To check a point of a problem, give --point FILE.")
        if parameters:
            raise UsageError("The run knows its parameters: leave -p out.")
        request = read_request(Path(target))
        result = read_result(Path(target))
        problem = problem_of(request, target)
        certificate = verify(problem, result)
    else:
        given = _point(point)
        with contextlib.redirect_stdout(sys.stderr):
            problem = find_problem(target, parameters)
        certificate = verify(problem, given) if isinstance(given, Result) else verify(problem, given["x"], given["y"])
    if as_json:
        echo_json(plain(certificate))
    else:
        echo(certificate_text(certificate))
    return exit_of_check(certificate)


def problem_of(request: dict[str, Any], target: str) -> Problem:
    """The problem that a run solved, read from where the run was made: its files are relative to that folder.

    Raises:
        UsageError: ``run.json`` does not say, or the folder is gone, or the problem cannot be read.
    """
    missing = [k for k in ("directory", "problem", "parameters") if k not in request]
    if missing:
        raise UsageError(f"{Path(target) / 'run.json'} is damaged: it lacks {', '.join(missing)}.")
    folder = Path(request["directory"])
    if not folder.is_dir():
        raise UsageError(
            f"{target} was made in {folder}, which is gone. A point can be checked against the problem where it is "
            f"now: bilevel verify PROBLEM --point {Path(target) / 'result.json'}"
        )
    with contextlib.chdir(folder), contextlib.redirect_stdout(sys.stderr):
        return find_problem(request["problem"], request["parameters"])


def _point(path: Path) -> Result | dict[str, Any]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    found = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    if found.get("schema") == SCHEMA:
        return as_result(found, path)
    if not isinstance(found.get("x"), dict) or not isinstance(found.get("y"), dict):
        raise UsageError(f'{path}: expected an object {{"x": {{name: values}}, "y": {{name: values}}}}.')
    return found
