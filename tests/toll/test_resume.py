"""A search of `toll-design` that was interrupted goes on: the same end, bit by bit, and no equilibrium twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bilevel_core.errors import UsageError
from bilevel_core.result import Result, Termination
from bilevel_core.run import RunContext, checkpoint
from bilevel_core.sampling.generations import CmaSampler
from bilevel_core.testing import solver_checks
from bilevel_core.testing.runner import Case, Keeper, Runner
from bilevel_toll.congestion.answers import Answers
from bilevel_toll.congestion.asking import Task, Way
from bilevel_toll.congestion.design import NetworkDesign
from bilevel_toll.congestion.fan import Fan
from bilevel_toll.congestion.problem import TrafficProblem
from bilevel_toll.congestion.solver import TollDesign
from bilevel_toll.congestion.tolls import CongestedTolls

from .conftest import Call
from .test_equilibrium import random_traffic

FEW = {"starts": 2, "random": 1}


def revenue() -> TrafficProblem:
    return CongestedTolls(random_traffic(3), random_traffic(3).network.labels[:4], ("revenue",), upper=8.0)


def booths() -> TrafficProblem:
    return CongestedTolls(random_traffic(6), random_traffic(6).network.labels[:5], upper=8.0, most_booths=2)


def steps() -> TrafficProblem:
    return CongestedTolls(random_traffic(3), random_traffic(3).network.labels[:3], ("revenue",), upper=6.0, step=0.5)


def design() -> TrafficProblem:
    traffic = random_traffic(4)
    congested = [a for a, b in zip(traffic.network.labels, traffic.roads.b, strict=True) if b > 0.0][:3]
    return NetworkDesign(traffic, dict.fromkeys(congested, 0.05), upper=6.0)


KINDS: dict[str, tuple[Callable[[], TrafficProblem], dict[str, Any]]] = {
    "revenue": (revenue, {**FEW, "global_solves": 24, "polish": 20}),
    "booths": (booths, {**FEW, "perturbations": 1}),
    "steps": (steps, {**FEW, "global_solves": 12}),
    "design": (design, {**FEW, "polish": 20}),
}


class Users:
    """Counts equilibria of the leader's problems, and interrupts from the keyboard at number ``stop``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.stop = 0, 0
        for kind in (CongestedTolls, NetworkDesign):
            monkeypatch.setattr(kind, "flows", self._counted(kind.flows))

    def _counted(self, flows: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.count += 1
            if self.count == self.stop:
                raise KeyboardInterrupt
            return flows(*arguments)

        return counted

    def run(
        self, problem: TrafficProblem, options: dict[str, Any], keeper: Keeper, stop: int = 0, executor: Any = None
    ) -> Result:
        """A run from the keeper's checkpoint, where there is one."""
        self.count, self.stop = 0, stop
        restored = checkpoint.loads(keeper.content) if keeper.content else None
        context = RunContext(keeper=keeper, restored=restored, executor=executor)
        return TollDesign(**options).run(problem, context)


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Users:
    return Users(monkeypatch)


def same(a: Result, b: Result) -> bool:
    """Everything that is said of a point and how it was found; times aside."""
    return (
        all(np.array_equal(a.x[k], b.x[k]) for k in a.x)
        and np.array_equal(a.y["flow"], b.y["flow"])
        and (a.upper_objective, a.claim, a.counts, a.termination, a.message)
        == (b.upper_objective, b.claim, b.counts, b.termination, b.message)
        and [t["objective"] for t in a.trace] == [t["objective"] for t in b.trace]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_anywhere_it_ends_the_same(kind: str, users: Users) -> None:
    make, options = KINDS[kind]
    whole = users.run(make(), options, Keeper(periodic=False))
    total = users.count
    assert total > 20
    for stop in np.linspace(2, total - 1, 4).astype(int):
        keeper = Keeper(periodic=False)
        part = users.run(make(), options, keeper, int(stop))
        assert part.termination is Termination.STOPPED_BY_USER
        resumed = users.run(make(), options, keeper)
        assert same(whole, resumed)
        # Twice: the equilibria that tell whether the problem is the same, and those of the way that was cut short.
        assert users.count < total - stop + 40


def test_interrupted_again_and_again(users: Users) -> None:
    make, options = KINDS["booths"]
    whole = users.run(make(), options, Keeper())
    keeper, rounds = Keeper(periodic=False), 0
    while True:
        # A way that is cut short begins anew: there is progress only if it gets to its end.
        result = users.run(make(), options, keeper, 60)
        rounds += 1
        if result.termination is not Termination.STOPPED_BY_USER:
            break
        assert rounds < 40
    assert rounds > 2
    assert same(whole, result)


@pytest.mark.parametrize("kind", ["revenue", "booths"])
def test_a_checkpoint_after_each_answer_serves_as_well(kind: str, users: Users) -> None:
    """What a crash leaves: the last periodic checkpoint, none from the end."""
    make, options = KINDS[kind]
    whole = users.run(make(), options, Keeper())
    kept: list[bytes] = []

    class Periodic(Keeper):
        def checkpoint(self, content: bytes) -> None:
            kept.append(content)

    users.run(make(), {**options, "checkpoint_every": 0.0}, Periodic())
    assert len(kept) > 30
    for content in kept[1 :: len(kept) // 3]:
        assert same(whole, users.run(make(), options, Keeper(content=content)))


def test_no_whole_hessian_is_kept(users: Users) -> None:
    """Of large networks these are gigabytes."""
    make, options = KINDS["booths"]
    keeper = Keeper()
    users.run(make(), options, keeper)
    told = [e for e in checkpoint.loads(keeper.content).entry("answers") if e["kind"] == "derivatives"]
    assert told
    assert {len(e["of"]) for e in told} >= {0, 1, 2}
    assert all(e["answer"]["rows"].shape == (len(e["of"]), 5) for e in told)


def test_searches_elsewhere(users: Users) -> None:
    make, options = KINDS["booths"]
    whole = users.run(make(), options, Keeper())
    keeper = Keeper(periodic=False)
    with ThreadPoolExecutor(2) as pool:
        part = users.run(make(), options, keeper, 30, pool)
        assert part.termination is Termination.STOPPED_BY_USER
        assert same(whole, users.run(make(), options, keeper, executor=pool))
    assert same(whole, users.run(make(), options, keeper))


def test_the_time_limit_is_no_end(users: Users) -> None:
    make, options = KINDS["revenue"]
    whole = users.run(make(), options, Keeper())
    keeper = Keeper()
    late = TollDesign(**options).run(make(), RunContext(keeper=keeper, time_limit=0.0))
    assert late.termination is Termination.TIME_LIMIT
    assert same(whole, users.run(make(), options, keeper))


def test_a_larger_budget_goes_on(users: Users) -> None:
    make, options = KINDS["revenue"]
    whole = users.run(make(), options, Keeper())
    keeper = Keeper()
    assert users.run(make(), {**options, "solves": 30}, keeper).termination is Termination.ITERATION_LIMIT
    assert same(whole, users.run(make(), options, keeper))


def test_another_problem_is_refused(users: Users) -> None:
    make, options = KINDS["revenue"]
    keeper = Keeper()
    users.run(make(), options, keeper, 30)
    other = CongestedTolls(random_traffic(5), random_traffic(5).network.labels[:4], ("revenue",), upper=8.0)
    with pytest.raises(UsageError, match="changed since"):
        users.run(other, options, keeper)
    with pytest.raises(UsageError, match="variables or the leader's limits"):
        users.run(booths(), options, keeper)


def test_other_limits_of_the_leader_are_another_problem(users: Users) -> None:
    keeper = Keeper()
    users.run(booths(), {**FEW, "perturbations": 0}, keeper, 30)
    more = CongestedTolls(random_traffic(6), random_traffic(6).network.labels[:5], upper=8.0, most_booths=3)
    with pytest.raises(UsageError, match="limits differ"):
        users.run(more, FEW, keeper)

    def within(budget: float | None) -> TrafficProblem:
        traffic = design().traffic
        road = traffic.network.labels[int(np.argmax(traffic.roads.b))]
        return NetworkDesign(traffic, {road: 1.0}, upper=6.0, budget=budget)

    keeper = Keeper()
    users.run(within(2.0), FEW, keeper, 5)
    with pytest.raises(UsageError, match="limits differ"):
        users.run(within(3.0), FEW, keeper)


@pytest.mark.parametrize("how", ["time", "stop", "keyboard"])
def test_what_was_found_is_not_lost_while_the_record_is_read(
    how: str, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, options = KINDS["revenue"]
    keeper = Keeper(periodic=False)
    part = users.run(make(), options, keeper, 40)
    context = RunContext(
        keeper=keeper, restored=checkpoint.loads(keeper.content), time_limit=0.0 if how == "time" else None
    )
    if how == "stop":
        context.stop()
    if how == "keyboard":

        def interrupt(_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(CmaSampler, "ask", interrupt)
    again = TollDesign(**options).run(make(), context)
    assert again.termination is (Termination.TIME_LIMIT if how == "time" else Termination.STOPPED_BY_USER)
    assert again.upper_objective == part.upper_objective
    assert np.array_equal(again.y["flow"], part.y["flow"])
    if how != "keyboard":
        assert again.counts == part.counts
    monkeypatch.undo()
    whole = TollDesign(**options).run(make(), RunContext(keeper=Keeper()))
    assert same(whole, TollDesign(**options).run(make(), RunContext(restored=checkpoint.loads(keeper.content))))


def test_a_smaller_budget_keeps_what_was_found(users: Users) -> None:
    make, options = KINDS["revenue"]
    keeper = Keeper()
    whole = users.run(make(), options, keeper)
    less = users.run(make(), {**options, "solves": 3}, keeper)
    assert less.termination is Termination.ITERATION_LIMIT
    assert less.upper_objective == whole.upper_objective


def test_a_way_that_another_clock_cut_short_is_no_answer() -> None:
    problem, keeper = revenue(), Keeper()

    class Elsewhere(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: Future[Way] = Future()
            future.set_result(Way(ledger=((0, 0),) * 4, ended=True))
            return future

    context = RunContext(keeper=keeper, executor=Elsewhere(1))
    answers = Answers(problem, context, 0.0, "TollDesign")
    for budget, recorded in ((50, 0), (3, 1)):
        with Fan(problem, context, answers) as fan:
            task = Task(problem.bounds[0], None, 0, curved=True, tolerance=1e-8)
            assert [w.ended for w in fan.ways([task], lambda budget=budget: budget, [None])] == [True]
        answers.checkpoint()
        assert len(checkpoint.loads(keeper.content).entry("answers")) == recorded


def test_a_larger_budget_with_booths(users: Users) -> None:
    """Its phases have shares of the budget: what was cut short by them is asked anew."""
    make, options = KINDS["booths"]
    whole = users.run(make(), options, Keeper())
    keeper = Keeper()
    less = users.run(make(), {**options, "solves": 70}, keeper)
    assert less.termination is Termination.ITERATION_LIMIT
    more = users.run(make(), options, keeper)
    assert (more.termination, more.counts) == (whole.termination, whole.counts)
    assert more.upper_objective == pytest.approx(whole.upper_objective, rel=1e-9)
    assert users.count < whole.counts["lower_solves"]


def test_another_search_asks_anew_and_says_so(users: Users) -> None:
    make, options = KINDS["revenue"]
    keeper = Keeper()
    users.run(make(), options, keeper, 60)
    other = {**options, "random": 3}
    resumed = users.run(make(), other, keeper)
    assert "recorded answers the first" in resumed.message
    assert resumed.upper_objective == pytest.approx(users.run(make(), other, Keeper()).upper_objective, rel=1e-6)


def test_the_kit(users: Users) -> None:
    make, options = KINDS["revenue"]
    solver_checks.resume_equals_uninterrupted(Runner(TollDesign, options), Case("random tolls", make))


def test_from_the_command_line(cli: Call, tmp_path: Path) -> None:
    asked = ("toll/congested", "-p", "network=braess", "-p", "objective=revenue", "-p", "arcs=5", "-p", "upper=40")
    options = ("-o", "starts=2", "-o", "global_solves=0")
    whole = json.loads(cli("solve", *asked, *options, "--format", "json").out)
    stopped = cli("solve", *asked, *options, "-o", "solves=12", "--out", "run", "--format", "json")
    assert stopped.code == 4
    assert json.loads(stopped.out)["termination"] == "iteration-limit"
    resumed = cli("resume", "run", "--max-iterations", "2000", "--format", "json")
    assert resumed.code == 0, resumed.err
    told = json.loads(resumed.out)
    assert told["x"] == whole["x"]
    assert told["counts"] == whole["counts"]


def test_toll_design_goes_on(cli: Call, tmp_path: Path) -> None:
    asked = ("toll", "design", "braess", "-p", "objective=revenue", "-p", "upper=40", "-p", "arcs=5", "-f", "json")
    options = ("-o", "starts=2", "-o", "global_solves=0")
    whole = json.loads(cli(*asked, *options, "--out", "whole").out)
    stopped = cli(*asked, *options, "--out", "part", "--time-limit", "1e-9")
    assert stopped.code == 4
    assert "--resume" in stopped.err
    resumed = cli(*asked, "--out", "part", "--resume")
    assert resumed.code == 0, resumed.err
    assert json.loads(resumed.out)["tolls"] == whole["tolls"]
    assert (tmp_path / "part" / "tolls.csv").read_text() == (tmp_path / "whole" / "tolls.csv").read_text()
    (tmp_path / "part" / "run" / "result.json").unlink()  # as a crash leaves it
    killed = cli("show", "part/run")
    assert killed.code == 2
    assert "result" in killed.err
    again = cli("resume", "part/run", "--format", "json")
    assert json.loads(again.out)["upper_objective"] == pytest.approx(-whole["revenue"], rel=1e-9)


def test_toll_design_with_a_larger_budget(cli: Call, tmp_path: Path) -> None:
    """Tables, too, are those of the larger budget."""
    asked = ("toll", "design", "braess", "-p", "objective=revenue", "-p", "upper=40", "-p", "arcs=5", "-f", "json")
    options = ("-o", "starts=2", "-o", "global_solves=0")
    assert cli(*asked, *options, "--out", "whole").code == 0
    stopped = cli(*asked, *options, "-o", "solves=12", "--out", "part")
    assert stopped.code == 4
    assert "--resume and --max-iterations N" in stopped.err
    assert json.loads(cli(*asked, "--out", "part", "--resume").out)["termination"] == "iteration-limit"
    resumed = cli(*asked, "--out", "part", "--resume", "--max-iterations", "2000")
    assert resumed.code == 0, resumed.err
    assert (tmp_path / "part" / "tolls.csv").read_text() == (tmp_path / "whole" / "tolls.csv").read_text()
    new = cli(*asked, "--out", "new", "--max-iterations", "20")
    assert new.code == 2
    assert "-o solves=" in new.err


def test_toll_design_goes_on_with_the_parameters_of_the_run_only(cli: Call) -> None:
    """Solvers that sample cannot tell by themselves: their journal would be read as values of other objectives."""
    asked = ("toll", "design", "braess", "-p", "arcs=5", "-p", "upper=40")
    both = (*asked, "-p", "objective=time,revenue")
    assert cli(*both, "-s", "sample.random", "-o", "lower_solves=8", "--out", "part").code == 4
    again = ("--out", "part", "--resume", "--max-iterations", "9")
    assert cli(*both, *again).code == 4
    other = cli(*asked, "-p", "objective=time,welfare", *again)
    assert other.code == 2
    assert "objective=time,welfare" in other.err
    assert "objective=time,revenue" in other.err
    less = cli("toll", "design", "braess", "-p", "arcs=5", "-p", "objective=time,revenue", *again)
    assert (less.code, "upper=40" in less.err) == (2, True)
    more = cli(*both, "-p", "step=1", *again)
    assert (more.code, "step=1" in more.err) == (2, True)
    network = cli("toll", "design", "sioux-falls", *both[3:], *again)
    assert (network.code, "network=braess" in network.err) == (2, True)


def test_resume_of_toll_design_says_what_is_missing(cli: Call) -> None:
    assert "give the folder" in cli("toll", "design", "braess", "-p", "arcs=5", "--resume").err
    assert cli("toll", "design", "braess", "-p", "arcs=5", "--out", "run", "-o", "starts=1").code == 0
    again = cli("toll", "design", "braess", "-p", "arcs=5", "--out", "run", "--resume", "-o", "starts=2")
    assert again.code == 2
    assert "leave -s, -o and --seed out" in again.err
