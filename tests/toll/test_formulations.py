"""Every single-level form: oracles, brute force, texts, points; the route table behind the first tolls; files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.backends.highs import Highs
from bilevel_core.result import Status
from bilevel_toll.library import sioux_falls, three_regimes, toy_a
from bilevel_toll.network import Arc, Demand, Network
from bilevel_toll.perturb import RouteTable, perturbed
from bilevel_toll.pricing_file import pricing_text, read_pricing
from bilevel_toll.problem import TollProblem
from bilevel_toll.reduction import FORMS, SingleLevel
from bilevel_toll.settle import settle
from bilevel_toll.tighten import enumerate_routes

from .networks import brute_force, random_problem, shared_data, with_odd_costs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("big_m", ["routes", "distances"])
@pytest.mark.parametrize(("make", "tolls", "revenue"), [(toy_a, [5.0, 10.0], 15.0), (three_regimes, [4.0], 16.0)])
def test_oracles(make: Any, tolls: list[float], revenue: float, big_m: str, form: str) -> None:
    for backend in ("highs", "scip"):
        result = bl.solve(make(), options={"formulation": form, "big_m": big_m, "backend": backend})
        assert result.status is Status.OPTIMAL
        assert result.upper_objective == pytest.approx(revenue, abs=1e-9)
        assert result.x["toll"] == pytest.approx(tolls, abs=1e-8)
        assert result.details["revenue_if_ties_go_against"] < revenue
        assert result.details["safe_revenue"] == pytest.approx(revenue, rel=2e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(6))
def test_against_brute_force(seed: int, form: str) -> None:
    problem = random_problem(seed, no_through=seed % 3 == 0)
    if seed % 2:
        problem = with_odd_costs(problem, seed)
    options = {
        "formulation": form, "backend": "highs", "sweeps": 0, "perturbations": 0,
        "big_m": "distances" if seed % 4 == 1 else "routes",
    }  # fmt: skip
    result = bl.solve(problem, options=options)
    assert result.upper_objective == pytest.approx(brute_force(problem), rel=1e-6, abs=1e-6)
    assert result.status is Status.OPTIMAL, result.message


@pytest.mark.parametrize("form", FORMS)
def test_points_from_tolls_are_feasible(form: Any) -> None:
    problem = sioux_falls(arcs=6, pairs=30)
    reduction = SingleLevel(form)
    target = reduction.apply(problem)
    assert reduction.by_routes > 10
    rng = np.random.default_rng(0)
    for _ in range(3):
        tolls = np.floor(rng.uniform(0.0, 1.0, 6) * reduction.limits.cap)
        point = reduction.point(tolls)
        assert target.violation(point) <= 1e-9
        assert -target.objective.evaluate(point) == pytest.approx(problem.revenue(tolls))
        x, y = problem.point(reduction.invert(point))
        assert x["toll"] == pytest.approx(tolls)
        assert bl.verify(problem, x, y).verdict == "verified"


def one_toll() -> TollProblem:
    network = Network([Arc("a", "b", 2.0), Arc("a", "b", 6.0)])
    return TollProblem(network, [Demand("a", "b", 3.0)], ["a-b"])


TEXTS = {
    "pvf": [
        "minimise -3 paid[a->b,a-b]",
        "one route[a->b]: take[a->b,0] + take[a->b,1] = 1",
        "routes over[a->b,a-b]: take[a->b,0] - use[a->b,a-b] = 0",
        "no cheaper[a->b,0]: -toll[a-b] + least[a->b] <= 2",
        "no cheaper[a->b,1]: least[a->b] <= 6",
        "paid if used[a->b,a-b]: -4 use[a->b,a-b] + paid[a->b,a-b] <= 0",
        "paid at most[a->b,a-b]: -toll[a-b] + paid[a->b,a-b] <= 0",
        "paid in full[a->b,a-b]: toll[a-b] + 4 use[a->b,a-b] - paid[a->b,a-b] <= 4",
        "strong duality[a->b]: -2 take[a->b,0] - 6 take[a->b,1] - paid[a->b,a-b] + least[a->b] >= 0",
    ],
    "pcs": [
        "minimise 6 take[a->b,0] + 18 take[a->b,1] - 3 least[a->b]",
        "one route[a->b]: take[a->b,0] + take[a->b,1] = 1",
        "no cheaper[a->b,0]: -toll[a-b] + least[a->b] <= 2",
        "no cheaper[a->b,1]: least[a->b] <= 6",
        "cheapest if taken[a->b,0]: toll[a-b] + 4 take[a->b,0] - least[a->b] <= 2",
        "cheapest if taken[a->b,1]: 4 take[a->b,1] - least[a->b] <= -2",
    ],
}


@pytest.mark.parametrize("form", TEXTS)
def test_texts(form: Any) -> None:
    target = SingleLevel(form).apply(one_toll())
    lines = [line for line in target.text().splitlines() if " in [" not in line]
    assert lines == TEXTS[form]
    assert Highs().solve(target).objective == pytest.approx(-12.0)


def test_pairs_with_too_many_routes_fall_back_to_arcs(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(2)
    monkeypatch.setattr("bilevel_toll.tighten.MAX_LABELS", 1)
    reduction = SingleLevel("pcs")
    target = reduction.apply(problem)
    assert reduction.by_routes == 0
    assert any(c.name.startswith("potential") for c in target.columns)
    result = bl.solve(problem, options={"formulation": "pcs"})
    assert result.upper_objective == pytest.approx(brute_force(problem), rel=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 5, 9, 22])
def test_route_table_answers_as_the_users_do(seed: int) -> None:
    problem = random_problem(seed, most_pairs=4)
    table = RouteTable.of(problem, enumerate_routes(problem))
    if table is None:
        assert problem.bound == 0.0
        return
    rng = np.random.default_rng(seed)
    for _ in range(10):
        tolls = np.round(rng.uniform(0.0, 1.0, len(table.cap)) * table.cap)
        assert table.revenue(tolls) == pytest.approx(problem.revenue(tolls), rel=1e-6, abs=1e-6)
    found = [table.revenue(t) for t in perturbed(problem, table, np.zeros(len(table.cap)), 30, 0, lambda: False)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(brute_force(problem), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", [1, 2, 5, 9, 22])
def test_a_table_grows_where_routes_cannot_be_listed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(seed, most_pairs=4)
    monkeypatch.setattr("bilevel_toll.tighten.MAX_LABELS", 1)
    listed = enumerate_routes(problem)
    assert not any(listed.routes)
    table = RouteTable.of(problem, listed)
    if table is None:
        assert problem.bound == 0.0
        return
    assert not table.whole.any()
    rng = np.random.default_rng(seed)
    for _ in range(10):
        tolls = np.round(rng.uniform(0.0, 1.0, len(table.cap)) * table.cap)
        table = table.grown(problem, tolls) or table
        assert table.grown(problem, tolls) is None
        assert table.revenue(tolls) == pytest.approx(problem.revenue(tolls), rel=1e-6, abs=1e-6)
    found = list(perturbed(problem, table, np.zeros(len(table.cap)), 30, 0, lambda: False))
    best = max(settle(problem, tolls).revenue for tolls in found)
    assert best == pytest.approx(brute_force(problem), rel=1e-5, abs=1e-5)


def test_perturbing_stops_and_repeats() -> None:
    problem = sioux_falls(arcs=6, pairs=30)
    table = RouteTable.of(problem, enumerate_routes(problem))
    assert table is not None
    first, again = (list(perturbed(problem, table, np.zeros(6), 20, 3, lambda: False)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len(list(perturbed(problem, table, np.zeros(6), 20, 3, lambda: True))) == 1


def test_files_go_round(tmp_path: Path) -> None:
    problem = random_problem(4)
    (tmp_path / "four.json").write_text(pricing_text(problem))
    again = read_pricing(tmp_path / "four.json")
    assert again.name == "toll/four"
    assert again.network.costs.tolist() == problem.network.costs.tolist()
    assert again.tollable == tuple(sorted(problem.tollable))
    assert again.trips.tolist() == problem.trips.tolist()
    assert again.bound == problem.bound


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["A"][0].update(src=9), r"problem.A\[0\].src: node 9 is not among 1 to 5"),
        (lambda p: p["A"][1].update(cost=-1), r"problem.A\[1\].cost: expected a number of at least 0, got -1"),
        (lambda p: p["A"][1].pop("toll"), r"problem.A\[1\]: expected an entry 'toll'"),
        (lambda p: p["K"][0].update(demand="many"), r"problem.K\[0\].demand: expected a number"),
        (lambda p: p["A"][2].update(src=1, dst=1), "self-loop"),
        (lambda p: p.pop("K"), "expected an entry 'K'"),
        (lambda p: p.update(V=True), "problem.V: expected int"),
    ],
)
def test_file_faults(tmp_path: Path, change: Any, words: str) -> None:
    data = json.loads(pricing_text(random_problem(4)))
    change(data["problem"])
    (tmp_path / "bad.json").write_text(json.dumps(data))
    with pytest.raises(bl.UsageError, match=words):
        read_pricing(tmp_path / "bad.json")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"problem": {\n"V": 3,')
    with pytest.raises(bl.UsageError, match=r"cut.json:2: this is no JSON"):
        read_pricing(tmp_path / "cut.json")
    with pytest.raises(bl.UsageError, match="no pricing file"):
        read_pricing(tmp_path / "none.json")


def test_an_instance_of_the_literature() -> None:
    """Tolls found are checked and never beat the bound of all savings."""
    problem = read_pricing(shared_data("toll", "network-pricing", "g40-02.json"))
    assert (len(problem.network.nodes), len(problem.tollable), len(problem.demands)) == (60, 42, 40)
    clock = {"timing/clocktype": 1, "limits/time": 1.0}  # of CPU time, so that other work changes little
    result = bl.solve(problem, options={"perturbations": 5, "backend_options": clock}, verify=False)
    assert result.upper_objective is not None
    assert result.bound is not None
    assert 0.5 * 103620.0 < result.upper_objective <= 103620.0 * (1 + 1e-5)  # best known, proven
    assert result.bound >= 103619.0 * (1 - 1e-5)
