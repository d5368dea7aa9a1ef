"""What leaders want of an equilibrium: values, and derivatives by flows and tolls. All are minimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bilevel_core.errors import ModelError
from bilevel_toll.congestion.equilibrium import Flows
from bilevel_toll.congestion.traffic import Traffic

Aim = Literal["time", "revenue", "welfare", "emissions"]
AIMS: tuple[Aim, ...] = ("time", "revenue", "welfare", "emissions")
LABELS: dict[str, str] = {
    "time": "total_travel_time", "revenue": "minus_revenue", "welfare": "users_cost", "emissions": "emissions",
}  # fmt: skip
CO, GROWTH = 0.2038, 0.7962
"""Carbon monoxide a vehicle: 0.2038 t exp(0.7962 l / t) grams on an arc of l kilometres in t minutes (Wallace, Courage,
Reaves, Schoene and Euler 1984, TRANSYT-7F user's manual; Yin and Lawphongpanich 2006, Transportation Research D 11)."""


@dataclass(frozen=True)
class Units:
    """What the network's units are, for emissions.

    Attributes:
        minutes: a unit of time.
        kilometres: a unit of length.
        free_speed: kilometres an hour on empty roads, from which lengths follow where the network has none; 0 for not
            known.
    """

    minutes: float = 1.0
    kilometres: float = 1.0
    free_speed: float = 0.0


@dataclass(frozen=True)
class Value:
    """A leader's objective at an equilibrium.

    Attributes:
        value: minimised.
        by_flow: derivative by each class's flow on each arc, shape (classes, arcs).
        by_toll: direct derivative by the arcs' tolls, shape (arcs,).
    """

    value: float
    by_flow: np.ndarray
    by_toll: np.ndarray


def lengths(traffic: Traffic, units: Units) -> np.ndarray:
    """Kilometres of each arc, shape (arcs,).

    Raises:
        ModelError: arcs without length, and no speed to find it by.
    """
    if units.free_speed > 0.0:
        return traffic.roads.free * units.minutes / 60.0 * units.free_speed
    missing = [label for label, a in zip(traffic.network.labels, traffic.network.arcs, strict=True) if a.length is None]
    if missing:
        raise ModelError(
            f"Emissions need lengths, and arc {missing[0]} has none: give free_speed=..., kilometres an hour on empty "
            "roads."
        )
    return np.array([units.kilometres * (a.length or 0.0) for a in traffic.network.arcs])


def evaluate(aim: Aim, flows: Flows, units: Units | None = None) -> Value:
    """The objective of this name.

    ``time``: total travel time. ``revenue``: tolls paid, with a minus. ``welfare``: the cost of travel to all users at
    their values of time, without tolls, which only change hands (trips are fixed, so least cost is most welfare).
    ``emissions``: carbon monoxide in kilograms.

    Raises:
        ModelError: emissions without lengths.
    """
    traffic, flow = flows.traffic, flows.flow
    classes, arcs = len(traffic.classes), len(flow)
    time, slope = flows.time, traffic.roads.slope(flow)
    by_flow, by_toll = np.zeros((classes, arcs)), np.zeros(arcs)
    if aim == "time":
        by_flow[:] = time + flow * slope
        return Value(float(flow @ time), by_flow, by_toll)
    if aim == "revenue":
        by_flow[:] = -flows.tolls
        return Value(-flows.revenue, by_flow, -flow)
    if aim == "welfare":
        worth = traffic.values_of_time
        spent = worth @ flows.by_class
        by_flow[:] = worth[:, None] * (time + traffic.fixed) + spent * slope
        return Value(float(spent @ (time + traffic.fixed)), by_flow, by_toll)
    units = units or Units()
    minutes = np.maximum(time * units.minutes, 1e-9)
    grown = np.exp(np.minimum(GROWTH * lengths(traffic, units) / minutes, 50.0))
    grams = CO * minutes * grown
    by_minute = CO * grown * (1.0 - GROWTH * lengths(traffic, units) / minutes)
    by_flow[:] = (grams + flow * by_minute * slope * units.minutes) / 1000.0
    return Value(float(flow @ grams) / 1000.0, by_flow, by_toll)


def curvature(aim: Aim, flows: Flows, moved: np.ndarray, tolls: np.ndarray, units: Units | None = None) -> np.ndarray:
    """Second derivatives of the objective of this name by variables, if flows and tolls moved along straight lines.

    What the flows' own second derivatives add is up to the caller.

    Args:
        aim: see `evaluate`.
        flows: where.
        moved: derivatives of each class's flow on each arc by n variables, shape (classes, arcs, n).
        tolls: derivatives of the arcs' tolls, shape (arcs, n).
        units: for emissions.

    Returns:
        Shape (n, n).
    """
    traffic, flow, time = flows.traffic, flows.flow, flows.time
    slope, bend = traffic.roads.slope(flow), traffic.roads.curvature(flow)
    total = moved.sum(axis=0)
    if aim == "time":
        return total.T @ ((2.0 * slope + flow * bend)[:, None] * total)
    if aim == "revenue":
        mixed = tolls.T @ total
        return -(mixed + mixed.T)
    if aim == "welfare":
        worth = traffic.values_of_time
        mixed = np.tensordot(worth, moved, axes=1).T @ (slope[:, None] * total)
        return mixed + mixed.T + total.T @ ((worth @ flows.by_class * bend)[:, None] * total)
    units = units or Units()
    minutes = np.maximum(time * units.minutes, 1e-9)
    ratio = GROWTH * lengths(traffic, units) / minutes
    grown = CO * np.exp(np.minimum(ratio, 50.0))
    by_minute, twice = grown * (1.0 - ratio), grown * ratio**2 / minutes
    first, second = slope * units.minutes, bend * units.minutes
    grams = 2.0 * by_minute * first + flow * (twice * first**2 + by_minute * second)
    return total.T @ ((grams / 1000.0)[:, None] * total)
