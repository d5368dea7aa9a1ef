"""``bilevel example ...``: the plugin's own commands."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from bilevel_core.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The income from a levy.",
)


@app.callback()
def main() -> None:
    """The income from a levy."""


@app.command()
def income(
    levy: Annotated[float, typer.Option(help="The levy on each unit.")],
    size: Annotated[float, typer.Option(help="The levy at which nobody buys any more.")] = 8.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a levy earns: the buyers' demand at it, times itself."""
    if levy < 0.0:
        raise UsageError(f"Expected a levy of at least 0, got {levy:g}.")
    demand = max(0.0, size - levy)
    if as_json:
        typer.echo(json.dumps({"levy": levy, "demand": demand, "income": levy * demand}))
    else:
        typer.echo(f"demand {demand:g}, income {levy * demand:g}")
