"""Where nodes stand on a map: from a node file, or a schematic layout from distances."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse.csgraph import shortest_path

from bilevel_core.errors import UsageError
from bilevel_toll.congestion.equilibrium import Flows
from bilevel_toll.network import Network


def read_nodes(path: Path, network: Network) -> np.ndarray:
    """Coordinates of a network's nodes, shape (nodes, 2), from a file with node, x and y in each line, separated by
    blanks, tabs or commas; a first line of names is passed over, and so is what follows a semicolon.

    Raises:
        UsageError: by file and line: no number, a node that is given twice; a node without coordinates.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The node file {str(path)!r} cannot be read: {error}.") from error
    found: dict[str, tuple[float, float]] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split(";", 1)[0].replace(",", " ").split()
        if not fields or (number == 1 and not _is_number(fields[-1])):
            continue
        if len(fields) < 3 or not (_is_number(fields[1]) and _is_number(fields[2])):
            raise UsageError(f"{path}:{number}: expected a node, x and y, got {line.strip()!r}.")
        if fields[0] in found:
            raise UsageError(f"{path}:{number}: node {fields[0]} is given twice.")
        found[fields[0]] = (float(fields[1]), float(fields[2]))
    missing = [n for n in network.nodes if n not in found]
    if missing:
        raise UsageError(f"{path}: node {missing[0]} of the network has no coordinates.")
    return np.array([found[n] for n in network.nodes])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def schematic(network: Network) -> np.ndarray:
    """Coordinates by classical scaling of the numbers of arcs between nodes, shape (nodes, 2).

    Source: Torgerson (1952), Multidimensional scaling, Psychometrika 17.
    """
    count = len(network.nodes)
    links = np.zeros((count, count))
    links[network.tails, network.heads] = 1.0
    steps = shortest_path(np.maximum(links, links.T), unweighted=True)
    steps[~np.isfinite(steps)] = count
    centre = np.eye(count) - 1.0 / count
    values, vectors = np.linalg.eigh(-0.5 * centre @ (steps**2) @ centre)
    places = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0.0))
    # Signs of eigenvectors are arbitrary: the first node that is off the middle stands to the left and above.
    signs = [1.0 if places[np.argmax(np.abs(places[:, k])), k] > 0 else -1.0 for k in range(2)]
    return places * signs


def geojson(after: Flows, before: Flows, places: np.ndarray) -> str:
    """Arcs as lines with toll, flow before and after, time and revenue."""
    network, time = after.traffic.network, after.time
    features: list[dict[str, Any]] = []
    for a, label in enumerate(network.labels):
        ends = [places[network.tails[a]].tolist(), places[network.heads[a]].tolist()]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "LineString", "coordinates": ends},
                "properties": {
                    "link": label,
                    "toll": float(after.tolls[a]),
                    "flow_before": float(before.flow[a]),
                    "flow": float(after.flow[a]),
                    "time": float(time[a]),
                    "revenue": float(after.tolls[a] * after.flow[a]),
                },
            }
        )
    return json.dumps({"type": "FeatureCollection", "features": features}) + "\n"
