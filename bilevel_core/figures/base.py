"""How figures are made, collected and written; what they show is in `convergence` and in plugins."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilevel_core.errors import MissingError, UsageError, unknown
from bilevel_core.plugins.registry import Registry, get_registry
from bilevel_core.run.stored import StoredRun

FORMATS = ("png", "svg")
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#7a7a7a"
"""Colours that people with colour-blindness tell apart (Okabe and Ito 2008, Color universal design)."""
CYCLE = (BLUE, ORANGE, GREEN, RED, "#56b4e9", "#cc79a7")


@dataclass(frozen=True)
class Drawn:
    """A figure of a run.

    Attributes:
        name: its name, also that of its files.
        title: what it shows, one line.
        figure: a ``matplotlib.figure.Figure``.
    """

    name: str
    title: str
    figure: Any


def new_figure(width: float = 7.0, height: float = 4.0) -> tuple[Any, Any]:
    """An empty figure with one pair of axes, in the style of all of them. Sizes in inches.

    Raises:
        MissingError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingError(
            f"Pictures need matplotlib ({error}). Install it with: pip install 'bilevel[plot]'"
        ) from error
    figure: Any = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    plain_axes(axes)
    return figure, axes


def plain_axes(axes: Any) -> None:
    """The style of all axes: few lines, and numbers as they are, never as a difference from one in the corner."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.ticklabel_format(useOffset=False)


def draw(run: StoredRun, names: Iterable[str] = (), registry: Registry | None = None) -> tuple[list[Drawn], list[str]]:
    """The figures that have something to show of a run.

    Args:
        run: the run.
        names: which; all by default.
        registry: where figures are looked up.

    Returns:
        The figures, and sentences about those whose code failed: a plugin's failure costs only its figure.

    Raises:
        UsageError: there is no figure of that name.
        MissingError: matplotlib is not installed.
    """
    new_figure()  # says at once, and once, that matplotlib is missing
    registry = registry or get_registry()
    wanted = list(names)
    for name in wanted:
        if name not in registry.figures:
            raise unknown("figure", name, registry.figures)
    found: list[Drawn] = []
    notes: list[str] = []
    for name, spec in registry.figures.items():
        if wanted and name not in wanted:
            continue
        try:
            figure = spec.load()(run)
        except Exception as error:  # noqa: BLE001 - one figure that fails must not cost the others
            notes.append(f"The figure {name!r} could not be drawn: {type(error).__name__}: {error}")
            continue
        if figure is not None:
            found.append(Drawn(name, spec.summary, figure))
    return found, notes


def picture(figure: Any, form: str) -> bytes:
    """A figure as the content of a PNG or SVG file. The same figure gives the same bytes."""
    import matplotlib

    out = io.BytesIO()
    settings: Any = {"svg.hashsalt": "bilevel", "svg.fonttype": "path"}
    with matplotlib.rc_context(settings):
        figure.savefig(out, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


def save(drawn: Iterable[Drawn], folder: Path, forms: Iterable[str] = FORMATS) -> list[Path]:
    """Write figures as ``NAME.png`` and ``NAME.svg``. A slash in a name becomes a dash.

    Raises:
        UsageError: the folder cannot be written, or a format is unknown.
    """
    wanted = list(forms)
    for form in wanted:
        if form not in FORMATS:
            raise unknown("picture format", form, FORMATS)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in drawn:
            for form in wanted:
                path = folder / f"{one.name.replace('/', '-')}.{form}"
                path.write_bytes(picture(one.figure, form))
                written.append(path)
    except OSError as error:
        raise UsageError(f"Pictures cannot be written into {folder}: {error.strerror}.") from error
    return written
