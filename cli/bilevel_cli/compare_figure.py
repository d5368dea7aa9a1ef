"""`bilevel compare --plot`: a comparison as a picture: values, times, and below them values against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from bilevel_core.errors import UsageError
from bilevel_core.figures.base import BLUE, FORMATS, GREY, ORANGE, RED, new_figure, picture, plain_axes

LEAST = 1e-3
"""Width of the axis of values, relative to them, below which it is widened."""
COLORS = {"verified": BLUE, "refuted": RED}


def check_path(path: Path) -> None:
    """See that a picture can be written there, before anything is run.

    Raises:
        UsageError: another ending than those of pictures, or no such folder.
        MissingError: matplotlib is not installed.
    """
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(f"--plot {path}: expected a file that ends with {' or '.join('.' + f for f in FORMATS)}.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {str(path.parent)!r}.")
    new_figure()


def write(document: Mapping[str, Any], path: Path) -> None:
    """Draw what ``bilevel compare -f json`` prints.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_bytes(picture(draw(document), path.suffix.lower().lstrip(".")))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error


def draw(document: Mapping[str, Any]) -> Any:
    """The figure: for each entry, from the top, a dot for each run's value and a bar for each bound; and times."""
    entries: Sequence[Mapping[str, Any]] = document["entries"]
    figure, left = new_figure(8.0, 1.4 + 0.5 * len(entries))
    left.remove()
    curves = [run["curve"] for entry in entries for run in entry["runs"]]
    if any(len(points) > 1 for points in curves):
        figure.set_size_inches(8.0, 4.4 + 0.5 * len(entries))
        upper, lower = figure.subfigures(2, 1, height_ratios=(1.0 + 0.5 * len(entries), 3.0))
        _draw_curves(document, lower)
    else:
        upper = figure
    left, right = upper.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for axes in (left, right):
        plain_axes(axes)
    seen: dict[str, Any] = {}
    for row, entry in enumerate(entries):
        for run in entry["runs"]:
            if run["bound"] is not None:
                seen["proven bound"] = left.plot([run["bound"]], [row], "|", color=ORANGE, ms=16, mew=2)[0]
            if run["upper_objective"] is not None:
                verdict = run["verdict"] or "not checked"
                color = COLORS.get(verdict, GREY)
                seen[verdict] = left.plot([run["upper_objective"]], [row], "o", color=color, alpha=0.7, ms=7)[0]
            right.plot([run["wall_time"]], [row], "o", color=GREY, alpha=0.7, ms=7)
        if not entry["runs"]:
            words = "failed or refused" if entry["error"] else "nothing"
            left.annotate(
                words, (0.02, row), xycoords=("axes fraction", "data"), va="center", color=RED, fontsize="small"
            )
    if document["known_optimum"] is not None:
        seen["known optimum"] = left.axvline(document["known_optimum"], color=BLUE, lw=0.9, ls=":", zorder=0)
    low, high = left.get_xlim()
    least = LEAST * max(1.0, abs(low), abs(high))
    if high - low < least:  # differences that mean nothing fill no axis
        left.set_xlim(0.5 * (low + high - least), 0.5 * (low + high + least))
    left.set_yticks(range(len(entries)), [_label(e) for e in entries])
    left.set_ylim(len(entries) - 0.5, -0.5)
    left.set_xlabel(f"leader's objective ({document['sense']})")
    right.set_xlabel("seconds, check included")
    right.set_xlim(left=0.0)
    if seen:
        figure.legend(seen.values(), seen.keys(), loc="outside upper center", ncols=len(seen), frameon=False)
    return figure


def _draw_curves(document: Mapping[str, Any], figure: Any) -> None:
    """The best value so far against seconds, a step for each better point; a line a run, a colour an entry."""
    axes = figure.subplots()
    plain_axes(axes)
    better = max if document["sense"] == "max" else min
    for place, entry in enumerate(document["entries"]):
        for number, run in enumerate(entry["runs"]):
            if not run["curve"]:
                continue
            times = [p["time"] for p in run["curve"]]
            values = list(accumulate((p["objective"] for p in run["curve"]), better))
            label = _label(entry).replace("\n", " ") if number == 0 else None
            axes.step(times, values, "o-", where="post", color=f"C{place}", ms=3, lw=1.2, label=label)
    axes.set_xlabel("seconds, without the check")
    axes.set_ylabel(f"best value so far ({document['sense']})")
    axes.set_xlim(left=0.0)
    axes.legend(frameon=False, fontsize="small")


def _label(entry: Mapping[str, Any]) -> str:
    options = [f"{k}={v}" for k, v in entry["options"].items()]
    return "\n".join([entry["solver"], *options])
