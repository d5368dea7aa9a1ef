"""Interdiction problems in MibS's older dialect: the file holds the follower's problem only, the leader's is implied.

The leader has a binary x_j per column y_j of the follower's, cost IC_j each and the budget IB for all:

    sum of IC_j x_j <= IB,   y_j <= u_j (1 - x_j),   u_j the upper bound of y_j,

and its objective is the negative of the follower's. In the numbering of LC and LR the x come first (or last, as newer
versions have it), then the y; row 0 is the budget, then the file's rows, then one row for each y_j <= u_j (1 - x_j).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.problems.mps_auxiliary import Auxiliary
from bilevel_core.problems.mps_file import LinearFile
from bilevel_core.program import INF, Variable

BUDGET = "budget"
PREFIX = "take_"
"""Name of x_j and of its row: this and the name of y_j."""


@dataclass(frozen=True)
class Expanded:
    """The whole problem: the file with the leader's part, and the follower's columns, rows and objective in it."""

    file: LinearFile
    columns: list[int]
    rows: list[int]
    costs: list[float]


def expand(found: Auxiliary, file: LinearFile) -> Expanded:
    """Write out the leader's part.

    Raises:
        UsageError: counts or numbers that do not fit the file, a column without a finite upper bound, or objectives of
            the two files that differ.
    """
    n, m = len(file.columns), len(file.rows)
    order = _order(found, n, m)
    costs = np.zeros(n)
    costs[order] = found.costs
    _compare_objectives(found, file, costs)
    for column in file.columns:
        if not math.isfinite(column.upper):
            raise found.source.fault(
                0, f"column {column.name!r} has no upper bound: y <= u (1 - x) needs one. Give it in {file.path.name}."
            )
    names = [c.name for c in file.columns]
    takes = [Variable(_free(PREFIX + y, names), 0.0, 1.0, integer=True) for y in names]
    tops = np.array([c.upper for c in file.columns])
    each = np.arange(n)
    paid = np.flatnonzero(found.takes)
    bounded = np.flatnonzero(tops)
    assert found.budget is not None
    whole = replace(
        file,
        columns=(*takes, *file.columns),
        costs=np.concatenate([np.zeros(n), costs if found.maximise else -costs]),
        constant=-file.constant,
        maximise=False,
        rows=(_free(BUDGET, file.rows), *file.rows, *(_free(x.name, file.rows) for x in takes)),
        lower=np.concatenate([[-INF], file.lower, np.full(n, -INF)]),
        upper=np.concatenate([[found.budget], file.upper, tops]),
        entry_rows=np.concatenate([np.zeros(len(paid), dtype=int), file.entry_rows + 1, bounded + 1 + m, each + 1 + m]),
        entry_columns=np.concatenate([paid, file.entry_columns + n, bounded, each + n]),
        entry_values=np.concatenate([np.array(found.takes)[paid], file.entry_values, tops[bounded], np.ones(n)]),
    )
    return Expanded(whole, list(range(n, 2 * n)), list(range(1, 1 + m + n)), costs.tolist())


def _order(found: Auxiliary, n: int, m: int) -> list[int]:
    """The number in the file of each follower's column, in the order of the auxiliary file."""
    source = found.source
    for what, listed, expected in (("N", len(found.columns), n), ("M", len(found.rows), m + n)):
        if listed != expected:
            kind = "columns in the file" if what == "N" else "rows in the file, and one more for each column"
            raise source.fault(0, f"{what} is {listed}, and there are {expected} {kind}.")
    columns = _whole_numbers(found, "columns")
    rows = _whole_numbers(found, "rows")
    if sorted(rows) != list(range(1, 1 + m + n)):
        raise source.fault(
            found.rows[0].line if rows else 0, f"LR lists other rows than 1 to {m + n}; 0 is the budget."
        )
    first = n if sorted(columns) == list(range(n, 2 * n)) else 0
    if sorted(columns) != list(range(first, first + n)):
        raise source.fault(
            found.columns[0].line, f"LC lists other columns than {n} to {2 * n - 1} (or 0 to {n - 1}): the follower's."
        )
    return [c - first for c in columns]


def _whole_numbers(found: Auxiliary, what: str) -> list[int]:
    out: list[int] = []
    for item in found.columns if what == "columns" else found.rows:
        if not (item.text.isascii() and item.text.isdigit()):
            raise found.source.fault(
                item.line, f"expected a number: an interdiction problem has no names, got {item.text!r}."
            )
        out.append(int(item.text))
    return out


def _compare_objectives(found: Auxiliary, file: LinearFile, costs: np.ndarray) -> None:
    """The objective stands in both files; where they differ, nobody knows what was meant."""
    own = -costs if found.maximise else costs
    stated = -file.costs if file.maximise else file.costs
    for j in np.flatnonzero(own != stated):
        raise found.source.fault(
            0,
            f"the follower minimises {own[j]:g} {file.columns[j].name} here, and {stated[j]:g} {file.columns[j].name} "
            f"in {file.path.name}: make them agree.",
        )


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
