"""``follower.dual[constraint]``: multipliers of a follower's constraints, for use in the leader's expressions.

Each multiplier asked for is an element of a Pyomo variable that stands in the follower's block under the name
``dual[CONSTRAINT]``. That name and the index tell which constraint it belongs to, so copies of a model keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyomo.environ as pyo

from bilevel_core.errors import ModelError

_PREFIX = "dual["


class Duals:
    """The multipliers of one follower's constraints: ``follower.dual[follower.balance]``.

    The value is the derivative of the follower's optimal value, in the follower's own sense (minimum or maximum), with
    respect to the right-hand side of the constraint, as in Pyomo's suffixes: where Pyomo stores the constraint as
    ``lower <= body <= upper``, with everything variable in the body, both sides are shifted. So for a follower that
    minimises, a constraint ``body >= b`` has a multiplier of at least 0, ``body <= b`` of at most 0; for one that
    maximises it is the other way round. An equality's and a range's may have either sign: write demand as a number on
    the right (``supply == demand``) to have the price of one unit of demand.

    Where the multipliers are not unique, the leader has the one that suits it best: the optimistic reading.
    """

    def __init__(self, follower: Any) -> None:
        self._follower = follower

    def __getitem__(self, constraint: Any) -> Any:
        """The multiplier, to be used in the leader's objective and constraints. ``setlb``/``setub`` on it bound it.

        Args:
            constraint: one constraint of the follower: a scalar one, or an element of an indexed one.

        Raises:
            ModelError: not one constraint, or not one of this follower's.
        """
        follower = self._follower
        if getattr(constraint, "ctype", None) is not pyo.Constraint:
            raise ModelError(
                f"{follower.name!r}.dual[...] takes a constraint of the follower's, not {constraint!s}. To have the "
                "multiplier of a variable's bound, write the bound as a constraint."
            )
        if constraint.is_indexed():
            raise ModelError(f"Constraint {constraint.name!r} is indexed: take the multiplier of one of its elements.")
        if not _inside(constraint, follower):
            raise ModelError(f"Constraint {constraint.name!r} is not one of follower {follower.name!r}.")
        component = constraint.parent_component()
        name = f"{_PREFIX}{component.getname(fully_qualified=True, relative_to=follower)}]"
        held = follower.component(name)
        if held is None:
            held = pyo.Var(pyo.Any, dense=False) if component.is_indexed() else pyo.Var()
            follower.add_component(name, held)
        return held[constraint.index()] if component.is_indexed() else held

    def __repr__(self) -> str:
        return f"Duals({self._follower.name!r})"


def is_dual(component: Any, follower: Any) -> bool:
    """Whether a Pyomo variable holds multipliers made by `Duals`."""
    return component.parent_block() is follower and component.local_name.startswith(_PREFIX)


def duals_of(follower: Any) -> Iterator[tuple[Any, list[tuple[Any, Any]]]]:
    """The multipliers in use: each variable, and its elements with their constraints, in the constraints' order.

    Raises:
        ModelError: the constraint of a multiplier is gone or not active.
    """
    for held in follower.component_objects(pyo.Var, active=True, descend_into=False):
        if not is_dual(held, follower):
            continue
        name = held.local_name[len(_PREFIX) : -1]
        constraint: Any = follower.find_component(name)
        if constraint is None or any(index not in constraint for index in held):
            raise ModelError(
                f"Follower {follower.name!r} has no constraint any more for {held.local_name!r}, which is in use."
            )
        pairs = [(held[index], constraint[index]) for index in constraint if index in held]
        for _, data in pairs:
            if not data.active:
                raise ModelError(
                    f"The multiplier of {data.name!r} is in use, but that constraint is not active: activate it, or "
                    f"delete {held.name!r} from the model."
                )
        yield held, pairs


def _inside(constraint: Any, follower: Any) -> bool:
    block = constraint.parent_block()
    while block is not None and block is not follower:
        block = block.parent_block()
    return block is follower
