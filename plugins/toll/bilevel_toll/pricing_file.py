"""Network pricing instances as JSON files: arcs with cost and toll flag, commodities with origin, end and demand.

    {"problem": {"V": 4, "A": [{"src": 1, "dst": 2, "cost": 3.5, "toll": true}, ...],
                 "K": [{"orig": 1, "dest": 4, "demand": 10.0}, ...]}}

The format of Bui, Gendron and Carvalho (2022). Nodes are 1 to V.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, cast

from bilevel_core.errors import UsageError
from bilevel_toll.network import Arc, Demand, Network
from bilevel_toll.problem import TollProblem

BETWEEN = " \t\r\n,"
"""What stands between the entries of a list."""


def read_pricing(path: Path) -> TollProblem:
    """Read an instance.

    Raises:
        UsageError: the file is missing or no JSON, or an entry is missing or out of its range, by its line and place
            in the file.
        ModelError: a pair without a route, or without a toll-free one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data: Any = json.loads(text)
    except FileNotFoundError:
        raise UsageError(f"There is no pricing file {str(path)!r}.") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}: this is no JSON: {error.msg}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The pricing file {str(path)!r} cannot be read: {error}.") from error
    try:
        return _problem(path, data, text)
    except _EntryError as error:
        lines: list[int] = []
        if error.place is not None:
            name, k = error.place
            lines = _lines(text, name, data["problem"][name])[k : k + 1]
        raise UsageError(f"{path}:{f'{lines[0]}:' if lines else ''} {error}") from None


class _EntryError(Exception):
    """Something is wrong with an entry of a list, named by the list's name and the entry's place; or with the rest."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        found = re.match(r"problem\.(A|K)\[(\d+)\]", where)
        self.place = (found[1], int(found[2])) if found else None


def _lines(text: str, name: str, entries: list[Any]) -> list[int]:
    """The lines in which the entries of the list of this name begin; empty where they cannot be told.

    The decoder does not keep places, so the list is looked for by its name and read again, entry by entry.
    """
    decoder = json.JSONDecoder()
    for start in re.finditer(rf'"{name}"\s*:\s*\[', text):
        at, lines, line = start.end(), list[int](), text.count("\n", 0, start.end()) + 1
        for entry in entries:
            place = _after(text, at)
            line += text.count("\n", at, place)
            try:
                read, end = decoder.raw_decode(text, place)
            except json.JSONDecodeError:
                break
            if read != entry:
                break
            lines.append(line)
            line += text.count("\n", place, end)
            at = end
        else:
            return lines
    return []


def _after(text: str, at: int) -> int:
    """Where the next entry of a list begins."""
    while at < len(text) and text[at] in BETWEEN:
        at += 1
    return at


def _problem(path: Path, data: Any, text: str) -> TollProblem:
    problem = _entry(data, "problem", dict, "the file")
    nodes = _entry(problem, "V", int, "problem")
    arcs: list[Arc] = []
    tolled: list[bool] = []
    for k, a in enumerate(_entry(problem, "A", list, "problem")):
        where = f"problem.A[{k}]"
        ends = [_node(a, name, nodes, where) for name in ("src", "dst")]
        if ends[0] == ends[1]:
            raise _EntryError(f"{where}: arc {ends[0]}-{ends[1]} is a self-loop.", where)
        arcs.append(Arc(ends[0], ends[1], _amount(a, "cost", where)))
        tolled.append(_entry(a, "toll", bool, where))
    demands: list[Demand] = []
    pairs: list[Any] = _entry(problem, "K", list, "problem")
    lines = _lines(text, "K", pairs)
    for k, c in enumerate(pairs):
        where = f"problem.K[{k}]"
        origin, end = (_node(c, name, nodes, where) for name in ("orig", "dest"))
        source = f"{path}:{lines[k]}" if lines else str(path)
        demands.append(Demand(origin, end, _amount(c, "demand", where), source))
    if not arcs:
        raise _EntryError("problem.A: there are no arcs.", "problem.A")
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


def _entry(holder: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(holder, dict) or name not in holder:
        raise _EntryError(f"{where}: expected an entry {name!r}.", where)
    value: Any = cast("dict[str, Any]", holder)[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _EntryError(f"{where}.{name}: expected {kind.__name__}, got {value!r:.40}.", where)
    return value


def _node(holder: Any, name: str, nodes: int, where: str) -> str:
    value = _entry(holder, name, int, where)
    if not 1 <= value <= nodes:
        raise _EntryError(f"{where}.{name}: node {value} is not among 1 to {nodes}.", where)
    return str(value)


def _amount(holder: Any, name: str, where: str) -> float:
    value = _entry(holder, name, object, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0.0):
        raise _EntryError(f"{where}.{name}: expected a number of at least 0, got {value!r:.40}.", where)
    return float(value)
