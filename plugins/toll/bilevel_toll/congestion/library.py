"""Networks with traffic by name, and from files: what commands and problems of congested tolls start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError, unknown
from bilevel_core.run.options import read as read_options
from bilevel_toll.congestion.design import NetworkDesign
from bilevel_toll.congestion.objectives import Units
from bilevel_toll.congestion.problem import TrafficProblem
from bilevel_toll.congestion.tolls import CongestedTolls, worst_arcs
from bilevel_toll.congestion.tolls import cordon as cordon_arcs
from bilevel_toll.congestion.traffic import Traffic, UserClass
from bilevel_toll.gmns import read_gmns
from bilevel_toll.library import sioux_falls_demands, sioux_falls_network
from bilevel_toll.network import Arc, Demand, Network, largest
from bilevel_toll.tntp import check_zones, read_network, trips_beside
from bilevel_toll.tollable import named
from bilevel_toll.trips import read_any

SIOUX_FALLS_B, SIOUX_FALLS_POWER = 0.15, 4.0


def sioux_falls(*, pairs: int | None = None, classes: tuple[str, ...] = ()) -> Traffic:
    """Sioux Falls with congestion: t0 (1 + 0.15 (v / C)^4), times and tolls in hundredths of an hour.

    Source: LeBlanc, Morlok, Pierskalla (1975), Transportation Research 9.

    Args:
        pairs: only this many pairs, those with the most trips; by default all 528
        classes: users by value of time, as NAME:VALUE:SHARE,NAME:VALUE:SHARE,...
    """
    roads = sioux_falls_network()
    arcs = [replace(a, b=SIOUX_FALLS_B, power=SIOUX_FALLS_POWER) for a in roads.arcs]
    demands = largest(sioux_falls_demands(), pairs)
    unit = "hundredths of an hour"
    return Traffic(Network(arcs, roads.nodes), demands, user_classes(classes), name="sioux-falls", unit=unit)


def braess(*, trips: float = 6.0) -> Traffic:
    """Braess's paradox: with the road from a to b everyone needs 92, without it 83.

    Times: 10 v on s-a and b-t, 50 + v on a-t and s-b, 10 + v on a-b. Source: Braess (1968), Unternehmensforschung 12.

    Args:
        trips: from s to t
    """
    tiny = 1e-8
    arcs = [
        Arc("s", "a", tiny, capacity=tiny, b=10.0, power=1.0),
        Arc("b", "t", tiny, capacity=tiny, b=10.0, power=1.0),
        Arc("a", "t", 50.0, capacity=50.0, b=1.0, power=1.0),
        Arc("s", "b", 50.0, capacity=50.0, b=1.0, power=1.0),
        Arc("a", "b", 10.0, capacity=10.0, b=1.0, power=1.0),
    ]
    return Traffic(Network(arcs), [Demand("s", "t", trips)], name="braess", unit="minutes")


NAMED: dict[str, Callable[..., Traffic]] = {"sioux-falls": sioux_falls, "braess": braess}
"""Networks with traffic that need no files."""


def user_classes(texts: tuple[str, ...]) -> tuple[UserClass, ...]:
    """Classes of users from texts NAME:VALUE_OF_TIME:SHARE; one class for no text.

    Raises:
        UsageError: another form.
    """
    found: list[UserClass] = []
    for text in texts:
        parts = text.split(":")
        try:
            name, value, share = parts[0].strip(), float(parts[1]), float(parts[2])
        except (IndexError, ValueError):
            raise UsageError(f"classes: expected NAME:VALUE_OF_TIME:SHARE, got {text!r}.") from None
        if len(parts) > 3 or not name:
            raise UsageError(f"classes: expected NAME:VALUE_OF_TIME:SHARE, got {text!r}.")
        found.append(UserClass(name, value, share))
    return tuple(found) or (UserClass(),)


def load_traffic(
    path: Path,
    *,
    trips: Path | None = None,
    toll_factor: float | None = None,
    distance_factor: float = 0.0,
    demand_factor: float = 1.0,
    pairs: int | None = None,
    classes: tuple[str, ...] = (),
) -> Traffic:
    """A network with traffic from TNTP files, or a GMNS folder.

    Args:
        path: the network file, or a folder with node.csv, link.csv and demand.csv
        trips: the trip file, or FILE.omx[/MATRIX]; by default X_trips.tntp beside X_net.tntp, or demand.csv
        toll_factor: units of time that the file's tolls of 1 weigh; needed where the file has tolls
        distance_factor: units of time that a unit of distance weighs
        demand_factor: all trips are multiplied by this
        pairs: only this many pairs, those with the most trips; by default all
        classes: users by value of time, as NAME:VALUE:SHARE,NAME:VALUE:SHARE,...

    Raises:
        UsageError: a file that cannot be read, by line; a factor that is missing or negative.
        ModelError: a pair without a route.
    """
    if path.stem.endswith("_trips"):
        raise UsageError(f"{str(path)!r} looks like a trip file: give the network file, and this one as trips=.")
    for name, factor in (("toll_factor", toll_factor or 0.0), ("distance_factor", distance_factor)):
        if not (np.isfinite(factor) and factor >= 0.0):
            raise UsageError(f"Expected a {name} of at least 0, got {factor!r}.")
    if not (np.isfinite(demand_factor) and demand_factor > 0.0):
        raise UsageError(f"Expected a positive demand_factor, got {demand_factor!r}.")
    if path.is_dir():
        network, read = read_gmns(path, toll_factor=toll_factor, trips=trips)
    else:
        network = read_network(path, congested=True, toll_factor=toll_factor)
        other = trips or trips_beside(path)
        if trips is None and not other.is_file():
            raise UsageError(f"There are no trips beside the network: expected {str(other)!r}, or give trips=FILE.")
        read = read_any(other)
        check_zones(read, network, path)
    demands = [replace(d, trips=d.trips * demand_factor) for d in largest(read, pairs)]
    fixed = np.array([distance_factor * (a.length or 0.0) + (toll_factor or 0.0) * a.toll for a in network.arcs])
    name = path.stem.removesuffix("_net")
    unit = "minutes" if path.is_dir() else ""  # TNTP files do not say theirs
    return Traffic(network, demands, user_classes(classes), fixed=fixed, name=name, unit=unit)


def congested_tolls(
    *,
    network: str = "sioux-falls",
    objective: tuple[str, ...] = ("time",),
    arcs: tuple[str, ...] = ("10",),
    cordon: tuple[str, ...] = (),
    equal: bool = False,
    lower: float = 0.0,
    upper: float | None = None,
    step: float = 0.0,
    most_booths: int | None = None,
    minutes: float = 1.0,
    kilometres: float = 1.0,
    free_speed: float = 0.0,
    trips: Path | None = None,
    toll_factor: float | None = None,
    distance_factor: float | None = None,
    demand_factor: float | None = None,
    pairs: int | None = None,
    classes: tuple[str, ...] = (),
) -> TrafficProblem:
    """Second-best tolls against user equilibrium.

    Args:
        network: a network with traffic (sioux-falls, braess) or a .tntp file or GMNS folder
        objective: time, revenue, welfare or emissions; several, with commas, for a Pareto front
        arcs: tollable arcs as TAIL-HEAD,..., type:NAME or a .csv file with a column link; how many of those on which
            users cost each other the most; or all
        cordon: nodes: the arcs that enter them get one toll in common; arcs is then left out
        equal: one toll for all arcs
        lower: least toll
        upper: highest toll; by default the largest marginal-cost toll of these arcs without tolls, for revenue the
            toll at which nobody is left on them
        step: tolls are multiples of this; 0 for any
        most_booths: at most so many arcs get a toll, by default all; a common toll takes a booth on each of its arcs
        minutes: a unit of time, for emissions
        kilometres: a unit of length, for emissions
        free_speed: kilometres an hour on empty roads, for emissions where lengths are unknown
        trips: the trip file, or FILE.omx[/MATRIX]
        toll_factor: units of time that the file's tolls of 1 weigh
        distance_factor: units of time that a unit of distance weighs
        demand_factor: all trips are multiplied by this
        pairs: only this many pairs, those with the most trips
        classes: users by value of time, as NAME:VALUE:SHARE,...

    Raises:
        UsageError: an arc, node or network that does not exist; a parameter that the network does not take.
        ModelError: bounds that leave nothing.
    """
    traffic = _traffic(network, trips, toll_factor, distance_factor, demand_factor, pairs, classes)
    groups: Any = {"cordon": cordon_arcs(traffic.network, cordon)} if cordon else chosen_arcs(traffic, arcs)
    if equal and not cordon:
        groups = {"all": groups}
    name = f"toll/congested-{traffic.name}"
    units = Units(minutes, kilometres, free_speed)
    aims: Any = objective
    return CongestedTolls(
        traffic, groups, aims, lower=lower, upper=upper, step=step, most_booths=most_booths, units=units, name=name
    )


def network_design(
    *,
    network: str = "sioux-falls",
    objective: tuple[str, ...] = ("time",),
    arcs: tuple[str, ...] = ("10",),
    price: float = 1.0,
    upper: float | None = None,
    power: float = 1.0,
    budget: float | None = None,
    trips: Path | None = None,
    toll_factor: float | None = None,
    distance_factor: float | None = None,
    demand_factor: float | None = None,
    pairs: int | None = None,
) -> TrafficProblem:
    """Capacity added to roads against user equilibrium (Marcotte 1986).

    Args:
        network: a network with traffic (sioux-falls, braess) or a .tntp file or GMNS folder
        objective: time or welfare
        arcs: roads to widen as TAIL-HEAD,..., type:NAME or a .csv file with a column link; how many of those on which
            users cost each other the most; or all
        price: of a unit of capacity, in units of the objective
        upper: most capacity added to an arc; by default as much as the largest has
        power: of added capacity in the cost
        budget: most that may be spent; by default no limit
        trips: the trip file, or FILE.omx[/MATRIX]
        toll_factor: units of time that the file's tolls of 1 weigh
        distance_factor: units of time that a unit of distance weighs
        demand_factor: all trips are multiplied by this
        pairs: only this many pairs, those with the most trips

    Raises:
        UsageError: an arc or network that does not exist; a parameter that the network does not take.
        ModelError: roads without congestion, or bounds that leave nothing.
    """
    traffic = _traffic(network, trips, toll_factor, distance_factor, demand_factor, pairs, ())
    roads = dict.fromkeys(chosen_arcs(traffic, arcs), price)
    most = upper if upper is not None else float(traffic.roads.capacity.max())
    aims: Any = objective
    name = f"toll/design-{traffic.name}"
    return NetworkDesign(traffic, roads, aims, upper=most, power=power, budget=budget, name=name)


def chosen_arcs(traffic: Traffic, arcs: tuple[str, ...]) -> list[str]:
    """Labels of arcs from texts: see `bilevel_toll.tollable.named`; one number for how many of the worst, ``all``."""
    if arcs == ("all",):
        return list(traffic.network.labels)
    if len(arcs) == 1 and arcs[0].isdigit():
        return worst_arcs(traffic, int(arcs[0]))
    return named(traffic.network, arcs)


def _traffic(
    network: str,
    trips: Path | None,
    toll_factor: float | None,
    distance_factor: float | None,
    demand_factor: float | None,
    pairs: int | None,
    classes: tuple[str, ...],
) -> Traffic:
    given = {
        "trips": trips, "toll_factor": toll_factor, "distance_factor": distance_factor, "demand_factor": demand_factor,
        "pairs": pairs, "classes": classes or None,
    }  # fmt: skip
    return find_traffic(network, {k: v for k, v in given.items() if v is not None})


def find_traffic(reference: str, given: Mapping[str, Any]) -> Traffic:
    """The network with traffic that a name or a file stands for.

    Args:
        reference: a name of `NAMED`, a .tntp file or a GMNS folder.
        given: parameters, as texts or values.

    Raises:
        UsageError: there is none, or a parameter is wrong.
    """
    if reference in NAMED:
        factory = NAMED[reference]
        return factory(**read_options(factory, given, kind="parameter", owner=f"network {reference!r}"))
    if not (reference.lower().endswith(".tntp") or Path(reference).is_dir()):
        raise unknown("network", reference, NAMED)
    values = read_options(load_traffic, given, kind="parameter", owner="network files", skip=("path",))
    return load_traffic(Path(reference), **values)
