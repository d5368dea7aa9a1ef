"""Tables of numbers to tune on: those that ship with scikit-learn, and the user's CSV with its faults named."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bilevel_core.errors import MissingError, UsageError, unknown

MISSING = ("", "na", "nan", "n/a", "null", "none", "?")
"""Texts that stand for a missing value, in lower case."""
SHOWN = 5
Faults = Literal["error", "drop"]


@dataclass(frozen=True, eq=False)
class Table:
    """Inputs and targets by name.

    Attributes:
        name: of the data.
        inputs: shape (rows, features), finite.
        targets: numbers, or class numbers 0, 1, ... as integers; shape (rows,).
        features: names.
        classes: names; empty for targets that are numbers.
        notes: what was left out, in sentences.
    """

    name: str
    inputs: np.ndarray
    targets: np.ndarray
    features: tuple[str, ...]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def shipped(name: str) -> Table:
    """A data set that ships with scikit-learn.

    Raises:
        UsageError: there is none of this name.
        MissingError: scikit-learn is not installed.
    """
    try:
        import sklearn.datasets as sets
    except ImportError as error:
        raise MissingError(
            'Data that ships with scikit-learn needs it: pip install "bilevel[hpo]", or give your own data=FILE.'
        ) from error
    loaders = {n: getattr(sets, f"load_{n}") for n in ("diabetes", "digits", "iris", "wine", "breast_cancer")}
    if name not in loaders:
        raise unknown("data set", name, loaders, see="A file of your own: -p data=FILE.csv -p target=COLUMN.")
    found: Any = loaders[name]()
    features = tuple(str(f) for f in found.feature_names)
    if name == "diabetes":
        return Table(name, np.array(found.data), np.array(found.target, dtype=float), features)
    classes = tuple(str(c) for c in found.target_names)
    table = Table(name, np.array(found.data, dtype=float), np.array(found.target, dtype=np.int64), features, classes)
    return without_constants(table, "drop")


def read_csv(
    path: str | os.PathLike[str],
    target: str,
    *,
    classify: bool,
    drop: Sequence[str] = (),
    faults: Faults = "error",
) -> Table:
    """Read a CSV file with a header line. All columns but the target's are numbers.

    Args:
        path: the file, UTF-8.
        target: the column to predict.
        classify: whether the target is a class (any text) or a number.
        drop: columns to leave out.
        faults: ``error`` refuses rows with missing or wrong values and constant columns; ``drop`` leaves them out and
            says so.

    Raises:
        UsageError: whatever is wrong, with line and column.
    """
    path = Path(path)  # from the command line it is one, from Python often a string
    lines, header = _lines(path)
    for label, names in (("target", [target]), ("drop", drop)):
        for name in names:
            if name not in header:
                raise unknown("column", name, header, see=f"Parameter {label} names a column of {path}.")
    if target in drop:
        raise UsageError(f"{path}: column {target!r} is the target and cannot be dropped as well.")
    features = [name for name in header if name != target and name not in drop]
    if not features:
        raise UsageError(f"{path}: besides the target {target!r} no column is left to predict it from.")
    rows: list[list[float]] = []
    targets: list[Any] = []
    wrong: list[str] = []
    for number, fields in lines:
        fault, values, goal = _row(fields, header, features, target, classify)
        if fault:
            wrong.append(f"line {number}: {fault}")
            continue
        rows.append(values)
        targets.append(goal)
    notes: tuple[str, ...] = ()
    if wrong:
        shown = "; ".join(wrong[:SHOWN]) + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")
        if faults == "error":
            raise UsageError(
                f"{path}: {len(wrong)} bad row(s). {shown}. Mend them, leave a column out with drop=COLUMN, or "
                "the rows with faults=drop."
            )
        notes = (f"{len(wrong)} bad row(s) left out: {shown}.",)
    if len(rows) < 8:
        raise UsageError(f"{path}: {len(rows)} usable row(s); at least 8 are needed for training, validation and test.")
    inputs = np.array(rows, dtype=float)
    if not classify:
        goals = np.array(targets, dtype=float)
        if np.ptp(goals) == 0.0:
            raise UsageError(f"{path}: target {target!r} has the one value {goals[0]:g}: there is nothing to predict.")
        return without_constants(Table(path.name, inputs, goals, tuple(features), notes=notes), faults)
    classes = sorted(set(targets), key=_in_order)
    if len(classes) < 2:
        raise UsageError(f"{path}: target {target!r} has the one class {classes[0]!r}: there is nothing to tell apart.")
    if len(classes) > max(20, len(rows) // 10):
        raise UsageError(
            f"{path}: target {target!r} has {len(classes)} classes in {len(rows)} rows: is it a number? Then take a "
            "problem of regression (hpo/ridge, hpo/elastic-net)."
        )
    numbers = np.array([classes.index(t) for t in targets], dtype=np.int64)
    return without_constants(Table(path.name, inputs, numbers, tuple(features), tuple(classes), notes), faults)


def without_constants(table: Table, faults: Faults) -> Table:
    """A table without columns that have one value.

    Raises:
        UsageError: there are some and ``faults`` is ``error``, or nothing else is left.
    """
    constant = np.ptp(table.inputs, axis=0) == 0.0
    if not constant.any():
        return table
    names = ", ".join(repr(f) for f, c in zip(table.features, constant, strict=True) if c)
    if faults == "error":
        raise UsageError(
            f"{table.name}: constant column(s) {names} tell nothing apart. Leave them out with drop=COLUMN,... or "
            "faults=drop."
        )
    if constant.all():
        raise UsageError(f"{table.name}: every column is constant.")
    return replace(
        table,
        inputs=table.inputs[:, ~constant],
        features=tuple(f for f, c in zip(table.features, constant, strict=True) if not c),
        notes=(*table.notes, f"Constant column(s) left out: {names}."),
    )


def _lines(path: Path) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """(line number, fields) of every line but the header and empty ones, and the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [f.strip() for f in fields]) for fields in reader if fields]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no CSV file in UTF-8: {error}.") from error
    if not lines:
        raise UsageError(f"{path} is empty: expected a header line with the columns' names, then rows.")
    header = lines[0][1]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UsageError(f"{path}: column name(s) {', '.join(map(repr, twice))} stand more than once in the header.")
    if all(_number(name) is not None for name in header):
        raise UsageError(f"{path}: the first line holds numbers; expected a header line with the columns' names.")
    return lines[1:], header


def _row(
    fields: list[str], header: list[str], features: list[str], target: str, classify: bool
) -> tuple[str, list[float], Any]:
    """What is wrong with a row ("" for nothing), its inputs, and its target."""
    if len(fields) != len(header):
        return f"{len(fields)} fields, the header has {len(header)}", [], None
    cells = dict(zip(header, fields, strict=True))
    values: list[float] = []
    for name in features if classify else [*features, target]:
        if cells[name].lower() in MISSING:
            return f"no value in column {name!r}", [], None
        number = _number(cells[name])
        if number is None:
            return f"{cells[name]!r} in column {name!r} is no finite number", [], None
        values.append(number)
    if not classify:
        return "", values[:-1], values[-1]
    if cells[target].lower() in MISSING:
        return f"no value in column {target!r}", [], None
    return "", values, cells[target]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _in_order(text: str) -> tuple[bool, float, str]:
    """Classes that are numbers in the order of numbers, others by the alphabet."""
    number = _number(text)
    return number is None, 0.0 if number is None else number, text
