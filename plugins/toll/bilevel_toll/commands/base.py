"""What the commands share: how they print, parameters, and finding a toll problem."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bilevel_core.errors import UsageError, unknown
from bilevel_core.plugins.registry import get_registry
from bilevel_core.report import aligned, number
from bilevel_core.result import Result
from bilevel_core.run.options import read
from bilevel_toll.problem import TollProblem

PREFIX = "toll/"


class Listing(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="Parameter of the problem; repeatable."),
]
Form = Annotated[Listing, typer.Option("--format", "-f", help="How to print: text or json.")]


def pairs_of(parameters: list[str], flag: str = "-p") -> dict[str, str]:
    """Entries KEY=VALUE as a dictionary.

    Raises:
        UsageError: another form, or a key that is given twice.
    """
    given: dict[str, str] = {}
    for entry in parameters:
        key, equals, value = entry.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{flag} {entry!r}: expected KEY=VALUE.")
        if key.strip() in given:
            raise UsageError(f"{flag} {key.strip()}: given twice. Leave one of them out.")
        given[key.strip()] = value.strip()
    return given


Options = Annotated[
    list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="Option of the solver; repeatable.")
]
Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write tolls.csv, od.csv and summary.json there.  [default: none]")
]
Seconds = Annotated[
    float | None, typer.Option("--time-limit", metavar="SECONDS", help="Seconds for the solver.  [default: none]")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]
Picture = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw it: a .png, .svg or .pdf file.  [default: none]")
]
FAILED, NO_POINT, LIMIT, NOT_VERIFIED, INTERRUPTED = 1, 3, 4, 5, 130


def ended(result: Result) -> None:
    """Leave with the exit code that the result asks for, by the rules of `bilevel solve`.

    Raises:
        typer.Exit: interrupted (130), an error (1), no point (3), a point that is not verified (5), a limit (4).
    """
    code = 0
    if result.termination == "stopped-by-user":
        code = INTERRUPTED
    elif result.termination == "error":
        code = FAILED
    elif not result.has_point:
        code = NO_POINT
    elif result.certificate is not None and result.certificate.verdict != "verified":
        code = NOT_VERIFIED
    elif result.termination in ("time-limit", "iteration-limit"):
        code = LIMIT
    if code:
        raise typer.Exit(code)


def find(reference: str, given: dict[str, str]) -> TollProblem:
    """The toll problem without congestion that a name or a file stands for.

    Raises:
        UsageError: there is none, it is no such problem, or a parameter is wrong.
    """
    found = find_any(reference, given)
    if not isinstance(found, TollProblem):
        raise UsageError(f"{reference!r} is no toll problem without congestion; for others see `bilevel toll design`.")
    return found


def find_any(reference: str, given: dict[str, str]) -> Any:
    """The problem that a name or a file stands for.

    Raises:
        UsageError: there is none, or a parameter is wrong.
    """
    registry = get_registry()
    for name in (reference, PREFIX + reference):
        if name in registry.problems:
            factory = registry.problems[name].load()
            made: Any = factory(**read(factory, given, kind="parameter", owner=f"problem {name!r}"))
            break
    else:
        if reference.lower().endswith(".json"):
            from bilevel_toll.pricing_file import read_pricing

            if given:
                raise UsageError(f"-p {next(iter(given))}: a pricing file takes no parameters.")
            return read_pricing(Path(reference))
        if Path(reference).is_dir():
            from bilevel_toll.library import from_files

            values = read(from_files, given, kind="parameter", owner="GMNS folders", skip=("network",))
            return from_files(network=Path(reference), **values)
        if not reference.lower().endswith(".tntp"):
            raise unknown("toll problem", reference, [n for n in registry.problems if n.startswith(PREFIX)])
        from bilevel_toll.tntp import load_tntp

        made = load_tntp(
            Path(reference), **read(load_tntp, given, kind="parameter", owner="loader 'tntp'", skip=("path",))
        )
    return made


def echo(figures: Mapping[str, Any], form: Listing, more: list[str] | None = None) -> None:
    """Print figures on stdout: one JSON object, or names and values in columns with further lines below."""
    if form is Listing.JSON:
        typer.echo(json.dumps(dict(figures), allow_nan=False))
        return
    facts = [(k.replace("_", " "), _text(v)) for k, v in figures.items() if not isinstance(v, list | dict)]
    typer.echo("\n".join([*aligned(facts, indent=""), *(more or [])]))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value or "")
