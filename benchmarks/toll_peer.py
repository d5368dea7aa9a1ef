"""AequilibraE's equilibrium of one network; run by toll.py with the Python of an environment that has the package.

    python toll_peer.py FILE.json

FILE.json has zones (numbers of the nodes where trips start and end), closed (whether routes may not pass through
zones), arcs (tail, head, free-flow time, capacity, b, power), trips (origin, destination, trips) and gap. Nodes are
numbered from 1. Prints one JSON object: package, version, flow on each arc, iterations, and seconds of CPU time of
one core in the assignment alone.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from aequilibrae.matrix import AequilibraeMatrix
from aequilibrae.paths import Graph, TrafficAssignment, TrafficClass

ITERATIONS = 1_000_000


def graph_of(given: dict[str, Any]) -> Any:
    columns = ["a_node", "b_node", "free_flow_time", "capacity", "b", "power"]
    links = pd.DataFrame(given["arcs"], columns=columns).astype({"a_node": int, "b_node": int})
    links.insert(0, "link_id", np.arange(1, len(links) + 1))
    links["direction"] = 1
    graph = Graph()
    graph.network = links
    graph.mode = "c"
    graph.prepare_graph(np.array(given["zones"]))
    graph.set_graph("free_flow_time")
    graph.set_blocked_centroid_flows(bool(given["closed"]))
    return graph


def trips_of(given: dict[str, Any]) -> Any:
    zones = given["zones"]
    place = {node: k for k, node in enumerate(zones)}
    values = np.zeros((len(zones), len(zones)))
    for origin, destination, trips in given["trips"]:
        values[place[origin], place[destination]] += trips
    matrix = AequilibraeMatrix()
    matrix.create_empty(zones=len(zones), matrix_names=["trips"], memory_only=True)
    matrix.index[:] = zones
    matrix.matrix["trips"][:, :] = values
    matrix.computational_view(["trips"])
    return matrix


def assign(given: dict[str, Any], gap: float) -> tuple[Any, float]:
    """The assignment when it is done, and its seconds."""
    assignment = TrafficAssignment()
    assignment.set_classes([TrafficClass("car", graph_of(given), trips_of(given))])
    assignment.set_vdf("BPR")
    assignment.set_vdf_parameters({"alpha": "b", "beta": "power"})
    assignment.set_capacity_field("capacity")
    assignment.set_time_field("free_flow_time")
    assignment.set_algorithm("bfw")
    assignment.set_cores(1)
    assignment.max_iter = ITERATIONS
    assignment.rgap_target = gap
    started = time.process_time()
    assignment.execute(log_specification=False)
    return assignment, time.process_time() - started


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    logging.disable(logging.CRITICAL)
    assign(given, 0.5)  # have everything imported and compiled before time is taken
    assignment, cpu = assign(given, given["gap"])
    told = {
        "package": "AequilibraE",
        "version": version("aequilibrae"),
        "cpu": cpu,
        "iterations": len(assignment.assignment.convergence_report["iteration"]),
        "flow": [float(v) for v in assignment.results()["PCE_AB"].to_numpy()],
    }
    print("ROW " + json.dumps(told))


if __name__ == "__main__":
    main()
