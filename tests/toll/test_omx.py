"""Trips from OMX files: what is read, and each fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_toll.congestion.library import load_traffic
from bilevel_toll.gmns import read_gmns
from bilevel_toll.tntp import load_tntp
from bilevel_toll.trips import read_any

from .conftest import Call

openmatrix: Any = pytest.importorskip("openmatrix")
NET = "<END OF METADATA>\n1 2 10 1 2 0.15 4 ;\n2 3 10 1 2 0.15 4 ;\n1 3 10 1 9 0.15 4 ;\n"
TRIPS = np.array([[0.0, 2.0, 3.0], [0.0, 5.0, 1.5], [0.0, 0.0, 0.0]])


def written(path: Path, zones: list[int] | None = None, **matrices: np.ndarray) -> Path:
    with openmatrix.open_file(str(path), "w") as file:
        for name, values in matrices.items():
            file[name] = values
        if zones is not None:
            file.create_mapping("zones", zones)
    return path


def test_trips_of_a_matrix_join_a_network(cli: Call, tmp_path: Path) -> None:
    (tmp_path / "a_net.tntp").write_text(NET)
    file = written(tmp_path / "trips.omx", car=TRIPS)
    demands = read_any(file)
    # Trips within a zone travel nowhere.
    assert [(d.label, d.trips) for d in demands] == [("1->2", 2.0), ("1->3", 3.0), ("2->3", 1.5)]
    assert demands == read_any(file / "car")
    assert load_traffic(tmp_path / "a_net.tntp", trips=file).trips.sum() == 6.5
    problem = load_tntp(tmp_path / "a_net.tntp", trips=file, tollable=("1-2",), pairs=1)
    assert problem.bound == pytest.approx(3 * 5.0)
    done = cli("toll", "equilibrium", "a_net.tntp", "-p", "trips=trips.omx/car")
    assert done.code == 0, done.err
    assert "6.5" in done.out


def test_a_mapping_names_the_zones(tmp_path: Path) -> None:
    file = written(tmp_path / "t.omx", zones=[30, 10, 20], car=TRIPS)
    assert [d.label for d in read_any(file)] == ["30->10", "30->20", "10->20"]
    (tmp_path / "node.csv").write_text("node_id,zone_id\n7,30\n8,10\n9,20\n")
    (tmp_path / "link.csv").write_text("from_node_id,to_node_id,capacity,vdf_fftt\n7,8,10,1\n8,9,10,1\n")
    _, demands = read_gmns(tmp_path, trips=file)
    assert [d.label for d in demands] == ["7->8", "7->9", "8->9"]
    (tmp_path / "node.csv").write_text("node_id,zone_id\n7,30\n8,10\n9,21\n")
    with pytest.raises(bl.UsageError, match="zone '20' belongs to no node"):
        read_gmns(tmp_path, trips=file)


def test_faults_name_the_file_and_the_part(tmp_path: Path) -> None:
    with pytest.raises(bl.UsageError, match="no file"):
        read_any(tmp_path / "none.omx")
    (tmp_path / "text.omx").write_text("1 2 3")
    with pytest.raises(bl.UsageError, match="cannot be read as OMX"):
        read_any(tmp_path / "text.omx")
    two = written(tmp_path / "two.omx", car=TRIPS, truck=TRIPS)
    with pytest.raises(bl.UsageError, match=r"one matrix, got 2: car, truck. Say which: .*two.omx/car"):
        read_any(two)
    with pytest.raises(bl.UsageError, match="no matrix 'bus'; there are: car, truck"):
        read_any(two / "bus")
    wrong = TRIPS.copy()
    wrong[0, 2] = -1.0
    with pytest.raises(bl.UsageError, match="got -1 in 'car' from 1 to 3"):
        read_any(written(tmp_path / "wrong.omx", car=wrong))
    (tmp_path / "a_net.tntp").write_text(NET)
    beyond = written(tmp_path / "beyond.omx", zones=[1, 2, 4], car=TRIPS)
    with pytest.raises(bl.ModelError, match="zone 4 has trips"):
        load_traffic(tmp_path / "a_net.tntp", trips=beyond)
