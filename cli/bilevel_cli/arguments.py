"""Arguments and options that several commands have: one name, one help text, one way to complete it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bilevel_cli import complete


class Listing(StrEnum):
    """How a list or a report is printed."""

    TEXT = "text"
    JSON = "json"


class Progress(StrEnum):
    """What is shown on stderr while a solve runs."""

    AUTO = "auto"
    BAR = "bar"
    LOG = "log"
    NONE = "none"


AsListing = Annotated[Listing, typer.Option("--format", "-f", help="How to print: text or json.")]
AsProblem = Annotated[
    str,
    typer.Argument(
        metavar="PROBLEM",
        help="A registered name, module:attribute, or a file.",
        show_default=False,
        autocompletion=complete.problem,
    ),
]
AsRun = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", autocompletion=complete.run)]
AsParameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="Parameter of the problem; repeatable."),
]
AsSolvers = Annotated[
    list[str] | None,
    typer.Option(
        "--solver",
        "-s",
        metavar="SOLVER",
        help="Solver to run; repeatable. The -o that follow it are its own.",
        autocompletion=complete.solver,
    ),
]
AsTheirOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="Option of the solver before it; repeatable."),
]
AsDevice = Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, or a torch device.  [default: auto]")]
AsExecutor = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Where parallel work runs: serial, processes:N, ...  [default: here]",
        autocompletion=complete.executor,
    ),
]
AsFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="text, json, jsonl, or a plugin's format.  [default: text]",
        autocompletion=complete.form,
    ),
]
AsProgress = Annotated[Progress | None, typer.Option(help="What to show on stderr meanwhile.  [default: auto]")]
