"""The registered problems: against closed forms, in their reports, on the command line, and on the user's file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_cli.__main__ import main
from bilevel_core.errors import UsageError
from bilevel_core.plugins.registry import get_registry

pytest.importorskip("sklearn")

from bilevel_hpo import library
from bilevel_hpo.split import split

NAMES = ("ridge", "elastic-net", "logistic", "svm", "svm-exact", "data-cleaning", "mlp")
LOOSE = {"tolerance": 1e-3, "max_iterations": 5}


def test_all_are_registered() -> None:
    assert {f"hpo/{name}" for name in NAMES} <= set(get_registry().problems)


def test_ridge_on_diabetes_is_the_closed_forms() -> None:
    result = bl.solve(library.ridge(scope="single"))
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
    assert result.claim == "local"
    data = pytest.importorskip("sklearn.datasets").load_diabetes()
    parts = split(data.target)
    seen = data.data[parts.tuning]  # the test rows have no part in the scale
    inputs = (data.data - seen.mean(0)) / seen.std(0)
    (train, validation), test = parts.folds[0], parts.test
    both = np.concatenate([train, validation])

    def loss(alpha: float, rows: np.ndarray, judges: np.ndarray) -> float:
        x, t = inputs[rows] - inputs[rows].mean(0), data.target[rows] - data.target[rows].mean()
        w = np.linalg.solve(x.T @ x + alpha * np.eye(10), x.T @ t)
        found = (inputs[judges] - inputs[rows].mean(0)) @ w + data.target[rows].mean()
        return float(np.mean((found - data.target[judges]) ** 2))

    alpha = float(np.exp(result.x["log_alpha"][0]))
    best = min((loss(a, train, validation), a) for a in np.logspace(-3, 5, 161))
    best = min((loss(a, train, validation), a) for a in best[1] * np.logspace(-0.05, 0.05, 101))
    assert alpha == pytest.approx(best[1], rel=5e-3)
    assert result.details["validation_loss"] == pytest.approx(best[0], rel=1e-6)
    unit = np.std(data.target[both]) ** 2
    assert result.upper_objective == pytest.approx(best[0] / unit, rel=1e-6)
    assert result.details["test_loss"] == pytest.approx(loss(alpha, train, test), rel=1e-6)
    assert result.details["test_loss_refitted"] == pytest.approx(loss(alpha, both, test), rel=1e-6)


def test_one_alpha_a_feature_is_better_for_the_leader_and_is_compared_on_the_test() -> None:
    result = bl.solve(library.ridge(), options={"tolerance": 1e-4}, verify=False)
    assert result.termination == "converged"
    assert result.claim in ("stationary", "local")
    details = result.details
    assert details["validation_loss"] < details["validation_loss_single"]
    better = details["test_loss_refitted"] < details["test_loss_refitted_single"]
    assert details["against_single"].startswith("better" if better else "not better")
    assert len(details["hyperparameters"]) == 10


def test_many_hyperparameters_for_few_rows_are_warned_of() -> None:
    few = bl.solve(library.ridge(validation=0.04, compare=False), options=LOOSE, verify=False)
    assert "10 hyperparameters were fitted to 18 validation rows" in few.details["warning"]
    assert "warning" not in bl.solve(library.ridge(compare=False), options=LOOSE, verify=False).details


def test_a_prior_draws_to_the_start() -> None:
    free, drawn = (bl.solve(library.ridge(compare=False, prior=p), options=LOOSE, verify=False) for p in (0.0, 5.0))
    assert np.linalg.norm(drawn.x["log_alpha"]) < np.linalg.norm(free.x["log_alpha"])
    assert drawn.details["validation_loss"] > free.details["validation_loss"]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (library.elastic_net, {"scope": "single"}),
        (library.logistic, {"dataset": "iris", "scope": "free", "compare": False}),
        (library.logistic, {"dataset": "iris", "scope": "group", "groups": ("a", "a", "b", "b"), "compare": False}),
        (library.svm, {"dataset": "iris", "loss": "hinge", "test": 0.5, "scope": "single"}),
        (library.svm, {"dataset": "iris", "loss": "squared-hinge", "scope": "class", "folds": 2}),
        (library.data_cleaning, {"dataset": "iris", "wrong": 0.4}),
        (library.mlp, {"dataset": "iris", "hidden": 3, "compare": False}),
    ],
)
def test_every_problem_is_improved_and_reported(make, options) -> None:  # type: ignore[no-untyped-def]
    result = bl.solve(make(**options), options=LOOSE, verify=False)
    first = result.trace[0]["objective"]
    assert first is not None
    assert result.upper_objective < first
    details = result.details
    assert details["test_rows"] > 0
    assert np.isfinite(details["test_loss"])
    assert ("test_accuracy" in details) == (make is not library.elastic_net)
    assert json.loads(result.to_json())["details"]["hyperparameters"][0]["name"]


def test_cleaning_gives_wrong_rows_less_weight() -> None:
    task = library.data_cleaning(dataset="iris", wrong=0.4, compare=False)
    result = bl.solve(task, options={"tolerance": 1e-3, "max_iterations": 25}, verify=False)
    data = pytest.importorskip("sklearn.datasets").load_iris()
    train = split(data.target, classes=3).folds[0][0]
    wrong = task.folds[0].train.targets.numpy() != data.target[train]
    weights = task.chosen(result.x)["weight"]
    assert 0.2 < wrong.mean() < 0.6
    assert np.median(weights[wrong]) < 0.5 * np.median(weights[~wrong])


def test_parameters_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="needs target=COLUMN"):
        library.ridge(data=Path("x.csv"))
    with pytest.raises(UsageError, match="give data=FILE"):
        library.ridge(target="y")
    with pytest.raises(UsageError, match="group of each of the 4 features"):
        library.logistic(dataset="iris", scope="group")


def test_the_users_file_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(80, 3))
    goals = inputs @ [2.0, 0.0, -1.0] + 0.1 * rng.normal(size=80)
    lines = [",".join(map(str, [*row, goal])) for row, goal in zip(inputs, goals, strict=True)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["a,b,c,y", *lines]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        given = ["solve", "hpo/ridge", "-p", f"data={path}", "-p", "target=y", "-p", "compare=false", *arguments]
        monkeypatch.setattr(sys, "argv", ["bilevel", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    code, out, err = call("-o", "tolerance=1e-2", "--no-verify", "-f", "json")
    assert code == 0, err
    names = [row["name"] for row in json.loads(out)["details"]["hyperparameters"]]
    assert names == ["alpha[a]", "alpha[b]", "alpha[c]"]
    path.write_text(path.read_text(encoding="utf-8") + "\n1,,3,4\n", encoding="utf-8")
    code, _, err = call()
    assert code == 2
    assert "line 82: no value in column 'b'" in " ".join(err.split())
