"""Second-best tolls where only so many arcs may have one, against enumeration of which; starts through an executor."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.result import Claim, Status
from bilevel_core.run.executors import WorkerDiedError
from bilevel_toll.congestion.design import NetworkDesign
from bilevel_toll.congestion.equilibrium import user_equilibrium
from bilevel_toll.congestion.library import braess, congested_tolls, load_traffic
from bilevel_toll.congestion.sparse import sparse_tolls
from bilevel_toll.congestion.tolls import CongestedTolls

from .conftest import Call
from .networks import shared_data
from .test_equilibrium import random_traffic


def enumerated(problem: CongestedTolls) -> float:
    """The best value over all sets of groups that take no more booths than allowed, each from several starts."""
    values: list[float] = []
    assert problem.most_booths is not None
    everything = range(len(problem.groups))
    for count in range(1, len(problem.groups) + 1):
        for support in itertools.combinations(everything, count):
            room = problem.most_booths - sum(problem.sizes[list(support)])
            if room < 0 or any(problem.sizes[k] <= room for k in everything if k not in support):
                continue  # too many booths, or others may be added
            part = problem.restricted(support)
            found = bl.solve(part, options={"starts": 3, "random": 1, "global_solves": 0}, verify=False)
            values.append(float(np.asarray(found.upper_objective)))
    return min(values)


@pytest.mark.parametrize("seed", [3, 6])
def test_against_enumeration(seed: int) -> None:
    traffic = random_traffic(seed)
    worst = np.argsort(-user_equilibrium(traffic).flow)[:4]
    labels = [traffic.network.labels[a] for a in worst]
    problem = CongestedTolls(traffic, labels, most_booths=2)
    result = bl.solve(problem, options={"perturbations": 2})
    assert float(np.asarray(result.upper_objective)) <= enumerated(problem) * (1.0 + 1e-6)
    assert result.details["booths"] <= result.details["most_booths"] == 2
    assert sum(row["toll"] > 0.0 for row in result.details["tolls"]) == result.details["booths"]
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
    assert result.claim in (Claim.FEASIBLE, Claim.GLOBAL)


def test_one_booth_prices_the_paradox_away() -> None:
    problem = CongestedTolls(braess(), braess().network.labels, upper=60.0, most_booths=1)
    result = bl.solve(problem)
    assert result.status is Status.OPTIMAL
    assert result.upper_objective == pytest.approx(498.0, abs=1e-3)
    assert {k for k, v in result.x.items() if float(v) > 0.0} == {"toll[a-b]"}
    assert result.counts["lower_solves"] < 100


def test_groups_take_a_booth_on_each_of_their_arcs() -> None:
    groups = {"pair": ["s-a", "b-t"], "between": ["a-b"], "ways": ["a-t", "s-b"]}
    problem = CongestedTolls(braess(), groups, upper=60.0, most_booths=2)
    assert problem.booths(np.array([1.0, 2.0, 0.0])) == 3
    assert problem.violation(np.array([1.0, 2.0, 0.0])) == pytest.approx(0.5)
    result = bl.solve(problem, options={"perturbations": 1})
    assert result.upper_objective == pytest.approx(enumerated(problem), rel=1e-6)
    assert result.details["booths"] <= 2


def test_nine_nodes_need_five_booths() -> None:
    """Hearn and Ramana's network: the system optimum takes five booths; four do not reach it."""
    traffic = load_traffic(shared_data("toll", "tntp", "hearn9", "hearn9_net.tntp"))
    five = bl.solve(CongestedTolls(traffic, traffic.network.labels, upper=30.0, most_booths=5))
    assert five.status is Status.OPTIMAL
    assert five.upper_objective == pytest.approx(2253.918, abs=1e-3)
    assert five.details["booths"] == 5
    one = bl.solve(
        CongestedTolls(traffic, traffic.network.labels, upper=30.0, most_booths=1), options={"perturbations": 0}
    )
    assert one.claim is Claim.FEASIBLE
    assert one.upper_objective == pytest.approx(2361.1636, abs=1e-3)  # of all 153 pairs, each from six starts, too


def test_steps_and_revenue() -> None:
    problem = CongestedTolls(braess(), braess().network.labels, upper=20.0, step=5.0, most_booths=1)
    result = bl.solve(problem, options={"perturbations": 1})
    tolls = sorted(float(v) for v in result.x.values())
    assert tolls == [0.0, 0.0, 0.0, 0.0, 3.0]
    assert result.upper_objective == pytest.approx(498.0, abs=1e-3)
    revenue = CongestedTolls(braess(), ["a-b", "a-t", "s-b"], ("revenue",), upper=30.0, most_booths=1)
    most = bl.solve(revenue, options={"perturbations": 1, "global_solves": 0})
    assert most.upper_objective == pytest.approx(enumerated(revenue), rel=1e-6)


def test_sparse_tolls_go_from_none_to_first_best() -> None:
    traffic = random_traffic(1)
    problem = CongestedTolls(traffic, traffic.network.labels, upper=1e3, most_booths=1)
    optimum = user_equilibrium(traffic, system=True)
    found = sparse_tolls(problem, optimum)
    booths = [problem.booths(x) for x in found]
    times = [problem.value(x, problem.flows(x), "time") for x in found]
    assert booths[0] <= booths[-1]
    assert times[-1] == pytest.approx(optimum.total_time, rel=1e-6)


def test_the_check_counts_booths() -> None:
    problem = CongestedTolls(braess(), ["a-b", "s-a"], upper=20.0, most_booths=1)
    x = {"toll[a-b]": 5.0, "toll[s-a]": 5.0}
    flows = problem.flows(np.array([5.0, 5.0]))
    found = bl.verify(problem, x, {"flow": problem.split(flows)})
    assert found.verdict == "refuted"
    assert "constraints are violated" in found.reason


def test_budgets_and_limits_leave_allowed_tolls() -> None:
    problem = congested_tolls(arcs=("8",), pairs=60, most_booths=2)
    assert isinstance(problem, CongestedTolls)
    cut = bl.solve(problem, options={"solves": 40})
    assert cut.termination == "iteration-limit"
    assert cut.counts["lower_solves"] <= 40
    assert 1 <= cut.details["booths"] <= 2
    late = bl.solve(problem, time_limit=0.0)
    assert late.termination == "time-limit"
    assert late.details["booths"] == 0
    stopped = bl.solve(problem, callbacks=[lambda event: event.kind == "incumbent" and event.data["objective"] < 1e9])
    assert stopped.termination == "stopped-by-user"


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "2"])
def test_numbers_that_are_none(most: Any) -> None:
    with pytest.raises(bl.ModelError, match="most_booths as a whole number of at least 1"):
        CongestedTolls(braess(), ["a-b"], upper=20.0, most_booths=most)


def test_what_it_cannot_work_with() -> None:
    labels = braess().network.labels
    with pytest.raises(bl.ModelError, match="leave out lower"):
        CongestedTolls(braess(), labels, lower=1.0, upper=20.0, most_booths=2)
    with pytest.raises(bl.ModelError, match="takes 2 booths"):
        CongestedTolls(braess(), {"pair": ["s-a", "b-t"]}, upper=20.0, most_booths=1)
    with pytest.raises(bl.ModelError, match="give step="):
        CongestedTolls(braess(), labels, ("time", "revenue"), upper=20.0, most_booths=2)
    with pytest.raises(bl.UsageError, match="perturbations is for problems with most_booths"):
        bl.solve(CongestedTolls(braess(), labels, upper=20.0), options={"perturbations": 3})
    with pytest.raises(bl.UsageError, match="fewer than tollable arcs"):
        bl.solve(CongestedTolls(braess(), labels, upper=20.0, most_booths=5), options={"perturbations": 3})
    several = CongestedTolls(braess(), labels, ("time", "revenue"), upper=20.0, most_booths=2, step=10.0)
    assert several.violation(np.array([1.0, 1.0, 1.0, 0.0, 0.0])) == pytest.approx(0.5)


class Borrowed(Executor):
    """Hands tasks as bytes to threads, as another process would get them; the first may be lost."""

    def __init__(self, lose: bool = False) -> None:
        self.pool, self.lose, self.sent = ThreadPoolExecutor(2), lose, 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.sent += 1
        if self.lose and self.sent == 1:
            lost: Future[Any] = Future()
            lost.set_exception(WorkerDiedError("it died"))
            return lost
        return self.pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.pool.shutdown(wait, cancel_futures=cancel_futures)


def same(a: bl.Result, b: bl.Result) -> None:
    """Equal to the last bit, but for times."""
    assert a.upper_objective == b.upper_objective
    assert a.counts == b.counts
    assert {k: v.tolist() for k, v in a.x.items()} == {k: v.tolist() for k, v in b.x.items()}
    assert np.array_equal(a.y["flow"], b.y["flow"])
    assert (a.claim, a.termination, a.bound, a.message) == (b.claim, b.termination, b.bound, b.message)
    assert [row["objective"] for row in a.trace] == [row["objective"] for row in b.trace]


@pytest.mark.parametrize("given", [{}, {"solves": 60}, {"starts": 2}])
def test_starts_through_an_executor(given: dict[str, Any]) -> None:
    problem = congested_tolls(arcs=("4",), pairs=60)
    executor = Borrowed()
    same(bl.solve(problem, options=given), bl.solve(problem, options=given, executor=executor))
    assert executor.sent == (2 if given.get("starts") else 9)
    executor.shutdown()


def test_booths_through_an_executor() -> None:
    problem = congested_tolls(arcs=("6",), pairs=40, most_booths=2)
    options = {"perturbations": 1, "starts": 2, "random": 0}
    executor = Borrowed()
    same(bl.solve(problem, options=options), bl.solve(problem, options=options, executor=executor))
    assert executor.sent > 10
    executor.shutdown()


class Busy(Borrowed):
    """Never comes to a task."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        busy: Future[Any] = Future()
        busy.set_running_or_notify_cancel()
        return busy


def test_a_run_ends_without_those_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bilevel_toll.congestion.fan.PATIENCE", 0.1)
    problem = CongestedTolls(braess(), ["s-a"], upper=60.0)
    executor = Busy()
    late = bl.solve(
        problem, executor=executor, callbacks=[lambda e: e.kind == "phase" and "derivatives" in e.data["message"]]
    )
    executor.shutdown()
    assert late.termination == "stopped-by-user"
    assert late.upper_objective == pytest.approx(523.8, abs=20.0)  # of the first points, which nobody else computes


def test_in_processes_and_when_one_dies() -> None:
    problem = congested_tolls(arcs=("3",), pairs=40)
    options = {"starts": 2, "random": 0}
    same(bl.solve(problem, options=options), bl.solve(problem, options=options, executor="processes:1"))
    losing = Borrowed(lose=True)
    left = bl.solve(problem, options=options, executor=losing)
    losing.shutdown()
    assert left.has_point
    assert "A search is missing: it died" in left.message


def test_a_budget_for_building() -> None:
    """Two roads between the same nodes: the best of a fine grid within the budget, and no more spent than allowed."""
    traffic = braess()
    problem = NetworkDesign(traffic, {"s-b": 1.0, "a-t": 2.0}, upper=40.0, budget=15.0)
    result = bl.solve(problem, options={"starts": 2, "random": 1})
    assert result.solver == "toll-design"
    spent = result.details["cost_of_building"]
    assert spent <= 15.0 + 1e-9
    assert result.details["budget"] == 15.0
    values = []
    for share in np.linspace(0.0, 1.0, 31):
        for part in np.linspace(0.0, 1.0, 11):
            z = np.array([15.0 * share * part, 7.5 * share * (1.0 - part)])
            values.append(problem.value(z, problem.flows(z, problem.untouched), "time"))
    assert result.upper_objective <= min(values) + 1e-6
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"


def test_from_the_command_line(cli: Call, tmp_path: Path) -> None:
    given = ("-p", "arcs=all", "-p", "upper=60", "-p", "most_booths=1")
    done = cli("toll", "design", "braess", *given, "--out", "found", "-f", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["booths"], told["most_booths"], told["answer"]) == (1, 1, "proven optimal")
    assert json.loads((tmp_path / "found" / "summary.json").read_text())["most_booths"] == 1
    for text, said in (("0", "at least 1"), ("1.5", "most_booths")):
        done = cli("toll", "design", "braess", "-p", "arcs=all", "-p", f"most_booths={text}")
        assert done.code == 2
        assert said in done.err


def test_tolls_under_congestion_are_checked(cli: Call, tmp_path: Path) -> None:
    asked = ("toll", "check", "congested", "tolls.csv", "-p", "network=braess", "-p", "upper=60")
    file = tmp_path / "tolls.csv"
    file.write_text("link,toll\na-b,15\n")
    done = cli(*asked, "-p", "arcs=all", "-p", "most_booths=1", "-f", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["booths"], told["most_booths"]) == (1, 1)
    assert told["total_travel_time"] == pytest.approx(498.0, abs=1e-3)
    file.write_text("link,toll\na-b,12\n")
    told = json.loads(cli(*asked, "-p", "arcs=all", "-f", "json").out)
    times = {row["tolls_changed_by"]: row["total_travel_time"] for row in told["shifts"]}
    assert times[-0.1] > told["total_travel_time"] > times[0.1] > 498.0
    assert "most_booths" not in told
    file.write_text("link,toll\na-b,15\ns-a,0.5\n")
    for given, said in (
        (("arcs=all", "most_booths=1"), "2 arcs have a toll, and most_booths=1"),
        (("arcs=a-b",), "arc s-a has a toll and is not tollable"),
        (("arcs=a-b,s-a", "equal=yes"), "arcs a-b and s-a have one toll in common"),
        (("arcs=a-b,s-a", "step=1"), "0.5 on s-a is no multiple of the step 1"),
        (("arcs=a-b,s-a", "lower=1"), "0.5 on s-a is not between 1 and 60"),
    ):
        done = cli(*asked, *(text for p in given for text in ("-p", p)), "-f", "json")
        assert done.code == 5
        told = json.loads(done.out)
        assert [said in text for text in told["faults"]] == [True]
        assert not told["verified"]
    file.write_text("link,toll\na-b,61\ns-a,0.5\n")
    told = json.loads(cli(*asked, "-p", "arcs=a-b", "-p", "step=2", "-f", "json").out)
    assert len(told["faults"]) == 3  # all are named: not tollable, above the bound, between steps
    file.write_text("link,toll\na-c,1\n")
    assert cli(*asked, "-p", "arcs=all").code == 2
    assert cli("toll", "check", "toll/design", "tolls.csv").code == 2


def test_flows_and_revenues_in_a_file_are_checked(cli: Call, tmp_path: Path) -> None:
    given = ("-p", "arcs=s-a", "-p", "upper=60")
    assert cli("toll", "design", "braess", *given, "--out", ".").code == 0
    file = tmp_path / "tolls.csv"
    true = file.read_text()
    asked = ("toll", "check", "congested", "tolls.csv", "-p", "network=braess", *given)
    done = cli(*asked, "-f", "json")
    assert done.code == 0, done.out
    assert json.loads(done.out)["verified"]
    lines = [line.split(",") for line in true.splitlines()]
    for column, value, code, said in (
        ("flow", "3.0", 5, "the flow of arc s-a is said to be 3 and is 2.46154"),
        ("revenue", "50", 5, "the revenue of arc s-a is said to be 50 and is 45.1282"),
        ("revenue", "", 0, ""),
        ("flow", "many", 2, ":2: expected a number for flow"),
    ):
        changed = [list(fields) for fields in lines]
        changed[1][lines[0].index(column)] = value
        file.write_text("\n".join(",".join(fields) for fields in changed))
        done = cli(*asked)
        assert done.code == code, done.out
        assert said in done.out + done.err
