"""``bilevel toll equilibrium``: how users choose under given tolls, and first-best tolls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from bilevel_core.errors import UsageError
from bilevel_core.report import table
from bilevel_toll.commands.base import Folder, Form, Listing, Parameters, echo, pairs_of

LIMIT_EXIT = 4
BUSIEST = 10


def equilibrium(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A network with traffic (sioux-falls, braess) or a .tntp file.")
    ],
    tolls: Annotated[
        str,
        typer.Option(
            metavar="FILE|AIM",
            help="A CSV file, marginal-cost, least-revenue, or fewest-booths.  [default: none]",
        ),
    ] = "",
    system: Annotated[
        bool, typer.Option("--system", help="The system optimum instead: least time and fixed costs of all.")
    ] = False,
    gap: Annotated[float, typer.Option(metavar="GAP", help="Relative gap to reach.")] = 1e-12,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For the fewest booths.  [default: none]")
    ] = None,
    out: Folder = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the convergence: a .png, .svg or .pdf file.  [default: none]"),
    ] = None,
    parameter: Parameters = None,
    form: Form = Listing.TEXT,
) -> None:
    """Compute the user equilibrium of a network: travel times grow with traffic, and nobody has a cheaper route."""
    from bilevel_toll.congestion.equilibrium import user_equilibrium
    from bilevel_toll.congestion.first_best import AIMS, first_best
    from bilevel_toll.congestion.library import find_traffic
    from bilevel_toll.congestion.tables import PAIRS, TOLLS, arc_rows, pair_rows, summary, write_tables
    from bilevel_toll.tollfile import read_tolls

    if not 0.0 < gap < 1.0:
        raise UsageError(f"Expected a gap in (0, 1), got {gap:g}.")
    if system and tolls:
        raise UsageError("The system optimum does not depend on tolls: leave out --system or --tolls.")
    if time_limit is not None and tolls != "fewest-booths":
        raise UsageError("--time-limit is for --tolls fewest-booths.")
    traffic = find_traffic(network, pairs_of(parameter or []))
    figures: dict[str, Any] = {}
    charged: np.ndarray | None = None
    proven = True
    if tolls in AIMS:
        found = first_best(traffic, cast("Any", tolls), time_limit=time_limit)
        charged, proven = found.tolls, found.proven
        figures = {"tolls": tolls, "booths": found.booths, "proven": found.proven, "bound": found.bound}
        figures["system_optimum_travel_time"] = found.optimum.total_time
        if traffic.fixed.any():
            # The optimum that first-best tolls bring about is that of this sum, not of time alone.
            figures["system_optimum_time_and_fixed_costs"] = found.optimum.total_cost
    elif tolls:
        charged = read_tolls(Path(tolls), traffic.network)
        figures = {"tolls": tolls, "booths": int(np.count_nonzero(charged))}
    before = user_equilibrium(traffic, tolerance=gap) if charged is not None and out is not None else None
    flows = user_equilibrium(traffic, charged, system=system, tolerance=gap)
    figures = summary(flows) | figures
    rows = arc_rows(flows, before)
    if out is not None:
        write_tables(out, {TOLLS: rows, PAIRS: pair_rows(flows, before)}, figures)
        typer.echo(f"wrote {out}", err=True)
    if picture is not None:
        from bilevel_toll.congestion.pictures import draw_convergence

        draw_convergence(flows, picture)
        typer.echo(f"wrote {picture}", err=True)
    busiest = sorted(rows, key=lambda r: -r["flow"])[:BUSIEST]
    echo(figures, form, ["", f"the {len(busiest)} busiest arcs", *table(busiest)])
    if not (flows.converged and proven):
        raise typer.Exit(LIMIT_EXIT)
