"""``bilevel toll price``: tolls of most revenue without congestion; ``bilevel toll check`` audits given ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bilevel_core.errors import UsageError
from bilevel_core.report import table
from bilevel_toll.commands.base import (
    LIMIT,
    NOT_VERIFIED,
    Folder,
    Form,
    Listing,
    Options,
    Parameters,
    Seconds,
    Seed,
    echo,
    ended,
    find,
    find_any,
    pairs_of,
)
from bilevel_toll.problem import TollProblem

Problem = Annotated[
    str, typer.Argument(metavar="PROBLEM", help="A toll problem (sioux-falls, toy-a, ...), a .tntp or a .json file.")
]
SHIFTS = (-1e-2, -1e-3, -1e-4, -1e-6, 1e-6, 1e-4)
"""Relative changes of all tolls under which the audit asks the users again."""
TOLD = 1e-6
"""A file's revenue may exceed that computed by this share: it has ten digits."""


def price(
    problem: Problem,
    time_limit: Seconds = None,
    seed: Seed = 0,
    option: Options = None,
    out: Folder = None,
    parameter: Parameters = None,
    form: Form = Listing.TEXT,
) -> None:
    """Find the tolls of most revenue: users take cheapest routes, ties in the leader's favour."""
    import bilevel_core as bl

    found = find(problem, pairs_of(parameter or []))
    result = bl.solve(
        found, solver="toll-pricing", options=pairs_of(option or [], "-o"), time_limit=time_limit, seed=seed
    )
    details = dict(result.details)
    objective = float(np.asarray(result.upper_objective)) if result.has_point else None
    bound = result.bound
    figures: dict[str, Any] = {
        "problem": found.name,
        "status": result.status.value,
        "answer": "proven optimal" if result.status == "optimal" else "best found, not proven",
        "objective": objective,
        "bound": bound,
        "relative_gap": relative_gap(objective, bound),
        "termination": result.termination.value,
        "check": None if result.certificate is None else result.certificate.verdict.value,
        "regret": None if result.certificate is None else result.certificate.lower_gap,
    }
    figures |= {k: v for k, v in details.items() if not isinstance(v, list)}
    if result.message:
        figures["message"] = result.message
    tolls, payers = details.get("tolls", []), details.get("payers", [])
    if out is not None and result.has_point:
        from bilevel_toll.congestion.tables import PAIRS, TOLLS, write_tables

        labels = [found.network.labels[a] for a in found.tollable]
        rows = [{"link": label, **row} for label, row in zip(labels, tolls, strict=True)]
        write_tables(out, {TOLLS: rows, PAIRS: payers}, _finite(figures))
        typer.echo(f"wrote {out}", err=True)
    told = _finite(figures) | ({"tolls": tolls, "payers": payers} if form is Listing.JSON else {})
    echo(told, form, ["", "tolls", *table(tolls), "", "payers", *table(payers)])
    ended(result)


def check(
    problem: Problem,
    tolls: Annotated[Path, typer.Argument(metavar="TOLLS", help="A CSV file with columns link and toll.")],
    parameter: Parameters = None,
    form: Form = Listing.TEXT,
) -> None:
    """Audit tolls: every user's route is computed from scratch, and revenue given for all rules about ties.

    With the problem `congested` and its parameters, tolls under congestion: -p network=... -p arcs=... as for design.
    Tolls that are not allowed, and flows or revenues in the file that are not true, are named: exit code 5.
    """
    from bilevel_toll.tollfile import read_told, read_tolls

    found = find_any(problem, pairs_of(parameter or []))
    if not isinstance(found, TollProblem):
        _check_congested(problem, found, tolls, form)
        return
    everywhere = read_tolls(tolls, found.network)
    elsewhere = [found.network.labels[a] for a in np.flatnonzero(everywhere) if int(a) not in found.tollable]
    faults = [f"arc {label} has a toll and is not tollable in {found.name}" for label in elsewhere]
    charged = everywhere[list(found.tollable)]
    best, worst = found.revenue(charged), found.revenue(charged, dearest=False)
    said = float(np.nansum(read_told(tolls, found.network).get("revenue", np.zeros(0))))
    if said > best + TOLD * max(best, 1.0):
        faults.append(f"a revenue of {said:g} is said, and all ties in the leader's favour give {best:g}")
    shifts = [
        {
            "tolls_changed_by": shift,
            "revenue": found.revenue(charged * (1.0 + shift)),
            "revenue_if_ties_go_against": found.revenue(charged * (1.0 + shift), dearest=False),
        }
        for shift in SHIFTS
    ]
    tied = sum(
        best_route != worst_route
        for best_route, worst_route in zip(found.routes(charged), found.routes(charged, dearest=False), strict=True)
    )
    figures: dict[str, Any] = {
        "problem": found.name,
        "verified": not faults,
        "faults": faults,
        "revenue": best,
        "revenue_if_ties_go_against": worst,
        "safe_revenue": found.revenue(charged * (1.0 - 1e-4), dearest=False),
        "revenue_limit": found.bound,
        "pairs": len(found.demands),
        "pairs_at_ties": tied,
        "ties_matter": worst < best * (1.0 - 1e-9),
    }
    if found.unit:
        figures["unit"] = found.unit
    _tell(figures, shifts, form)


def _tell(figures: dict[str, Any], shifts: list[dict[str, Any]], form: Listing) -> None:
    """Print an audit.

    Raises:
        typer.Exit: there are faults.
    """
    told = figures | ({"shifts": shifts} if form is Listing.JSON else {})
    wrong = [f"fault  {text}" for text in figures["faults"]]
    echo(told, form, [*([""] if wrong else []), *wrong, "", "all tolls changed by a share", *table(shifts)])
    if wrong:
        raise typer.Exit(NOT_VERIFIED)


def _check_congested(reference: str, found: Any, path: Path, form: Listing) -> None:
    from bilevel_toll.congestion.audit import audit
    from bilevel_toll.congestion.tolls import CongestedTolls
    from bilevel_toll.tollfile import read_told, read_tolls

    if not isinstance(found, CongestedTolls):
        raise UsageError(f"{reference!r} has no tolls to check: give a toll problem, or `congested` with its network.")
    network = found.traffic.network
    figures, shifts = audit(found, read_tolls(path, network), read_told(path, network))
    _tell(figures, shifts, form)
    if not figures["converged"]:
        raise typer.Exit(LIMIT)


def relative_gap(objective: float | None, bound: float | None) -> float | None:
    """How far the bound is from the objective, as a share of it; None where one is missing or no share can be said."""
    if objective is None or bound is None:
        return None
    if bound == objective:
        return 0.0
    return (bound - objective) / abs(objective) if objective else None


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in figures.items()}
