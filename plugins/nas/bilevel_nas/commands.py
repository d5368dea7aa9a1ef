"""The command group ``bilevel nas``."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bilevel_core.report import aligned, number, table
from bilevel_nas.presets import NOT_OFFERED, PRESETS
from bilevel_nas.spaces import SPACES, find_space

app = typer.Typer(
    add_completion=False,  # the program's own has it
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Architecture search: presets, search spaces, tables, and the architectures found.",
)


class Listing(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


Form = Annotated[Listing, typer.Option("--format", "-f", help="How to print: text or json.")]


@app.callback()
def main() -> None:
    """Architecture search: presets, search spaces, tables, and the architectures found."""


@app.command()
def presets(form: Form = Listing.TEXT) -> None:
    """List the methods of the literature as configurations of the solver `supernet`, with references."""
    if form is Listing.JSON:
        told = [{"name": n, **asdict(p.parts), "reference": p.reference, "note": p.note} for n, p in PRESETS.items()]
        typer.echo(json.dumps({"presets": told, "not_offered": dict(NOT_OFFERED)}))
        return
    lines: list[str] = []
    for name, p in PRESETS.items():
        share = f" (space_options.share={p.parts.share})" if p.parts.share else ""
        lines.append(f"{name.ljust(20)}{p.parts.text or 'the defaults'}{share}")
        lines.append(f"{'':20}{p.reference}{'. Here: ' + p.note if p.note else ''}")
    lines += ["", "Named by the survey, and not offered:"]
    lines += [f"{name.ljust(36)}{why}" for name, why in NOT_OFFERED.items()]
    typer.echo("\n".join(lines))


@app.command()
def spaces(form: Form = Listing.TEXT) -> None:
    """List the search spaces with their sizes at default parameters."""
    rows: list[dict[str, Any]] = []
    for name, named in SPACES.items():
        space = find_space(name)
        rows.append(
            {"name": name, "decisions": len(space.decisions), "architectures": space.size, "what": named.summary}
        )
    if form is Listing.JSON:
        typer.echo(json.dumps(rows))
    else:
        typer.echo("\n".join(table(rows)))


@app.command("table")
def look_up(
    file: Annotated[Path, typer.Argument(metavar="TABLE", help="A table: CSV or JSON, see the documentation.")],
    architecture: Annotated[
        str, typer.Argument(metavar="ARCHITECTURE", help="One to look up.  [default: a summary]", show_default=False)
    ] = "",
    space: Annotated[str, typer.Option(metavar="SPACE", help="The table's search space.")] = "cell201-6",
    key: Annotated[str, typer.Option(metavar="COLUMN", help="The column that holds the architectures.")] = "ops",
    form: Form = Listing.TEXT,
) -> None:
    """Show what a table holds, or its figures for one architecture."""
    from bilevel_core.errors import UsageError
    from bilevel_nas.table import read_table

    found_space = find_space(space)
    found = read_table(file, found_space, key)
    if architecture:
        wanted = found_space.read(architecture)
        if wanted not in found.rows:
            raise UsageError(f"{file} has no row for {architecture!r}.")
        told: dict[str, Any] = {"architecture": found_space.text(wanted), **found.rows[wanted]}
        lines = aligned([(k, number(v) if isinstance(v, float) else str(v)) for k, v in told.items()], indent="")
    else:
        best = {c: max(found.rows, key=lambda a, c=c: found.rows[a][c]) for c in found.columns}
        told = {
            "architectures": len(found.rows),
            "columns": [{"column": c, "largest": found.rows[a][c], "at": found_space.text(a)} for c, a in best.items()],
        }
        lines = [f"{len(found.rows)} architectures of {found_space.name}", *table(told["columns"])]
    typer.echo(json.dumps(told) if form is Listing.JSON else "\n".join(lines))


@app.command()
def export(
    result: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or its result.json.")],
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
) -> None:
    """Write the architecture that a run found into one file: cell string, scores, configuration, seed."""
    from bilevel_core.result import Result
    from bilevel_core.run.record import read_result
    from bilevel_nas.architecture_file import save

    found = read_result(result) if result.is_dir() else Result.from_json(result.read_text())
    save(found, out)
    typer.echo(f"wrote {out}", err=True)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `bilevel nas export` wrote.")],
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it: a .png, .svg or .pdf file.  [default: none]")
    ] = None,
    form: Form = Listing.TEXT,
) -> None:
    """Show an exported architecture, and draw it."""
    from bilevel_nas.architecture_file import load
    from bilevel_nas.cells import tables

    found = load(file)
    if draw is not None:
        from bilevel_nas.picture import draw_architecture

        draw_architecture(found.space, found.architecture, draw)
        typer.echo(f"wrote {draw}", err=True)
    if form is Listing.JSON:
        typer.echo(json.dumps(found.document))
        return
    facts = [("architecture", found.space.text(found.architecture))]
    facts += [(k.replace("_", " "), v if isinstance(v, str) else number(v)) for k, v in found.scores.items()]
    facts += [(k.replace("_", " "), str(found.document.get(k, ""))) for k in ("stopped_because", "solver", "seed")]
    lines = [*aligned(facts, indent=""), "", *found.space.draw(found.architecture)]
    for name, rows in tables(found.space, found.architecture).items():
        lines += ["", name.replace("_", " "), *table(rows)]
    typer.echo("\n".join(lines))
