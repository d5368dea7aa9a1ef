"""The bilevel problem itself: deterministic training, accounts, cost caps, several objectives, and the test part."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.errors import UsageError  # noqa: E402
from bilevel_core.result import Claim, Verdict  # noqa: E402
from bilevel_nas.data import Data, Part  # noqa: E402
from bilevel_nas.problem import ArchitectureProblem  # noqa: E402
from bilevel_nas.spaces import find_space  # noqa: E402
from bilevel_nas.training import TrainSettings, find_device  # noqa: E402

from .small import images, problem  # noqa: E402


def vectors(**more: Any) -> ArchitectureProblem:
    """Perceptrons on separable vectors: trained in a blink."""
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(3):
        y = (np.arange(32) % 2).astype(np.int64)
        parts.append(Part((rng.normal(size=(32, 4)) + 2.0 * y[:, None]).astype(np.float32), y))
    space = find_space("mlp", {"depth": 2, "widths": (2, 4)})
    settings = {"final_epochs": 3, "name": "vectors", **more}
    return ArchitectureProblem(space, Data("vectors", *parts, 2), TrainSettings(epochs=3, batch=8), **settings)


def test_training_is_a_function_of_the_architecture() -> None:
    small = vectors()
    first, again, other = (small.solve_lower(a) for a in ((1, 0, 1), (1, 0, 1), (1, 1, 1)))
    assert np.array_equal(first.y["weights"], again.y["weights"])
    assert first.lower == again.lower
    assert first.y["weights"].shape != other.y["weights"].shape
    seeded = vectors(train_seed=1).solve_lower((1, 0, 1))
    assert not np.array_equal(first.y["weights"], seeded.y["weights"])


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    vectors().solve_lower((0, 0, -1))
    assert torch.equal(torch.rand(3), expected)


def test_a_grid_goes_through_the_space_and_is_verified_by_training_again() -> None:
    small = vectors()
    result = bl.solve(small, "sample.grid")
    assert result.counts["lower_solves"] == len(list(small.search_space.enumerate())) == 6
    assert result.claim is Claim.FEASIBLE  # trained, not solved globally: nothing is proven
    assert result.certificate is not None
    assert result.certificate.verdict is Verdict.VERIFIED
    changed = dict(result.y)
    changed["weights"] = changed["weights"] + 0.1
    assert bl.verify(small, result.x, changed).verdict is Verdict.UNVERIFIABLE


def test_sampling_takes_as_many_trainings_as_the_budget_is_enough_for() -> None:
    small = vectors(budget=5.0)
    per = small.search_space.single * (3 * 32 + 0.35 * 32) / 64
    assert small.passes(3) == pytest.approx(per)
    assert small.usual_solves == int(5.0 // per)
    result = bl.solve(small, "sample.random", verify=False)
    assert result.counts["lower_solves"] == min(small.usual_solves, 6)
    assert result.counts["pass_equivalents"] <= 6 * (per + 1)


@pytest.mark.parametrize("solver", ["grid", "local", "evolution", "reinforce", "halving"])
def test_samplers_search_it(solver: str) -> None:
    result = bl.solve(vectors(final_epochs=0), f"sample.{solver}", {"lower_solves": 5}, verify=False)
    assert result.has_point
    assert result.details["architecture"].startswith("mlp-2-2x4:")


def test_a_pareto_set_of_error_and_parameters() -> None:
    small = vectors(objectives=("error", "parameters"), final_epochs=0)
    result = bl.solve(small, "sample.grid", verify=False)
    front = result.details["pareto"]
    every = [(small.solve_lower(a).upper, a) for a in small.search_space.enumerate()]
    best = [u for u, _ in every if not any(v != u and all(p <= q for p, q in zip(v, u, strict=True)) for v, _ in every)]
    assert {(r["error"], r["parameters"]) for r in front} == set(best)


def test_what_exceeds_the_cost_cap_is_not_trained() -> None:
    small = vectors(cost_cap=4.0, final_epochs=0)
    found = bl.solve(small, "sample.grid", verify=False)
    assert small.search_space.cost(small.architecture(found.x)) <= 4.0
    assert small.violation((1, 1, 1)) > 0.0
    # Three of six are over the cap, and cost nothing of the budget.
    assert found.counts["lower_solves"] == 3
    sampled = bl.solve(small, "sample.random", {"lower_solves": 2}, seed=1, verify=False)
    assert sampled.counts["lower_solves"] == 2
    assert sampled.counts["pass_equivalents"] == 2 * math.ceil(small.passes(3))
    with pytest.raises(UsageError, match="cost_cap"):
        problem(cost_cap=-1.0)
    # The cheapest perceptron has one layer of two units, whatever the depth that there might be.
    assert vectors(cost_cap=2.0).violation((0, 0, -1)) == 0.0
    with pytest.raises(UsageError, match="less than 2"):
        vectors(cost_cap=1.9)


def test_the_test_part_is_seen_only_by_the_final_networks() -> None:
    """Labels of the test part that are wrong change nothing but the test accuracy."""
    data = images()
    wrong = Data(data.name, data.train, data.validation, Part(data.test.x, (data.test.y + 1) % 3), 3)
    options = {"preset": "darts1", "batch": 16}
    results = [bl.solve(problem(data=d, budget=4.0, final_epochs=2), "supernet", options, verify=False)
               for d in (data, wrong)]  # fmt: skip
    assert results[0].x == results[1].x
    assert results[0].upper_objective == results[1].upper_objective
    assert results[0].details["test_accuracy"] != results[1].details["test_accuracy"]


def test_fixed_architectures_stand_beside() -> None:
    result = bl.solve(vectors(retrains=2), "sample.random", {"lower_solves": 2}, verify=False)
    rows = {r["name"]: r for r in result.details["fixed_architectures"]}
    assert set(rows) == {"smallest", "largest"}
    assert all(0.0 <= r["test_accuracy"] <= 100.0 and r["retraining_deviation"] >= 0.0 for r in rows.values())
    assert result.details["peak_memory_mib"] > 1.0
    assert result.counts["pass_equivalents"] > 0


def test_compare_shows_test_accuracy_and_passes(tmp_path: Path) -> None:
    from bilevel_cli.compared import cells, figures, headings

    small = vectors()
    results = [bl.solve(small, "sample.random", {"lower_solves": 2}, seed=s, verify=False) for s in (0, 1)]
    assert headings(small) == ("test accuracy", "pass equivalents")
    mean, passes = cells(results, small)
    assert "+-" in mean
    assert float(passes.split(" ")[0]) == results[0].counts["pass_equivalents"]
    assert figures(results[0], small)["test_accuracy"] == results[0].details["test_accuracy"]


def test_mixed_precision_and_channels_last_train_too() -> None:
    data = images(counts=(32, 16, 16))
    space = find_space("cell201", {"nodes": 3, "stages": 1, "channels": 4, "stem_stride": 1})
    settings = TrainSettings(epochs=1, batch=16, precision="bfloat16", channels_last=True)
    small = ArchitectureProblem(space, data, settings, final_epochs=0, budget=2.0, name="mixed")
    assert np.isfinite(small.solve_lower((3, 2, 1)).lower)
    result = bl.solve(small, "supernet", {"preset": "darts1", "batch": 16}, verify=False)
    assert result.has_point


@pytest.mark.parametrize(
    "wrong",
    [{"objectives": ("loss",)}, {"retrains": 0}, {"budget": 0.0}, {"final_epochs": -1}, {"beside": "grid"}],
    ids=str,
)
def test_wrong_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        vectors(**wrong)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="cuda:77"):
        find_device("cuda:77")
    with pytest.raises(UsageError, match="precision"):
        TrainSettings(precision="int8")
