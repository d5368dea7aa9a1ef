"""Which arcs are meant, and faults of files: named by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_toll.congestion.library import chosen_arcs, load_traffic
from bilevel_toll.congestion.tolls import CongestedTolls
from bilevel_toll.congestion.traffic import Traffic, UserClass
from bilevel_toll.network import Arc, Demand, Network
from bilevel_toll.pricing_file import read_pricing
from bilevel_toll.tntp import load_tntp
from bilevel_toll.tollable import named

from .conftest import Call

NETWORK = """<NUMBER OF NODES> 4
<NUMBER OF LINKS> 4
<END OF METADATA>
1 2 100 1 2 0.15 4 0 0 1 ;
2 3 100 1 2 0.15 4 0 0 7 ;
1 3 100 1 9 0.15 4 0 0 1 ;
4 1 100 1 1 0.15 4 0 0 7 ;
"""
TRIPS = """<END OF METADATA>
Origin 1
3 : 50 ;
Origin 2
3 : 1 ; 4 : 5 ;
"""


def write(folder: Path, trips: str = TRIPS) -> Path:
    (folder / "x_net.tntp").write_text(NETWORK)
    (folder / "x_trips.tntp").write_text(trips)
    return folder / "x_net.tntp"


def test_trips_without_a_route_are_named_by_line(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(bl.ModelError, match=r"x_trips.tntp:5: There is no route for 2->4"):
        load_tntp(path, tollable=("1-2",))
    with pytest.raises(bl.ModelError, match=r"x_trips.tntp:5: There is no route for 2->4"):
        load_traffic(path, classes=("a:1:0.5", "b:2:0.5"), demand_factor=2.0)
    with pytest.raises(bl.ModelError, match=r"x_trips.tntp:3: zone 9 has trips, but no arc"):
        load_traffic(write(tmp_path, "<END OF METADATA>\nOrigin 1\n9 : 5 ;\n"))
    with pytest.raises(bl.ModelError, match=r"x_trips.tntp:5: 2->3 must use a tollable arc"):
        load_tntp(write(tmp_path, TRIPS.replace("4 : 5 ;", "")), tollable=("2-3",))


def test_gmns_demand_without_a_route_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "node.csv").write_text("node_id\n1\n2\n3\n")
    (tmp_path / "link.csv").write_text("from_node_id,to_node_id,capacity,vdf_fftt\n1,2,10,3\n3,1,10,3\n")
    (tmp_path / "demand.csv").write_text("o_zone_id,d_zone_id,volume\n1,2,5\n2,3,5\n")
    with pytest.raises(bl.ModelError, match=r"demand.csv:3: There is no route for 2->3"):
        load_traffic(tmp_path)
    (tmp_path / "demand.csv").write_text("o_zone_id,d_zone_id,volume\n1,2,5\n")
    assert load_traffic(tmp_path).unit == "minutes"


PRICING = {
    "problem": {
        "V": 3,
        "A": [{"src": 1, "dst": 2, "cost": 1, "toll": True}, {"src": 1, "dst": 2, "cost": 5, "toll": False}],
        "K": [{"orig": 1, "dest": 2, "demand": 1}, {"orig": 1, "dest": 3, "demand": 1}],
    }
}


def test_faults_of_pricing_files_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(PRICING, indent=1))
    lines = path.read_text().splitlines()
    pair = lines.index('    "orig": 1,', lines.index('    "orig": 1,') + 1)  # the "{" is the line before
    with pytest.raises(bl.ModelError, match=rf"p.json:{pair}: There is no route for 1->3"):
        read_pricing(path)
    path.write_text(json.dumps(PRICING, indent=1).replace('"cost": 5', '"cost": -5'))
    arc = lines.index('    "cost": 5,') - 2
    with pytest.raises(bl.UsageError, match=rf"p.json:{arc}: problem.A\[1\].cost: expected a number"):
        read_pricing(path)
    path.write_text('{"A": [3],\n"problem": {"V": 2, "K": [],\n"A":\n[{"src": 1, "dst": 2}]}}')
    with pytest.raises(bl.UsageError, match=r"p.json:4: problem.A\[0\]: expected an entry 'cost'"):
        read_pricing(path)
    path.write_text('{"problem": {"V": 2}}')
    with pytest.raises(bl.UsageError, match=r"p.json: problem: expected an entry 'A'"):
        read_pricing(path)


def roads() -> Network:
    return Network([Arc("1", "2", 1.0, kind="bridge"), Arc("2", "3", 1.0, kind="road"), Arc("1", "3", 5.0)])


def test_arcs_by_type_and_file(tmp_path: Path) -> None:
    (tmp_path / "links.csv").write_text("link, lanes\n2-3,1\n1-3,2\n")
    file = str(tmp_path / "links.csv")
    assert named(roads(), ("type:bridge", file)) == ["1-2", "2-3", "1-3"]
    assert chosen_arcs(Traffic(roads(), [Demand("1", "3", 1.0)]), (file,)) == ["2-3", "1-3"]
    assert load_tntp(write(tmp_path, TRIPS.replace("3 : 1 ; 4 : 5 ;", "")), tollable=("type:7",)).tollable == (1, 3)
    with pytest.raises(bl.UsageError, match="No arc has the type 'ferry'; types are: bridge, road"):
        named(roads(), ("type:ferry",))
    for text, words in (
        ("link\n1-2\n9-9\n", r"links.csv:3: .*9-9"),
        ("arc\n1-2\n", "column link"),
        ("link\n", "no arcs"),
    ):
        (tmp_path / "links.csv").write_text(text)
        with pytest.raises(bl.UsageError, match=words):
            named(roads(), (file,))


def test_arcs_by_type_on_the_command_line(cli: Call, tmp_path: Path) -> None:
    write(tmp_path, TRIPS.replace("3 : 1 ; 4 : 5 ;", ""))
    done = cli("toll", "price", "x_net.tntp", "-p", "tollable=type:7", "-f", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["objective"] == pytest.approx(50.0 * 5.0)


@pytest.mark.parametrize("closed", [(), ("o", "d")])
def test_default_bound_for_revenue_is_where_all_have_left(closed: tuple[str, ...]) -> None:
    """None are left from a2 - a1 + b2 d on; half of it is the best toll, more than the marginal cost without tolls."""
    a1, b1, a2, b2, trips = 1.0, 0.1, 3.0, 2.0, 4.0
    arcs = [Arc("o", "d", a, capacity=a, b=b, power=1.0) for a, b in ((a1, b1), (a2, b2))]
    traffic = Traffic(Network(arcs, no_through=closed), [Demand("o", "d", trips)])
    problem = CongestedTolls(traffic, ["o-d"], ("revenue",))
    assert problem.upper == pytest.approx(a2 - a1 + b2 * trips)
    assert problem.flows(np.array([problem.upper])).revenue == pytest.approx(0.0, abs=1e-6)
    assert CongestedTolls(traffic, ["o-d"], ("time",)).upper < problem.upper / 2
    found = bl.solve(problem, options={"global_solves": 0, "starts": 2})
    best = max(t * problem.flows(np.array([t])).flow[0] for t in np.linspace(0.0, problem.upper, 201))
    assert -float(np.asarray(found.upper_objective)) >= best * (1 - 1e-9)
    rich = Traffic(traffic.network, [Demand("o", "d", trips)], [UserClass("a", 1.0, 0.5), UserClass("b", 3.0, 0.5)])
    assert CongestedTolls(rich, ["o-d"], ("revenue",)).upper == pytest.approx(3 * problem.upper)


def test_revenue_without_bound_is_refused() -> None:
    traffic = Traffic(Network([Arc("o", "d", 1.0, capacity=1.0, b=1.0)]), [Demand("o", "d", 2.0)])
    with pytest.raises(bl.ModelError, match="Revenue has no bound"):
        CongestedTolls(traffic, ["o-d"], ("revenue",))
    assert CongestedTolls(traffic, ["o-d"], ("revenue",), upper=3.0).upper == 3.0
