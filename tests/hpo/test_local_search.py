"""`hyper-local-search`: the linear program's direction, and the corrected value beside that on the joint line."""

from __future__ import annotations

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.errors import RefusedError, UsageError
from bilevel_problems.linear import bard_511

from .tools import MODELS, by_refits, problem, validated

SOLVER = "hyper-local-search"


def test_a_step_is_along_the_signs_and_both_values_are_told() -> None:
    task = problem(MODELS["ridge without intercept"])
    start = task.x0.numpy().astype(float)
    steps: list[dict[str, float]] = []

    def hear(event: bl.Event) -> None:
        if event.kind == "iteration" and "corrected" in event.data:
            steps.append(event.data)

    result = bl.solve(task, SOLVER, {"starts": 1}, callbacks=[hear])
    (step,) = steps
    before, _ = validated(task, start)
    assert step["before"] == pytest.approx(before, rel=1e-6)
    # The linear program's solution is the vector of signs.
    reached = start - step["step"] * np.sign(by_refits(task, start, np.arange(4)))
    corrected, _ = validated(task, reached)
    assert step["corrected"] == pytest.approx(corrected, rel=1e-6)
    assert step["joint_line"] < before
    assert result.upper_objective == pytest.approx(min(before, corrected), rel=1e-6)
    # The weights on the line are not those that training gives.
    assert step["joint_line"] != pytest.approx(corrected, rel=1e-6)
    assert f"promised {step['joint_line']:.6g} on the joint line" in result.message
    assert f"trained again it is {step['corrected']:.6g}" in result.message
    (told,) = result.details["steps"]
    assert told == {"start": 0, **{k: step[k] for k in ("step", "before", "joint_line", "corrected")}}
    assert result.claim == "feasible"
    assert result.termination == "converged"
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"


def test_a_step_that_only_the_joint_line_likes_is_not_taken() -> None:
    task = problem(MODELS["ridge, single"])
    best = bl.solve(task, "hypergradient", verify=False)
    task.x0 = task.x_layout.flatten({k: task.x0.new_tensor(v) for k, v in best.x.items()})
    result = bl.solve(task, SOLVER, {"starts": 1, "steps": 3}, verify=False)
    assert result.upper_objective == pytest.approx(best.upper_objective, rel=1e-6)
    np.testing.assert_array_equal(result.x["log_alpha"], best.x["log_alpha"])


def test_samples_are_trained_and_the_best_is_kept() -> None:
    task = problem(MODELS["softmax, class"])
    one, many = (bl.solve(task, SOLVER, {"starts": n}, verify=False) for n in (1, 4))
    assert many.upper_objective <= one.upper_objective
    assert many.counts["lower_solves"] > one.counts["lower_solves"] + 2
    assert [row["start"] for row in many.details["steps"]] == [0, 1, 2, 3]
    assert min(row["corrected"] for row in many.details["steps"]) >= many.upper_objective * (1.0 - 1e-12)
    assert many.upper_objective == bl.solve(task, SOLVER, {"starts": 4}, verify=False).upper_objective


def test_wrong_uses_are_named() -> None:
    with pytest.raises(UsageError, match="steps of at least 1"):
        bl.solve(problem(MODELS["ridge, single"]), SOLVER, {"steps": 0})
    with pytest.raises(RefusedError, match="models that are trained"):
        bl.solve(bard_511(), SOLVER)
