"""Cells as graphs: which operation leads from which node to which, for drawing and printing."""

from __future__ import annotations

from bilevel_nas.spaces.base import Architecture, SearchSpace


def edges_of(space: SearchSpace, architecture: Architecture) -> dict[str, list[tuple[int, int, str, int]]]:
    """(from, to, operation, its number) of the edges that are there, by cell; empty where decisions are no edges.

    Decisions are edges where they are called so: ``e01`` from node 0 to node 1, with the cell's name before it.
    """
    found: dict[str, list[tuple[int, int, str, int]]] = {}
    for d, c in zip(space.decisions, architecture, strict=True):
        cell, letter, ends = d.name.rpartition("e")
        if not letter or len(ends) != 2 or not ends.isdigit() or not d.node:
            return {}
        group = found.setdefault(cell.rstrip("_") or "cell", [])
        if c >= 0 and c != d.zero:
            group.append((int(ends[0]), int(ends[1]), str(d.choices[c]), c))
    return found


def tables(space: SearchSpace, architecture: Architecture) -> dict[str, list[dict[str, str]]]:
    """Each cell drawn as a table: a row a node that an edge leaves, a column a node that one enters."""
    found: dict[str, list[dict[str, str]]] = {}
    for cell, edges in edges_of(space, architecture).items():
        by_ends = {(a, b): name for a, b, name, _ in edges}
        columns = sorted({b for _, b in by_ends})
        found[f"drawing_of_{cell}"] = [
            {"from": str(a), **{f"to {b}": by_ends.get((a, b), "") for b in columns}}
            for a in sorted({a for a, _ in by_ends})
        ]
    return found
