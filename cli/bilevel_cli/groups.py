"""The groups `bilevel plugins` and `bilevel new`: signatures and help. What they do is in the modules they import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilevel_cli import complete
from bilevel_cli.arguments import AsListing, Listing

Into = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write into.")]

plugins_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See plugins and the hooks they may use.")
new_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Write a plugin, a problem or a solver to start from."
)


@plugins_app.command("list", short_help="List the plugins with their state.")
def plugins_list(form: AsListing = Listing.TEXT) -> None:
    """List the plugins with their state; a broken one with its error."""
    from bilevel_cli.lists import show_plugins

    show_plugins(as_json=form is Listing.JSON)


@plugins_app.command("hooks")
def plugins_hooks(form: AsListing = Listing.TEXT) -> None:
    """List the hooks that a plugin may implement."""
    from bilevel_cli.lists import show_hooks

    show_hooks(as_json=form is Listing.JSON)


@plugins_app.command("check", short_help="Hold plugins to the conformance kit.")
def plugins_check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Which plugins.  [default: all]",
            show_default=False,
            autocompletion=complete.plugin,
        ),
    ] = None,
    form: AsListing = Listing.TEXT,
) -> None:
    """Hold plugins to the conformance kit: hooks, light import, names, documentation."""
    from bilevel_cli.check import check_plugins

    raise typer.Exit(check_plugins(names or [], as_json=form is Listing.JSON))


@new_app.command("plugin", short_help="Write a distribution: problem, solver, command, tests.")
def new_plugin_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits, dashes.")], out: Into = Path()
) -> None:
    """Write a distribution of its own: one problem, one solver, one command, tests."""
    from bilevel_cli.new import new_plugin

    new_plugin(name, out)


@new_app.command("problem")
def new_problem_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the file, without .py.")], out: Into = Path()
) -> None:
    """Write a file with a problem in Pyomo, and its tests."""
    from bilevel_cli.new import new_problem

    new_problem(name, out)


@new_app.command("solver")
def new_solver_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the file, without .py.")], out: Into = Path()
) -> None:
    """Write a file with a solver, and its tests."""
    from bilevel_cli.new import new_solver

    new_solver(name, out)
