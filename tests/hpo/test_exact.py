"""The hinge through the KKT route: the support vector machine's program, solved to the best C of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.errors import UsageError
from bilevel_hpo.exact import ExactSvmProblem, svm_exact


def csv(tmp_path: Path, classes: int = 2) -> Path:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 2))
    labels = np.digitize(inputs @ [1.0, -0.7] + 0.8 * rng.normal(size=60), np.linspace(-1.0, 1.0, classes + 1)[1:-1])
    lines = [f"{a},{b},class{c}" for (a, b), c in zip(inputs, labels, strict=True)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["a,b,kind", *lines]), encoding="utf-8")
    return path


def validated(task: ExactSvmProblem, c: float) -> float:
    """The leader's objective at another C, by scikit-learn's training."""
    svm = pytest.importorskip("sklearn.svm")
    train, validation = task.rows
    model = svm.LinearSVC(loss="hinge", C=c, tol=1e-10, max_iter=1_000_000)
    model.fit(task.inputs[train], task.signs[train])
    margins = task.signs[validation] * model.decision_function(task.inputs[validation])
    return float(np.mean(np.maximum(0.0, 1.0 - margins) ** 2))


def test_kkt_finds_the_best_c_of_all(tmp_path: Path) -> None:
    task = svm_exact(data=csv(tmp_path), target="kind", train=14, validation=14)
    result = bl.solve(task)
    assert result.solver == "kkt"
    assert result.status == "optimal"
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
    grid = np.logspace(-2, 1, 61)
    losses = [validated(task, c) for c in grid]
    assert result.upper_objective is not None
    assert result.upper_objective <= min(losses) + 1e-6
    (c,) = np.atleast_1d(result.x["C"])
    assert validated(task, float(c)) == pytest.approx(result.upper_objective, abs=1e-5)
    assert result.upper_objective < min(losses[0], losses[-1]) - 1e-3  # inside the range
    assert result.details["test_rows"] == 32
    assert 0.5 < result.details["test_accuracy"] <= 1.0


def test_a_file_may_be_named_by_a_string(tmp_path: Path) -> None:
    name: Any = str(csv(tmp_path))
    assert len(svm_exact(data=name, target="kind").test) == 20


def test_data_that_ship_are_told_of() -> None:
    pytest.importorskip("sklearn")
    task = svm_exact(train=6, validation=6)
    assert len(task.test) == 557
    assert bl.classify(task).chosen == "kkt"


def test_wrong_uses_are_named(tmp_path: Path) -> None:
    path = csv(tmp_path)
    with pytest.raises(UsageError, match="train=50 and validation=20"):
        svm_exact(data=path, target="kind", train=50)
    with pytest.raises(UsageError, match="0 < low < high"):
        svm_exact(data=path, target="kind", low=2.0, high=1.0)
    with pytest.raises(UsageError, match="needs target=COLUMN"):
        svm_exact(data=path)
    with pytest.raises(UsageError, match="give data=FILE"):
        svm_exact(target="kind")
    with pytest.raises(UsageError, match="two classes apart"):
        svm_exact(data=csv(tmp_path, 3), target="kind")
