"""`bilevel toll price|check|design|grid`: what they print and write, and their exit codes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import bilevel_core as bl
from bilevel_toll.commands.price import relative_gap
from bilevel_toll.pricing_file import read_pricing
from bilevel_toll.random_grid import random_grid

from .conftest import Call


@pytest.mark.parametrize("form", ["std", "pcs"])
def test_price_and_check_an_instance(cli: Call, tmp_path: Path, form: str) -> None:
    made = cli("toll", "grid", "g.json", "--rows", "3", "--columns", "4", "--pairs", "5", "--seed", "3")
    assert made.code == 0, made.err
    done = cli("toll", "price", "g.json", "-o", f"formulation={form}", "--out", "found", "-f", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["answer"] == "proven optimal"
    assert told["check"] == "verified"
    assert told["revenue_if_ties_go_against"] <= told["safe_revenue"] <= told["objective"]
    assert told["bound"] >= told["objective"]
    rows = list(csv.DictReader((tmp_path / "found" / "tolls.csv").read_text().splitlines()))
    assert sum(float(r["revenue"]) for r in rows) == pytest.approx(told["objective"])
    assert json.loads((tmp_path / "found" / "summary.json").read_text())["objective"] == told["objective"]
    audit = cli("toll", "check", "g.json", "found/tolls.csv", "-f", "json")
    assert audit.code == 0, audit.err
    seen = json.loads(audit.out)
    assert seen["revenue"] == pytest.approx(told["objective"], rel=1e-9)
    assert seen["safe_revenue"] == pytest.approx(told["safe_revenue"], rel=1e-9)
    above = next(s for s in seen["shifts"] if s["tolls_changed_by"] == 1e-4)
    assert above["revenue"] <= seen["revenue"] * (1.0 + 1e-4)


def test_the_tie_trap_is_said(cli: Call, tmp_path: Path) -> None:
    (tmp_path / "tolls.csv").write_text("link,toll\n2-3,5\n4-5,10\n")
    done = cli("toll", "check", "toy-a", "tolls.csv", "-f", "json")
    told = json.loads(done.out)
    assert (told["revenue"], told["ties_matter"], told["pairs_at_ties"]) == (15.0, True, 1)
    assert told["revenue_if_ties_go_against"] < 15.0
    assert told["safe_revenue"] == pytest.approx(15.0 * (1 - 1e-4))


def test_a_limit_has_its_own_exit_code(cli: Call) -> None:
    done = cli("toll", "price", "sioux-falls", "-p", "arcs=5", "-p", "pairs=10", "--time-limit", "0")
    assert done.code == 4
    assert "best found, not proven" in done.out


@pytest.mark.parametrize(
    "command", [["price", "sioux-falls", "-p", "arcs=5", "-p", "pairs=10"], ["design", "braess", "-p", "arcs=a-b"]]
)
def test_an_interrupt_has_its_own_exit_code(cli: Call, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bilevel_toll.solver.sweep_starts", interrupted)
    monkeypatch.setattr("bilevel_toll.congestion.search.Search.run", interrupted)
    done = cli("toll", *command)
    assert done.code == 130, done.err
    assert "stopped-by-user" in done.out


def test_an_interrupt_before_any_point(cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bilevel_toll.solver.TollPricing.run", interrupted)
    done = cli("toll", "price", "toy-a", "--out", "nothing")
    assert (done.code, "no-solution" in done.out) == (130, True), done.err


def test_no_share_is_said_of_no_revenue() -> None:
    assert relative_gap(0.0, 5.0) is None
    assert relative_gap(0.0, 0.0) == 0.0
    assert relative_gap(10.0, 11.0) == pytest.approx(0.1)


def test_design(cli: Call, tmp_path: Path) -> None:
    done = cli(
        "toll", "design", "braess", "-p", "arcs=a-b", "-p", "upper=20", "-o", "random=0", "--out", "d", "-f", "json"
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["objective"] == pytest.approx(498.0, rel=1e-6)
    assert told["answer"] == "proven optimal"
    rows = {r["link"]: r for r in csv.DictReader((tmp_path / "d" / "tolls.csv").read_text().splitlines())}
    assert float(rows["a-b"]["flow_before"]) == pytest.approx(2.0, rel=1e-6)
    assert float(rows["a-b"]["flow"]) == pytest.approx(0.0, abs=1e-6)


def test_design_with_several_objectives(cli: Call, tmp_path: Path) -> None:
    pytest.importorskip("pymoo")
    done = cli(
        "toll", "design", "braess", "-p", "arcs=a-b,s-a", "-p", "upper=20", "-p", "objective=time,revenue", "-s",
        "sample.nsga2", "-o", "lower_solves=30", "--out", "front",
    )  # fmt: skip
    assert done.code in (0, 4), done.err
    assert "pareto" in done.out
    rows = list(csv.DictReader((tmp_path / "front" / "pareto.csv").read_text().splitlines()))
    assert {"total_travel_time", "minus_revenue"} <= set(rows[0])


@pytest.mark.parametrize("seed", range(3))
def test_random_grids_keep_toll_free_routes(seed: int) -> None:
    problem = random_grid(4, 5, 8, 0.15, seed)
    assert (len(problem.network.nodes), len(problem.network.arcs), len(problem.demands)) == (20, 62, 8)
    assert len(problem.tollable) >= 4
    assert problem.bound > 0.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["price", "none.json"], "no pricing file"),
        (["price", "toy-a", "-o", "formulation=xyz"], "formulation"),
        (["price", "toy-a", "-o", "sweeps"], "-o 'sweeps': expected KEY=VALUE"),
        (["grid", "g.txt"], "ends with .json"),
        (["grid", "g.json", "--rows", "1"], "at least 2 x 2"),
        (["grid", "g.json", "--tolled", "2"], "share of tollable arcs"),
        (["design", "braess", "-p", "network=sioux-falls"], "the network is the command's argument"),
        (["design", "braess", "-p", "objectiv=time"], "Did you mean 'objective'"),
        (["design", "braess", "-p", "arcs=a-z"], "no arc named 'a-z'"),
    ],
)
def test_faults(cli: Call, arguments: list[str], words: str) -> None:
    done = cli("toll", *arguments)
    assert done.code == 2, done.out
    assert words in done.err


def test_the_check_names_what_is_wrong_with_tolls(cli: Call, tmp_path: Path) -> None:
    file = tmp_path / "tolls.csv"
    file.write_text("link,toll,revenue\n2-3,5,5\n4-5,10,10\n")  # toy A's optimum
    assert cli("toll", "check", "toy-a", "tolls.csv").code == 0
    file.write_text("link,toll,revenue\n1-2,5,0\n2-3,5,5\n4-5,10,12\n")
    done = cli("toll", "check", "toy-a", "tolls.csv")
    assert done.code == 5
    assert "arc 1-2 has a toll and is not tollable" in done.out
    assert "a revenue of 17 is said, and all ties in the leader's favour give 15" in done.out


def test_pricing_files_take_no_parameters(cli: Call, tmp_path: Path) -> None:
    assert cli("toll", "grid", "g.json", "--rows", "3", "--columns", "3", "--pairs", "2").code == 0
    done = cli("toll", "price", "g.json", "-p", "arcs=3")
    assert (done.code, "takes no parameters" in done.err) == (2, True)
    assert bl.classify(read_pricing(tmp_path / "g.json")).chosen == "toll-pricing"
