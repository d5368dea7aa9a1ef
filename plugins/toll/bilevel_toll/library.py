"""The registered toll problems. Each factory's keyword arguments are the problem's parameters."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

from bilevel_toll.gmns import read_gmns
from bilevel_toll.network import Arc, Demand, Network, largest
from bilevel_toll.problem import TollProblem
from bilevel_toll.tntp import load_tntp
from bilevel_toll.tollable import choose

SIOUX_FALLS_ARCS = 15
SIOUX_FALLS_PAIRS = 100


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("bilevel_toll").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def sioux_falls_network() -> Network:
    """The 24 nodes and 76 arcs of Sioux Falls; costs are free-flow times in hundredths of an hour.

    Source: LeBlanc, Morlok, Pierskalla (1975), Transportation Research 9.
    """
    return Network(
        [
            Arc(r["from_node"], r["to_node"], float(r["free_flow_time"]), capacity=float(r["capacity"]))
            for r in _rows("sioux-falls-arcs.csv")
        ],
        [str(k) for k in range(1, 25)],
    )


def sioux_falls_demands() -> list[Demand]:
    """The 528 pairs of Sioux Falls with trips, 360,600 vehicles in all, by origin and destination."""
    return [
        Demand(row["origin"], column.removeprefix("to_"), float(trips))
        for row in _rows("sioux-falls-trips.csv")
        for column, trips in row.items()
        if column != "origin" and float(trips) > 0.0
    ]


def sioux_falls(
    *, arcs: int | tuple[str, ...] = SIOUX_FALLS_ARCS, pairs: int | None = SIOUX_FALLS_PAIRS
) -> TollProblem:
    """Tolls on the roads of Sioux Falls, without congestion: travel times are those of empty roads.

    Args:
        arcs: tollable arcs as TAIL-HEAD,TAIL-HEAD,..., or how many: the busiest at zero toll that leave every pair a
            toll-free route
        pairs: only this many pairs, those with the most trips; none for all 528
    """
    network = sioux_falls_network()
    demands = largest(sioux_falls_demands(), pairs)
    return TollProblem(
        network, demands, choose(network, demands, arcs), name="toll/sioux-falls", unit="hundredths of an hour a trip"
    )


def three_regimes() -> TollProblem:
    """A tolled bridge between two towns and their works, each with a free road around it.

    Three travellers of the town save 4 by the bridge, one of the village saves 10. Up to a toll of 4 all pay, up to 10
    only the village does, beyond nobody: revenue grows with the toll until users leave. Optimum 16 at toll 4.
    """
    network = Network(
        [
            Arc("town", "west", 1.0),
            Arc("village", "west", 1.0),
            Arc("west", "east", 2.0),
            Arc("east", "works", 1.0),
            Arc("town", "works", 8.0),
            Arc("village", "works", 14.0),
        ]
    )
    demands = [Demand("town", "works", 3.0), Demand("village", "works", 1.0)]
    return TollProblem(network, demands, ["west-east"], name="toll/three-regimes")


def toy_a() -> TollProblem:
    """One traveller, two tolled arcs in a row, ways around one or both. Optimum 15 with tolls 5 and 10."""
    network = Network(
        [
            Arc("1", "2", 2.0),
            Arc("2", "3", 2.0),
            Arc("3", "4", 0.0),
            Arc("4", "5", 2.0),
            Arc("2", "4", 7.0),
            Arc("3", "5", 12.0),
            Arc("1", "5", 22.0),
        ]
    )
    return TollProblem(network, [Demand("1", "5", 1.0)], ["2-3", "4-5"], name="toll/toy-a")


def from_files(
    *,
    network: Path,
    trips: Path | None = None,
    tollable: int | tuple[str, ...] = 5,
    pairs: int | None = None,
) -> TollProblem:
    """Tolls on your own network. Costs are free-flow times, and tolls in their unit; tolls of the files do not count.

    Args:
        network: the network file (TNTP), or a GMNS folder
        trips: the trip file (TNTP), or FILE.omx[/MATRIX]; by default X_trips.tntp beside X_net.tntp, or demand.csv
        tollable: arcs as TAIL-HEAD,..., type:NAME or a .csv file with a column link; or how many of the busiest
        pairs: only this many pairs, those with the most trips; by default all

    Raises:
        UsageError: a file cannot be read, by file and line; an arc that does not exist.
    """
    if network.is_dir():
        roads, read = read_gmns(network, toll_factor=0.0, trips=trips)
        demands = largest(read, pairs)
        name = f"toll/{network.resolve().name}"
        return TollProblem(roads, demands, choose(roads, demands, tollable), name=name, unit="minutes a trip")
    return load_tntp(network, trips=trips, tollable=tollable, pairs=pairs)
