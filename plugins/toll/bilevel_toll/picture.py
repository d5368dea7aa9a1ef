"""The picture of a `Curve`: revenue above, response below, regimes as bands. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bilevel_core.errors import MissingError, UsageError
from bilevel_toll.curve import Curve

SUFFIXES = (".png", ".svg", ".pdf")
MARKED_REGIMES = 8
"""With more regimes their ends get no ticks of their own, with many more no dots."""
LETTER = 0.0135
"""Width of a letter as a share of the picture's: a band that is too narrow for its text has none."""
REVENUE, RESPONSE, BANDS = "#1f5a93", "#b4531f", ("#ffffff", "#eef2f6")


def draw(curve: Curve, path: Path, title: str = "") -> None:
    """Write the picture.

    Args:
        curve: what to draw.
        path: where to; the suffix says the format: .png, .svg or .pdf.
        title: above the picture.

    Raises:
        UsageError: another suffix, a folder that does not exist, or a curve without users.
        MissingError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"Expected a picture file that ends with {', '.join(SUFFIXES)}, got {str(path)!r}.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {str(path.parent)!r} to put the picture in.")
    if not len(curve.savings):
        raise UsageError(f"Nobody saves anything by arc {curve.arc}: there is no curve to draw.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingError(
            f"Pictures need matplotlib ({error}). Install it with: pip install 'bilevel[plot]'"
        ) from error
    figure: Any = Figure(figsize=(8.0, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    end = float(curve.savings[-1]) * 1.25
    for axes in (upper, lower):
        _bands(axes, curve, end)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0.0, end)
    _revenue(upper, curve, end)
    _response(lower, curve, end)
    lower.set_xlabel(f"toll on {curve.arc}" + (f" ({curve.unit})" if curve.unit else ""))
    _names(upper, curve, end)
    if len(curve.regimes) <= MARKED_REGIMES:
        lower.set_xticks([0.0, *curve.savings])
    if title:
        figure.suptitle(title, fontsize=12)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UsageError(f"The picture {str(path)!r} cannot be written: {error}.") from error


def _bands(axes: Any, curve: Curve, end: float) -> None:
    for k, regime in enumerate(curve.regimes):
        axes.axvspan(regime.start, min(regime.end, end), color=BANDS[k % 2], lw=0, zorder=0)


def _revenue(axes: Any, curve: Curve, end: float) -> None:
    """Straight pieces through the origin, a jump down after each regime; its end still belongs to it (a filled dot)."""
    dots = len(curve.regimes) <= 3 * MARKED_REGIMES
    for regime in curve.regimes:
        stop = min(regime.end, end)
        ends = [regime.trips * regime.start, regime.trips * stop]
        axes.plot([regime.start, stop], ends, color=REVENUE, lw=2.0, clip_on=False, zorder=3)
        if regime.trips and dots:
            axes.plot([regime.end], [regime.revenue], "o", color=REVENUE, ms=5, zorder=4)
        if regime.start > 0.0:
            before = curve.revenue(regime.start)
            after = regime.trips * regime.start
            axes.plot([regime.start] * 2, [before, after], color=REVENUE, lw=1.0, ls=":")
            if dots:
                axes.plot([regime.start], [after], "o", color=REVENUE, mfc="white", ms=5, clip_on=False, zorder=4)
    toll, revenue = curve.best
    to_left = toll > 0.6 * end
    axes.annotate(
        f"best toll {toll:g}: revenue {revenue:g}",
        (toll, revenue),
        xytext=(-12 if to_left else 12, 4),
        textcoords="offset points",
        ha="right" if to_left else "left",
        va="bottom",
        fontweight="bold",
        color=REVENUE,
    )
    axes.set_ylim(0.0, revenue * 1.35)
    axes.set_ylabel("leader's revenue")


def _response(axes: Any, curve: Curve, end: float) -> None:
    for regime in curve.regimes:
        axes.plot(
            [regime.start, min(regime.end, end)], [regime.trips] * 2, color=RESPONSE, lw=2.0, clip_on=False, zorder=3
        )
        if regime.start > 0.0:
            before = curve.trips(regime.start)
            axes.plot([regime.start] * 2, [before, regime.trips], color=RESPONSE, lw=1.0, ls=":")
    axes.set_ylim(0.0, curve.trips(0.0) * 1.15)
    axes.set_ylabel(f"trips on {curve.arc}")


def _names(axes: Any, curve: Curve, end: float) -> None:
    """What users do in each regime, at the top of its band."""
    everyone = curve.trips(0.0)
    for regime in curve.regimes:
        stop = min(regime.end, end)
        if regime.trips == everyone:
            text = f"all {everyone:g} pay"
        elif regime.trips:
            text = f"{regime.trips:g} of {everyone:g} pay{'s' * (regime.trips == 1.0)}"
        else:
            text = "all have left"
        if (stop - regime.start) / end < LETTER * len(text):
            continue
        middle = 0.5 * (regime.start + stop)
        axes.text(middle, 0.98, text, ha="center", va="top", transform=axes.get_xaxis_transform(), color="#444444")
