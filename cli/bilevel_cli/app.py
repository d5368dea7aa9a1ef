"""The Typer application: the commands' signatures and help. What they do is in the modules they import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bilevel_cli import complete
from bilevel_cli.arguments import (
    AsDevice,
    AsExecutor,
    AsFormat,
    AsListing,
    AsParameters,
    AsProblem,
    AsProgress,
    AsRun,
    AsSolvers,
    AsTheirOptions,
    Listing,
)
from bilevel_cli.exits import Exit
from bilevel_cli.groups import new_app, plugins_app
from bilevel_cli.ordered import ORDER, OrderedCommand
from bilevel_cli.plugin_group import PluginGroup

WIDTH = 110
"""Of help texts, where the terminal is as wide: then each option is one line."""


app = typer.Typer(
    cls=PluginGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    help="Bilevel optimisation: a leader decides, a follower answers optimally, and the answer is checked.",
)
app.add_typer(plugins_app, name="plugins")
app.add_typer(new_app, name="new")


def _version(wanted: bool) -> None:
    if wanted:
        import bilevel_core

        typer.echo(f"bilevel {bilevel_core.__version__}")
        raise typer.Exit(Exit.OK)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; comes first. Or set BILEVEL_DEBUG=1.")
    ] = False,
) -> None:
    """Bilevel optimisation: a leader decides, a follower answers optimally, and the answer is checked."""


@app.command()
def solve(
    problem: AsProblem,
    solver: Annotated[
        str | None,
        typer.Option(
            "--solver",
            "-s",
            metavar="SOLVER",
            help="See `bilevel solvers`; or module:Class.  [default: auto]",
            autocompletion=complete.solver,
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="Option of the solver; repeatable.")
    ] = None,
    parameter: AsParameters = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of everything random.  [default: 0]")] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds for the solver.  [default: none]")
    ] = None,
    device: AsDevice = None,
    executor: AsExecutor = None,
    form: AsFormat = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder for the record of the run.  [default: none; runs/ID if cut short]"),
    ] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Skip the independent check.")] = False,
    progress: AsProgress = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what would be done and why; solve nothing.")] = False,
) -> None:
    """Solve PROBLEM, check the answer, and print it."""
    from bilevel_cli.settings import load
    from bilevel_cli.solve import Request, run

    flags = {
        "solver": solver,
        "seed": seed,
        "time_limit": time_limit,
        "device": device,
        "executor": executor,
        "format": form,
        "out": out,
        "progress": None if progress is None else progress.value,
    }
    settings = load(flags)
    request = Request(
        problem, _pairs(option, "-o"), _pairs(parameter, "-p"), verify=not no_verify, explain=explain, settings=settings
    )
    raise typer.Exit(run(request))


@app.command(cls=OrderedCommand, short_help="Run several solvers on PROBLEM, side by side.")
def compare(
    ctx: typer.Context,
    problem: AsProblem,
    solver: AsSolvers = None,
    option: AsTheirOptions = None,
    parameter: AsParameters = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs of each solver, with seeds that follow --seed.")] = 1,
    seed: Annotated[int | None, typer.Option(metavar="N", help="The first seed.  [default: 0]")] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds for each run.  [default: none]")
    ] = None,
    device: AsDevice = None,
    executor: AsExecutor = None,
    progress: AsProgress = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it: a .png or .svg file.  [default: none]")
    ] = None,
    form: AsListing = Listing.TEXT,
) -> None:
    """Run several solvers, or one with several options, on PROBLEM and print them side by side."""
    from bilevel_cli.compare import Comparison, entries_of
    from bilevel_cli.compare import compare as run_all
    from bilevel_cli.settings import load

    flags = {
        "seed": seed,
        "time_limit": time_limit,
        "device": device,
        "executor": executor,
        "progress": None if progress is None else progress.value,
    }
    entries = entries_of(ctx.meta[ORDER])
    parameters = _pairs(parameter, "-p")
    request = Comparison(problem, entries, parameters, seeds, form is Listing.JSON, load(flags), plot)
    raise typer.Exit(run_all(request))


@app.command(cls=OrderedCommand, short_help="Run solvers on all problems of SUITE whose optimum is known.")
def bench(
    ctx: typer.Context,
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="A family (classic, trap, ...), a pattern, a tag, or all.",
            show_default=False,
        ),
    ],
    solver: AsSolvers = None,
    option: AsTheirOptions = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of everything random.  [default: 0]")] = None,
    time_limit: Annotated[float, typer.Option(metavar="SECONDS", help="Seconds for each run.")] = 60,
    device: AsDevice = None,
    executor: AsExecutor = None,
    progress: AsProgress = None,
    form: AsListing = Listing.TEXT,
) -> None:
    """Run solvers on all problems of SUITE whose optimum is known; print each run, and how many each gets right.

    Without -s: the one that `bilevel solve` would choose.
    """
    from bilevel_cli.bench import Bench
    from bilevel_cli.bench import bench as run_all
    from bilevel_cli.compare import Entry, entries_of
    from bilevel_cli.settings import load

    flags = {
        "seed": seed,
        "time_limit": time_limit,
        "device": device,
        "executor": executor,
        "progress": "none" if progress is None else progress.value,
    }
    entries = entries_of(ctx.meta[ORDER]) if ctx.meta[ORDER] else (Entry("auto"),)
    raise typer.Exit(run_all(Bench(suite, entries, form is Listing.JSON, load(flags))))


@app.command(short_help="Go on with a run from its checkpoint.")
def resume(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run that was cut short.", autocompletion=complete.run)
    ],
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds from now.  [default: none]")
    ] = None,
    max_iterations: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most iterations of each start, from its beginning.  [default: as in the run]"),
    ] = None,
    device: AsDevice = None,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Where parallel work runs: serial, processes:N, ...  [default: as in the run]",
            autocompletion=complete.executor,
        ),
    ] = None,
    form: AsFormat = None,
    progress: AsProgress = None,
) -> None:
    """Go on with a run from its checkpoint: same solver, options and seed; the outcome is as if never interrupted."""
    from bilevel_cli.resume import Continuation
    from bilevel_cli.resume import run as go_on
    from bilevel_cli.settings import load

    flags = {"device": device, "format": form, "progress": None if progress is None else progress.value}
    raise typer.Exit(go_on(Continuation(run, time_limit, max_iterations, executor, load(flags))))


@app.command(short_help="Check a point independently of any solver.")
def verify(
    target: Annotated[
        str, typer.Argument(metavar="RUN|PROBLEM", help="The folder of a run, or a problem together with --point.")
    ],
    point: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='{"x": {...}, "y": {...}}, or a result.json.  [default: that of RUN]'),
    ] = None,
    parameter: AsParameters = None,
    form: AsListing = Listing.TEXT,
) -> None:
    """Check a point independently of the solver that found it."""
    from bilevel_cli.stored import verify_point

    raise typer.Exit(verify_point(target, point, _pairs(parameter, "-p"), as_json=form is Listing.JSON))


@app.command()
def show(
    run: AsRun,
    form: AsListing = Listing.TEXT,
) -> None:
    """Print the result of a recorded run."""
    from bilevel_cli.stored import show_run

    show_run(run, as_json=form is Listing.JSON)


@app.command(short_help="Draw a recorded run as PNG and SVG.")
def plot(
    run: AsRun,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIGURE",
            help="Which: value, gap, ...  [default: all]",
            show_default=False,
            autocompletion=complete.figure,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write into.  [default: RUN/figures]")
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", metavar="FORMAT", help="png or svg; repeatable.  [default: both]"),
    ] = None,
) -> None:
    """Draw a recorded run: values and bound, gap, convergence of both levels, steps, and figures of plugins."""
    from bilevel_cli.pictures import plot as draw

    raise typer.Exit(draw(run, names or [], out, form or []))


@app.command(short_help="Write a recorded run as one HTML page.")
def report(
    run: AsRun,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to.  [default: RUN/report.html]")] = None,
) -> None:
    """Write a recorded run as one HTML page: status, certificate, figures, tables, options, versions."""
    from bilevel_cli.pictures import report as write

    raise typer.Exit(write(run, out))


@app.command(short_help="Write PROBLEM to a file for other software.")
def export(
    problem: AsProblem,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; its ending says the format, as in a.mps.")],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="KEY=VALUE", help="Option of the format; repeatable. See docs/files.md."
        ),
    ] = None,
    parameter: AsParameters = None,
) -> None:
    """Write PROBLEM to FILE for other software, as MPS with AUX."""
    from bilevel_cli.export import write

    write(problem, file, _pairs(option, "-o"), _pairs(parameter, "-p"))


@app.command(short_help="List the problems, or show one.")
def problems(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Show one problem in detail.  [default: list all]",
            show_default=False,
            autocompletion=complete.registered_problem,
        ),
    ] = None,
    form: AsListing = Listing.TEXT,
) -> None:
    """List the problems, or show one with parameters, optimum and source."""
    from bilevel_cli.lists import show_problems

    show_problems(name, as_json=form is Listing.JSON)


@app.command(short_help="List the solvers, or show one with its options.")
def solvers(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Show one solver in detail.  [default: list all]",
            show_default=False,
            autocompletion=complete.registered_solver,
        ),
    ] = None,
    form: AsListing = Listing.TEXT,
) -> None:
    """List the solvers, or show one with its options."""
    from bilevel_cli.lists import show_solvers

    show_solvers(name, as_json=form is Listing.JSON)


@app.command(short_help="List the backends, each tried on a tiny problem.")
def backends(form: AsListing = Listing.TEXT) -> None:
    """List the backends; each solves a tiny problem to prove that it works."""
    from bilevel_cli.lists import show_backends

    show_backends(as_json=form is Listing.JSON)


@app.command(short_help="Check the installation; say what to do.")
def doctor(form: AsListing = Listing.TEXT) -> None:
    """Check the installation: versions, backends, plugins, threads, write access."""
    from bilevel_cli.doctor import examine

    raise typer.Exit(examine(as_json=form is Listing.JSON))


def _pairs(texts: Sequence[str] | None, flag: str) -> dict[str, str]:
    from bilevel_core.errors import UsageError

    out: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{flag} {text!r}: expected KEY=VALUE.")
        if key.strip() in out:
            raise UsageError(f"{flag} {key.strip()}: given twice. Leave one of them out.")
        out[key.strip()] = value.strip()
    return out
