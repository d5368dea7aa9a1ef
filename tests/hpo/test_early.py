"""`tune_training`: early stopping for modules, and runs that were cut short and go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.errors import UsageError
from bilevel_core.run.record import read_result
from bilevel_hpo import SampleWeights, TrainingProblem, WeightDecay, resume_training, tune_training
from bilevel_hpo.descents import least

from .test_training import DECAY, ROWS, batches, problem, validated

OPTIONS = {"max_iterations": 7}


def early() -> TrainingProblem:
    return problem([WeightDecay("weight", start=0.05), SampleWeights(ROWS)], test=batches(2), stopping=batches(3))


def test_stopping_rows_choose_the_point() -> None:
    task = early()
    found = tune_training(task, options=OPTIONS, patience=2)
    path, chosen = found.details["path"], found.details["chosen_step"]
    losses = [row["stopping_loss"] for row in path]
    assert chosen == int(np.argmin(losses))
    assert len(path) == chosen + 3  # the patience
    assert found.details["stopping_loss"] == losses[chosen]
    assert {"objective", "validation_loss", "test_loss", "seconds"} <= set(path[0])
    # The point is that of the path, and the figures are those of the point.
    assert found.upper_objective == path[chosen]["objective"]
    assert found.details["test_loss"] == pytest.approx(path[chosen]["test_loss"])
    x = task.x_layout.from_values(found.x).numpy()
    assert validated(task, x)[0] == pytest.approx(found.upper_objective, rel=1e-6)
    assert (found.claim, found.termination) == ("feasible", "converged")
    assert "Stopped early" in found.message
    assert found.certificate is not None
    assert found.certificate.verdict == "verified"
    whole = bl.solve(task, "hypergradient", OPTIONS, verify=False)
    assert whole.upper_objective is not None
    assert found.upper_objective is not None
    assert whole.upper_objective < found.upper_objective  # validation goes on falling
    assert len(whole.trace) > len(path)


def test_stopping_needs_rows_and_patience() -> None:
    with pytest.raises(UsageError, match="stopping=batches"):
        tune_training(problem([DECAY]))
    with pytest.raises(UsageError, match="patience of at least 1"):
        tune_training(problem([DECAY], stopping=batches(3)), patience=0)


def test_a_loss_that_is_no_number_is_not_the_smallest() -> None:
    assert least([float("nan"), 2.0, 1.0, 1.0, float("nan")]) == 2
    assert least([float("nan"), float("nan")]) == 0


def path_of(result: bl.Result) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.details["path"]]


def same(found: bl.Result, whole: bl.Result) -> None:
    assert path_of(found) == path_of(whole)
    for key in ("chosen_step", "stopping_loss", "test_loss"):
        assert found.details[key] == whole.details[key]
    assert found.upper_objective == whole.upper_objective
    assert found.counts == whole.counts
    assert (found.claim, found.termination, found.message) == (whole.claim, whole.termination, whole.message)
    for a, b in ((found.x, whole.x), (found.y, whole.y)):
        assert all(np.array_equal(a[name], b[name]) for name in b)


def after(steps: int, action: Callable[[], Any]) -> Callable[[bl.Event], Any]:
    """A callback that does something once, at an iteration."""

    def hear(event: bl.Event) -> Any:
        return action() if event.kind == "iteration" and event.data["iteration"] == steps else None

    return hear


class CrashError(Exception):
    pass


def crash() -> None:
    raise CrashError


def test_a_run_that_was_stopped_or_crashed_goes_on_to_the_same_answer(tmp_path: Path) -> None:
    whole = tune_training(early(), options=OPTIONS, patience=2, verify=False)
    assert len(whole.details["path"]) > 3
    stopped = tune_training(
        early(), options=OPTIONS, patience=2, verify=False, out=tmp_path / "a", callbacks=[after(2, lambda: True)]
    )
    assert stopped.termination == "stopped-by-user"
    assert path_of(stopped) == path_of(whole)[:3]
    same(resume_training(early(), tmp_path / "a"), whole)
    with pytest.raises(CrashError):
        tune_training(
            early(), options=OPTIONS, patience=2, verify=False, out=tmp_path / "b", callbacks=[after(1, crash)]
        )
    # What ended by its patience, or was resumed once, gives its answer again; it is what is on the disk.
    for _ in range(2):
        same(resume_training(early(), tmp_path / "b"), whole)
    assert read_result(tmp_path / "b").details["chosen_step"] == whole.details["chosen_step"]


def test_a_killed_run_finds_the_path_of_the_checkpoint_it_left(tmp_path: Path) -> None:
    options = {**OPTIONS, "checkpoint_every": 0.0}
    whole = tune_training(early(), options=options, patience=2, verify=False)

    def killed() -> None:
        shutil.copytree(tmp_path / "run", tmp_path / "killed")

    def between() -> None:
        """The path's file was written already, the checkpoint was not."""
        shutil.copy(tmp_path / "run" / "path", tmp_path / "killed" / "path")

    hear = [after(2, killed), after(3, between)]
    tune_training(early(), options=options, patience=2, verify=False, out=tmp_path / "run", callbacks=hear)
    same(resume_training(early(), tmp_path / "killed"), whole)


def test_samplers_go_on_too(tmp_path: Path) -> None:
    task = problem([DECAY], stopping=batches(3))
    given: dict[str, Any] = {"solver": "sample.random", "options": {"lower_solves": 8}, "patience": 2, "verify": False}
    whole = tune_training(task, **given)
    tune_training(task, **given, out=tmp_path / "run", callbacks=[after(3, lambda: True)])
    found = resume_training(task, tmp_path / "run")
    assert path_of(found) == path_of(whole)
    assert found.upper_objective == whole.upper_objective


def test_folders_without_such_a_run_are_refused(tmp_path: Path) -> None:
    task = problem([DECAY], stopping=batches(3))
    bl.solve(task, "hypergradient", {"max_iterations": 1}, verify=False, out=tmp_path / "other")
    with pytest.raises(UsageError, match="holds no run of tune_training"):
        resume_training(task, tmp_path / "other")
    with pytest.raises(UsageError, match="no folder"):
        resume_training(task, tmp_path / "nothing")
    tune_training(task, options={"max_iterations": 1}, verify=False, out=tmp_path / "run")
    (tmp_path / "run" / "path").unlink()
    with pytest.raises(UsageError, match="no checkpoint with a path"):
        resume_training(task, tmp_path / "run")
