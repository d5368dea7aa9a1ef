"""Travel times that grow with flow: t(v) = t0 (1 + b (v / C)^power), the function of the Bureau of Public Roads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevel_core.errors import ModelError
from bilevel_toll.network import Network


@dataclass(frozen=True)
class Roads:
    """Travel times of all arcs; every array has shape (arcs,), every flow is in the unit of the capacities.

    Attributes:
        free: time on the empty road, t0.
        b: share by which the time has grown when the flow is the capacity.
        capacity: C; 1 where the arc is not congested (b = 0).
        power: at least 1.
    """

    free: np.ndarray
    b: np.ndarray
    capacity: np.ndarray
    power: np.ndarray

    @classmethod
    def of(cls, network: Network) -> Roads:
        """The roads of a network.

        Raises:
            ModelError: a congested arc without a positive capacity.
        """
        for label, arc in zip(network.labels, network.arcs, strict=True):
            if arc.b > 0.0 and not arc.capacity:
                raise ModelError(
                    f"Arc {label} is congested (b = {arc.b:g}) and needs a positive capacity, got {arc.capacity!r}: "
                    "set one, or b = 0."
                )
        free = np.array([a.cost for a in network.arcs], dtype=float)
        b = np.array([a.b for a in network.arcs], dtype=float)
        power = np.array([a.power for a in network.arcs], dtype=float)
        capacity = np.array([a.capacity if a.b > 0.0 and a.capacity else 1.0 for a in network.arcs], dtype=float)
        return cls(free, b, capacity, power)

    def with_capacity(self, capacity: np.ndarray) -> Roads:
        """The same roads with other capacities, shape (arcs,)."""
        return Roads(self.free, self.b, capacity, self.power)

    def time(self, flow: np.ndarray) -> np.ndarray:
        """t(v)."""
        return self.free * (1.0 + self.b * (np.maximum(flow, 0.0) / self.capacity) ** self.power)

    def slope(self, flow: np.ndarray) -> np.ndarray:
        """t'(v)."""
        use = np.maximum(flow, 0.0) / self.capacity
        return self.free * self.b * self.power * use ** (self.power - 1.0) / self.capacity

    def curvature(self, flow: np.ndarray) -> np.ndarray:
        """t''(v); given as 0 at no flow where the power is between 1 and 2 and it is infinite."""
        use = np.maximum(flow, 0.0) / self.capacity
        grown = np.where(use > 0.0, use, 1.0) ** (self.power - 2.0)
        at_zero = np.where(self.power == 2.0, 1.0, 0.0)
        factor = self.free * self.b * self.power * (self.power - 1.0) / self.capacity**2
        return factor * np.where(use > 0.0, grown, at_zero)

    def integral(self, flow: np.ndarray) -> np.ndarray:
        """The integral of t from 0 to v: an arc's part of Beckmann's function."""
        use = np.maximum(flow, 0.0) / self.capacity
        return self.free * flow * (1.0 + self.b / (self.power + 1.0) * use**self.power)

    def external(self, flow: np.ndarray) -> np.ndarray:
        """v t'(v): what one more user costs all others, the marginal-cost toll in units of time."""
        return flow * self.slope(flow)

    def system_slope(self, flow: np.ndarray) -> np.ndarray:
        """The derivative of the marginal cost t + v t'; it is (power + 1) t'."""
        return (self.power + 1.0) * self.slope(flow)
