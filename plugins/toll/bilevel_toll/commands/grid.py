"""``bilevel toll grid``: random instances of network pricing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilevel_core.errors import UsageError
from bilevel_toll.commands.base import Seed


def grid(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="Where to write the instance.")],
    rows: Annotated[int, typer.Option(metavar="N", help="Rows of the grid.")] = 5,
    columns: Annotated[int, typer.Option(metavar="N", help="Columns of the grid.")] = 12,
    pairs: Annotated[int, typer.Option(metavar="N", help="Origin-destination pairs.")] = 20,
    tolled: Annotated[float, typer.Option(metavar="SHARE", help="Of the arcs that are tollable, 0 to 1.")] = 0.15,
    seed: Seed = 0,
) -> None:
    """Write a random grid network with tollable arcs and pairs, for `bilevel toll price FILE.json`."""
    from bilevel_toll.pricing_file import pricing_text
    from bilevel_toll.random_grid import random_grid

    if file.suffix != ".json":
        raise UsageError(f"Expected a file that ends with .json, got {str(file)!r}.")
    problem = random_grid(rows, columns, pairs, tolled, seed)
    try:
        file.write_text(pricing_text(problem), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The instance cannot be written to {str(file)!r}: {error}.") from error
    typer.echo(
        f"wrote {file}: {len(problem.network.nodes)} nodes, {len(problem.network.arcs)} arcs, {len(problem.tollable)} "
        f"tollable, {len(problem.demands)} pairs",
        err=True,
    )
