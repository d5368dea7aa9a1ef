"""`bilevel export`: a problem as a file of another format."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

from bilevel_cli.output import echo, echo_warnings
from bilevel_cli.reference import find_problem
from bilevel_core.errors import UsageError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.run.options import read


def write(reference: str, path: Path, options: Mapping[str, str], parameters: Mapping[str, str]) -> None:
    """Write a problem to a file, by the first exporter that takes its ending, and print what that says.

    Raises:
        UsageError: no exporter takes the ending, an unknown option, or a problem that the format cannot hold.
    """
    echo_warnings()
    specs = get_registry().exporters.values()
    spec = next((s for s in specs if any(path.name.lower().endswith(end) for end in s.suffixes)), None)
    if spec is None:
        known = ", ".join(sorted({end for s in specs for end in s.suffixes}))
        raise UsageError(f"No exporter writes {str(path)!r}. Files that can be written end with {known}.")
    factory = spec.load()
    given = read(factory, options, owner=f"exporter {spec.name!r}", skip=("problem", "path"))
    with contextlib.redirect_stdout(sys.stderr):
        problem = find_problem(reference, parameters)
        said = factory(problem, path, **given)
    if said:
        echo(str(said))
