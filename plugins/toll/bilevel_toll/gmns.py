"""Reader of GMNS folders: node.csv, link.csv and demand.csv of the General Modeling Network Specification.

Of node.csv: node_id, and zone_id where zones have other numbers than nodes (the first node of a zone is its centroid).
Of link.csv: from_node_id, to_node_id, capacity (a lane's), lanes (1 unless given), length, free_speed (length an hour),
toll, and of the volume-delay function vdf_fftt (minutes), vdf_alpha, vdf_beta, which many writers add; directed = 0 or
false stands for both directions. Of demand.csv, which is no part of the specification: o_zone_id, d_zone_id, volume.
Times are minutes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from bilevel_core.errors import UsageError
from bilevel_toll.network import Arc, Demand, Network
from bilevel_toll.trips import is_omx, read_omx

NODES, LINKS, DEMAND = "node.csv", "link.csv", "demand.csv"
ALPHA, BETA = 0.15, 4.0


class _Row:
    """A line of a CSV file that names itself in errors."""

    def __init__(self, path: Path, line: int, values: dict[str, str]) -> None:
        self.path, self.line, self.values = path, line, values

    def fault(self, text: str) -> UsageError:
        return UsageError(f"{self.path}:{self.line}: {text}")

    def text(self, name: str) -> str:
        return (self.values.get(name) or "").strip()

    def amount(self, name: str, default: float | None = None) -> float:
        text = self.text(name)
        if not text and default is not None:
            return default
        try:
            value = float("nan" if "_" in text else text)
        except ValueError:
            raise self.fault(f"expected a number for {name}, got {text!r}.") from None
        if not (math.isfinite(value) and value >= 0.0):
            raise self.fault(f"expected a {name} of at least 0, got {text}.")
        return value


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[_Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UsageError(f"There is no file {str(path)!r}: a GMNS folder has {NODES}, {LINKS} and {DEMAND}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file {str(path)!r} cannot be read: {error}.") from error
    reader = csv.DictReader(lines)
    names = [n.strip() for n in reader.fieldnames or []]
    for column in needed:
        if column not in names:
            raise UsageError(f"{path}:1: there is no column {column}; there are {', '.join(names) or 'none'}.")
    reader.fieldnames = names
    for row in reader:
        yield _Row(path, reader.line_num, row)


def read_gmns(
    folder: Path, *, toll_factor: float | None = None, trips: Path | None = None
) -> tuple[Network, list[Demand]]:
    """Read a folder.

    Args:
        folder: with node.csv, link.csv and demand.csv.
        toll_factor: minutes that a toll of 1 weighs; needed where there are tolls.
        trips: FILE.omx[/MATRIX] in place of demand.csv.

    Raises:
        UsageError: by file and line: a column that is missing, an unknown node or zone, a number that is none or
            negative, no way to tell a link's time, no capacity, a toll without a toll factor.
    """
    if trips is not None and not is_omx(trips):
        raise UsageError(f"A GMNS folder has its trips in {DEMAND}: leave out trips=, or give an .omx file.")
    nodes: list[str] = []
    centroid: dict[str, str] = {}
    for row in _rows(folder / NODES, ("node_id",)):
        name = row.text("node_id")
        if not name or name in nodes:
            raise row.fault(f"node {name!r} is given twice." if name else "there is no node_id.")
        nodes.append(name)
        if row.text("zone_id"):
            centroid.setdefault(row.text("zone_id"), name)
    known = frozenset(nodes)
    links = _rows(folder / LINKS, ("from_node_id", "to_node_id", "capacity"))
    arcs = [arc for row in links for arc in _arcs(row, known, toll_factor)]
    if not arcs:
        raise UsageError(f"{folder / LINKS}: there are no links.")
    demands: list[Demand] = []
    for d in _volumes(folder / DEMAND) if trips is None else read_omx(trips):
        ends: list[str] = []
        for zone in (d.origin, d.destination):
            node = centroid.get(zone, zone if zone in known and not centroid else "")
            if not node:
                raise UsageError(f"{d.source}: zone {zone!r} belongs to no node of {NODES}.")
            ends.append(node)
        if d.trips > 0.0 and ends[0] != ends[1]:
            demands.append(Demand(ends[0], ends[1], d.trips, d.source))
    return Network(arcs, nodes), demands


def _volumes(path: Path) -> Iterator[Demand]:
    """Trips between zones, by the zones' names."""
    for row in _rows(path, ("o_zone_id", "d_zone_id", "volume")):
        ends = row.text("o_zone_id"), row.text("d_zone_id")
        yield Demand(*ends, row.amount("volume"), f"{row.path}:{row.line}")


def _arcs(row: _Row, known: frozenset[str], toll_factor: float | None) -> list[Arc]:
    tail, head = row.text("from_node_id"), row.text("to_node_id")
    for node in (tail, head):
        if node not in known:
            raise row.fault(f"node {node!r} is not in {NODES}.")
    if tail == head:
        raise row.fault(f"link {tail}-{head} is a self-loop.")
    length = row.amount("length", 0.0)
    if row.text("vdf_fftt"):
        time = row.amount("vdf_fftt")
    else:
        speed = row.amount("free_speed", 0.0)
        if speed == 0.0 or not row.text("length"):
            raise row.fault("the link's time is unknown: it needs vdf_fftt, or length and free_speed.")
        time = 60.0 * length / speed
    b, power = row.amount("vdf_alpha", ALPHA), row.amount("vdf_beta", BETA)
    capacity = row.amount("capacity") * row.amount("lanes", 1.0)
    if b > 0.0 and capacity == 0.0:
        raise row.fault("the link is congested (vdf_alpha > 0), and its capacity is 0: set it, or vdf_alpha = 0.")
    if b > 0.0 and power < 1.0:
        raise row.fault(f"expected a vdf_beta of at least 1, got {power:g}.")
    toll = row.amount("toll", 0.0)
    if toll > 0.0 and toll_factor is None:
        raise row.fault(
            f"the link has a toll of {toll:g}, and what it weighs in minutes is unknown: give toll_factor=..."
        )
    ways = [(tail, head)]
    if row.text("directed").lower() in ("0", "false"):
        ways.append((head, tail))
    kind = row.text("facility_type")
    return [Arc(i, j, time, capacity, length, b, max(1.0, power), toll, kind) for i, j in ways]
