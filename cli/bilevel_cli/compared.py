"""The further figures that a problem wants compared (`Problem.compared`), as columns of `bilevel compare`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bilevel_core.problems.base import Problem
from bilevel_core.report import number
from bilevel_core.result import Result


def headings(problem: Problem) -> tuple[str, ...]:
    """Names of the columns."""
    return tuple(name.replace("_", " ") for name in problem.compared)


def figures(result: Result, problem: Problem) -> dict[str, float | None]:
    """The figures of one run, from its details or counts; None for those it lacks."""
    found: dict[str, float | None] = {}
    for name in problem.compared:
        value = result.details.get(name, result.counts.get(name))
        found[name] = float(value) if isinstance(value, int | float) else None
    return found


def cells(results: Sequence[Result], problem: Problem) -> tuple[str, ...]:
    """Mean and standard deviation over the runs of one row."""
    out: list[str] = []
    for name in problem.compared:
        values = [v for r in results if (v := figures(r, problem)[name]) is not None]
        spread = f" +- {statistics.stdev(values):.2g}" if len(values) > 1 else ""
        out.append(f"{number(statistics.fmean(values))}{spread}" if values else "-")
    return tuple(out)
