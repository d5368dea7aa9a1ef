"""``bilevel toll ...``: the plugin's own commands."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bilevel_core.errors import UsageError, unknown
from bilevel_core.plugins.registry import get_registry
from bilevel_core.report import aligned, number, table
from bilevel_core.run.options import read
from bilevel_toll.curve import Curve, response
from bilevel_toll.problem import TollProblem

PREFIX = "toll/"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Toll setting: revenue and users' response as a curve.",
)


class Listing(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


@app.callback()
def main() -> None:
    """Toll setting: revenue and users' response as a curve."""


@app.command()
def curve(
    problem: Annotated[
        str, typer.Argument(metavar="PROBLEM", help="A toll problem (three-regimes, sioux-falls, ...) or a .tntp file.")
    ],
    arc: Annotated[
        str, typer.Option(metavar="TAIL-HEAD", help="Which tollable arc; needed where there are several.")
    ] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it: a .png, .svg or .pdf file.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="Parameter of the problem.")
    ] = None,
    form: Annotated[Listing, typer.Option("--format", "-f", help="How to print: text or json.")] = Listing.TEXT,
) -> None:
    """Show revenue and users' response against the toll on one arc, all other tolls zero."""
    found = find(problem, parameter or [])
    result = response(found, arc)
    if out is not None:
        from bilevel_toll.picture import draw

        draw(result, out, f"{found.name}: revenue and response against the toll")
        typer.echo(f"wrote {out}", err=True)
    if form is Listing.JSON:
        typer.echo(json.dumps({"problem": found.name, **result.to_dict()}, allow_nan=False))
    else:
        typer.echo("\n".join(text(found.name, result)))


def text(name: str, result: Curve) -> list[str]:
    """The curve as lines: the best toll, and a row for each regime."""
    toll, revenue = result.best
    lines = aligned(
        [
            ("problem", name),
            ("arc", result.arc),
            ("unit", result.unit),
            ("best toll", number(toll)),
            ("best revenue", number(revenue)),
        ],
        indent="",
    )
    rows: list[dict[str, Any]] = result.to_dict()["regimes"]
    return [*lines, "", "regimes", *table(rows)]


def find(reference: str, parameters: list[str]) -> TollProblem:
    """The toll problem that a name or a file stands for.

    Raises:
        UsageError: there is none, it is no toll problem, or a parameter is wrong.
    """
    given: dict[str, str] = {}
    for entry in parameters:
        key, equals, value = entry.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"-p {entry!r}: expected KEY=VALUE.")
        if key.strip() in given:
            raise UsageError(f"-p {key.strip()}: given twice. Leave one of them out.")
        given[key.strip()] = value.strip()
    registry = get_registry()
    for name in (reference, PREFIX + reference):
        if name in registry.problems:
            factory = registry.problems[name].load()
            made: Any = factory(**read(factory, given, kind="parameter", owner=f"problem {name!r}"))
            break
    else:
        if not reference.lower().endswith(".tntp"):
            raise unknown("toll problem", reference, [n for n in registry.problems if n.startswith(PREFIX)])
        from bilevel_toll.tntp import load_tntp

        made = load_tntp(
            Path(reference), **read(load_tntp, given, kind="parameter", owner="loader 'tntp'", skip=("path",))
        )
    if not isinstance(made, TollProblem):
        raise UsageError(f"{reference!r} is no toll problem: it has no tollable arcs.")
    return made
