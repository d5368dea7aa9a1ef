"""`bilevel bench`: which problems belong to a suite, what counts as right, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import bilevel_core as bl
from bilevel_cli.bench import _outcome, problems_of  # pyright: ignore[reportPrivateUsage]
from bilevel_core.errors import UsageError
from bilevel_core.plugins.registry import get_registry

from .conftest import Call


def test_suites_are_families_patterns_and_tags() -> None:
    traps = problems_of("trap")
    assert {n.split("/")[0] for n in traps} == {"trap"}
    assert problems_of("trap/*") == traps
    assert list(problems_of("classic/bard-511")) == ["classic/bard-511"]
    tagged = problems_of("integer")
    assert tagged
    assert all("integer" in get_registry().problems[n].tags for n in tagged)
    assert set(problems_of("all")) == {n for n, s in get_registry().problems.items() if s.known is not None}
    with pytest.raises(UsageError, match=r"'nonsense'.*classic.*trap"):
        problems_of("nonsense")


def test_rows_and_summary(cli: Call) -> None:
    r = cli("bench", "trap/[ls]*", "-s", "kkt", "-s", "kkt", "-o", "complementarity=bigm")
    assert r.code == 0
    lines = r.out.splitlines()
    assert lines[0] == "suite    trap/[ls]*: 2 problem(s) with a known optimum"
    assert [line.split()[0] for line in lines[2:6]] == ["trap/small-bound"] * 2 + ["trap/leaders-wish"] * 2
    assert all(" right " in line for line in lines[2:6])
    assert [line.split()[:3] for line in lines[8:10]] == [["kkt", "2", "0"], ["kkt", "complementarity=bigm", "2"]]


def test_as_json_with_the_automatic_choice(cli: Call) -> None:
    r = cli("bench", "classic/bard-511", "--format", "json")
    assert r.code == 0
    told = json.loads(r.out)
    assert told["schema"] == "bilevel.bench/1"
    assert told["problems"] == ["classic/bard-511"]
    (run,) = told["runs"]
    assert run["outcome"] == "right"
    assert run["verdict"] == "verified"
    assert run["objective"] == pytest.approx(-12.0)
    assert told["entries"][0]["right"] == 1


def test_what_refuses_is_a_row_and_what_is_misspelt_an_error(cli: Call) -> None:
    r = cli("bench", "classic/moore-bard", "-s", "kkt")
    assert r.code == 0
    assert " refused " in r.out
    r = cli("bench", "classic/moore-bard", "-s", "ktk")
    assert r.code == 2
    assert "ktk" in r.err
    r = cli("bench", "classic/bard-511", "-s", "kkt", "-o", "complimentarity=sos1")
    assert r.code == 2
    assert "complimentarity" in r.err


@pytest.mark.parametrize(
    ("maximise", "known", "value", "status", "outcome"),
    [
        (False, 5.0, 5.0, "optimal", "right"),
        (False, 5.0, 6.0, "optimal", "wrong"),
        (False, 5.0, 6.0, "feasible", "missed"),
        (False, 5.0, 4.0, "feasible", "wrong"),  # verified, and better than the optimum: one of the two is wrong
        (True, 5.0, 4.0, "feasible", "missed"),
        (True, 5.0, 6.0, "feasible", "wrong"),
        (False, None, 6.0, "optimal", "wrong"),
    ],
)
def test_outcomes(maximise: bool, known: float | None, value: float, status: str, outcome: str) -> None:
    result = bl.solve(get_registry().problems["classic/bard-511"].load()())
    assert result.certificate is not None
    claim = bl.Claim.GLOBAL if status == "optimal" else bl.Claim.FEASIBLE
    told = replace(result, upper_objective=value, claim=claim)
    assert told.status == status
    assert _outcome(replace(told, bound=None), bl.KnownOptimum(known, "made up"), maximise=maximise) == outcome


@pytest.mark.parametrize(("bound", "outcome"), [(5.9, "wrong"), (5.0, "missed"), (4.5, "missed")])
def test_an_optimum_between_the_point_and_its_bound_is_missed_and_no_error(bound: float, outcome: str) -> None:
    result = bl.solve(get_registry().problems["classic/bard-511"].load()())
    told = replace(result, upper_objective=6.0, claim=bl.Claim.GLOBAL, bound=bound)
    assert told.status == "optimal"
    assert _outcome(told, bl.KnownOptimum(5.0, "made up"), maximise=False) == outcome
