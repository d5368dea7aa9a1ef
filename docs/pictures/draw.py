"""Draws the pictures of docs/index.md: python docs/pictures/draw.py"""

from __future__ import annotations

from pathlib import Path

from bilevel_core.figures.base import BLUE, GREY, RED, new_figure, picture

HERE = Path(__file__).parent


def region() -> None:
    """Bard (1998), example 5.1.1: where both levels' constraints hold, and where the follower's answer is."""
    figure, axes = new_figure(6.4, 4.6)
    corners = [(1, 2), (2, 4), (3, 6), (4, 4), (2, 1), (1, 2)]
    axes.fill(*zip(*corners, strict=True), color="#dfe8f2", label="both levels' constraints hold")
    answers = [(1, 2), (2, 1), (4, 4)]
    axes.plot(*zip(*answers, strict=True), color=BLUE, lw=3, label="the follower's answers")
    axes.plot([3], [6], "X", color=RED, ms=10)
    axes.annotate("-21, the best if the follower obeyed:\nbut it would answer 2.5", (3, 6), (3.3, 6.1), color=RED)
    axes.plot([1], [2], "o", color=GREY, ms=8)
    axes.annotate("-7: best nearby,\nwhere local methods may stop", (1, 2), (-0.35, 2.35), color=GREY)
    axes.plot([4], [4], "o", color=BLUE, ms=9)
    axes.annotate("-12: the answer", (4, 4), (4.15, 3.9), color=BLUE, fontweight="bold")
    axes.set_xlim(-0.5, 6.6)
    axes.set_ylim(0, 7)
    axes.set_xlabel("leader's x")
    axes.set_ylabel("follower's y")
    axes.legend(frameon=False, loc="lower right")
    (HERE / "region.svg").write_bytes(picture(figure, "svg"))


def levels() -> None:
    """Who decides what, and when."""
    figure, axes = new_figure(6.4, 2.3)
    axes.axis("off")
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 3.4)
    boxes = (
        (1.6, "leader", "chooses x to minimise F(x, y)", BLUE),
        (8.0, "follower", "answers y that minimises f(x, y)", RED),
    )
    for x, name, text, color in boxes:
        axes.text(x, 1.9, name, ha="center", fontsize=13, fontweight="bold", color=color)
        axes.text(x, 1.25, text, ha="center", fontsize=9)
    arrow = {"arrowstyle": "->", "color": GREY, "lw": 1.6}
    axes.annotate("", (7.0, 2.35), (2.6, 2.35), arrowprops={**arrow, "connectionstyle": "arc3,rad=-0.2"})
    axes.annotate("", (2.6, 0.95), (7.0, 0.95), arrowprops={**arrow, "connectionstyle": "arc3,rad=-0.2"})
    axes.text(4.8, 2.95, "x: a toll, a price, hyperparameters", ha="center", fontsize=9, color=GREY)
    axes.text(4.8, 0.1, "y: routes, plans, trained weights", ha="center", fontsize=9, color=GREY)
    (HERE / "levels.svg").write_bytes(picture(figure, "svg"))


if __name__ == "__main__":
    region()
    levels()
