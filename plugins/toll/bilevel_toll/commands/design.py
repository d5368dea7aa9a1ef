"""``bilevel toll design``: second-best tolls against user equilibrium."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from bilevel_core.errors import UsageError
from bilevel_core.report import table
from bilevel_core.result import Termination
from bilevel_core.run.options import read
from bilevel_core.run.record import CUT_SHORT, RunRecord, read_request
from bilevel_toll.commands.base import Folder, Form, Listing, Options, Parameters, Seconds, Seed, echo, ended, pairs_of

RUN = "run"
"""The record of the run, inside the folder of its tables."""


def _same_parameters(folder: Path, given: Mapping[str, Any]) -> None:
    """Refuse to go on with another problem, which not all solvers would notice.

    Raises:
        UsageError: a parameter is not that of the run, or the folder holds no run.
    """
    # A run that was started in Python has no parameters in its record.
    kept = read_request(folder).get("parameters")
    recorded = cast("Mapping[str, Any]", kept) if isinstance(kept, dict) else given
    for name in sorted({*given, *recorded}):
        then, now = (f"{name}={d[name]}" if name in d else f"no {name}" for d in (recorded, given))
        if then != now:
            raise UsageError(
                f"The run in {folder} has {then}, and {now} is given now: go on with the network and the -p of the "
                "run, or begin anew in another folder."
            )


def design(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A network with traffic (sioux-falls, braess) or a .tntp file.")
    ],
    solver: Annotated[
        str, typer.Option("--solver", "-s", metavar="SOLVER", help="sample.nsga2 for several objectives.")
    ] = "auto",
    time_limit: Seconds = None,
    seed: Seed = 0,
    option: Options = None,
    executor: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Where searches run: serial, processes:4, ...  [default: here]"),
    ] = None,
    out: Folder = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, with its own solver, options and seed.")
    ] = False,
    max_iterations: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --resume: most equilibria in all.  [default: as in the run]"),
    ] = None,
    parameter: Parameters = None,
    form: Form = Listing.TEXT,
) -> None:
    """Set tolls on some arcs for least time, most revenue or welfare, users answering by their equilibrium.

    Parameters (-p): arcs, cordon, equal, objective, lower, upper, step, most_booths, classes, ...: see
    `bilevel problems toll/congested`.
    """
    import bilevel_core as bl
    from bilevel_toll.congestion.library import congested_tolls
    from bilevel_toll.congestion.tables import PAIRS, TOLLS, arc_rows, pair_rows, write_tables

    given = pairs_of(parameter or [])
    if "network" in given:
        raise UsageError("-p network: the network is the command's argument.")
    options = pairs_of(option or [], "-o")
    if resume:
        if out is None or not (out / RUN).is_dir():
            raise UsageError("--resume goes on with the run in --out: give the folder that it was written to.")
        if options or solver != "auto" or seed:
            raise UsageError("--resume takes solver, options and seed from the run: leave -s, -o and --seed out.")
        _same_parameters(out / RUN, {**given, "network": network})
    elif max_iterations is not None:
        raise UsageError("--max-iterations is for --resume; a new run takes its budget by -o, as in -o solves=4000.")
    problem = congested_tolls(
        network=network, **read(congested_tolls, given, kind="parameter", owner="toll design", skip=("network",))
    )
    if resume and out is not None:
        result = bl.resume(
            problem, out / RUN, time_limit=time_limit, max_iterations=max_iterations, executor=executor,
        )  # fmt: skip
    else:
        asked = {
            "problem": "toll/congested",
            "parameters": {**given, "network": network},
            "directory": str(Path.cwd()),
            "command": sys.argv[1:],
        }
        result = bl.solve(
            problem, solver=solver, options=options, time_limit=time_limit, seed=seed, executor=executor,
            out=None if out is None else RunRecord(out / RUN, asked),
        )  # fmt: skip
    details: dict[str, Any] = dict(result.details)
    figures: dict[str, Any] = {
        "problem": problem.name,
        "objective_name": ", ".join(problem.objectives),
        "status": result.status.value,
        "answer": "proven optimal" if result.status == "optimal" else "best found, not proven",
        "objective": float(np.asarray(result.upper_objective)) if result.has_point else None,
        "bound": result.bound,
        "termination": result.termination.value,
        "check": None if result.certificate is None else result.certificate.verdict.value,
        "equilibria": result.counts.get("lower_solves"),
        **{k: v for k, v in details.items() if not isinstance(v, list)},
        "message": result.message,
    }
    if out is not None and result.has_point:
        flows = problem.flows(problem.point(result.x), problem.untouched)
        rows = {TOLLS: arc_rows(flows, problem.untouched), PAIRS: pair_rows(flows, problem.untouched)}
        if "pareto" in details:
            rows["pareto.csv"] = details["pareto"]
        write_tables(out, rows, {k: v for k, v in figures.items() if not isinstance(v, dict)})
        typer.echo(f"wrote {out}", err=True)
    if out is not None and result.termination in CUT_SHORT:
        larger = " and --max-iterations N" if result.termination is Termination.ITERATION_LIMIT else ""
        typer.echo(f"To go on with the run: the same command with --resume{larger}, without -s, -o, --seed.", err=True)
    tables = {k: v for k, v in details.items() if isinstance(v, list)}
    text = [line for name, rows in tables.items() for line in ("", name, *table(rows))]
    echo(figures | (tables if form is Listing.JSON else {}), form, text)
    ended(result)
