"""The figures that every run can have: the leader's value, bound and gap, how far both levels are from optimal, steps,
and the Pareto front. Each is a function of a `StoredRun` that gives a figure, or None where there is nothing to show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bilevel_core.errors import BilevelError
from bilevel_core.figures.base import BLUE, CYCLE, GREY, RED, new_figure
from bilevel_core.report import number
from bilevel_core.run.stored import StoredRun

DISTANCES = {
    "hypergradient_norm": "norm of the hypergradient (leader)",
    "auxiliary_value": "descent promised by the auxiliary program (leader)",
    "predicted": "improvement predicted by the model (leader)",
    "violation": "violation of the leader's constraints",
    "lower_residual": "residual of the follower's conditions",
    "residual": "residual of the linear system",
}
"""Figures that go to zero as a level gets optimal, and what the legend calls them."""
STEPS = {"step": "length of the step", "radius": "radius of the trust region", "weight": "weight of the penalty"}
ROUNDING = 1e-17
"""Below this all is rounding, and is not shown."""
MOST_MARKS = 200
"""With more points than this, lines have no marks."""


def value(run: StoredRun) -> Any:
    """The leader's value: every point tried, the best so far, the proven bound."""
    best = _steps(run, "best", "objective")
    if not best:
        return None
    figure, axes = new_figure()
    tried = [(e["time"], v) for e, v in run.series("objective", "iteration")]
    if len(tried) > 1:
        axes.plot(*zip(*tried, strict=True), ".", color=GREY, ms=4, alpha=0.6, label="points tried")
    end = max([*(t for t, _ in best), *(float(e["time"]) for e in run.events if "time" in e)], default=0.0)
    best.append((end, best[-1][1]))
    axes.step(*zip(*best, strict=True), where="post", color=BLUE, lw=1.8, label="best so far")
    bounds = _bounds(run, end)
    if bounds:
        axes.step(*zip(*bounds, strict=True), where="post", color=RED, lw=1.4, label="proven bound")
    axes.plot([end], [best[-1][1]], "o", color=BLUE, ms=5)
    axes.annotate(_short(best[-1][1]), (end, best[-1][1]), (-6, 6), textcoords="offset points", ha="right")
    _limit(axes, [v for _, v in best] + [v for _, v in bounds], [v for _, v in tried])
    axes.set_xlabel("seconds")
    axes.set_ylabel("leader's objective")
    axes.legend(frameon=False)
    return figure


def gap(run: StoredRun) -> Any:
    """The relative distance of the best value from the proven bound, falling to zero as optimality is proven."""
    points: list[tuple[float, float]] = []
    best: float | None = None
    bound: float | None = None
    for event in run.of_kind("incumbent", "iteration", "end"):
        best = _number(event, "best", _number(event, "objective", best) if event["event"] != "iteration" else best)
        bound = _number(event, "bound", bound)
        if best is not None and bound is not None:
            points.append((float(event["time"]), abs(best - bound) / max(1.0, abs(best))))
    positive = [g for _, g in points if g > 0.0]
    if len(points) < 2 or not positive:
        return None
    floor = min(positive) / 10.0
    figure, axes = new_figure()
    axes.step([t for t, _ in points], [max(g, floor) for _, g in points], where="post", color=BLUE, lw=1.8)
    if points[-1][1] == 0.0:
        axes.annotate("closed", (points[-1][0], floor), (-4, 6), textcoords="offset points", ha="right", color=BLUE)
    axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("gap, relative to max(1, |value|)")
    return figure


def distance(run: StoredRun) -> Any:
    """How far each level is from optimal, iteration by iteration: hypergradient, residuals, violations."""
    return _logarithmic(run, DISTANCES, "distance from optimal")


def step(run: StoredRun) -> Any:
    """Step lengths, radii and weights, iteration by iteration."""
    return _logarithmic(run, STEPS, "size")


def pareto(run: StoredRun) -> Any:
    """The Pareto front of the first two of several upper objectives."""
    rows: Any = None if run.result is None else run.result.details.get("pareto")
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], Mapping):
        return None
    table: list[Mapping[str, Any]] = rows
    names = _objectives(run, table)
    points = [tuple(float(row[n]) for n in names) for row in table if all(_is_number(row.get(n)) for n in names)]
    if len(names) < 2 or not points:
        return None
    figure, axes = new_figure(6.0, 5.0)
    axes.plot(*zip(*sorted(points), strict=True), "o--", color=BLUE, lw=0.8, ms=6)
    axes.set_xlabel(names[0].replace("_", " "))
    axes.set_ylabel(names[1].replace("_", " "))
    return figure


def _logarithmic(run: StoredRun, kinds: Mapping[str, str], label: str) -> Any:
    """A line for each figure and start, of positive values only."""
    figure, axes = new_figure()
    found = 0
    for color, (name, text) in zip(CYCLE, kinds.items(), strict=False):
        lines: dict[Any, list[tuple[float, float]]] = {}
        for event, size in run.series(name):
            if size > 0.0 and math.isfinite(size) and "iteration" in event:
                lines.setdefault(event.get("start", 0), []).append((float(event["iteration"]), size))
        shown = [line for line in lines.values() if len(line) > 1]
        for k, line in enumerate(shown):
            marks = "." if len(line) <= MOST_MARKS else ""
            more = "" if len(shown) == 1 else f", {len(shown)} starts"
            style: dict[str, Any] = {"label": text + more} if k == 0 else {}
            axes.plot(
                *zip(*line, strict=True), marker=marks, color=color, lw=1.4, alpha=1.0 if k == 0 else 0.5, **style
            )
        found += len(shown)
    if not found:
        return None
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if low < ROUNDING < high:
        axes.set_ylim(ROUNDING, high)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("iteration")
    axes.set_ylabel(label)
    axes.legend(frameon=False, fontsize="small")
    return figure


def _steps(run: StoredRun, *names: str) -> list[tuple[float, float]]:
    """Time and best value so far, from incumbents; iterations give it where they know it."""
    found: list[tuple[float, float]] = []
    for event in run.of_kind("incumbent", "iteration"):
        keys = names if event["event"] == "incumbent" else names[:1]
        known = next((v for v in (_number(event, k, None) for k in keys) if v is not None), None)
        if known is not None and (not found or found[-1][1] != known):
            found.append((float(event["time"]), known))
    return found


def _bounds(run: StoredRun, end: float) -> list[tuple[float, float]]:
    found = [(float(e["time"]), v) for e, v in run.series("bound", "incumbent", "iteration", "end")]
    if run.result is not None and run.result.bound is not None:
        found.append((end, run.result.bound))
    return found


def _limit(axes: Any, lines: Sequence[float], cloud: Sequence[float]) -> None:
    """Keep far-off first points from flattening everything else."""
    if not lines:
        return
    low, high = min(lines), max(lines)
    near = sorted([*lines, *cloud])
    low, high = min(low, near[len(near) // 20]), max(high, near[len(near) - 1 - len(near) // 20])
    margin = max(0.08 * (high - low), 1e-4 * max(1.0, abs(low), abs(high)))
    axes.set_ylim(low - margin, high + margin)


def _objectives(run: StoredRun, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the first two objectives: the problem's own, or where it cannot be made the table's first columns."""
    try:
        names = [str(n) for n in getattr(run.problem(), "objectives", ())]
    except BilevelError:
        names = []
    return [n for n in (names or list(rows[0])) if n in rows[0]][:2]


def _short(value: float) -> str:
    return number(float(f"{value:.6g}"))


def _number(event: Mapping[str, Any], name: str, other: float | None) -> float | None:
    found: Any = event.get(name)
    return float(found) if _is_number(found) else other


def _is_number(thing: Any) -> bool:
    return isinstance(thing, int | float) and not isinstance(thing, bool) and math.isfinite(thing)
