"""Figures of recorded runs: what they show is what was recorded, and one that fails costs only itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bilevel_core as bl
from bilevel_core import hookimpl
from bilevel_core.figures.base import draw, new_figure, picture, save
from bilevel_core.figures.convergence import distance, gap, pareto, step, value
from bilevel_core.figures.page import page
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import FigureSpec
from bilevel_core.result import Termination, Values
from bilevel_core.run.stored import StoredRun, read_events, read_run

pytest.importorskip("matplotlib", reason="figures are drawn with matplotlib")

EVENTS = (
    {"event": "start", "time": 0.0, "solver": "kkt"},
    {"event": "incumbent", "time": 1.0, "objective": 5.0, "bound": 1.0},
    {"event": "iteration", "time": 1.5, "objective": None, "bound": 2.0},
    {"event": "incumbent", "time": 2.0, "objective": 4.0, "bound": 3.0},
    {"event": "end", "time": 3.0, "objective": 4.0, "bound": 4.0},
)


def run_of(*events: dict[str, Any], result: bl.Result | None = None, make: Any = None) -> StoredRun:
    return StoredRun(Path("nowhere"), {"name": "test/problem", "solver": "kkt"}, events, result, make)


def lines(figure: Any) -> dict[str, list[tuple[float, float]]]:
    """The points of each line by its label."""
    found = figure.axes[0].get_lines()
    return {line.get_label(): list(zip(*map(list, line.get_data()), strict=True)) for line in found}


def test_value_shows_best_and_bound() -> None:
    drawn = lines(value(run_of(*EVENTS)))
    assert drawn["best so far"] == [(1.0, 5.0), (2.0, 4.0), (3.0, 4.0)]
    assert drawn["proven bound"] == [(1.0, 1.0), (1.5, 2.0), (2.0, 3.0), (3.0, 4.0)]


def test_gap_closes() -> None:
    figure = gap(run_of(*EVENTS))
    ((_, points),) = lines(figure).items()
    assert [t for t, _ in points] == [1.0, 1.5, 2.0, 3.0]
    assert [g for _, g in points][:3] == pytest.approx([4.0 / 5.0, 3.0 / 5.0, 1.0 / 4.0])
    assert [t.get_text() for t in figure.axes[0].texts] == ["closed"]


def test_distance_and_step_have_a_line_for_each_start() -> None:
    events = [
        {"event": "iteration", "time": 0.1, "iteration": k, "start": s, "hypergradient_norm": 10.0**-k, "step": 0.5}
        for s in (0, 1)
        for k in range(3)
    ]
    drawn = distance(run_of(*events)).axes[0].get_lines()
    assert [list(line.get_ydata()) for line in drawn] == [[1.0, 0.1, 0.01]] * 2
    assert drawn[0].get_label() == "norm of the hypergradient (leader), 2 starts"
    assert len(step(run_of(*events)).axes[0].get_lines()) == 2


def test_pareto_takes_the_objectives_of_the_problem() -> None:
    rows = [{"x": 7, "loss": 1.0, "size": 3.0}, {"x": 8, "loss": 2.0, "size": 1.0}]
    result = bl.Result(Termination.CONVERGED, x=Values(), details={"pareto": rows})
    problem = SimpleNamespace(objectives=("loss", "size"))
    figure = pareto(run_of(result=result, make=lambda: problem))
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("loss", "size")
    ((_, points),) = lines(figure).items()
    assert points == [(1.0, 3.0), (2.0, 1.0)]


@pytest.mark.parametrize("function", [value, gap, distance, step, pareto])
def test_nothing_to_show_is_no_figure(function: Any) -> None:
    assert function(run_of({"event": "start", "time": 0.0})) is None


def test_a_figure_that_fails_costs_only_itself() -> None:
    class Plugin:
        @hookimpl
        def bilevel_figures(self) -> list[FigureSpec]:
            return [
                FigureSpec("mine/fails", f"{__name__}:nothing_there", "x"),
                FigureSpec("mine/map", "page:map", "a map"),
            ]

    try:
        registry = get_registry(extra=[("mine", Plugin())])
        figures, notes = draw(run_of(*EVENTS), registry=registry)
        assert [f.name for f in figures] == ["value", "gap"]
        assert len(notes) == 2
        assert "'mine/fails' could not be drawn" in notes[0]
        with pytest.raises(bl.UsageError, match=r"no figure named 'valu'.*'value'"):
            draw(run_of(*EVENTS), ["valu"], registry)
    finally:
        get_registry(fresh=True)


def test_files_are_the_same_every_time(tmp_path: Path) -> None:
    run = run_of(*EVENTS)
    written = save(draw(run, ["value"])[0], tmp_path / "out")
    assert [p.name for p in written] == ["value.png", "value.svg"]
    assert written[0].read_bytes()[:4] == b"\x89PNG"
    again = save(draw(run, ["value"])[0], tmp_path / "again")
    assert [p.read_bytes() for p in written] == [p.read_bytes() for p in again]
    with pytest.raises(bl.UsageError, match="picture format"):
        save([], tmp_path, ["jpg"])


def test_a_real_run_and_its_page(tmp_path: Path) -> None:
    name = "trap/two-limits"
    problem = get_registry().problems[name].load()()
    result = bl.solve(problem, out=tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.result == result
    assert run.events[0]["event"] == "start"
    figures, notes = draw(run)
    assert not notes
    text = page(run, figures, notes)
    assert text.count("<img ") == len(figures) >= 1
    for expected in (name, "optimal", "verified", str(result.certificate and result.certificate.reason)[:40], "kkt"):
        assert expected in text
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text


def test_many_followers_are_told_in_one_line() -> None:
    one = bl.Result(
        Termination.CONVERGED, x=Values(), upper_objective=1.0, lower_objective=tuple(map(float, range(50)))
    )
    assert "50 values from 0 to 49, 49 of them not zero" in page(run_of(result=one))
    few = bl.Result(Termination.CONVERGED, x=Values(), upper_objective=1.0, lower_objective=(3.0, 4.0))
    assert "3, 4" in page(run_of(result=few))


def test_what_the_user_wrote_is_no_html() -> None:
    bad = "<script>alert(1)</script>"
    result = bl.Result(Termination.ERROR, message=bad, details={bad: [{bad: bad}]}, options={bad: bad})
    text = page(run_of({"event": "phase", "time": 1.0, "message": bad}, result=result), [], [bad])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_a_run_that_was_killed_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"schema": "bilevel.run/1", "name": "p", "solver": "s"}))
    (tmp_path / "events.jsonl").write_text('{"event": "start", "time": 0.0}\n{"event": "inc')
    run = read_run(tmp_path)
    assert [e["event"] for e in run.events] == ["start"]
    assert run.result is None
    assert "has no result" in page(run)
    (tmp_path / "events.jsonl").write_text('{"event": "inc\n{"event": "start", "time": 0.0}\n')
    with pytest.raises(bl.UsageError, match="line 1 is damaged"):
        read_events(tmp_path)


def test_numbers_on_an_axis_are_what_they_say() -> None:
    """Not their differences from a number in the corner."""
    shown = value(run_of(*(e | {"objective": 1000.0 + 1e-4 * k, "bound": 1000.0} for k, e in enumerate(EVENTS))))
    picture(shown, "png")
    axis = shown.axes[0].yaxis
    assert axis.get_offset_text().get_text() == ""
    assert all(abs(float(t.get_text()) - 1000.0) < 1.0 for t in axis.get_ticklabels() if t.get_text())


def test_a_figure_is_drawn_the_same_way_by_plugins() -> None:
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1])
    assert picture(figure, "svg").startswith(b"<?xml")
