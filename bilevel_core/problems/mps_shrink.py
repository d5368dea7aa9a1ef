"""Finding the shape of an interdiction problem in a program, so that the leader's part may be left implied.

The reverse of `mps_interdiction.expand`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bilevel_core.errors import UsageError
from bilevel_core.problems.mps_flat import Flat
from bilevel_core.program import Function, Row


@dataclass(frozen=True)
class Shrunk:
    """The follower's problem alone, over its own columns, and what the leader pays.

    Attributes:
        columns: numbers of the follower's columns, in the order of the file.
        rows: the follower's rows that hold no leader's variable.
        takes: the leader's cost of taking each column away.
        budget: the leader's budget.
    """

    columns: tuple[int, ...]
    rows: tuple[Row, ...]
    takes: tuple[float, ...]
    budget: float


def shrink(flat: Flat) -> Shrunk:
    """Take the leader's part out.

    Raises:
        UsageError: it is not implied by the rest; the message says where they differ.
    """
    own = flat.follower_columns
    leading = [i for i in range(len(flat.columns)) if i not in set(own)]
    for i in leading:
        c = flat.columns[i]
        if not (c.integer and (c.lower, c.upper) == (0.0, 1.0)):
            raise _other(f"the leader's {c.name!r} is not binary")
    budget = _budget(flat, set(leading))
    if flat.upper.linear != {i: -v for i, v in flat.lower.linear.items()}:
        raise _other("the leader's objective is not the negative of the follower's")
    taken: dict[int, int] = {}
    rest: list[Row] = []
    for row in flat.rows[flat.first_follower_row :]:
        if row.function.columns.isdisjoint(leading):
            rest.append(row)
            continue
        x, y = _link(flat, row, set(leading))
        if y in taken or x in taken.values():
            raise _other(f"row {row.name!r} bounds {flat.columns[y].name!r} by {flat.columns[x].name!r} a second time")
        taken[y] = x
    if len(taken) != len(own) or len(taken) != len(leading):
        raise _other("not every variable of the follower's has a binary of the leader's that takes it away")
    takes = tuple(budget.function.linear.get(taken[y], 0.0) for y in own)
    return Shrunk(own, tuple(rest), takes, budget.upper)


def _budget(flat: Flat, leading: set[int]) -> Row:
    rows = flat.rows[: flat.first_follower_row]
    if len(rows) != 1:
        raise _other(f"the leader has {len(rows)} rows, and not one budget")
    (row,) = rows
    if not row.function.columns <= leading or row.lower != -math.inf or not math.isfinite(row.upper):
        raise _other(f"the leader's row {row.name!r} is no budget for its own variables")
    return row


def _link(flat: Flat, row: Row, leading: set[int]) -> tuple[int, int]:
    """The x and the y of a row y <= u (1 - x), u the upper bound of y."""
    terms = row.function.linear
    xs, ys = [i for i in terms if i in leading], [i for i in terms if i not in leading]
    if len(xs) == len(ys) == 1 and terms[ys[0]] > 0 and row.lower == -math.inf:
        (x,), (y,) = xs, ys
        u = flat.columns[y].upper
        if math.isfinite(u) and terms[x] == terms[y] * u == row.upper:
            return x, y
    raise _other(f"row {row.name!r} is not of the form y <= u (1 - x), u the upper bound of y")


def _other(why: str) -> UsageError:
    return UsageError(f"This is no interdiction problem: {why}. Use dialect='names'.")


def own_function(f: Function, position: dict[int, int]) -> Function:
    """A function of the follower's columns over their numbers in the file."""
    return Function(f.constant, {position[i]: v for i, v in f.linear.items()})
