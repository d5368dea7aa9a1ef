"""`tune`: the path, the descent with one entry for all before the many, and early stopping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.errors import UsageError
from bilevel_core.run.stored import read_run
from bilevel_hpo import TuningProblem, tune
from bilevel_hpo.linear import LinearModel

from .tools import MODELS, as_tensors, data, problem, tuned, validated

MODEL = MODELS["ridge without intercept"]
SOLVERS = ("auxiliary", "hypergradient")


def test_the_path_is_made_of_answers_and_falls() -> None:
    task = problem(MODEL, folds=2)
    found = tune(task, options={"max_iterations": 6})
    objectives = [step.objective for step in found.path]
    assert objectives == sorted(objectives, reverse=True)
    assert found.chosen == len(found.path) - 1
    for step in (found.path[0], found.path[-1]):
        value, _ = validated(task, task.x_layout.flatten(step.x).numpy())
        assert value == pytest.approx(step.objective, rel=1e-6)
    assert found.result.upper_objective == pytest.approx(objectives[-1], rel=1e-6)
    assert found.result.certificate is not None
    assert found.result.certificate.verdict == "verified"


def test_one_for_all_comes_first() -> None:
    task = problem(MODEL)
    start = task.x0.clone()
    found = tune(task, options={"max_iterations": 3}, verify=False)
    assert (task.x0 == start).all()
    shared = [step for step in found.path if len(set(step.x["log_alpha"].tolist())) == 1]
    assert 1 < len(shared) < len(found.path)
    alone = tune(task, options={"max_iterations": 3}, verify=False, shared_first=False)
    assert len([s for s in alone.path if len(set(s.x["log_alpha"].tolist())) == 1]) == 1
    best = min(validated(task, np.full(4, v))[0] for v in np.linspace(np.log(1e-3), np.log(1e3), 200))
    assert shared[-1].objective <= best * 1.02
    assert found.result.counts["lower_solves"] > 3


def test_squared_losses_by_moments_are_those_by_rows() -> None:
    for name in ("ridge, group", "elastic net", "ridge without intercept"):
        task = problem(MODELS[name])
        x, rows = task.x_layout.unflatten(task.x0), task.folds[0].train
        weights = np.random.default_rng(0).random(task.y0.numel())
        _, y = as_tensors(task, task.x0.numpy(), task.y0.new_tensor(weights))
        model = MODELS[name]
        assert isinstance(model, LinearModel)
        w, _, bias = model.parts(x, y["weights"], rows)
        mean = 0.5 * ((rows.inputs @ w[:, 0] + bias[0] - rows.targets) ** 2).mean()
        assert float(model._moment_loss(w[:, 0], bias[0], rows)) == pytest.approx(float(mean), rel=1e-12)


def early() -> TuningProblem:
    """A ridge problem with rows of another draw that say when to stop."""
    model = LinearModel("squared", (tuned("alpha", 1e-4, 1e4, 1.0, "feature", 1),))
    folds = problem(model, folds=2).folds
    return TuningProblem(model, folds, stopping=[fold.train.like(*data(model, seed=7)) for fold in folds])


def test_joint_tuning_ends_where_alternating_does() -> None:
    task = problem(MODEL)
    joint, other = (tune(task, solver=s, options={"max_iterations": 20}, verify=False) for s in SOLVERS)
    objectives = [step.objective for step in joint.path]
    assert objectives == sorted(objectives, reverse=True)
    value, _ = validated(task, task.x_layout.flatten(joint.path[-1].x).numpy())
    assert value == pytest.approx(objectives[-1], rel=1e-6)
    assert joint.result.solver == "auxiliary"
    assert objectives[-1] == pytest.approx(other.path[-1].objective, rel=1e-2)


def test_early_stopping_is_where_other_rows_say() -> None:
    task = early()
    found = tune(task, patience=2, options={"max_iterations": 30, "tolerance": 1e-8})
    losses = [step.stopping for step in found.path]
    assert None not in losses
    assert found.chosen == int(np.argmin(losses))  # type: ignore[arg-type]
    assert len(found.path) <= found.chosen + 3
    assert found.result.claim == "feasible"
    assert found.result.termination == "converged"
    assert "had not fallen for 2 steps" in found.result.message
    assert found.result.certificate is not None
    assert found.result.certificate.verdict == "verified"
    # Reports are in the targets' own units.
    details, unit = found.result.details, task.folds[0].train.unit
    assert unit != 1.0
    assert details["stopping_loss"] == pytest.approx(losses[found.chosen] * unit**2)  # type: ignore[operator]
    rows = details["path"]
    assert len(rows) == len(found.path)
    assert rows[details["chosen_step"]]["validation_loss"] == pytest.approx(details["validation_loss"])
    assert rows[details["chosen_step"]]["stopping_loss"] == details["stopping_loss"]


def test_the_solver_stops_early_and_is_chosen_by_itself() -> None:
    task = early()
    result = bl.solve(task, options={"patience": 2}, verify=False)
    again = tune(task, patience=2, verify=False)
    assert result.solver == "tune"
    assert result.upper_objective == again.result.upper_objective
    assert result.details["stopping_loss"] == pytest.approx(again.result.details["stopping_loss"])
    assert [row["objective"] for row in result.details["path"]] == [step.objective for step in again.path]
    assert bl.classify(problem(MODEL)).chosen == "hypergradient"
    with pytest.raises(UsageError, match="patience = 5 would have no effect"):
        bl.solve(problem(MODEL), "tune", {"patience": 5})


def test_wrong_uses_are_named() -> None:
    task = problem(MODEL)
    with pytest.raises(UsageError, match="each of 1 folds, got 2"):
        tune(task, stopping=[task.folds[0].train] * 2)
    with pytest.raises(UsageError, match="patience of at least 1"):
        tune(task, patience=0)


def test_events_tell_of_hyperparameters_in_their_own_units(tmp_path: Path) -> None:
    task = problem(MODEL)
    result = bl.solve(task, "hypergradient", {"max_iterations": 3}, verify=False, out=tmp_path / "run")
    steps = read_run(tmp_path / "run").of_kind("iteration")
    (alpha,) = task.model.hyperparameters
    names = [alpha.entry(k) for k in range(alpha.size)]
    assert all(name.startswith("alpha[") for name in names)
    assert steps[0]["x"] == pytest.approx(dict.fromkeys(names, alpha.start))
    best = dict(zip(names, np.exp(result.x["log_alpha"]).tolist(), strict=True))
    assert any(step["x"] == pytest.approx(best) for step in steps)
