"""First-best tolls: figures of Hearn and Ramana (1998), and the property that makes them first-best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_toll.congestion.equilibrium import user_equilibrium
from bilevel_toll.congestion.first_best import AIMS, first_best
from bilevel_toll.congestion.library import braess, load_traffic, sioux_falls
from bilevel_toll.congestion.tables import summary

from .conftest import Call
from .networks import shared_data
from .test_equilibrium import random_traffic


def test_nine_nodes() -> None:
    traffic = load_traffic(shared_data("toll", "tntp", "hearn9", "hearn9_net.tntp"))
    assert first_best(traffic).revenue == pytest.approx(1493.53, abs=5e-3)
    least = first_best(traffic, "least-revenue")
    assert least.revenue == pytest.approx(887.572, abs=5e-4)
    assert least.proven
    assert least.bound == pytest.approx(least.revenue, rel=1e-9)
    fewest = first_best(traffic, "fewest-booths")
    assert (fewest.booths, fewest.proven, fewest.bound) == (5, True, 5.0)


@pytest.mark.parametrize("seed", range(8))
def test_users_choose_the_optimum(seed: int) -> None:
    traffic = random_traffic(seed, closed=seed % 2 == 0)
    optimum = user_equilibrium(traffic, system=True)
    found = [first_best(traffic, aim, optimum=optimum) for aim in AIMS]
    for tolls in found:
        users = user_equilibrium(traffic, tolls.tolls)
        assert users.total_time == pytest.approx(optimum.total_time, rel=1e-7), tolls.aim
    marginal, least, fewest = found
    assert least.revenue <= min(marginal.revenue, fewest.revenue) * (1.0 + 1e-9) + 1e-9
    assert fewest.booths <= min(marginal.booths, least.booths)


@pytest.mark.parametrize("seed", range(4))
def test_fixed_costs_belong_to_what_is_least(seed: int) -> None:
    plain = random_traffic(seed)
    fixed = np.random.default_rng(seed).uniform(0.0, 5.0, len(plain.network.arcs))
    traffic = plain.with_roads(plain.roads, fixed)
    optimum = user_equilibrium(traffic, system=True)
    assert optimum.total_cost == pytest.approx(optimum.total_time + float(optimum.flow @ fixed))
    assert optimum.total_cost <= user_equilibrium(traffic).total_cost * (1.0 + 1e-9)
    for aim in AIMS:
        users = user_equilibrium(traffic, first_best(traffic, aim, optimum=optimum).tolls)
        assert users.total_cost == pytest.approx(optimum.total_cost, rel=1e-7), aim
    assert summary(optimum)["total_time_and_fixed_costs"] == pytest.approx(optimum.total_cost)
    assert "total_time_and_fixed_costs" not in summary(user_equilibrium(plain))


def test_sioux_falls_and_braess() -> None:
    found = first_best(sioux_falls(), "least-revenue")
    assert found.revenue == pytest.approx(2066638.745, abs=1.0)  # computed here
    assert user_equilibrium(sioux_falls(), found.tolls).total_time == pytest.approx(7194256.053, abs=0.1)
    # In Braess's paradox a toll on the road between suffices, and nobody pays it.
    few = first_best(braess(), "fewest-booths")
    assert (few.booths, few.revenue) == (1, 0.0)
    assert few.tolls[4] > 0.0


def test_values_of_time_are_the_tolls_unit() -> None:
    one = first_best(sioux_falls(), "least-revenue").revenue
    assert first_best(sioux_falls(classes=("all:10:1",)), "least-revenue").revenue == pytest.approx(10 * one, rel=1e-6)


def test_faults() -> None:
    with pytest.raises(bl.UsageError, match="one class"):
        first_best(sioux_falls(classes=("a:1:0.5", "b:2:0.5")))
    with pytest.raises(bl.UsageError, match=r"no first-best tolls of at most 0\.1"):
        first_best(braess(), "least-revenue", most=0.1)
    with pytest.raises(bl.UsageError, match="leave out most"):
        first_best(braess(), most=1.0)
    with pytest.raises(bl.UsageError, match="Expected the system optimum"):
        first_best(braess(), optimum=user_equilibrium(braess()))


def test_equilibrium_command(cli: Call) -> None:
    done = cli("toll", "equilibrium", "sioux-falls", "-f", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["total_travel_time"] == pytest.approx(7480225.345, abs=5.1e-4)
    assert told["beckmann"] == pytest.approx(4231335.2871, abs=5.1e-5)
    assert told["relative_gap"] <= 1e-12
    assert told["iterations"] > 0


def test_equilibrium_command_writes_what_it_reads(cli: Call, tmp_path: Path) -> None:
    done = cli("toll", "equilibrium", "braess", "--tolls", "fewest-booths", "--out", "first")
    assert done.code == 0, done.err
    assert (
        (tmp_path / "first" / "od.csv").read_text().splitlines()[0].startswith("origin,destination,trips,cost_before")
    )
    assert "a-t (3)" not in done.out
    again = cli("toll", "equilibrium", "braess", "--tolls", "first/tolls.csv", "-f", "json")
    assert again.code == 0, again.err
    figures = json.loads((tmp_path / "first" / "summary.json").read_text())
    assert json.loads(again.out)["total_travel_time"] == pytest.approx(figures["total_travel_time"], rel=1e-9)
    assert figures["total_travel_time"] == pytest.approx(498.0, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["siux-falls"], "Did you mean 'sioux-falls'"),
        (["braess", "--system", "--tolls", "marginal-cost"], "leave out --system or --tolls"),
        (["braess", "--gap", "2"], "gap in (0, 1)"),
        (["braess", "--time-limit", "2"], "--time-limit is for"),
        (["braess", "-p", "trip=3"], "Did you mean 'trips'"),
        (["sioux-falls", "-p", "classes=car:x:1"], "NAME:VALUE_OF_TIME:SHARE"),
        (["braess", "--tolls", "none.csv"], "no toll file"),
        (["braess", "--tolls", "bad.csv"], "bad.csv:3: expected a toll of at least 0, got -1"),
        (["braess", "--tolls", "strange.csv"], "strange.csv:2: There is no arc named 'a-c'"),
    ],
)
def test_equilibrium_command_faults(cli: Call, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "bad.csv").write_text("link,toll\ns-a,1\na-b,-1\n")
    (tmp_path / "strange.csv").write_text("link,toll\na-c,1\n")
    done = cli("toll", "equilibrium", *arguments)
    assert done.code == 2, done.out
    assert words in done.err


def test_an_equilibrium_cut_short_has_its_own_exit_code(cli: Call) -> None:
    done = cli("toll", "equilibrium", "sioux-falls", "--gap", "1e-30", "-p", "pairs=40")
    assert done.code == 4
    assert "converged" in done.out
    assert np.isfinite(float(done.out.split("total travel time")[1].split()[0]))
