"""The way of the leader's variables through a run: iterates of a local method, or points tried by a sampling one.

Events tell of all of a few variables and of some of many (`bilevel_core.oracles.base.TOLD`), in units that people know:
hyperparameters as such and not as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from bilevel_core.figures.base import CYCLE, GREY, new_figure
from bilevel_core.run.stored import StoredRun

NAMED = 2 * len(CYCLE)
"""Lines with a colour and a name: of more variables, those that moved furthest. The others are grey."""
WIDE = 30.0
"""From this ratio of the largest to the smallest value on, positive values are shown by their logarithms."""

Line = list[tuple[float, float]]


def path(run: StoredRun) -> Any:
    """The leader's variables, iteration by iteration; of several starts, those of the one that had the best point."""
    best = [e for e in run.of_kind("incumbent") if _point(e)]
    sampled = any("trial" in e for e in best)
    start = best[-1].get("start", 0) if best else 0
    # A resumed run tells again of what came after its checkpoint: the last word counts.
    mine = [e for e in run.of_kind("iteration") if "iteration" in e and e.get("start", 0) == start]
    steps = {int(e["iteration"]): _point(e) for e in mine}
    tried = _lines((float(k), x) for k, x in sorted(steps.items()))
    lines = tried
    if sampled:
        last = max(steps, default=0)
        held = [(float(e["trial"]) + 1.0, _point(e)) for e in best if "trial" in e]
        lines = _lines([*held, (float(last), held[-1][1])])
    lines = {name: line for name, line in lines.items() if len(line) > 1}
    if not lines:
        return None
    figure, axes = new_figure()
    order = sorted(lines, key=lambda name: -_moved(lines[name], sampled))
    named = set(order[:NAMED])
    looks = iter([(color, dashes) for dashes in ("-", "--") for color in CYCLE])
    for name, line in lines.items():
        color, dashes = next(looks) if name in named else (GREY, "-")
        style: dict[str, Any] = {"color": color, "ls": dashes, "lw": 0.7, "zorder": 2}
        if name in named:
            style |= {"label": name, "lw": 1.6, "zorder": 3}
        if sampled:
            axes.step(*zip(*line, strict=True), where="post", **style)
            if name in named and name in tried:
                axes.plot(*zip(*tried[name], strict=True), ".", color=color, ms=2.5, alpha=0.35)
        else:
            axes.plot(*zip(*line, strict=True), **style)
    values = [v for line in lines.values() for _, v in line]
    if min(values) > 0.0 and max(values) >= WIDE * min(values):
        axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("trial" if sampled else "iteration")
    axes.set_ylabel("best so far (dots: tried)" if sampled else "value")
    axes.set_title(_which(run, len(lines), len(named)), fontsize="small", loc="left")
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _point(event: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = event.get("x")
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def _lines(points: Any) -> dict[str, Line]:
    """A line for each variable whose values are numbers; choices have no place on an axis."""
    lines: dict[str, Line] = {}
    for where, x in points:
        for name, value in x.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                lines.setdefault(name, []).append((where, float(value)))
    return lines


def _moved(line: Line, sampled: bool) -> float:
    values = [v for _, v in line]
    ratio = min(values) > 0.0 and not sampled
    return math.log(max(values) / min(values)) if ratio else max(values) - min(values)


def _which(run: StoredRun, shown: int, named: int) -> str:
    """What part of the leader's variables the lines are."""
    all_of_them = 0 if run.result is None else sum(int(v.size) for v in run.result.x.values())
    parts: list[str] = []
    if all_of_them > shown:
        parts.append(f"{shown} of {all_of_them} variables")
    if shown > named:
        parts.append("those named moved furthest")
    return "; ".join(parts)
