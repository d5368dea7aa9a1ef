"""GMNS folders: what is read, and each fault by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bilevel_core as bl
from bilevel_toll.congestion.equilibrium import user_equilibrium
from bilevel_toll.congestion.library import load_traffic
from bilevel_toll.gmns import read_gmns
from bilevel_toll.library import from_files

from .conftest import Call

NODE = "node_id,x_coord,y_coord,zone_id\n1,0,0,A\n2,1,0,\n3,2,0,B\n"
LINK = (
    "link_id,from_node_id,to_node_id,directed,length,free_speed,capacity,lanes,vdf_fftt,toll\n"
    "1,1,2,1,2,60,1000,2,,0\n"
    "2,2,3,false,3,60,900,,4.5,0\n"
)
TRIPS = "o_zone_id,d_zone_id,volume\nA,B,1000\nB,B,7\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("node", NODE), ("link", LINK), ("demand", TRIPS)):
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


def test_what_is_read(folder: Path) -> None:
    network, demands = read_gmns(folder)
    assert network.labels == ("1-2", "2-3", "3-2")
    assert network.costs.tolist() == [2.0, 4.5, 4.5]
    assert [a.capacity for a in network.arcs] == [2000.0, 900.0, 900.0]
    assert [(d.label, d.trips) for d in demands] == [("1->3", 1000.0)]
    flows = user_equilibrium(load_traffic(folder))
    expected = 2.0 * (1 + 0.15 * 0.5**4) + 4.5 * (1 + 0.15 * (1000 / 900) ** 4)
    assert flows.cost == pytest.approx([expected])


def test_from_the_command_line(cli: Call, folder: Path) -> None:
    done = cli("toll", "equilibrium", ".")
    assert done.code == 0, done.err
    assert "1000" in done.out
    done = cli("toll", "equilibrium", ".", "-p", "trips=demand.csv")
    assert done.code == 2
    assert "leave out trips" in done.err


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("link", "1,1,2,1,", "1,1,9,1,", r"link.csv:2: node '9' is not in node.csv"),
        ("link", "1000,2,,0", "0,2,,0", r"link.csv:2: the link is congested .* capacity is 0"),
        ("link", ",2,60,1000", ",2,,1000", r"link.csv:2: the link's time is unknown"),
        ("link", "4.5,0", "-4.5,0", r"link.csv:3: expected a vdf_fftt of at least 0"),
        ("link", "4.5,0", "4.5,3", r"link.csv:3: the link has a toll of 3.*toll_factor"),
        ("link", "capacity", "cap", r"link.csv:1: there is no column capacity"),
        ("link", "2,2,3", "2,3,3", r"link.csv:3: link 3-3 is a self-loop"),
        ("node", "3,2,0,B", "2,2,0,B", r"node.csv:4: node '2' is given twice"),
        ("demand", "A,B", "A,C", r"demand.csv:2: zone 'C' belongs to no node"),
        ("demand", "1000", "many", r"demand.csv:2: expected a number for volume, got 'many'"),
    ],
)
def test_faults(folder: Path, file: str, old: str, new: str, words: str) -> None:
    path = folder / f"{file}.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(bl.UsageError, match=words):
        load_traffic(folder)


def test_missing_files_and_routes(folder: Path) -> None:
    (folder / "demand.csv").write_text("o_zone_id,d_zone_id,volume\nB,A,5\n")
    with pytest.raises(bl.ModelError, match="no route for 3->1"):
        load_traffic(folder)
    (folder / "demand.csv").unlink()
    with pytest.raises(bl.UsageError, match=r"There is no file .*demand.csv"):
        load_traffic(folder)


def test_tolls_on_a_folder_of_files(cli: Call, folder: Path) -> None:
    (folder / "link.csv").write_text(LINK + "3,1,3,1,9,60,500,1,12,5\n")
    problem = from_files(network=folder, tollable=("1-2",))
    # By the file 6.5 minutes, and 12 without the tolled link; the toll that the other road has today does not count.
    assert problem.bound == pytest.approx(1000 * 5.5)
    done = cli("toll", "price", ".", "-p", "tollable=1-2", "-f", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["objective"], told["unit"]) == (pytest.approx(5500.0), "minutes a trip")
