"""`bilevel compare` over time: how long each solver took to the best verified value, in text, JSON and picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bilevel_cli.compare_figure import draw
from bilevel_cli.compare_times import curve, lines, reached

from .conftest import Call

FALLING = [{"time": 1.0, "objective": 3.0}, {"time": 2.0, "objective": 1.0005}, {"time": 5.0, "objective": 1.0}]


def test_the_answer_is_there_when_the_value_is_near_the_best() -> None:
    assert reached(FALLING, 1.0, 1.0) == 2.0
    assert reached(FALLING, 0.9, 1.0) is None
    assert reached([{"time": 4.0, "objective": 9.0}], 9.001, -1.0) == 4.0
    assert reached([{"time": 4.0, "objective": -1.0005}], -1.0, -1.0) == 4.0
    zero = [{"time": 1.0, "objective": 1e-3}, {"time": 3.0, "objective": 1e-9}]
    assert reached(zero, 1e-16, 1.0) == 3.0
    assert curve([{"time": 1.0, "objective": None}, {"time": 2.0, "objective": 1, "test_loss": 4.0}]) == [
        {"time": 2.0, "objective": 1.0}
    ]


def test_lines_say_never_and_how_many_runs() -> None:
    late = [{"time": 7.0, "objective": 2.0}]
    told = lines([("a", [FALLING, late], 1.0), ("bb", [late], 1.0), ("refused", [], 1.0)], 1.0)
    assert told[0].startswith("seconds until within 0.1 %")
    assert [line.split() for line in told[1:]] == [["a", "2.00", "(1", "of", "2", "runs)"], ["bb", "never"]]
    told = lines([("a", [FALLING, None], 1.0), ("wrong", [None], 1.0)], 1.0)
    assert [line.split() for line in told[1:]] == [["a", "2.00", "(1", "of", "2", "runs)"], ["wrong", "refuted"]]
    assert lines([("kkt", [late], 2.0)], 1.0) == []  # one point is no curve
    assert lines([("a", [FALLING], None)], 1.0) == []  # nothing was verified


def test_text_json_and_picture(cli: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    given = ["compare", "classic/bard-511", "-s", "auxiliary", "-s", "sample.random", "-o", "lower_solves=30"]
    r = cli(*given, "--plot", str(tmp_path / "both.png"))
    rows = [line.split() for line in r.out.splitlines()]
    (head,) = (k for k, row in enumerate(rows) if row[:2] == ["seconds", "until"])
    assert [row[0] for row in rows[head + 1 : head + 3]] == ["auxiliary", "sample.random"]
    assert (tmp_path / "both.png").stat().st_size > 10_000
    data = json.loads(cli(*given, "-f", "json").out)
    run = data["entries"][1]["runs"][0]
    values = [p["objective"] for p in run["curve"]]
    assert len(values) > 1
    assert values == sorted(values, reverse=True)
    assert values[-1] == run["upper_objective"]
    figure = draw(data)
    below = figure.subfigs[1].axes[0]
    assert [line.get_label() for line in below.lines] == ["auxiliary", "sample.random lower_solves=30"]
    assert below.get_xlabel() == "seconds, without the check"
