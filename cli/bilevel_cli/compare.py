"""`bilevel compare`: several solvers, or one with several options, on one problem, side by side.

Options belong to the ``-s`` before them, so the order on the command line counts: `bilevel_cli.ordered` keeps it.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bilevel_cli import compare_figure, compare_times, compared
from bilevel_cli.compare_rows import HEADINGS, label, reason, row, spread
from bilevel_cli.exits import Exit, exit_of
from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_cli.progress import Progress
from bilevel_cli.reference import find_problem, modules_here
from bilevel_cli.settings import Settings
from bilevel_cli.solve import closing
from bilevel_core.errors import BilevelError, MissingError, RefusedError, UsageError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.problems.base import AlgebraicProblem, Problem
from bilevel_core.result import Result, Status, Termination, Verdict

SCHEMA = "bilevel.compare/1"


@dataclass(frozen=True)
class Entry:
    """One solver with its options, as asked for."""

    solver: str
    options: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Outcome:
    """What became of an entry: a result for each seed, or the error that came instead."""

    entry: Entry
    results: tuple[Result, ...] = ()
    error: Exception | None = None

    @property
    def objectives(self) -> list[float]:
        """The leader's objectives of the runs that ended with a point."""
        return [r.upper_objective for r in self.results if r.has_point and r.upper_objective is not None]

    @property
    def verified(self) -> bool:
        """Whether at least one point was verified."""
        return any(r.certificate is not None and r.certificate.verdict is Verdict.VERIFIED for r in self.results)

    @property
    def response(self) -> str:
        """Which of several optimal answers its followers are taken to give."""
        asked = self.entry.options.get("response", "optimistic")
        return str(self.results[0].options.get("response", asked)) if self.results else asked

    @property
    def interrupted(self) -> bool:
        """Whether the user ended it before there was a result."""
        return isinstance(self.error, _InterruptedError)

    @property
    def exit(self) -> Exit:
        """What `bilevel solve` would have returned, of the first run."""
        if self.error is not None:
            return Exit(self.error.exit_code) if isinstance(self.error, BilevelError) else Exit.ERROR
        return exit_of(self.results[0])


@dataclass(frozen=True)
class Comparison:
    """What the user asked for.

    Attributes:
        problem: the reference to the problem.
        entries: what to run, in order.
        parameters: of the problem.
        seeds: number of runs of each entry; their seeds are the setting's and those that follow it.
        as_json: how to print.
        settings: everything else.
        plot: where to draw it; None for nowhere.
    """

    problem: str
    entries: tuple[Entry, ...]
    parameters: dict[str, str]
    seeds: int
    as_json: bool
    settings: Settings
    plot: Path | None = None


def entries_of(order: Sequence[tuple[str, str]]) -> tuple[Entry, ...]:
    """Give each option to the solver before it.

    Args:
        order: names ``solver`` and ``option`` with one value each, as on the command line; others are passed over.

    Raises:
        UsageError: no solver, an option before the first one, one given twice, or one that is not ``KEY=VALUE``.
    """
    entries: list[Entry] = []
    for name, value in order:
        if name == "solver":
            entries.append(Entry(value))
        elif name == "option":
            key, equals, setting = (part.strip() for part in value.partition("="))
            if not equals or not key:
                raise UsageError(f"-o {value!r}: expected KEY=VALUE.")
            if not entries:
                raise UsageError(f"-o {value!r} stands before the first -s: an option belongs to the -s before it.")
            if key in entries[-1].options:
                raise UsageError(f"-o {key}: given twice for -s {entries[-1].solver}. Leave one of them out.")
            entries[-1].options[key] = setting
    if not entries:
        raise UsageError("Nothing to compare: give -s SOLVER at least once, each with its own -o KEY=VALUE after it.")
    return tuple(entries)


def compare(request: Comparison) -> Exit:
    """Run all entries one after the other and print them side by side. Returns the exit code.

    Raises:
        UsageError: the problem, a solver or an option does not exist; found out before anything is run.
    """
    from bilevel_core.choose import build_solver

    echo_warnings()
    if request.seeds < 1:
        raise UsageError(f"--seeds {request.seeds}: expected at least 1.")
    if request.plot is not None:
        compare_figure.check_path(request.plot)
    with contextlib.redirect_stdout(sys.stderr):
        problem = find_problem(request.problem, request.parameters)
        for entry in request.entries:
            modules_here(entry.solver)
            # What refuses, or is not installed, is a row of the table; what is misspelt ends the whole.
            with contextlib.suppress(RefusedError, MissingError):
                build_solver(problem, entry.solver, entry.options)
    outcomes: list[Outcome] = []
    interrupted = False
    for entry in request.entries:
        outcomes.append(run_entry(entry, request, problem))
        interrupted = outcomes[-1].interrupted or any(exit_of(r) is Exit.INTERRUPTED for r in outcomes[-1].results)
        if interrupted:
            break
    if request.plot is not None:
        compare_figure.write(_document(request, problem, outcomes), request.plot)
        print(f"wrote {request.plot}", file=sys.stderr)
    if request.as_json:
        echo_json(_document(request, problem, outcomes))
    else:
        echo("\n".join(_text(request, problem, outcomes)))
    echo_warnings()
    if interrupted:
        return Exit.INTERRUPTED
    if _contradictions(outcomes, maximise=maximises(problem)):
        return Exit.NOT_VERIFIED
    return Exit.OK if any(o.verified for o in outcomes) else outcomes[0].exit


class _InterruptedError(Exception):
    """Stands for an interruption that came before there was a result."""


def run_entry(entry: Entry, request: Comparison, problem: Problem) -> Outcome:
    """Run one solver, once for each seed. Errors and interruptions are part of the outcome."""
    from bilevel_core.api import solve

    s = request.settings
    results: list[Result] = []
    for seed in range(s.seed, s.seed + request.seeds):
        progress = Progress(s.progress)
        try:
            with closing(progress), contextlib.redirect_stdout(sys.stderr):
                result = solve(
                    problem,
                    entry.solver,
                    entry.options,
                    time_limit=s.time_limit,
                    seed=seed,
                    device=s.device,
                    callbacks=[progress],
                    executor=s.executor,
                )
        except KeyboardInterrupt:
            return Outcome(entry, tuple(results), _InterruptedError("interrupted"))
        except Exception as error:  # noqa: BLE001 - one solver that breaks must not cost the others their rows
            return Outcome(entry, tuple(results), error)
        results.append(result)
        if exit_of(result) is Exit.INTERRUPTED:
            break
    return Outcome(entry, tuple(results))


def _known(request: Comparison) -> float | None:
    """The optimum of a registered problem, where it is known at the parameters given."""
    spec = get_registry().problems.get(request.problem)
    return spec.known.upper_objective if spec and spec.known and not request.parameters else None


def maximises(problem: Problem) -> bool:
    """Whether the leader of a problem maximises."""
    return isinstance(problem, AlgebraicProblem) and problem.program().leader.maximise


def _verified(o: Outcome, sign: float) -> list[float]:
    """The values, minimised, of an entry's verified points."""
    return [
        sign * r.upper_objective
        for r in o.results
        if r.upper_objective is not None and r.certificate and r.certificate.verdict is Verdict.VERIFIED
    ]


def _best(outcomes: Sequence[Outcome], *, maximise: bool) -> dict[str, int | None]:
    """The place of the best verified point for each response: a pessimist's is no rival of an optimist's."""
    sign = -1.0 if maximise else 1.0
    found: dict[str, int | None] = {}
    for response in dict.fromkeys(o.response for o in outcomes):
        values = [(v, k) for k, o in enumerate(outcomes) if o.response == response for v in _verified(o, sign)]
        found[response] = min(values)[1] if values else None
    return found


AGREEMENT = 1e-4
"""Values that differ by no more than this, relative to the larger, do not contradict each other."""
PROVEN_EMPTY = (Termination.INFEASIBLE, Termination.LOWER_INFEASIBLE, Termination.LOWER_UNBOUNDED)


def _contradictions(outcomes: Sequence[Outcome], *, maximise: bool) -> list[str]:
    """What one entry says is proven and another one's verified point, or proof, excludes; within one response."""
    from bilevel_core.report import number

    sign = -1.0 if maximise else 1.0
    told: list[str] = []
    for a in outcomes:
        for b in outcomes:
            if a is b or a.response != b.response:
                continue
            bounds = [sign * v for r in a.results for v in [_proven(r)] if v is not None]
            values = _verified(b, sign)
            if bounds and values:
                bound, value = max(bounds), min(values)
                if bound - value > AGREEMENT * max(abs(bound), abs(value)):
                    told.append(
                        f"{label(a.entry)} claims that nothing is better than {number(sign * bound)}, and "
                        f"{label(b.entry)} has a verified point with {number(sign * value)}"
                    )
            ends = {r.termination for r in a.results if not r.has_point}
            if Termination.UNBOUNDED in ends and any(_proven(r) is not None for r in b.results):
                told.append(f"{label(a.entry)} says unbounded, and {label(b.entry)} that there is a best value")
            empty = sorted(ends & set(PROVEN_EMPTY))
            if empty and (values or any(r.termination is Termination.UNBOUNDED for r in b.results)):
                what = "has a verified point" if values else "says unbounded"
                told.append(f"{label(a.entry)} says {empty[0]}, and {label(b.entry)} {what}")
    return told


def _proven(r: Result) -> float | None:
    """The value that a result says cannot be beaten."""
    if r.bound is not None:
        return r.bound
    return r.upper_objective if r.status is Status.OPTIMAL else None


def _document(request: Comparison, problem: Problem, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    maximise = maximises(problem)
    best = _best(outcomes, maximise=maximise)
    return {
        "schema": SCHEMA,
        "problem": problem.name,
        "sense": "max" if maximise else "min",
        "known_optimum": _known(request),
        "time_limit": request.settings.time_limit,
        "seeds": [request.settings.seed + k for k in range(request.seeds)],
        "best": next(iter(best.values())) if len(best) == 1 else None,
        "best_by_response": best,
        "contradictions": _contradictions(outcomes, maximise=maximise),
        "entries": [_entry_document(o, problem) for o in outcomes],
    }


def _entry_document(o: Outcome, problem: Problem) -> dict[str, Any]:
    return {
        "solver": o.entry.solver,
        "options": o.entry.options,
        "error": None if o.error is None else {"type": type(o.error).__name__.strip("_"), "message": str(o.error)},
        "mean": statistics.fmean(o.objectives) if o.objectives else None,
        "spread": spread(o.objectives),
        "runs": [_run_document(r) | compared.figures(r, problem) for r in o.results],
    }


def _run_document(r: Result) -> dict[str, Any]:
    full = r.to_dict()
    kept = ("solver", "seed", "upper_objective", "bound", "status", "termination", "claim", "wall_time", "message")
    verdict = None if r.certificate is None else r.certificate.verdict.value
    curve = compare_times.curve(r.trace)
    return {k: full[k] for k in kept} | {"verdict": verdict, "counts": dict(r.counts), "curve": curve}


def _times(outcomes: Sequence[Outcome], *, maximise: bool) -> list[str]:
    """How long each entry took to the best value that was verified for its response."""
    sign = -1.0 if maximise else 1.0
    best = {
        response: sign * min(values)
        for response in {o.response for o in outcomes}
        if (values := [v for o in outcomes if o.response == response for v in _verified(o, sign)])
    }
    rows = [(label(o.entry), [_honest(r) for r in o.results], best.get(o.response)) for o in outcomes]
    return compare_times.lines(rows, sign)


def _honest(r: Result) -> list[dict[str, float]] | None:
    """A run's curve; None where its point was refuted."""
    refuted = r.certificate is not None and r.certificate.verdict is Verdict.REFUTED
    return None if refuted else compare_times.curve(r.trace)


def _text(request: Comparison, problem: Problem, outcomes: Sequence[Outcome]) -> list[str]:
    from bilevel_core.report import number

    maximise = maximises(problem)
    best = _best(outcomes, maximise=maximise)
    contradictions = _contradictions(outcomes, maximise=maximise)
    rows = [
        (*HEADINGS, *compared.headings(problem)),
        *((*row(o), *compared.cells(o.results, problem)) for o in outcomes),
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    out = [f"problem  {problem.name} ({'max' if maximise else 'min'})"]
    known = _known(request)
    out += [f"known    {number(known)}"] if known is not None else []
    if request.seeds > 1:
        last = request.settings.seed + request.seeds - 1
        out.append(f"seeds    {request.settings.seed} to {last}: means, +- the standard deviation of the objective")
    out += ["", *lines]
    notes = [f"{label(o.entry)}: {reason(o)}" for o in outcomes if reason(o)]
    times = _times(outcomes, maximise=maximise)
    out += ["", *times] if times else []
    out += ["", *notes] if notes else []
    out += ["", *(f"contradiction: {c}" for c in contradictions)] if contradictions else []
    return [*out, "", *_best_lines(outcomes, best)]


def _best_lines(outcomes: Sequence[Outcome], best: Mapping[str, int | None]) -> list[str]:
    if all(place is None for place in best.values()):
        return ["no point was verified"]
    heads = {r: "best verified" if len(best) == 1 else f"best verified, {r}" for r in best}
    width = max(map(len, heads.values()))
    return [
        f"{heads[r].ljust(width)}  {'none' if place is None else label(outcomes[place].entry)}"
        for r, place in best.items()
    ]
