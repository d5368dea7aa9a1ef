"""``bilevel toll curve``: revenue and response against one toll, without congestion."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from bilevel_core.report import aligned, number, table
from bilevel_toll.commands.base import Form, Listing, Parameters, Picture, find, pairs_of
from bilevel_toll.curve import Curve, response


def curve(
    problem: Annotated[
        str, typer.Argument(metavar="PROBLEM", help="A toll problem (three-regimes, sioux-falls, ...) or a .tntp file.")
    ],
    arc: Annotated[
        str, typer.Option(metavar="TAIL-HEAD", help="Which tollable arc.  [default: the only one]", show_default=False)
    ] = "",
    out: Picture = None,
    parameter: Parameters = None,
    form: Form = Listing.TEXT,
) -> None:
    """Show revenue and users' response against the toll on one arc, all other tolls zero."""
    found = find(problem, pairs_of(parameter or []))
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
