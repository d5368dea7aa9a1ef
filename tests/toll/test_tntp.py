"""Reading TNTP files: what is read, and each fault by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

import bilevel_core as bl
from bilevel_toll.tntp import load_tntp, read_network, read_trips, trips_beside

from .networks import shared_data

NETWORK = """<NUMBER OF ZONES> 2
<NUMBER OF NODES> 9
<FIRST THRU NODE> 3
<NUMBER OF LINKS> 5
<END OF METADATA>

~ init term capacity length time b power speed toll type ;
\t1\t4\t100\t1.5\t0\t0.15\t4\t0\t0\t1\t;
4 9 100 1 2 0.15 4 0 0 1 ;  ~ a comment
4 9 100 1 6 0.15 4 0 0 1;
9 2 100 1 1 0.15 4 0 0 1 ;
1 2 100 1 50 0.15 4 0 0 1 ;
"""
TRIPS = """<NUMBER OF ZONES> 2
<TOTAL OD FLOW> 12.0
<END OF METADATA>

Origin 1
 1 : 5.0;  2 : 7.0;
Origin 2
 1 : 0.0;
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "small_net.tntp").write_text(NETWORK)
    (tmp_path / "small_trips.tntp").write_text(TRIPS)
    return tmp_path / "small_net.tntp"


def test_what_is_read(files: Path) -> None:
    network = read_network(files)
    assert network.nodes == ("1", "2", "4", "9")  # numbers may have gaps
    assert network.labels == ("1-4", "4-9", "4-9#2", "9-2", "1-2")
    assert network.costs.tolist() == [0.0, 2.0, 6.0, 1.0, 50.0]
    assert (network.arcs[0].capacity, network.arcs[0].length) == (100.0, 1.5)
    assert {network.nodes[k] for k in network.no_through} == {"1", "2"}
    demands = read_trips(trips_beside(files))
    assert [(d.label, d.trips) for d in demands] == [("1->2", 7.0)]


def test_solved_from_files(files: Path) -> None:
    result = bl.solve(load_tntp(files, tollable=("4-9",)))
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(28.0)  # 7 trips save 4 each by the faster of the two roads
    assert result.problem == "toll/small"


def test_zones_are_not_passed_through(tmp_path: Path) -> None:
    """Without the rule 1 -> 3 goes through zone 2 for a cost of 2."""
    text = "<NUMBER OF ZONES> 3\n<FIRST THRU NODE> {first}\n<END OF METADATA>\n"
    text += "1 2 1 1 1;\n2 3 1 1 1;\n1 4 1 1 3;\n4 3 1 1 3;\n1 3 1 1 20;\n"
    (tmp_path / "x_trips.tntp").write_text("<END OF METADATA>\nOrigin 1\n3 : 1.0;\n")
    for first, revenue in (("4", 14.0), ("1", 0.0)):
        (tmp_path / "x_net.tntp").write_text(text.format(first=first))
        result = bl.solve(load_tntp(tmp_path / "x_net.tntp", tollable=("1-4",)))
        assert result.status == "optimal"
        assert result.upper_objective == pytest.approx(revenue)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("4 9 100 1 2 0.15 4 0 0 1", "4 9 100 1", 9, "at least 5 fields"),
        ("4 9 100 1 2 0.15", "4 x 100 1 2 0.15", 9, "number of a node, got 'x'"),
        ("4 9 100 1 2 0.15", "4 9 100 1 fast 0.15", 9, "number for free-flow time, got 'fast'"),
        ("4 9 100 1 2 0.15", "4 9 100 1 -2 0.15", 9, "free-flow time of at least 0, got -2"),
        ("4 9 100 1 2 0.15", "4 9 nan 1 2 0.15", 9, "capacity of at least 0"),
        ("4 9 100 1 2 0.15", "4 4 100 1 2 0.15", 9, "self-loop"),
        ("4 9 100 1 2 0.15", "4 10 100 1 2 0.15", 9, "node 10 is beyond <NUMBER OF NODES> 9"),
        ("<NUMBER OF NODES> 9", "<NUMBER OF NODES> nine", 2, "whole number for <NUMBER OF NODES>"),
        ("<NUMBER OF ZONES> 2", "<NUMBER OF ZONES 2", 1, "expected <NAME> value"),
        ("<END OF METADATA>\n", "", 7, "data before <END OF METADATA>"),
    ],
)
def test_faults_of_network_files(files: Path, old: str, new: str, line: int, words: str) -> None:
    assert old in NETWORK
    files.write_text(NETWORK.replace(old, new))
    with pytest.raises(bl.UsageError) as error:
        read_network(files)
    assert f"{files}:{line}: " in str(error.value)
    assert words in str(error.value)


def test_network_file_that_is_cut_off(files: Path) -> None:
    files.write_text(NETWORK.rsplit("\n", 2)[0] + "\n")
    with pytest.raises(bl.UsageError, match="<NUMBER OF LINKS> says 5, but the file has 4 arcs"):
        read_network(files)


def test_files_that_are_something_else(files: Path) -> None:
    files.write_text("<NUMBER OF ZONES> 2\n")
    with pytest.raises(bl.UsageError, match="no line <END OF METADATA>"):
        read_network(files)
    files.write_text("<END OF METADATA>\n")
    with pytest.raises(bl.UsageError, match="no arcs"):
        read_network(files)
    files.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(bl.UsageError, match="cannot be read"):
        read_network(files)
    with pytest.raises(bl.UsageError, match="There is no network file"):
        read_network(files.with_name("other.tntp"))


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("2 : 7.0", "2 = 7.0", 6, "expected 'zone : trips', got '2 = 7.0'"),
        ("2 : 7.0", "2 : seven", 6, "got 'seven'"),
        ("2 : 7.0", "2 : -7.0", 6, "number of trips of at least 0, got -7.0"),
        ("2 : 7.0", "3 : 7.0", 6, "zone 3 is beyond <NUMBER OF ZONES> 2"),
        ("2 : 7.0", "1 : 7.0", 6, "1 to 1 is given twice, first in line 6"),
        ("Origin 1", "Origin", 5, "expected 'Origin N'"),
        ("Origin 1\n", "", 5, "before the first 'Origin'"),
        ("12.0", "120.0", 2, "says 120, but the trips add up to 12"),
        ("12.0", "many", 2, "expected a number for <TOTAL OD FLOW>"),
    ],
)
def test_faults_of_trip_files(files: Path, old: str, new: str, line: int, words: str) -> None:
    assert old in TRIPS
    path = trips_beside(files)
    path.write_text(TRIPS.replace(old, new))
    with pytest.raises(bl.UsageError) as error:
        read_trips(path)
    assert f"{path}:{line}: " in str(error.value)
    assert words in str(error.value)


def test_faults_of_the_loader(files: Path) -> None:
    with pytest.raises(bl.UsageError, match="looks like a trip file"):
        load_tntp(trips_beside(files))
    other = files.with_name("alone_net.tntp")
    other.write_text(NETWORK)
    with pytest.raises(bl.UsageError, match="no trips beside the network"):
        load_tntp(other)
    with pytest.raises(bl.UsageError, match="There is no trip file"):
        load_tntp(other, trips=files.with_name("none.tntp"))
    trips = files.with_name("far_trips.tntp")
    trips.write_text("<END OF METADATA>\nOrigin 1\n7 : 1.0;\n")
    with pytest.raises(bl.ModelError, match="zone 7 has trips, but no arc"):
        load_tntp(other, trips=trips)
    with pytest.raises(bl.ModelError, match="1->2 must use a tollable arc"):
        load_tntp(other, trips=trips_beside(files), tollable=("1-2", "9-2"))


@pytest.mark.parametrize(
    ("folder", "stem", "nodes", "arcs", "total"),
    [
        ("Anaheim", "Anaheim", 416, 914, 104_694.4),
        ("Eastern-Massachusetts", "EMA", 74, 258, 65_576.375),
        ("Braess-Example", "Braess", 4, 5, 6.0),
        ("hearn9", "hearn9", 9, 18, 100.0),
    ],
)
def test_published_files(folder: str, stem: str, nodes: int, arcs: int, total: float) -> None:
    path = shared_data("toll", "tntp", folder, f"{stem}_net.tntp")
    network = read_network(path)
    assert (len(network.nodes), len(network.arcs)) == (nodes, arcs)
    trips = read_trips(trips_beside(path))
    assert sum(d.trips for d in trips) == pytest.approx(total, rel=1e-4)
    closed = 38 if stem == "Anaheim" else 0
    assert len(network.no_through) == closed
