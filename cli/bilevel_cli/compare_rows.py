"""The rows of `bilevel compare`: what is said of each entry."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bilevel_core.errors import BilevelError, RefusedError
from bilevel_core.report import number

if TYPE_CHECKING:
    from bilevel_cli.compare import Entry, Outcome

HEADINGS = ("solver", "options", "objective", "bound", "status", "claim", "verdict", "time", "lower solves", "nodes")


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; None below two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def label(entry: Entry) -> str:
    """An entry's solver with its options."""
    return " ".join([entry.solver, *(f"{k}={v}" for k, v in entry.options.items())])


def reason(o: Outcome) -> str:
    """What went wrong, or what the first run had to say."""
    if o.error is not None:
        return str(o.error) if isinstance(o.error, BilevelError) else f"{type(o.error).__name__}: {o.error}"
    return next((r.message for r in o.results if r.message), "")


def row(o: Outcome) -> tuple[str, ...]:
    """The cells under `HEADINGS`."""
    options = " ".join(f"{k}={v}" for k, v in o.entry.options.items()) or "-"
    solver = o.entry.solver
    if not o.results:
        word = "refused" if isinstance(o.error, RefusedError) else "error"
        return (solver, options, "-", "-", word, *["-"] * 5)
    if solver == "auto":
        solver = f"auto: {o.results[0].solver}"
    objective = number(statistics.fmean(o.objectives)) if o.objectives else "-"
    wide = spread(o.objectives)
    if wide is not None:
        objective += f" +- {wide:.2g}"
    bounds = [r.bound for r in o.results if r.bound is not None]
    verdicts = ["-" if r.certificate is None else r.certificate.verdict.value for r in o.results]
    status = _words([r.status.value for r in o.results])
    return (
        solver,
        options,
        objective,
        number(statistics.fmean(bounds)) if bounds else "-",
        status if o.error is None else f"{status}, error",
        _words([str(r.claim) for r in o.results]),
        _words(verdicts),
        f"{statistics.fmean(r.wall_time for r in o.results):.2f} s",
        _mean_count([r.counts for r in o.results], "lower_solves"),
        _mean_count([r.counts for r in o.results], "nodes"),
    )


def _words(words: Sequence[str]) -> str:
    """One word for all runs, or each with how often it came."""
    counted = Counter(words)
    return words[0] if len(counted) == 1 else ", ".join(f"{n} {word}" for word, n in counted.most_common())


def _mean_count(counts: Sequence[Mapping[str, int]], name: str) -> str:
    found = [c[name] for c in counts if name in c]
    return f"{statistics.fmean(found):.6g}" if found else "-"
