"""Network pricing instances as JSON files: arcs with cost and toll flag, commodities with origin, end and demand.

    {"problem": {"V": 4, "A": [{"src": 1, "dst": 2, "cost": 3.5, "toll": true}, ...],
                 "K": [{"orig": 1, "dest": 4, "demand": 10.0}, ...]}}

The format of Bui, Gendron and Carvalho (2022). Nodes are 1 to V.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

from bilevel_core.errors import UsageError
from bilevel_toll.network import Arc, Demand, Network
from bilevel_toll.problem import TollProblem


def read_pricing(path: Path) -> TollProblem:
    """Read an instance.

    Raises:
        UsageError: the file is missing or no JSON (with the line), or an entry is missing or out of its range, by its
            place in the file.
        ModelError: a pair without a route, or without a toll-free one.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no pricing file {str(path)!r}.") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}: this is no JSON: {error.msg}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The pricing file {str(path)!r} cannot be read: {error}.") from error
    problem = _entry(path, data, "problem", dict, "the file")
    nodes = _entry(path, problem, "V", int, "problem")
    arcs: list[Arc] = []
    tolled: list[bool] = []
    for k, a in enumerate(_entry(path, problem, "A", list, "problem")):
        where = f"problem.A[{k}]"
        ends = [_node(path, a, name, nodes, where) for name in ("src", "dst")]
        if ends[0] == ends[1]:
            raise UsageError(f"{path}: {where}: arc {ends[0]}-{ends[1]} is a self-loop.")
        arcs.append(Arc(ends[0], ends[1], _amount(path, a, "cost", where)))
        tolled.append(_entry(path, a, "toll", bool, where))
    demands: list[Demand] = []
    for k, c in enumerate(_entry(path, problem, "K", list, "problem")):
        where = f"problem.K[{k}]"
        origin, end = (_node(path, c, name, nodes, where) for name in ("orig", "dest"))
        demands.append(Demand(origin, end, _amount(path, c, "demand", where)))
    if not arcs:
        raise UsageError(f"{path}: problem.A: there are no arcs.")
    network = Network(arcs, [str(v) for v in range(1, nodes + 1)])
    chosen = [label for label, toll in zip(network.labels, tolled, strict=True) if toll]
    return TollProblem(network, demands, chosen, name=f"toll/{path.stem}")


def pricing_text(problem: TollProblem) -> str:
    """The problem in this format; nodes are numbered in the network's order."""
    network = problem.network
    tolled = set(problem.tollable)
    arcs = [
        {"src": network.index(a.tail) + 1, "dst": network.index(a.head) + 1, "cost": a.cost, "toll": k in tolled}
        for k, a in enumerate(network.arcs)
    ]
    pairs = [
        {
            "index": k + 1,
            "orig": network.index(d.origin) + 1,
            "dest": network.index(d.destination) + 1,
            "demand": d.trips,
        }
        for k, d in enumerate(problem.demands)
    ]
    return json.dumps({"problem": {"V": len(network.nodes), "A": arcs, "K": pairs}}) + "\n"


def _entry(path: Path, holder: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(holder, dict) or name not in holder:
        raise UsageError(f"{path}: {where}: expected an entry {name!r}.")
    value: Any = cast("dict[str, Any]", holder)[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{path}: {where}.{name}: expected {kind.__name__}, got {value!r:.40}.")
    return value


def _node(path: Path, holder: Any, name: str, nodes: int, where: str) -> str:
    value = _entry(path, holder, name, int, where)
    if not 1 <= value <= nodes:
        raise UsageError(f"{path}: {where}.{name}: node {value} is not among 1 to {nodes}.")
    return str(value)


def _amount(path: Path, holder: Any, name: str, where: str) -> float:
    value = _entry(path, holder, name, object, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0.0):
        raise UsageError(f"{path}: {where}.{name}: expected a number of at least 0, got {value!r:.40}.")
    return float(value)
