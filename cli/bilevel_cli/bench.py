"""`bilevel bench`: solvers on all problems of a suite whose optimum is known, and how many each gets right."""

from __future__ import annotations

import contextlib
import fnmatch
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bilevel_cli.compare import Comparison, Entry, Outcome, maximises, run_entry
from bilevel_cli.exits import Exit, exit_of
from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_cli.reference import find_problem, modules_here
from bilevel_cli.settings import Settings
from bilevel_core.errors import MissingError, RefusedError, UsageError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import KnownOptimum
from bilevel_core.result import Result, Status, Verdict

SCHEMA = "bilevel.bench/1"
AGREEMENT = 1e-4
"""A value counts as the known optimum within this, relative to the larger of 1 and its size."""
OUTCOMES = ("right", "missed", "wrong", "refused", "failed")
"""``missed``: no point, or one that is not the optimum and not said to be; ``wrong``: called optimal though the known
optimum is not between the point and the bound that came with it, or a wrong reason why there is none; ``failed``: ended
with an error.
"""


@dataclass(frozen=True)
class Bench:
    """What the user asked for.

    Attributes:
        suite: a family (``classic``), a pattern of problem names, or a tag.
        entries: solvers with their options.
        as_json: how to print.
        settings: everything else; the time limit is for each run.
    """

    suite: str
    entries: tuple[Entry, ...]
    as_json: bool
    settings: Settings


@dataclass(frozen=True)
class Row:
    """One run."""

    problem: str
    known: KnownOptimum
    entry: Entry
    outcome: str
    result: Result | None
    error: str

    @property
    def seconds(self) -> float | None:
        """Wall time of the solve, without the check."""
        return None if self.result is None else self.result.wall_time

    @property
    def verdict(self) -> str:
        """Of the independent check; "" where there was none."""
        certificate = None if self.result is None else self.result.certificate
        return "" if certificate is None else certificate.verdict.value


def problems_of(suite: str) -> dict[str, KnownOptimum]:
    """The problems of a suite with a known optimum, in the library's order.

    Raises:
        UsageError: there are none.
    """
    specs = get_registry().problems
    chosen = {
        name: spec.known
        for name, spec in specs.items()
        if spec.known is not None
        and (suite == "all" or name.split("/")[0] == suite or suite in spec.tags or fnmatch.fnmatchcase(name, suite))
    }
    if not chosen:
        families = sorted({n.split("/")[0] for n, s in specs.items() if s.known is not None})
        raise UsageError(
            f"No problem with a known optimum belongs to {suite!r}. Families: {', '.join(families)}, all; a pattern "
            "such as 'classic/b*' or a tag does, too."
        )
    return chosen


def bench(request: Bench) -> Exit:
    """Run everything, print a row as each run ends and a summary. Returns the exit code: `Exit.NOT_VERIFIED` when an
    answer was called optimal and is wrong.

    Raises:
        UsageError: the suite is empty, or a solver or an option does not exist; found out before anything is run.
    """
    from bilevel_core.choose import find_solver

    echo_warnings()
    problems = problems_of(request.suite)
    for entry in request.entries:
        if entry.solver != "auto":
            modules_here(entry.solver)
            find_solver(entry.solver)
    rows: list[Row] = []
    interrupted = False
    if not request.as_json:
        echo(f"suite    {request.suite}: {len(problems)} problem(s) with a known optimum")
        echo(_line("problem", "solver", "objective", "known", "outcome", "status", "verdict", "time"))
    for row in _rows(request, problems):
        if row is None:
            interrupted = True
            break
        rows.append(row)
        if not request.as_json:
            echo(_text(row))
    if request.as_json:
        echo_json(_document(request, problems, rows))
    else:
        echo("\n".join(("", *_summary(request, rows))))
    echo_warnings()
    if interrupted:
        return Exit.INTERRUPTED
    return Exit.NOT_VERIFIED if any(r.outcome == "wrong" for r in rows) else Exit.OK


def _rows(request: Bench, problems: dict[str, KnownOptimum]) -> Iterator[Row | None]:
    """One row after the other; None where the user interrupts."""
    for name, known in problems.items():
        for entry in request.entries:
            asked = Comparison(name, (entry,), {}, 1, request.as_json, request.settings)
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    problem = find_problem(name, {})
            except MissingError as error:
                yield Row(name, known, entry, "failed", None, str(error))
                continue
            outcome = run_entry(entry, asked, problem)
            if isinstance(outcome.error, UsageError) and not isinstance(outcome.error, RefusedError):
                raise outcome.error
            if outcome.interrupted or any(exit_of(r) is Exit.INTERRUPTED for r in outcome.results):
                yield None
                return
            yield _judged(name, known, outcome, maximise=maximises(problem))


def _judged(name: str, known: KnownOptimum, outcome: Outcome, *, maximise: bool) -> Row:
    if outcome.error is not None or not outcome.results:
        what = "refused" if isinstance(outcome.error, RefusedError) else "failed"
        return Row(name, known, outcome.entry, what, None, str(outcome.error))
    result = outcome.results[0]
    return Row(name, known, outcome.entry, _outcome(result, known, maximise=maximise), result, "")


def _outcome(result: Result, known: KnownOptimum, *, maximise: bool) -> str:
    value, best = result.upper_objective, known.upper_objective
    if not result.has_point or value is None:
        if best is None:
            return "right" if result.termination == known.termination else "wrong" if _settled(result) else "missed"
        return "wrong" if _settled(result) else "missed"
    if best is None:
        return "wrong" if result.status is Status.OPTIMAL else "missed"
    slack = known.tolerance + AGREEMENT * max(1.0, abs(best))
    gain = value - best if maximise else best - value
    if abs(gain) <= slack:
        return "right"
    if gain > slack:
        verified = result.certificate is not None and result.certificate.verdict is Verdict.VERIFIED
        return "wrong" if result.status is Status.OPTIMAL or verified else "missed"
    claimed = 0.0 if result.bound is None else abs(value - result.bound)
    return "wrong" if result.status is Status.OPTIMAL and -gain > claimed + slack else "missed"


def _settled(result: Result) -> bool:
    """Whether a run without a point says why there is none, instead of that it found none."""
    return result.termination in ("infeasible", "unbounded", "lower-infeasible", "lower-unbounded")


def _label(entry: Entry) -> str:
    return " ".join((entry.solver, *(f"{k}={v}" for k, v in entry.options.items())))


WIDTHS = (34, 28, 14, 14, 8, 11, 12)


def _line(*cells: str) -> str:
    return "  ".join(c.ljust(w) for c, w in zip(cells, (*WIDTHS, 0), strict=True)).rstrip()


def _text(row: Row) -> str:
    from bilevel_core.report import number

    result, best = row.result, row.known.upper_objective
    value = None if result is None or not result.has_point else result.upper_objective
    return _line(
        row.problem,
        _label(row.entry),
        "-" if value is None else number(value),
        row.known.termination if best is None else number(best),
        row.outcome,
        "-" if result is None else result.status.value,
        row.verdict or "-",
        "-" if row.seconds is None else f"{row.seconds:.2f} s",
    )


def _figures(request: Bench, rows: list[Row]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for entry in request.entries:
        mine = [r for r in rows if r.entry is entry]
        times = [r.seconds for r in mine if r.seconds is not None]
        out.append(
            {
                "solver": entry.solver,
                "options": entry.options,
                **{what: sum(r.outcome == what for r in mine) for what in OUTCOMES},
                "optimal": sum(r.result is not None and r.result.status is Status.OPTIMAL for r in mine),
                "median_time": statistics.median(times) if times else None,
            }
        )
    return out


def _summary(request: Bench, rows: list[Row]) -> Iterator[str]:
    figures = _figures(request, rows)
    heads = ("solver", *OUTCOMES, "optimal", "median time")
    table: list[tuple[str, ...]] = [heads]
    for entry, told in zip(request.entries, figures, strict=True):
        time = told["median_time"]
        last = "-" if time is None else f"{time:.2f} s"
        table.append((_label(entry), *(str(told[what]) for what in (*OUTCOMES, "optimal")), last))
    widths = [max(len(line[k]) for line in table) for k in range(len(heads))]
    for line in table:
        yield "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
    for row in rows:
        if row.outcome in ("failed", "wrong"):
            why = row.error or (row.result.message if row.result is not None else "")
            yield f"{row.outcome}: {row.problem} by {_label(row.entry)}. {why}".rstrip()


def _document(request: Bench, problems: dict[str, KnownOptimum], rows: list[Row]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "suite": request.suite,
        "problems": list(problems),
        "time_limit": request.settings.time_limit,
        "seed": request.settings.seed,
        "entries": _figures(request, rows),
        "runs": [
            {
                "problem": r.problem,
                "known": r.known.upper_objective,
                "solver": r.entry.solver,
                "options": r.entry.options,
                "outcome": r.outcome,
                "objective": r.result.upper_objective if r.result is not None and r.result.has_point else None,
                "status": None if r.result is None else r.result.status.value,
                "termination": None if r.result is None else r.result.termination.value,
                "verdict": r.verdict or None,
                "wall_time": r.seconds,
                "error": r.error or None,
            }
            for r in rows
        ],
    }
