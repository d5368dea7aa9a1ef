"""Pictures of congested tolls: maps before and after, revenue and time against a toll, convergence. Need matplotlib."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bilevel_core.errors import MissingError, UsageError
from bilevel_toll.congestion.equilibrium import Flows
from bilevel_toll.congestion.sweep import Sweep
from bilevel_toll.network import Network

SUFFIXES = (".png", ".svg", ".pdf")
REVENUE, TIME, BANDS = "#1f5a93", "#b4531f", ("#eef2f6", "#ffffff", "#f6efee")
WIDEST, BESIDE = 7.0, 0.02
"""Width of the busiest arc in points; how far arcs between two nodes lie apart, as a share of the map's size."""
MOST_NAMES = 60
"""With more nodes than this a map has no names."""


def canvas(path: Path, columns: int, rows: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """An empty figure with its axes.

    Raises:
        UsageError: another suffix than those of pictures, or a folder that does not exist.
        MissingError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"Expected a picture file that ends with {', '.join(SUFFIXES)}, got {str(path)!r}.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {str(path.parent)!r} to put the picture in.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingError(
            f"Pictures need matplotlib ({error}). Install it with: pip install 'bilevel[plot]'"
        ) from error
    figure: Any = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Any, path: Path) -> None:
    """Write a figure.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UsageError(f"The picture {str(path)!r} cannot be written: {error}.") from error


def draw_map(after: Flows, before: Flows, places: np.ndarray, path: Path, title: str = "") -> None:
    """Two maps: flows before, and after with arcs coloured by toll. Width is flow, the same scale in both.

    Args:
        after, before: equilibria of one network.
        places: of the nodes, shape (nodes, 2).
        path: where to.
        title: above the picture.

    Raises:
        UsageError, MissingError: see `canvas`.
    """
    figure, axes = canvas(path, 2, 1, (12.0, 6.0))
    most = max(float(before.flow.max()), float(after.flow.max()))
    highest = float(after.tolls.max())
    network, shown = after.traffic.network, None
    for ax, flows, name in ((axes[0, 0], before, "without tolls"), (axes[0, 1], after, "with tolls")):
        shown = draw_arcs(ax, network, places, flows.flow, flows.tolls, most, highest)
        ax.set_title(f"{name}: total time {flows.total_time:.6g}", fontsize=10)
    if highest > 0.0:
        figure.colorbar(shown, ax=axes[0, 1], label=scale_text(after.traffic.unit), shrink=0.7)
    if title:
        figure.suptitle(title, fontsize=12)
    save(figure, path)


def draw_arcs(
    ax: Any,
    network: Network,
    places: np.ndarray,
    flow: np.ndarray,
    tolls: np.ndarray,
    most: float,
    highest: float,
) -> Any:
    """Arcs on empty axes, as wide as their flow, coloured by toll; grey without one.

    Args:
        ax: the axes.
        network: whose arcs.
        places: of its nodes, shape (nodes, 2).
        flow, tolls: of all arcs, shape (arcs,).
        most: the flow that is drawn widest.
        highest: the toll at the dark end of the colours.

    Returns:
        The lines, for a colour bar.
    """
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    size = float(np.ptp(places, axis=0).max()) or 1.0
    tails, heads = places[network.tails], places[network.heads]
    way = heads - tails
    length = np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-12)[:, None]
    # Drive on the right: each direction lies beside the line between the nodes, and arcs of one direction side by side.
    lane = np.array(_lanes(network))[:, None]
    aside = np.stack([way[:, 1], -way[:, 0]], axis=1) / length * BESIDE * size * (0.5 + lane)
    lines = np.stack([tails + aside, heads + aside], axis=1)
    widths = 0.3 + WIDEST * flow / max(most, 1e-300)
    colours = colormaps["viridis_r"].with_extremes(bad="#c9ced4")
    shown = LineCollection(list(lines), linewidths=widths.tolist(), cmap=colours, capstyle="round")
    shown.set_array(np.where(tolls > 0.0, tolls, np.nan))
    shown.set_clim(0.0, highest or 1.0)
    ax.add_collection(shown)
    ax.plot(places[:, 0], places[:, 1], "o", color="#333333", ms=3, zorder=3)
    if len(places) <= MOST_NAMES:
        for node, (x, y) in zip(network.nodes, places, strict=True):
            ax.annotate(node, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=7)
    ax.set_aspect("equal")
    ax.margins(0.06)
    ax.set_axis_off()
    return shown


def _lanes(network: Network) -> list[int]:
    """For each arc, how many before it lead from the same node to the same node."""
    seen: Counter[tuple[int, int]] = Counter()
    lanes: list[int] = []
    for ends in zip(network.tails.tolist(), network.heads.tolist(), strict=True):
        lanes.append(seen[ends])
        seen[ends] += 1
    return lanes


def scale_text(unit: str) -> str:
    """What a map's colour bar is called."""
    return f"toll{f' ({unit})' if unit else ''}; grey: none; width: flow"


def draw_sweep(found: Sweep, path: Path, title: str = "") -> None:
    """Revenue above, total time below, against the toll; the three regimes as bands.

    Raises:
        UsageError, MissingError: see `canvas`.
    """
    figure, axes = canvas(path, 1, 2, (8.0, 6.0))
    low, high = float(found.tolls[0]), float(found.tolls[-1])
    edges = [low, high if found.stays is None else found.stays, high if found.leaves is None else found.leaves, high]
    for k, (ax, values, colour, label) in enumerate(
        (
            (axes[0, 0], found.revenue, REVENUE, "revenue"),
            (axes[1, 0], found.total_time, TIME, "total travel time"),
        )
    ):
        for start, end, band, text in zip(
            edges, edges[1:], BANDS, ("all stay", "some leave", "all have left"), strict=False
        ):
            ax.axvspan(start, max(start, end), color=band, lw=0, zorder=0)
            if k == 0 and end - start > 0.1 * (high - low):
                place = (0.5 * (start + end), 0.98)
                ax.text(*place, text, ha="center", va="top", transform=ax.get_xaxis_transform(), color="#444444")
        ax.plot(found.tolls, values, color=colour, lw=2.0)
        best = int(np.argmax(values) if k == 0 else np.argmin(values))
        ax.plot([found.tolls[best]], [values[best]], "o", color=colour)
        ax.set_ylabel(label)
        ax.set_xlim(low, high)
        ax.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_xlabel(f"toll on {found.name}" + (f" ({found.unit})" if found.unit else ""))
    if title:
        figure.suptitle(title, fontsize=12)
    save(figure, path)


def draw_convergence(flows: Flows, path: Path) -> None:
    """The relative gap at each search for cheaper routes.

    Raises:
        UsageError, MissingError: see `canvas`.
    """
    figure, axes = canvas(path, 1, 1, (7.0, 4.0))
    gaps = np.maximum(np.array(flows.gaps), 1e-17)
    axes[0, 0].semilogy(np.arange(len(gaps)), gaps, "o-", color=REVENUE)
    axes[0, 0].set_xlabel("searches for cheaper routes")
    axes[0, 0].set_ylabel("relative gap")
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{flows.traffic.name}: convergence to the equilibrium", fontsize=12)
    save(figure, path)
