"""How high tolls can usefully be, from distances alone: bounds for the model and for the leader's revenue.

Source: Dewez, Labbé, Marcotte, Savard (2008), New formulations and valid inequalities for a bilevel pricing problem,
Operations Research Letters 36.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bilevel_core.errors import ModelError
from bilevel_toll.network import Demand, Network, sourced
from bilevel_toll.routes import INF, distances

NOTHING = 1e-9
"""Savings up to this size, relative to a pair's cost (at least the scale of costs), count as none."""


@dataclass(frozen=True)
class Limits:
    """What distances say of tolls. Pairs and tollable arcs are in the order given.

    Attributes:
        free: cost of each pair's cheapest route without tollable arcs, shape (pairs,).
        zero: cost of each pair's cheapest route when no toll is asked, shape (pairs,).
        by_pair: the most that a pair can pay for an arc, shape (pairs, tollable arcs); 0 where it never pays.
        cap: the largest of these for each arc, shape (tollable arcs,). A higher toll earns nothing more.
        useful: arcs that can lie on a cheapest route of a pair that pays a toll, boolean, shape (pairs, arcs).
    """

    free: np.ndarray
    zero: np.ndarray
    by_pair: np.ndarray
    cap: np.ndarray
    useful: np.ndarray

    @property
    def savings(self) -> np.ndarray:
        """What each pair saves by tollable arcs when they cost nothing extra, shape (pairs,), at least 0."""
        return np.maximum(0.0, self.free - self.zero)


class _Distances:
    """Distances by node, each computed once, at zero toll and without tollable arcs."""

    def __init__(self, network: Network, tollable: Sequence[int]) -> None:
        self.network = network
        self.open: list[float] = network.costs.tolist()
        self.untolled = list(self.open)
        for a in tollable:
            self.untolled[a] = INF
        self._known: dict[tuple[int, bool, bool], np.ndarray] = {}

    def get(self, node: int, *, zero: bool, backward: bool) -> np.ndarray:
        key = (node, zero, backward)
        if key not in self._known:
            weights = self.open if zero else self.untolled
            self._known[key] = np.array(distances(self.network, node, weights, backward=backward).distance)
        return self._known[key]


def find_limits(network: Network, demands: Sequence[Demand], tollable: Sequence[int]) -> Limits:
    """Compute the limits.

    For arc a = (i, j) and pair (o, d), with distances d0 at zero toll and D without tollable arcs, the pair pays no
    more than

        M = max(0, min(D(i, j) - c_a, D(o, j) - d0(o, i) - c_a, D(i, d) - c_a - d0(j, d),
                       D(o, d) - d0(o, i) - c_a - d0(j, d)))

    for the arc: beyond that, a route that goes round the arc without any toll is cheaper.

    Raises:
        ModelError: a pair has no route at all, or none without tollable arcs (revenue has no bound then).
    """
    known = _Distances(network, tollable)
    origins = [network.index(d.origin) for d in demands]
    ends = [network.index(d.destination) for d in demands]
    zero = np.array([known.get(o, zero=True, backward=False)[d] for o, d in zip(origins, ends, strict=True)])
    free = np.array([known.get(o, zero=False, backward=False)[d] for o, d in zip(origins, ends, strict=True)])
    _check_routes(demands, zero, free)
    heads, tails, costs = network.heads, network.tails, network.costs
    chosen = np.array(tollable, dtype=int)
    by_pair = np.zeros((len(demands), len(chosen)))
    useful = np.zeros((len(demands), len(network.arcs)), dtype=bool)
    round_arc = np.array([known.get(int(tails[a]), zero=False, backward=False)[heads[a]] for a in tollable])
    for k, (o, d) in enumerate(zip(origins, ends, strict=True)):
        from_o, to_d = (known.get(o, zero=True, backward=False), known.get(d, zero=True, backward=True))
        free_o, free_d = (known.get(o, zero=False, backward=False), known.get(d, zero=False, backward=True))
        little = NOTHING * max(network.scale, free[k])
        if free[k] - zero[k] <= little:
            continue
        usable = network.open_to(o, d)
        i, j, c = tails[chosen], heads[chosen], costs[chosen]
        # A node that cannot be reached has distance infinity, and inf - inf says nothing: leave it out of the minimum.
        with np.errstate(invalid="ignore"):
            ways = np.array(
                [
                    round_arc - c,
                    free_o[j] - from_o[i] - c,
                    free_d[i] - c - to_d[j],
                    free[k] - from_o[i] - c - to_d[j],
                ]
            )
        limit = np.maximum(0.0, np.nanmin(np.where(np.isnan(ways), INF, ways), axis=0))
        by_pair[k] = np.where(usable[chosen] & (limit > little), limit, 0.0)
        through = from_o[tails] + costs + to_d[heads]
        useful[k] = usable & (through <= free[k] + little)
        useful[k, chosen] &= by_pair[k] > 0.0
    return Limits(free, zero, by_pair, by_pair.max(axis=0, initial=0.0), useful)


def _check_routes(demands: Sequence[Demand], zero: np.ndarray, free: np.ndarray) -> None:
    lost = [d for d, c in zip(demands, zero, strict=True) if c == INF]
    if lost:
        raise ModelError(f"{sourced(lost[0])}There is no route for {_some(lost)}: add arcs, or leave the demand out.")
    bound = [d for d, c in zip(demands, free, strict=True) if c == INF]
    if bound:
        raise ModelError(
            f"{sourced(bound[0])}{_some(bound)} must use a tollable arc: without a toll-free route the revenue has no "
            "bound. Take an arc off the tollable ones, or add a route that stands for staying at home."
        )


def _some(demands: Sequence[Demand], most: int = 5) -> str:
    text = ", ".join(d.label for d in demands[:most])
    return f"{text} and {len(demands) - most} more pairs" if len(demands) > most else text
