"""``bilevel toll ...``: the plugin's own commands, one file each."""

from __future__ import annotations

import typer

from bilevel_toll.commands.curve import curve
from bilevel_toll.commands.design import design
from bilevel_toll.commands.equilibrium import equilibrium
from bilevel_toll.commands.grid import grid
from bilevel_toll.commands.price import check, price
from bilevel_toll.commands.sweep import draw, sweep

HELP = "Toll setting: prices on a network, and tolls under congestion."

app = typer.Typer(
    add_completion=False,  # the program's own has it
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=HELP,
)
for command in (curve, equilibrium, price, check, design, grid, sweep):
    app.command()(command)
app.command("map")(draw)


@app.callback()
def main() -> None:
    """Toll setting: prices on a network, and tolls under congestion."""
