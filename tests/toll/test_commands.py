"""`bilevel toll ...` and toll problems on the command line; the curve behind the picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import bilevel_core as bl
from bilevel_toll.curve import response
from bilevel_toll.library import sioux_falls, three_regimes, toy_a
from bilevel_toll.picture import draw

from .conftest import Call
from .test_tntp import NETWORK, TRIPS


def test_regimes() -> None:
    curve = response(three_regimes())
    assert [(r.start, r.end, r.trips, r.revenue) for r in curve.regimes] == [
        (0.0, 4.0, 4.0, 16.0),
        (4.0, 10.0, 1.0, 10.0),
        (10.0, float("inf"), 0.0, 0.0),
    ]
    assert curve.best == (4.0, 16.0)
    assert curve.revenue(4.0) == 16.0
    assert curve.revenue(4.001) == pytest.approx(4.001)
    assert curve.revenue(10.0) == 10.0
    assert curve.revenue(10.001) == 0.0


@pytest.mark.parametrize("arc", ["10-16", "17-19", "22-15"])
def test_curve_against_the_users_themselves(arc: str) -> None:
    """The same revenue as the users' answer to that toll, at every end of a regime, inside and beyond it."""
    problem = sioux_falls(arcs=(arc,), pairs=60)
    curve = response(problem)
    assert len(curve.regimes) >= 3
    for regime in curve.regimes[:-1]:
        for toll in (regime.end, 0.5 * (regime.start + regime.end), regime.end + 1e-3):
            assert curve.revenue(toll) == pytest.approx(problem.revenue(problem.limits.cap * 0.0 + toll))
    best = bl.solve(problem)
    assert best.upper_objective == pytest.approx(curve.best[1])


def test_curve_needs_one_arc() -> None:
    with pytest.raises(bl.UsageError, match="2 tollable arcs: name one of 2-3, 4-5"):
        response(toy_a())
    with pytest.raises(bl.UsageError, match="2-4 is not tollable"):
        response(toy_a(), "2-4")
    with pytest.raises(bl.UsageError, match="no arc named '9-9'"):
        response(toy_a(), "9-9")
    assert response(toy_a(), "2-3").savings.tolist() == [5.0]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"curve{suffix}"
    draw(response(three_regimes()), path, "three regimes")
    start = path.read_bytes()[:5]
    assert start.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    assert path.stat().st_size > 5000


def test_picture_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = response(three_regimes())
    with pytest.raises(bl.UsageError, match=r"ends with \.png"):
        draw(curve, tmp_path / "curve.bmp")
    with pytest.raises(bl.UsageError, match="no folder"):
        draw(curve, tmp_path / "nowhere" / "curve.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(bl.MissingError, match=r"pip install 'bilevel\[plot\]'"):
        draw(curve, tmp_path / "curve.png")


def test_curve_command(cli: Call, tmp_path: Path) -> None:
    done = cli("toll", "curve", "three-regimes", "--out", "curve.svg", "-f", "json")
    assert done.code == 0, done.err
    assert "wrote curve.svg" in done.err
    told = json.loads(done.out)
    assert (told["problem"], told["best_toll"], told["best_revenue"]) == ("toll/three-regimes", 4.0, 16.0)
    assert [r["to_toll"] for r in told["regimes"]] == [4.0, 10.0, None]
    picture = (tmp_path / "curve.svg").read_text()
    assert "<svg" in picture


def test_curve_command_as_text_and_from_files(cli: Call, tmp_path: Path) -> None:
    (tmp_path / "small_net.tntp").write_text(NETWORK)
    (tmp_path / "small_trips.tntp").write_text(TRIPS)
    done = cli("toll", "curve", "small_net.tntp", "-p", "tollable=4-9")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["best", "revenue", "28"] in lines
    assert ["0", "4", "7", "28"] in lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tree-regimes"], "Did you mean 'toll/three-regimes'"),
        (["sioux-falls"], "name one of"),
        (["three-regimes", "-p", "arcs=3"], "takes no parameters"),
        (["three-regimes", "-p", "arcs"], "expected KEY=VALUE"),
        (["classic/bard-511"], "no toll problem"),
        (["missing_net.tntp"], "There is no network file"),
    ],
)
def test_curve_command_faults(cli: Call, arguments: list[str], words: str) -> None:
    done = cli("toll", "curve", *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.out == ""


def test_solve_from_files(cli: Call, tmp_path: Path) -> None:
    (tmp_path / "small_net.tntp").write_text(NETWORK)
    (tmp_path / "other.tntp").write_text(TRIPS)
    by_name = ["toll/network", "-p", "network=small_net.tntp", "-p", "trips=other.tntp", "-p", "tollable=4-9"]
    by_file = ["small_net.tntp", "-p", "trips=other.tntp", "-p", "tollable=1"]
    for arguments in (by_name, by_file):
        done = cli("solve", *arguments, "-f", "json")
        assert done.code == 0, done.err
        told = json.loads(done.out)
        assert told["status"] == "optimal"
        assert told["details"]["tolls"][0]["from"] in ("1", "4")
        assert told["upper_objective"] == pytest.approx(told["details"]["revenue"])


def test_solve_with_faults(cli: Call, tmp_path: Path) -> None:
    (tmp_path / "bad_net.tntp").write_text(NETWORK.replace("4 9 100 1 2", "4 9 100 1 two"))
    (tmp_path / "bad_trips.tntp").write_text(TRIPS)
    done = cli("solve", "bad_net.tntp")
    assert done.code == 2
    assert "bad_net.tntp:9: expected a number for free-flow time, got 'two'" in done.err
    done = cli("solve", "toll/network")
    assert done.code == 2
    assert "needs the parameter network" in done.err
