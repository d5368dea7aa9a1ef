"""Reader of TNTP files, the text format of the Transportation Networks collection; also the loader for ``.tntp``.

A network file has metadata ``<NAME> value``, then one line an arc: tail, head, capacity, length, free-flow time, b,
power, speed, toll, type. A trip file has ``Origin N`` followed by ``destination : trips;``. ``~`` starts a comment.
The speed is not read. Costs are free-flow times; pricing without congestion takes no notice of b, power and toll. The
files do not say their units, nor what a toll or a unit of distance weighs against time (the toll and distance factors):
they stand in the READMEs that come with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bilevel_core.errors import ModelError, UsageError
from bilevel_toll.network import Arc, Demand, Network, largest, sourced
from bilevel_toll.problem import TollProblem
from bilevel_toll.tollable import choose

ZONES, NODES, LINKS = "NUMBER OF ZONES", "NUMBER OF NODES", "NUMBER OF LINKS"
FIRST_THROUGH, TOTAL = "FIRST THRU NODE", "TOTAL OD FLOW"
END = "END OF METADATA"
TOTAL_TOLERANCE = 0.01
"""Share by which the trips may miss the total that a file states: published files round it, cut ones miss by more."""


@dataclass(frozen=True)
class _File:
    """A file split up: metadata by name, and the lines after it with their numbers, comments and blanks left out."""

    path: Path
    metadata: dict[str, tuple[str, int]]
    lines: tuple[tuple[int, str], ...]

    def fault(self, line: int, text: str) -> UsageError:
        return UsageError(f"{self.path}:{line}: {text}")

    def whole_number(self, name: str) -> int | None:
        """A whole number of the metadata; None where it is not stated."""
        if name not in self.metadata:
            return None
        text, line = self.metadata[name]
        if not (text.isascii() and text.isdigit()):
            raise self.fault(line, f"expected a whole number for <{name}>, got {text!r}.")
        return int(text)


def _open(path: Path, what: str) -> _File:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"There is no {what} {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The {what} {str(path)!r} cannot be read: {error}.") from error
    metadata: dict[str, tuple[str, int]] = {}
    lines: list[tuple[int, str]] = []
    ended = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("~", 1)[0].strip()
        if not line:
            continue
        if line.startswith("<"):
            name, closed, value = line[1:].partition(">")
            if not closed:
                raise UsageError(f"{path}:{number}: expected <NAME> value, got {raw.strip()!r}.")
            if ended:
                raise UsageError(f"{path}:{number}: metadata after <{END}>.")
            ended = name.strip().upper() == END
            metadata[name.strip().upper()] = (value.strip(), number)
        elif ended:
            lines.append((number, line))
        else:
            raise UsageError(f"{path}:{number}: data before <{END}>: this is no TNTP {what}.")
    if not ended:
        raise UsageError(f"{path}: there is no line <{END}>: this is no TNTP {what}.")
    return _File(path, metadata, tuple(lines))


def read_network(path: Path, *, congested: bool = False, toll_factor: float | None = None) -> Network:
    """Read a network file. Costs are free-flow times; nodes are named by their numbers.

    Nodes below <FIRST THRU NODE> are not passed through. Node numbers may have gaps.

    Args:
        path: the file.
        congested: insist on what travel times under congestion need.
        toll_factor: what a unit of toll weighs in units of time; only needed to be known where there are tolls.

    Raises:
        UsageError: by file and line: a field that is missing or no number, an arc count that differs from the metadata,
            a node beyond <NUMBER OF NODES>, a negative time, a self-loop. With ``congested`` also: no b and power, no
            capacity on a congested arc, a power below 1, a toll without a toll factor.
    """
    file = _open(path, "network file")
    nodes = file.whole_number(NODES)
    arcs: list[Arc] = []
    for number, line in file.lines:
        fields = line.split(";", 1)[0].split()
        if len(fields) < 5:
            raise file.fault(
                number, f"expected at least 5 fields (tail, head, capacity, length, time), got {len(fields)}."
            )
        tail, head = (_node(file, number, text) for text in fields[:2])
        for end in (tail, head):
            if nodes is not None and end > nodes:
                raise file.fault(number, f"node {end} is beyond <{NODES}> {nodes}.")
        if tail == head:
            raise file.fault(number, f"arc {tail}-{head} is a self-loop.")
        names = ("capacity", "length", "free-flow time")
        capacity, length, cost = (_amount(file, number, n, t) for n, t in zip(names, fields[2:5], strict=True))
        more = _congestion(file, number, fields)
        if congested:
            _check_congested(file, number, fields, capacity, more, toll_factor)
        arcs.append(Arc(str(tail), str(head), cost, capacity, length, *more))
    stated = file.whole_number(LINKS)
    if stated is not None and stated != len(arcs):
        raise UsageError(f"{path}: <{LINKS}> says {stated}, but the file has {len(arcs)} arcs. Is it cut off?")
    if not arcs:
        raise UsageError(f"{path}: there are no arcs after <{END}>.")
    first = file.whole_number(FIRST_THROUGH) or 1
    used = sorted({int(n) for a in arcs for n in (a.tail, a.head)})
    return Network(arcs, [str(n) for n in used], [str(n) for n in used if n < first])


def _congestion(file: _File, number: int, fields: list[str]) -> tuple[float, float, float, str]:
    """b, power, toll and type of an arc; what is missing at the end of the line has no effect."""
    b, power, _, toll = (
        _amount(file, number, name, fields[k]) if k < len(fields) else 0.0
        for k, name in ((5, "b"), (6, "power"), (7, "speed"), (8, "toll"))
    )
    return b, max(1.0, power), toll, fields[9] if len(fields) > 9 else ""


def _check_congested(
    file: _File,
    number: int,
    fields: list[str],
    capacity: float,
    more: tuple[float, float, float, str],
    toll_factor: float | None,
) -> None:
    b, _, toll, _ = more
    if len(fields) < 7:
        count = len(fields)
        raise file.fault(number, f"congestion needs b and power in fields 6 and 7, and the line has {count} fields.")
    if b > 0.0 and float(fields[6]) < 1.0:
        raise file.fault(number, f"the arc is congested (b > 0): expected a power of at least 1, got {fields[6]}.")
    if b > 0.0 and capacity == 0.0:
        raise file.fault(number, "the arc is congested (b > 0), and its capacity is 0: set it, or b = 0.")
    if toll > 0.0 and toll_factor is None:
        raise file.fault(
            number,
            f"the arc has a toll of {toll:g}, and what a unit of toll weighs in units of time is not in the file: "
            "give toll_factor=..., 0 for tolls without effect.",
        )


def read_trips(path: Path) -> list[Demand]:
    """Read a trip file: every entry with trips that leaves its zone, in the order of the file.

    Raises:
        UsageError: by file and line: an entry that is not ``zone : trips``, negative trips, an entry before the first
            origin, a pair given twice; a sum that is far from <TOTAL OD FLOW>.
    """
    file = _open(path, "trip file")
    zones = file.whole_number(ZONES)
    origin: int | None = None
    seen: dict[tuple[int, int], int] = {}
    demands: list[Demand] = []
    total = 0.0
    for number, line in file.lines:
        words = line.split()
        if words[0].lower() == "origin":
            if len(words) != 2:
                raise file.fault(number, f"expected 'Origin N', got {line!r}.")
            origin = _node(file, number, words[1])
            continue
        if origin is None:
            raise file.fault(number, "trips before the first 'Origin' line.")
        for zone, trips in _entries(file, number, line):
            if zones is not None and max(zone, origin) > zones:
                raise file.fault(number, f"zone {max(zone, origin)} is beyond <{ZONES}> {zones}.")
            if (origin, zone) in seen:
                raise file.fault(number, f"{origin} to {zone} is given twice, first in line {seen[origin, zone]}.")
            seen[origin, zone] = number
            total += trips
            if trips > 0.0 and zone != origin:
                demands.append(Demand(str(origin), str(zone), trips, f"{file.path}:{number}"))
    _check_total(file, total)
    return demands


def _entries(file: _File, number: int, line: str) -> Iterator[tuple[int, float]]:
    for entry in line.split(";"):
        if not entry.strip():
            continue
        zone, colon, trips = entry.partition(":")
        if not colon:
            raise file.fault(number, f"expected 'zone : trips', got {entry.strip()!r}.")
        yield _node(file, number, zone.strip()), _amount(file, number, "number of trips", trips.strip())


def _check_total(file: _File, total: float) -> None:
    if TOTAL not in file.metadata:
        return
    text, line = file.metadata[TOTAL]
    stated = _amount(file, line, f"<{TOTAL}>", text)
    if abs(total - stated) > TOTAL_TOLERANCE * max(1.0, stated):
        raise file.fault(line, f"<{TOTAL}> says {stated:g}, but the trips add up to {total:g}. Is the file cut off?")


def _node(file: _File, line: int, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise file.fault(line, f"expected the number of a node, got {text!r}.")
    return int(text)


def _amount(file: _File, line: int, name: str, text: str) -> float:
    try:
        value = float("nan" if "_" in text else text)  # 1_0 is Python's way to write ten, not a file's
    except ValueError:
        raise file.fault(line, f"expected a number for {name}, got {text!r}.") from None
    if not (math.isfinite(value) and value >= 0.0):
        raise file.fault(line, f"expected a {name} of at least 0, got {text}.")
    return value


def trips_beside(path: Path) -> Path:
    """Where the trips of a network file are looked for: ``X_trips.tntp`` beside ``X_net.tntp`` or ``X.tntp``."""
    return path.with_name(path.stem.removesuffix("_net") + "_trips" + path.suffix)


def check_zones(demands: Sequence[Demand], network: Network, path: Path) -> None:
    """Every zone with trips is a node of the network that was read from ``path``.

    Raises:
        ModelError: by the line of the trips: one that no arc touches.
    """
    for d in demands:
        for zone in (d.origin, d.destination):
            if zone not in network.position:
                raise ModelError(f"{sourced(d)}zone {zone} has trips, but no arc of {path} touches it.")


def load_tntp(
    path: Path, *, trips: Path | None = None, tollable: int | tuple[str, ...] = 5, pairs: int | None = None
) -> TollProblem:
    """A toll problem from TNTP files.

    Args:
        path: the network file
        trips: the trip file, or FILE.omx[/MATRIX]; by default X_trips.tntp beside X_net.tntp
        tollable: arcs as TAIL-HEAD,..., type:NAME or a .csv file with a column link; or how many of the busiest
        pairs: only this many pairs, those with the most trips; by default all

    Raises:
        UsageError: a file that cannot be read, by line; an arc that does not exist.
        ModelError: a pair without a route, or without a toll-free one.
    """
    if path.stem.endswith("_trips"):
        raise UsageError(f"{str(path)!r} looks like a trip file: give the network file, and this one as trips=.")
    network = read_network(path)
    other = trips or trips_beside(path)
    if trips is None and not other.is_file():
        raise UsageError(f"There are no trips beside the network: expected {str(other)!r}, or give trips=FILE.")
    from bilevel_toll.trips import read_any  # which needs this module

    demands = largest(read_any(other), pairs)
    check_zones(demands, network, path)
    name = path.stem.removesuffix("_net")
    return TollProblem(network, demands, choose(network, demands, tollable), name=f"toll/{name}")
