"""`bilevel compare`: whose option is whose, rows for what fails, several seeds, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bilevel_cli.compare import Entry, entries_of
from bilevel_core.errors import UsageError

from .conftest import Call
from .test_solve import STUB

BARD = "classic/bard-511"


def test_options_belong_to_the_solver_before_them() -> None:
    order = [("solver", "kkt"), ("option", "a=1"), ("option", "b=x=y"), ("parameter", "q=2"), ("solver", "auxiliary")]
    assert entries_of(order) == (Entry("kkt", {"a": "1", "b": "x=y"}), Entry("auxiliary"))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([], "Nothing to compare"),
        ([("option", "a=1"), ("solver", "kkt")], "before the first -s"),
        ([("solver", "kkt"), ("option", "a")], "KEY=VALUE"),
        ([("solver", "kkt"), ("option", "a=1"), ("option", "a=2")], "given twice for -s kkt"),
    ],
)
def test_what_belongs_to_nothing_is_an_error(order: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        entries_of(order)


def test_side_by_side(cli: Call) -> None:
    r = cli("compare", BARD, "-s", "kkt", "-o", "complementarity=sos1", "-skkt", "--option=complementarity=bigm")
    assert r.code == 0
    lines = r.out.splitlines()
    assert lines[0] == "problem  classic/bard-511 (min)"
    assert lines[1] == "known    -12"
    assert lines[3].split()[:4] == ["solver", "options", "objective", "bound"]
    assert lines[3].split()[-3:] == ["lower", "solves", "nodes"]
    for line, mode in zip(lines[4:6], ("sos1", "bigm"), strict=True):
        assert line.split()[:7] == ["kkt", f"complementarity={mode}", "-12", "-12", "optimal", "global", "verified"]
    assert lines[-1] == "best verified  kkt complementarity=sos1"


def test_json(cli: Call) -> None:
    r = cli("compare", BARD, "-s", "kkt", "-s", "auxiliary", "--seeds", "2", "--seed", "5", "-f", "json")
    data = json.loads(r.out)
    assert data["schema"] == "bilevel.compare/1"
    assert (data["problem"], data["sense"], data["known_optimum"], data["seeds"]) == (BARD, "min", -12.0, [5, 6])
    assert data["best"] == 0
    first, second = data["entries"]
    assert [run["seed"] for run in second["runs"]] == [5, 6]
    assert first["mean"] == pytest.approx(-12.0)
    assert first["spread"] == pytest.approx(0.0, abs=1e-9)
    assert first["error"] is None
    run = second["runs"][0]
    assert (run["status"], run["claim"], run["verdict"]) == ("locally-optimal", "local", "verified")
    assert run["counts"]["lower_solves"] > 0


def test_refusals_and_errors_are_rows(cli: Call, plugin: object) -> None:
    plugin("stub", STUB)  # type: ignore[operator]
    r = cli("compare", BARD, "-s", "toll-pricing", "-s", "stub", "-o", "end=raise", "-s", "kkt")
    assert r.code == 0
    rows = [line.split() for line in r.out.splitlines()]
    assert rows[4][:5] == ["toll-pricing", "-", "-", "-", "refused"]
    assert rows[5][:5] == ["stub", "end=raise", "-", "-", "error"]
    assert rows[6][:5] == ["kkt", "-", "-12", "-12", "optimal"]
    assert "toll-pricing: Solver 'toll-pricing' does not take this problem" in r.out
    assert "stub end=raise: " in r.out
    assert "the stub broke" in r.out
    assert "chatter" not in r.out


def test_wrong_points_are_not_best(cli: Call, plugin: object) -> None:
    """A refuted point has the best objective; the verified one is named."""
    plugin("stub", STUB)  # type: ignore[operator]
    r = cli("compare", BARD, "-s", "stub", "-o", "y=9", "-s", "kkt")
    assert r.code == 0
    assert "refuted" in r.out.splitlines()[4]
    assert r.out.splitlines()[-1] == "best verified  kkt"


def test_exit_code_when_nothing_is_verified(cli: Call, plugin: object) -> None:
    plugin("stub", STUB)  # type: ignore[operator]
    assert cli("compare", BARD, "-s", "stub", "-o", "y=9").code == 5
    assert cli("compare", "trap/leaders-wish", "-s", "kkt").code == 3
    r = cli("compare", BARD, "-s", "toll-pricing")
    assert r.code == 2
    assert r.out.splitlines()[-1] == "no point was verified"
    assert cli("compare", BARD, "-s", "stub", "-o", "end=interrupt", "-s", "kkt").code == 130


def test_several_seeds_give_mean_and_spread(cli: Call, plugin: object) -> None:
    seeded = STUB.replace("return Result(end, Claim.GLOBAL", "self = dataclasses.replace(self, x=4.0 + context.seed)\n"
                          "        return Result(end, Claim.GLOBAL")  # fmt: skip
    plugin("stub", seeded)  # type: ignore[operator]
    r = cli("compare", BARD, "-s", "stub", "--seeds", "3", "-f", "json")
    entry = json.loads(r.out)["entries"][0]
    assert entry["mean"] == pytest.approx(-11.0)
    assert entry["spread"] == pytest.approx(1.0)
    assert "-11 +- 1" in cli("compare", BARD, "-s", "stub", "--seeds", "3").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-s", "kktt"), "'kkt'"),
        (("-s", "kkt", "-o", "complementarty=sos1"), "'complementarity'"),
        (("-s", "kkt", "--seeds", "0"), "at least 1"),
        (("-o", "a=1"), "before the first -s"),
        ((), "Nothing to compare"),
    ],
)
def test_mistakes_end_before_anything_is_run(cli: Call, arguments: tuple[str, ...], message: str) -> None:
    r = cli("compare", BARD, *arguments)
    assert r.code == 2
    assert message in r.err
    assert r.out == ""


def test_a_maximising_leader(cli: Call) -> None:
    r = cli("compare", "trap/small-bound", "-s", "kkt", "-f", "json")
    data = json.loads(r.out)
    assert data["sense"] == "max"
    assert data["entries"][0]["mean"] == pytest.approx(102.0)
    assert data["best"] == 0


TIED = '''
import pyomo.environ as pyo
import bilevel_core as bl


def model():
    """Any y in [0, x + 1] is optimal for the follower: at best y = 2 at x = 1 (-1), at worst y = 0 at x = 0 (0)."""
    m = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 1))
    m.f = bl.Follower()
    m.f.y = pyo.Var(bounds=(0, 5))
    m.f.c = pyo.Constraint(expr=m.f.y <= m.x + 1)
    m.f.o = pyo.Objective(expr=0 * m.f.y)
    m.o = pyo.Objective(expr=m.x - m.f.y)
    return m
'''


def test_best_is_within_one_response(cli: Call, tmp_path: Path) -> None:
    """A pessimist's optimum is no rival of an optimist's: each response has a best of its own, and none contradicts."""
    (tmp_path / "tied.py").write_text(TIED)
    runs = ("-s", "kkt", "-s", "kkt", "-o", "response=pessimistic", "-o", "complementarity=bigm")
    r = cli("compare", str(tmp_path / "tied.py"), *runs)
    assert r.code == 0
    last = r.out.splitlines()[-2:]
    assert last[0] == "best verified, optimistic   kkt"
    assert last[1] == "best verified, pessimistic  kkt response=pessimistic complementarity=bigm"
    assert "contradict" not in r.out
    data = json.loads(cli("compare", str(tmp_path / "tied.py"), *runs, "-f", "json").out)
    assert (data["best"], data["best_by_response"]) == (None, {"optimistic": 0, "pessimistic": 1})
    assert data["contradictions"] == []


def test_contradictions_are_told_and_are_no_success(cli: Call, plugin: object) -> None:
    """At x = 1 the follower has y = 2: a bilevel feasible point, with -7, which the stub calls globally optimal."""
    plugin("stub", STUB)  # type: ignore[operator]
    r = cli("compare", BARD, "-s", "stub", "-o", "x=1", "-o", "y=2", "-s", "kkt")
    assert "stub x=1 y=2 claims that nothing is better than -7" in r.out
    assert "kkt has a verified point with -12" in r.out
    assert r.code == 5
    r = cli("compare", BARD, "-s", "stub", "-o", "end=unbounded", "-o", "x=none", "-s", "kkt", "-f", "json")
    assert r.code == 5
    (told,) = json.loads(r.out)["contradictions"]
    assert "unbounded" in told


def test_the_figure_shows_every_run(cli: Call, model: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = cli("compare", model, "-s", "kkt", "-s", "penalty", "-s", "branch-and-cut", "--plot", "c.svg", "-f", "json")
    assert done.code == 0, done.err
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")
    from bilevel_cli.compare_figure import draw

    figure = draw(json.loads(done.out))
    values, times = figure.axes
    assert [t.get_text() for t in values.get_yticklabels()] == ["kkt", "penalty", "branch-and-cut"]
    dots = [line.get_xdata()[0] for line in values.get_lines() if line.get_marker() == "o"]
    assert dots == pytest.approx([-12.0, -12.0])
    assert len(times.get_lines()) == 2
    assert "failed or refused" in [t.get_text() for t in values.texts]
    low, high = values.get_xlim()
    assert high - low > 1e-3


def test_a_figure_that_cannot_be_drawn_is_said_before_anything_is_run(cli: Call, model: str) -> None:
    pytest.importorskip("matplotlib")
    done = cli("compare", model, "-s", "kkt", "--plot", "c.jpg")
    assert (done.code, done.out) == (2, "")
    assert "ends with .png or .svg" in done.err
    assert "there is no folder" in cli("compare", model, "-s", "kkt", "--plot", "nowhere/c.png").err
