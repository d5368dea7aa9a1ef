"""``bilevel toll sweep`` and ``bilevel toll map``: congested tolls as a curve and on a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from bilevel_core.errors import UsageError
from bilevel_core.report import table
from bilevel_core.run.options import read
from bilevel_toll.commands.base import Form, Listing, Parameters, Picture, echo, pairs_of

Traffic = Annotated[
    str, typer.Argument(metavar="NETWORK", help="A network with traffic (sioux-falls, braess) or a .tntp file.")
]


def sweep(
    network: Traffic,
    points: Annotated[int, typer.Option(metavar="N", help="How many tolls, evenly spaced between the bounds.")] = 41,
    out: Picture = None,
    parameter: Parameters = None,
    form: Form = Listing.TEXT,
) -> None:
    """Show revenue and total time against one toll under congestion, and where users begin to leave and all have.

    Parameters (-p) as for design: arcs=TAIL-HEAD, or several with equal=yes, or cordon=..., upper, classes, ...
    """
    from bilevel_toll.congestion.library import congested_tolls
    from bilevel_toll.congestion.sweep import sweep as ask

    given = pairs_of(parameter or [])
    if "network" in given:
        raise UsageError("-p network: the network is the command's argument.")
    problem = congested_tolls(
        network=network, **read(congested_tolls, given, kind="parameter", owner="toll sweep", skip=("network",))
    )
    found = ask(cast("Any", problem), points)
    if out is not None:
        from bilevel_toll.congestion.pictures import draw_sweep

        draw_sweep(found, out, f"{problem.traffic.name}: revenue and time against the toll")
        typer.echo(f"wrote {out}", err=True)
    figures = found.to_dict()
    echo(figures, form, ["", *table(figures["points"])])


def draw(
    network: Traffic,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A picture (.png, .svg, .pdf), or a map's data (.geojson).")
    ],
    tolls: Annotated[
        str,
        typer.Option(metavar="FILE|AIM", help="CSV file, marginal-cost, least-revenue, fewest-booths."),
    ] = "marginal-cost",
    nodes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Node, x, y in each line.  [default: a schematic layout]")
    ] = None,
    parameter: Parameters = None,
) -> None:
    """Draw arcs by toll (colour) and flow (width), before and after."""
    from bilevel_toll.congestion.equilibrium import user_equilibrium
    from bilevel_toll.congestion.first_best import AIMS, first_best
    from bilevel_toll.congestion.layout import geojson, read_nodes, schematic
    from bilevel_toll.congestion.library import find_traffic
    from bilevel_toll.tollfile import read_tolls

    traffic = find_traffic(network, pairs_of(parameter or []))
    if tolls in AIMS:
        charged = first_best(traffic, cast("Any", tolls)).tolls
    else:
        charged = read_tolls(Path(tolls), traffic.network)
    before = user_equilibrium(traffic)
    after = user_equilibrium(traffic, charged, start=before)
    places = schematic(traffic.network) if nodes is None else read_nodes(nodes, traffic.network)
    if out.suffix.lower() == ".geojson":
        if nodes is None:
            raise UsageError("A map's data needs coordinates: give --nodes FILE.")
        try:
            out.write_text(geojson(after, before, places), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"The map cannot be written to {str(out)!r}: {error}.") from error
    else:
        from bilevel_toll.congestion.pictures import draw_map

        draw_map(after, before, places, out, f"{traffic.name}, tolls: {Path(tolls).name}")
    typer.echo(f"wrote {out}", err=True)
