"""An equilibrium as tables: what each arc carries and earns, what each pair pays on which routes. And as CSV files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_toll.congestion.equilibrium import Flows

TOLLS, PAIRS, SUMMARY = "tolls.csv", "od.csv", "summary.json"


def arc_rows(after: Flows, before: Flows | None = None) -> list[dict[str, Any]]:
    """A row for each arc: ends, toll, flow (before and after, where both are given), time, revenue."""
    network, time = after.traffic.network, after.time
    rows: list[dict[str, Any]] = []
    for a, (label, arc) in enumerate(zip(network.labels, network.arcs, strict=True)):
        row: dict[str, Any] = {"link": label, "from": arc.tail, "to": arc.head, "toll": _tidy(after.tolls[a])}
        if before is not None:
            row["flow_before"] = _tidy(before.flow[a])
        row["flow"] = _tidy(after.flow[a])
        row["time"] = _tidy(time[a])
        row["capacity"] = arc.capacity
        row["revenue"] = _tidy(after.tolls[a] * after.flow[a])
        rows.append(row)
    return rows


def pair_rows(after: Flows, before: Flows | None = None) -> list[dict[str, Any]]:
    """A row for each pair and class: trips, cost of its cheapest route in units of time (before and after), the mean
    toll in money, and its used routes with their flows.
    """
    traffic = after.traffic
    routes = after.routes.tocsc()
    by_owner: dict[int, list[int]] = {}
    for r, owner in enumerate(after.owner):
        by_owner.setdefault(int(owner), []).append(r)
    starts = {traffic.graph.start(v): v for v in range(len(traffic.network.nodes))}
    rows: list[dict[str, Any]] = []
    for k, (user, demand) in enumerate(traffic.demands):
        texts: list[str] = []
        paid = 0.0
        for r in sorted(by_owner.get(k, []), key=lambda r: -after.route_flow[r]):
            arcs = routes.indices[routes.indptr[r] : routes.indptr[r + 1]]
            paid += float(after.tolls[arcs].sum() * after.route_flow[r])
            text = traffic.network.route_text(_ordered(after, arcs.tolist(), int(traffic.starts[k]), starts))
            texts.append(f"{text} ({after.route_flow[r]:.6g})")
        row: dict[str, Any] = {"origin": demand.origin, "destination": demand.destination}
        if len(traffic.classes) > 1:
            row["class"] = traffic.classes[user].name
        row["trips"] = _tidy(demand.trips)
        if before is not None:
            row["cost_before"] = _tidy(before.cost[k])
        rows.append(
            {**row, "cost": _tidy(after.cost[k]), "toll": _tidy(paid / demand.trips), "routes": "; ".join(texts)}
        )
    return rows


def _ordered(flows: Flows, arcs: list[int], start: int, nodes: Mapping[int, int]) -> list[int]:
    """The arcs of a route in the order in which they are driven."""
    network = flows.traffic.network
    by_tail = {int(network.tails[a]): a for a in arcs}
    found: list[int] = []
    v = nodes[start]
    while len(found) < len(arcs):
        found.append(by_tail[v])
        v = int(network.heads[by_tail[v]])
    return found


def summary(flows: Flows) -> dict[str, Any]:
    """The figures of an equilibrium."""
    traffic = flows.traffic
    found: dict[str, Any] = {
        "network": traffic.name,
        "choice": "system optimum" if flows.system else "user equilibrium",
        "total_travel_time": _tidy(flows.total_time, 15),
        "beckmann": _tidy(flows.beckmann, 15),
        "revenue": _tidy(flows.revenue),
        "relative_gap": flows.relative_gap,
        "converged": flows.converged,
        "iterations": flows.iterations,
        "newton_steps": flows.newton_steps,
        "trips": _tidy(float(traffic.trips.sum())),
        "pairs": len(traffic.trips),
        "arcs": len(traffic.network.arcs),
        "routes": len(flows.owner),
    }
    if traffic.fixed.any():
        found["total_time_and_fixed_costs"] = _tidy(flows.total_cost, 15)
    if traffic.unit:
        found["unit"] = traffic.unit
    return found


def write_tables(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], figures: Mapping[str, Any]) -> None:
    """Write tables as CSV files by their names, and figures as summary.json, into a folder that is made.

    Raises:
        UsageError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in rows.items():
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(table[0]) if table else ["link"], lineterminator="\n")
                writer.writeheader()
                writer.writerows(table)
        text = json.dumps(dict(figures), indent=2, allow_nan=False)
        (folder / SUMMARY).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The results cannot be written to {str(folder)!r}: {error}.") from error


def _tidy(value: float | np.floating[Any], digits: int = 10) -> float:
    """Without the noise of floating point."""
    return float(f"{float(value):.{digits}g}")
