"""Sweeps of one toll under congestion with their regimes, maps, and the picture of convergence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.figures.base import draw, picture
from bilevel_core.result import Values
from bilevel_core.run.stored import StoredRun, read_run
from bilevel_toll.congestion.layout import read_nodes, schematic
from bilevel_toll.congestion.library import braess, sioux_falls
from bilevel_toll.congestion.sweep import sweep
from bilevel_toll.congestion.tolls import CongestedTolls
from bilevel_toll.library import three_regimes
from bilevel_toll.network import Arc, Network
from bilevel_toll.problem import Demand, TollProblem

from .conftest import Call
from .test_second_best import two_links

STARTS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def test_the_three_regimes_under_congestion() -> None:
    """Two roads a + b x: all on the tolled one up to a2 - a1 - b1 d, none from a2 - a1 + b2 d."""
    problem = CongestedTolls(two_links(1.0, 0.5, 6.0, 0.5, 4.0), ["o-d"], ("revenue",), upper=10.0)
    found = sweep(problem, 41)
    assert found.stays == pytest.approx(3.0, abs=1e-4)
    assert found.leaves == pytest.approx(7.0, abs=1e-4)
    expected = np.where(found.tolls <= 3.0, 4.0, np.maximum(0.0, 7.0 - found.tolls))
    assert found.flow == pytest.approx(expected, abs=1e-6)
    assert found.revenue == pytest.approx(found.tolls * expected, abs=1e-5)
    told = found.to_dict()
    assert told["best_toll_for_revenue"] == pytest.approx(3.5)
    assert told["best_revenue"] == pytest.approx(12.25)
    only = sweep(CongestedTolls(two_links(1.0, 0.5, 6.0, 0.5, 4.0), ["o-d"], ("revenue",), upper=2.0), 3)
    assert (only.stays, only.leaves) == (None, None)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_sweep_command(cli: Call, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    done = cli(
        "toll",
        "sweep",
        "braess",
        "-p",
        "arcs=a-b",
        "-p",
        "upper=20",
        "--points",
        "5",
        "--out",
        f"s{suffix}",
        "-f",
        "json",
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["least_total_time"] == pytest.approx(498.0, rel=1e-5)
    assert told["all_have_left_from"] == pytest.approx(13.0, abs=1e-4)  # 83 = 2 * 30 + 10 + toll
    assert (tmp_path / f"s{suffix}").read_bytes()[:5].startswith(STARTS[suffix])


def test_map_command(cli: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "nodes.tntp").write_text("Node\tX\tY\t;\ns\t0\t0\t;\na\t1\t1\t;\nb\t1\t-1\t;\nt\t2\t0\t;\n")
    (tmp_path / "tolls.csv").write_text("link,toll\na-b,13\n")
    done = cli("toll", "map", "braess", "--tolls", "tolls.csv", "--out", "m.png")
    assert done.code == 0, done.err
    assert (tmp_path / "m.png").read_bytes()[:4] == STARTS[".png"]
    done = cli("toll", "map", "braess", "--tolls", "tolls.csv", "--nodes", "nodes.tntp", "--out", "m.geojson")
    assert done.code == 0, done.err
    features = json.loads((tmp_path / "m.geojson").read_text())["features"]
    between = next(f for f in features if f["properties"]["link"] == "a-b")
    assert between["geometry"]["coordinates"] == [[1.0, 1.0], [1.0, -1.0]]
    assert between["properties"]["flow_before"] == pytest.approx(2.0, rel=1e-6)
    assert between["properties"]["flow"] == pytest.approx(0.0, abs=1e-6)


def test_convergence(cli: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert cli("toll", "equilibrium", "braess", "--picture", "c.svg").code == 0
    assert (tmp_path / "c.svg").read_bytes()[:5] == STARTS[".svg"]


def test_layouts(tmp_path: Path) -> None:
    places = schematic(sioux_falls().network)
    assert places.shape == (24, 2)
    assert len({tuple(np.round(p, 6)) for p in places}) == 24
    ring = Network([Arc(str(i), str((i + 1) % 4), 1.0) for i in range(4)])
    square = schematic(ring)
    assert np.linalg.norm(square[0] - square[2]) > np.linalg.norm(square[0] - square[1])
    (tmp_path / "n.csv").write_text("id,x,y\ns,0,0\na,1,1\nb,1,-1\n")
    with pytest.raises(bl.UsageError, match="node t of the network has no coordinates"):
        read_nodes(tmp_path / "n.csv", braess().network)
    (tmp_path / "n.csv").write_text("id,x,y\ns,0,zero\n")
    with pytest.raises(bl.UsageError, match=r"n.csv:2: expected a node, x and y"):
        read_nodes(tmp_path / "n.csv", braess().network)
    (tmp_path / "n.csv").write_text("s,0,0\ns,1,0\n")
    with pytest.raises(bl.UsageError, match=r"n.csv:2: node s is given twice"):
        read_nodes(tmp_path / "n.csv", braess().network)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep", "braess", "-p", "arcs=a-b,s-a", "-p", "upper=9"], "a sweep varies one toll"),
        (["sweep", "braess", "-p", "arcs=a-b", "-p", "upper=9", "--points", "1"], "at least 2 points"),
        (["sweep", "braess", "-p", "arcs=a-b", "-p", "upper=9", "--points", "2", "--out", "s.bmp"], "ends with .png"),
        (["map", "braess", "--out", "m.geojson"], "needs coordinates"),
        (["map", "braess", "--out", "nowhere/m.png"], "no folder"),
        (["map", "braess", "--out", "m.png", "--nodes", "none.csv"], "cannot be read"),
    ],
)
def test_faults(cli: Call, arguments: list[str], words: str) -> None:
    done = cli("toll", *arguments)
    assert done.code == 2, done.out
    assert words.lower() in done.err.lower()


def map_of(run: StoredRun) -> dict[str, tuple[float, float | None]]:
    """Width and toll of every arc as drawn, by label; None where grey."""
    figures, notes = draw(run, ["toll/map"])
    assert not notes
    (drawn,) = figures
    assert picture(drawn.figure, "svg").startswith(b"<?xml")
    lines = drawn.figure.axes[0].collections[0]
    tolls = np.ma.masked_invalid(lines.get_array())
    problem = run.problem()
    network = problem.traffic.network if isinstance(problem, CongestedTolls) else problem.network
    rows = zip(network.labels, lines.get_linewidths(), tolls, strict=True)
    return {k: (float(w), None if np.ma.is_masked(t) else float(t)) for k, w, t in rows}


def test_a_pricing_run_has_a_map(tmp_path: Path) -> None:
    """At the best toll, 4, all stay on the bridge: no arc is wider, and no other has a colour."""
    pytest.importorskip("matplotlib")
    problem = three_regimes()
    result = bl.solve(problem, out=tmp_path / "run")
    drawn = map_of(read_run(tmp_path / "run", lambda: problem))
    (row,) = result.details["tolls"]
    coloured = {k: t for k, (_, t) in drawn.items() if t is not None}
    assert coloured == {f"{row['from']}-{row['to']}": pytest.approx(row["toll"])}
    assert drawn[next(iter(coloured))][0] == pytest.approx(max(w for w, _ in drawn.values()))
    assert len(drawn) > 1


def test_a_congested_run_has_a_map(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    problem = CongestedTolls(two_links(1.0, 0.5, 6.0, 0.5, 4.0), ["o-d"], ("revenue",), upper=10.0, step=1.0)
    result = bl.solve(problem, "sample.grid", out=tmp_path / "run")
    drawn = map_of(read_run(tmp_path / "run", lambda: problem))
    assert [t for _, t in drawn.values()] == [pytest.approx(result.details["tolls"][0]["toll"]), None]


def test_parallel_arcs_lie_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    roads = Network([Arc("a", "b", 1), Arc("a", "b", 3), Arc("a", "b", 5), Arc("b", "a", 1)])
    problem = TollProblem(roads, [Demand("a", "b", 10)], ["a-b"])
    result = bl.solve(problem, out=tmp_path / "run")
    assert result.has_point
    (drawn,) = draw(read_run(tmp_path / "run", lambda: problem), ["toll/map"])[0]
    starts = np.array([segment[0] for segment in drawn.figure.axes[0].collections[0].get_segments()])
    between = np.linalg.norm(starts[:, None] - starts[None, :], axis=2)[:3, :3]
    assert between[np.triu_indices(3, 1)].min() > 0.0
    assert between[0, 1] == pytest.approx(between[1, 2])


def test_other_runs_have_no_map() -> None:
    pytest.importorskip("matplotlib")
    pointless = bl.Result(bl.Termination.INFEASIBLE, details={"tolls": [{"toll": 1.0}]})
    point = Values({"t": np.array(1.0)})
    told = bl.Result(bl.Termination.CONVERGED, x=point, details={"tolls": [{"toll": 1.0}]})
    silent = bl.Result(bl.Termination.CONVERGED, x=point)
    for result in (None, pointless, told, silent):
        assert draw(StoredRun(Path("nowhere"), {"name": "p"}, (), result, object), ["toll/map"]) == ([], [])
