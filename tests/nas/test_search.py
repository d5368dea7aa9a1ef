"""The solver `supernet`: every preset, every space, its accounts, resuming, and what it says of a collapse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.errors import RefusedError, UsageError  # noqa: E402
from bilevel_core.figures.base import draw  # noqa: E402
from bilevel_core.result import Claim, Status, Termination  # noqa: E402
from bilevel_core.run.stored import read_run  # noqa: E402
from bilevel_nas.discretise import reserve  # noqa: E402
from bilevel_nas.oracle import SupernetOracle  # noqa: E402
from bilevel_nas.parts import Parts  # noqa: E402
from bilevel_nas.presets import PRESETS  # noqa: E402
from bilevel_nas.solver import Supernet  # noqa: E402

from .small import problem  # noqa: E402

SHORT = {"batch": 16, "every": 2}
IMPLICIT = {**SHORT, "second_order_batch": 16}
TINY = {"nodes": 3, "stages": 1}


def budget_of(preset: str) -> float:
    parts = PRESETS[preset].parts
    if parts.disc in ("perturbation", "strength", "evolution"):
        return 24.0
    return 2.0 if parts.mask in ("sample1", "partial:4") else 5.0


def short(preset: str) -> dict[str, Any]:
    return IMPLICIT if PRESETS[preset].parts.part("hyper").kind in ("aux", "cg", "neumann") else SHORT


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_runs_a_short_search(preset: str) -> None:
    small = problem("cell201", TINY, budget=budget_of(preset), final_epochs=0)
    result = bl.solve(small, "supernet", {"preset": preset, **short(preset)}, seed=1, verify=False)
    assert result.termination is Termination.CONVERGED
    assert result.claim is Claim.FEASIBLE
    assert result.upper_objective is not None
    assert 0.0 <= result.upper_objective <= 1.0
    assert result.details["architecture"].startswith("cell201-3:")
    assert result.counts["architecture_steps"] > 0
    # A step that has begun is gone through with: one of the auxiliary program costs some ten passes here.
    assert result.counts["pass_equivalents"] <= small.budget + 12.0
    assert 0.0 <= result.details["entropy"] <= 1.0 + 1e-6
    assert np.isfinite(result.details["architecture_eigenvalue"])
    if preset in ("auxiliary", "implicit", "ndarts", "idarts"):
        assert np.isfinite(result.details["solve_residual"])


def test_a_search_is_a_function_of_its_seed_and_is_verified_by_training_again() -> None:
    small = problem("cell201", TINY, budget=3.0, final_epochs=0)
    results = [bl.solve(small, "supernet", {"preset": "darts1", **SHORT}, seed=s) for s in (3, 3, 4)]
    assert results[0].x == results[1].x
    assert results[0].upper_objective == results[1].upper_objective
    assert all(np.array_equal(results[0].y[k], results[1].y[k]) for k in results[0].y)
    for r in results:
        assert r.certificate is not None
        assert r.certificate.verdict == "verified"
        assert r.certificate.lower_scope == "local"
        assert r.status is Status.FEASIBLE


@pytest.mark.parametrize("options", [{"preset": "auxiliary", "hyper": "aux:3"}, {"preset": "p-darts"}])
def test_a_search_cut_short_goes_on_bit_by_bit(options: dict[str, Any], tmp_path: Path) -> None:
    small = problem("cell201", TINY, budget=8.0, final_epochs=0)
    options = {**short(options["preset"]), **options}
    whole = bl.solve(small, "supernet", options, seed=2, verify=False)

    def stop(event: bl.Event) -> bool:
        return event.kind == "iteration" and event.data["iteration"] >= 2

    cut = bl.solve(small, "supernet", options, seed=2, verify=False, callbacks=[stop], out=tmp_path / "run")
    assert cut.termination is Termination.STOPPED_BY_USER
    assert cut.has_point  # what was found so far is trained and kept
    again = bl.resume(small, tmp_path / "run")
    assert again.x == whole.x
    assert again.upper_objective == whole.upper_objective
    told = ("entropy", "supernet_accuracy", "discretised_accuracy", "architecture_eigenvalue", "pass_equivalents")
    assert [again.details[k] for k in told] == [whole.details[k] for k in told]


def test_events_tell_of_whole_decisions(tmp_path: Path) -> None:
    """The weight of each choice, of as many decisions as there is room for; and their way is drawn."""
    small = problem(budget=4.0, final_epochs=0)
    bl.solve(small, "supernet", {"preset": "darts1", **SHORT}, verify=False, out=tmp_path / "run")
    run = read_run(tmp_path / "run")
    steps = run.of_kind("iteration")
    assert len(steps) >= 2
    for event in steps:
        weights: dict[str, list[float]] = {}
        for name, weight in event["x"].items():
            weights.setdefault(name.split("=")[0], []).append(weight)
        assert [len(w) for w in weights.values()] == [5] * 4  # of six decisions with five choices each
        assert all(sum(w) == pytest.approx(1.0) for w in weights.values())
    assert steps[0]["x"] != steps[-1]["x"]
    pytest.importorskip("matplotlib")
    (drawn,) = draw(run, ["path"])[0]
    assert len(drawn.figure.axes[0].get_lines()) == 20


def test_random_search_at_the_same_budget_stands_beside() -> None:
    small = problem("cell201", TINY, budget=4.0, beside="random")
    result = bl.solve(small, "supernet", {"preset": "darts1", **SHORT}, verify=False)
    (row,) = result.details["random_search"]
    assert row["trials"] == max(1, int(result.details["pass_equivalents"] // small.passes(1)))
    alone = bl.solve(small, "sample.random", {"lower_solves": row["trials"]}, verify=False)
    assert alone.details["architecture"] == row["architecture"]
    assert alone.details["test_accuracy"] == row["test_accuracy"]
    assert 100.0 * (1.0 - alone.upper_objective) == pytest.approx(row["trained_accuracy"])
    bare = problem("cell201", TINY, budget=4.0, final_epochs=0)
    (row,) = bl.solve(bare, "supernet", {"preset": "darts1", "beside": "random", **SHORT}, verify=False).details[
        "random_search"
    ]
    assert "test_accuracy" not in row


def test_a_collapse_is_told() -> None:
    """With architecture parameters that favour skips, whatever the network."""
    small = problem(final_epochs=0, budget=4.0)
    solver = Supernet(preset="darts1", batch=16, stop="skips:6", architecture_rate=1e-6)

    class Biased(SupernetOracle):
        def y_start(self) -> Any:
            self.x_start = np.tile([0.0, 3.0, 0.0, 0.0, 0.0], 6)
            return super().y_start()

    from bilevel_core.run import RunContext

    context = RunContext(seed=0)
    oracle = Biased(small, solver.parts)
    oracle.y_start()
    object.__setattr__(solver, "make_oracle", lambda *_: oracle)
    result = solver.run(small, context)
    assert "collapsed: 100 %" in result.message


def test_skips_end_a_search_before_there_are_too_many() -> None:
    small = problem("cell201", TINY, final_epochs=0, budget=4.0)
    result = bl.solve(small, "supernet", {"preset": "darts-plus", "stop": "skips:1", **SHORT,
                                          "architecture_rate": 0.2}, seed=0, verify=False)  # fmt: skip
    codes = [int(c) for c in result.details["architecture"].partition(":")[2].split("-")]
    assert codes.count(1) <= 1


def test_starts_share_the_budget_and_are_all_counted() -> None:
    small = problem("cell201", TINY, budget=6.0, final_epochs=0)
    one, two = (bl.solve(small, "supernet", {"preset": "darts1", "starts": n, **SHORT}, verify=False) for n in (1, 2))
    assert two.details["pass_equivalents"] == pytest.approx(one.details["pass_equivalents"], abs=1.0)
    # Every gradient of 16 images is a quarter of a pass; that of the diagnosis is not counted.
    gradients = two.counts["lower_gradients"] + two.counts["architecture_steps"]
    assert two.details["pass_equivalents"] == pytest.approx(gradients / 4)
    assert two.counts["lower_gradients"] == two.counts["weight_steps"]


def test_a_search_that_is_cut_short_says_so() -> None:
    small = problem("cell201", TINY, budget=50.0, fixed=True)

    def stop(event: bl.Event) -> bool:
        return event.kind == "iteration" and event.data["iteration"] >= 2

    result = bl.solve(small, "supernet", {"preset": "darts1", **SHORT}, verify=False, callbacks=[stop])
    assert result.has_point
    assert "cut short at 1 of 50 pass-equivalents" in result.message
    assert "no point to give" not in result.message
    # A random architecture is no collapse of a search.
    assert "never moved" in result.message
    assert "collapsed" not in result.message
    # The architecture is tested; those to compare it with are not waited for.
    assert "test_accuracy" in result.details
    assert "fixed_architectures" not in result.details


def test_other_problems_are_refused() -> None:
    with pytest.raises(RefusedError, match="no search for an architecture"):
        bl.solve(bl.NestedProblem([bl.Integer("n", 0, 3)], lambda x, call: bl.Answer({}, 0.0, 0.0)), "supernet")
    with pytest.raises(UsageError, match="put error first"):
        bl.solve(problem(objectives=("cost",)), "supernet")
    with pytest.raises(UsageError, match="used up"):
        bl.solve(problem(budget=2.0), "supernet", {"preset": "darts-pt", **SHORT})


def test_work_is_counted_in_passes_of_the_supernet() -> None:
    small = problem()
    oracle = SupernetOracle(small, Parts())
    x, y = oracle.x_start, oracle.y_start()
    with oracle.charged(128):
        oracle.lower_gradient(x, y)
        oracle.upper(x, y)
    assert oracle.passes == pytest.approx(2 * (1 + 0.35))
    with oracle.charged(64, upper=128):
        oracle.lower_gradient(x, y)
        oracle.upper(x, y)
    assert oracle.passes == pytest.approx(3 * (1 + 0.35) + 0.35)
    sampled = SupernetOracle(small, Parts(relax="gumbel", mask="sample1"))
    assert sampled.share == pytest.approx(6 / 24)
    assert SupernetOracle(small, Parts(mask="partial:4")).share == 1.0
    # 24 candidates looked at on 48 images, and 10 steps of 16 images after each of 6 decisions.
    solver = Supernet(preset="darts-pt", batch=16)
    assert reserve(solver, SupernetOracle(small, solver.parts)) == pytest.approx(24 * 0.35 * 48 / 64 + 60 * 16 / 64)
