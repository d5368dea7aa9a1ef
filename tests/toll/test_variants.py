"""Elastic demand and tolls by entry and exit: optima by hand and by brute force."""

from __future__ import annotations

import pytest

import bilevel_core as bl
from bilevel_toll.network import Arc, Demand, Network
from bilevel_toll.problem import TollProblem
from bilevel_toll.variants import by_entry_and_exit, elastic

from .networks import brute_force


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_elastic_demand_on_one_road(steps: int) -> None:
    """Cost 2, none left at 6: with steps the best toll is the best of the steps' own reservation tolls."""
    network, demands = elastic(Network([Arc("a", "b", 2.0)]), [Demand("a", "b", 12.0)], 3.0, steps)
    problem = TollProblem(network, demands, ["a-b"])
    result = bl.solve(problem)
    tolls = [4.0 * (k + 0.5) / steps for k in range(steps)]
    expected = max(t * 12.0 * (steps - k) / steps for k, t in enumerate(tolls))
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(expected)
    # The curve itself has its best toll at half of the highest one: 2, with 6 trips.
    assert expected == pytest.approx(12.0, rel=1.0 / steps + 1e-12)


def test_elastic_demand_faults() -> None:
    network = Network([Arc("a", "b", 2.0), Arc("b", "c", 0.0)])
    with pytest.raises(bl.UsageError, match="choke above 1"):
        elastic(network, [Demand("a", "b", 1.0)], 1.0)
    with pytest.raises(bl.UsageError, match="at least 1 step"):
        elastic(network, [Demand("a", "b", 1.0)], 2.0, 0)
    with pytest.raises(bl.ModelError, match="costs something"):
        elastic(network, [Demand("b", "c", 1.0)], 2.0)
    with pytest.raises(bl.ModelError, match="costs something"):
        elastic(network, [Demand("c", "a", 1.0)], 2.0)
    closed = Network([Arc("a", "b", 2.0)], no_through=["a"])
    with pytest.raises(bl.ModelError, match="passes through origins"):
        elastic(closed, [Demand("a", "b", 1.0)], 2.0)


def highway() -> Network:
    """Three stops 1, 2, 3 on a fast road, slow roads beside it."""
    return Network([Arc("1", "2", 1.0), Arc("2", "3", 1.0), Arc("1", "2", 4.0), Arc("2", "3", 6.0), Arc("1", "3", 7.0)])


def test_tolls_by_entry_and_exit_earn_more() -> None:
    """By arc 1-2 and 2-3 bring at most 3 and 5, and 5 together; by entry and exit each pair pays what it saves."""
    demands = [Demand("1", "2", 2.0), Demand("2", "3", 2.0), Demand("1", "3", 10.0)]
    by_arc = bl.solve(TollProblem(highway(), demands, ["1-2", "2-3"]))
    network, tollable = by_entry_and_exit(highway(), ["1-2", "2-3"])
    assert tollable == ("1-2#2", "1-3#2", "2-3#2")
    problem = TollProblem(network, demands, tollable)
    result = bl.solve(problem)
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(2 * 3.0 + 2 * 5.0 + 10 * 5.0)
    assert result.upper_objective == pytest.approx(brute_force(problem))
    assert by_arc.upper_objective is not None
    assert by_arc.upper_objective < result.upper_objective


def test_highway_faults() -> None:
    with pytest.raises(bl.ModelError, match="no arcs"):
        by_entry_and_exit(highway(), [])
    with pytest.raises(bl.ModelError, match="breaks off: 1-2 does not begin where 2-3 ends"):
        by_entry_and_exit(highway(), ["2-3", "1-2"])
    with pytest.raises(bl.UsageError, match="no arc named"):
        by_entry_and_exit(highway(), ["1-9"])
    ring = Network([Arc("1", "2", 1.0), Arc("2", "1", 1.0)])
    with pytest.raises(bl.ModelError, match="comes back"):
        by_entry_and_exit(ring, ["1-2", "2-1"])
