"""The user's CSV with its faults by name, data that ships with scikit-learn, and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bilevel_core.errors import UsageError
from bilevel_hpo.data import read_csv, shipped
from bilevel_hpo.split import split

ROWS = [f"{k},{k % 3},{k * 0.5},{'red' if k % 2 else 'blue'}" for k in range(12)]


def write(tmp_path: Path, lines: list[str], header: str = "a,b,y,kind") -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_sound_file(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    table = read_csv(path, "y", classify=False, drop=("kind",))
    assert table.features == ("a", "b")
    assert table.targets[3] == 1.5
    classes = read_csv(path, "kind", classify=True)
    assert classes.classes == ("blue", "red")
    assert classes.targets.tolist() == [0, 1] * 6


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*ROWS, "1,,2,red"], r"line 14: no value in column 'b'"),
        ([*ROWS, "1,NA,2,red"], r"line 14: no value in column 'b'"),
        ([*ROWS, "1,x,2,red"], r"line 14: 'x' in column 'b' is no finite number"),
        ([*ROWS, "1,inf,2,red"], r"line 14: 'inf' in column 'b' is no finite number"),
        ([*ROWS, "1,2,2"], r"line 14: 3 fields, the header has 4"),
        ([*ROWS, "1,2,,red"], r"line 14: no value in column 'y'"),
        (ROWS[:5], r"5 usable row"),
        ([f"{k},7,{k},red" for k in range(12)], r"constant column\(s\) 'b'.*drop=COLUMN"),
        ([f"{k},{k % 3},4,red" for k in range(12)], r"'y' has the one value 4"),
    ],
)
def test_faults_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_csv(write(tmp_path, lines), "y", classify=False, drop=("kind",))


def test_faults_can_be_dropped_and_are_told(tmp_path: Path) -> None:
    lines = [f"{k},7,{k},red" for k in range(12)] + ["1,7,,red"]
    table = read_csv(write(tmp_path, lines), "y", classify=False, drop=("kind",), faults="drop")
    assert len(table.targets) == 12
    assert table.features == ("a",)
    assert "line 14: no value in column 'y'" in table.notes[0]
    assert "'b'" in table.notes[1]


@pytest.mark.parametrize(
    ("header", "target", "drop", "message"),
    [
        ("a,b,y,kind", "yy", (), r"no column named 'yy'.*'y'"),
        ("a,b,y,kind", "y", ("kin",), r"no column named 'kin'.*'kind'"),
        ("a,b,a,kind", "b", (), r"'a' stand more than once"),
        ("a,b,y,kind", "y", ("a", "b", "kind"), r"no column is left"),
        ("a,b,y,kind", "y", ("y",), r"is the target"),
        ("1,2,3,4", "1", (), r"first line holds numbers"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, header: str, target: str, drop: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_csv(write(tmp_path, ROWS, header), target, classify=False, drop=drop)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_csv(tmp_path / "none.csv", "y", classify=False)
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="is empty"):
        read_csv(tmp_path / "empty.csv", "y", classify=False)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError, match="UTF-8"):
        read_csv(tmp_path / "binary.csv", "y", classify=False)


def test_a_target_of_too_many_classes(tmp_path: Path) -> None:
    lines = [f"{k},{k % 3},{k * 1.37},red" for k in range(40)]
    with pytest.raises(UsageError, match="40 classes in 40 rows"):
        read_csv(write(tmp_path, lines), "y", classify=True, drop=("kind",))


def test_shipped_data() -> None:
    pytest.importorskip("sklearn")
    assert shipped("diabetes").inputs.shape == (442, 10)
    digits = shipped("digits")
    assert digits.inputs.shape[1] == 61
    assert "'pixel_0_0'" in digits.notes[0]
    with pytest.raises(UsageError, match="no data set named 'digit'"):
        shipped("digit")


@pytest.mark.parametrize("folds", [1, 2, 5])
def test_parts_are_disjoint_and_have_every_class(folds: int) -> None:
    targets = np.array([0, 1] * 30 + [2] * 20)
    parts = split(targets, classes=3, folds=folds, seed=3, stopping=0.1)
    seen = np.concatenate([parts.test, parts.tuning])
    assert sorted(seen.tolist()) == list(range(80))
    assert len(parts.stopping) == 8
    assert set(parts.stopping) <= set(parts.tuning)
    for train, validation in parts.folds:
        assert not set(train) & set(validation)
        assert not set(parts.stopping) & (set(train) | set(validation))
        assert set(targets[train]) == set(targets[validation]) == {0, 1, 2}
    assert set(targets[parts.test]) == {0, 1, 2}
    if folds > 1:
        assert parts.validation_rows == 52
        everyone = np.concatenate([parts.stopping, *(validation for _, validation in parts.folds)])
        assert sorted(everyone.tolist()) == parts.tuning.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 0.6, "validation": 0.5}, "sum below 1"),
        ({"test": 0.0}, "sum below 1"),
        ({"stopping": 0.6}, "sum below 1"),
        ({"folds": 0}, "folds of at least 1"),
        ({"folds": 50}, "folds: lower folds"),
    ],
)
def test_splits_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split(np.arange(20.0), **options)  # type: ignore[arg-type]


def test_a_class_without_a_training_row_is_named() -> None:
    targets = np.array([0] * 30 + [1])
    with pytest.raises(UsageError, match="Class 'rare' has no training row"):
        split(targets, classes=("usual", "rare"), folds=30, test=0.03)
    with pytest.raises(UsageError, match="Class 1 has no training row"):
        split(targets, classes=2, folds=30, test=0.03)
