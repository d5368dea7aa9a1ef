"""An architecture as a picture: nodes from left to right, and the operations between them (matplotlib)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from bilevel_core.errors import MissingError, UsageError
from bilevel_core.figures.base import new_figure
from bilevel_core.run.stored import StoredRun
from bilevel_nas.architecture_file import space_of
from bilevel_nas.cells import edges_of
from bilevel_nas.spaces import Architecture, SearchSpace

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#7f7f7f", "#1f77b4", "#2ca02c", "#d62728", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf")


def draw_architecture(space: SearchSpace, architecture: Architecture, path: Path) -> None:
    """Draw an architecture into a file.

    Args:
        space: its space. Cells whose decisions are called after their edges (``e01``) are drawn as graphs, others as a
            list of choices.
        architecture: what to draw.
        path: a .png, .svg or .pdf file.

    Raises:
        MissingError: matplotlib is not installed.
        UsageError: the file cannot be written, or has another ending.
    """
    refuse(path)
    try:
        figure_of(space, architecture).savefig(path, bbox_inches="tight")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


def refuse(path: Path) -> None:
    """See before a search that a picture can be drawn after it.

    Raises:
        MissingError: matplotlib is not installed.
        UsageError: the file has another ending, or its folder is not there.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"Expected a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file, got {path.name!r}.")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {str(path.parent)!r}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingError("Pictures need matplotlib. Install it with: pip install 'bilevel[plot]'")


def figure_of(space: SearchSpace, architecture: Architecture) -> Any:
    """The picture as a ``matplotlib.figure.Figure``; see `draw_architecture`.

    Raises:
        MissingError: matplotlib is not installed.
    """
    cells = edges_of(space, architecture)
    figure, _ = new_figure(8.0, 2.6 * max(1, len(cells)))
    figure.clear()
    axes = figure.subplots(max(1, len(cells)), 1, squeeze=False)
    if cells:
        for axis, (label, edges) in zip(axes[:, 0], cells.items(), strict=True):
            _cell(axis, label, edges)
    else:
        axes[0, 0].axis("off")
        axes[0, 0].text(0.0, 1.0, "\n".join(space.draw(architecture)), va="top", family="monospace", fontsize=8)
    figure.suptitle(space.text(architecture), fontsize=8)
    return figure


def cell(run: StoredRun) -> Any:
    """The architecture that a recorded run found, for ``bilevel plot`` and ``bilevel report``; None of other runs."""
    details = {} if run.result is None else run.result.details
    if not isinstance(details.get("network"), str) or not isinstance(details.get("architecture"), str):
        return None
    space = space_of(json.loads(details["network"]))
    return figure_of(space, space.read(details["architecture"]))


def _cell(axis: Any, label: str, edges: list[tuple[int, int, str, int]]) -> None:
    """One cell: nodes in a row, edges as arcs, the wider the higher."""
    last = max((b for _, b, _, _ in edges), default=1)
    for a, b, name, number in edges:
        height = 0.0 if b - a == 1 else 0.35 * (b - a)
        colour = COLOURS[number % len(COLOURS)]
        axis.annotate(
            "",
            xy=(b - 0.08, 0.0),
            xytext=(a + 0.08, 0.0),
            arrowprops={"arrowstyle": "->", "color": colour, "connectionstyle": f"arc3,rad={-height / (b - a)}"},
        )
        axis.text((a + b) / 2, 0.5 * height + 0.06, name, ha="center", fontsize=7, color=colour)
    for node in range(last + 1):
        axis.plot([node], [0.0], "o", markersize=14, color="white", markeredgecolor="black")
        axis.text(node, 0.0, str(node), ha="center", va="center", fontsize=8)
    axis.set_title(label, fontsize=8, loc="left")
    axis.set_xlim(-0.3, last + 0.3)
    axis.set_ylim(-0.25, 0.25 + 0.2 * last)
    axis.axis("off")
