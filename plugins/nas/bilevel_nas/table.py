"""Tables in the place of training: an architecture's accuracies are looked up.

`TabularProblem` is a `TableProblem`, so that every sampling solver takes it. A table holds no training losses: the
follower's objective is 0 for an architecture that was trained. Accuracies are found by the architecture alone, in
whatever order a file, or a dictionary, lists its decisions.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from bilevel_core.errors import UsageError, unknown
from bilevel_core.problems.nested import Row, TableProblem
from bilevel_core.result import Values
from bilevel_nas.architecture_file import describe
from bilevel_nas.cells import tables
from bilevel_nas.spaces import Architecture, SearchSpace, find_space

HOW = (
    "Pass -p file=FILE: the accuracies of NAS-Bench-201 as CSV (columns ops, c10_val_e12, ..., a row a cell; ops: six "
    "digits, 0 none, 1 skip, 2 conv1x1, 3 conv3x3, 4 avgpool in the order of the cell's string), or a table of your "
    "own with a column of architectures and columns of accuracies."
)


@dataclass(frozen=True)
class Table:
    """Accuracies by architecture.

    Attributes:
        rows: figures by name, for each architecture.
        columns: their names.
    """

    rows: Mapping[Architecture, Mapping[str, float]]
    columns: tuple[str, ...]


def read_table(path: Path, space: SearchSpace, key: str = "ops") -> Table:
    """Read a table: CSV with a header, or JSON from architectures to figures; compressed by gzip or not.

    Args:
        path: the file.
        space: whose architectures it lists.
        key: the column of a CSV file that holds them, as `SearchSpace.read` takes them.

    Raises:
        UsageError: the file cannot be read, or a row is not of this form; the message names the line.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    entries = _json(text, path) if path.name.removesuffix(".gz").endswith(".json") else _csv(text, path, key)
    rows: dict[Architecture, dict[str, float]] = {}
    for where, codes, figures in entries:
        try:
            architecture = space.read(codes)
        except UsageError as error:
            raise UsageError(f"{path}, {where}: {error}") from error
        if architecture in rows:
            raise UsageError(f"{path}, {where}: the architecture {codes} is listed twice.")
        rows[architecture] = figures
    if not rows:
        raise UsageError(f"{path} lists no architecture.")
    return Table(rows, tuple(next(iter(rows.values()))))


def _csv(text: str, path: Path, key: str) -> list[tuple[str, str, dict[str, float]]]:
    reader = csv.DictReader(text.splitlines())
    names = list(reader.fieldnames or [])
    if key not in names:
        raise UsageError(f"{path} has no column {key!r}. Columns: {', '.join(names) or 'none'}.")
    found: list[tuple[str, str, dict[str, float]]] = []
    for line, row in enumerate(reader, start=2):
        try:
            figures = {n: float(v) for n, v in row.items() if n != key}
        except (TypeError, ValueError):
            raise UsageError(f"{path}, line {line}: expected a number in every column but {key!r}.") from None
        found.append((f"line {line}", str(row[key]), figures))
    return found


def _json(text: str, path: Path) -> list[tuple[str, str, dict[str, float]]]:
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}.") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected an object of architectures.")
    found: list[tuple[str, str, dict[str, float]]] = []
    for codes, value in cast("dict[str, Any]", data).items():
        if not isinstance(value, dict):
            raise UsageError(f"{path}, {codes!r}: expected an object of figures.")
        entry = cast("dict[str, Any]", value)
        figures = {k: float(v) for k, v in entry.items() if isinstance(v, int | float)}
        # Repeated measurements: the first is one run, as a search would see it.
        figures |= {f"{k}_first": float(v[0]) for k, v in entry.items() if isinstance(v, list) and v}
        found.append((repr(codes), codes, figures))
    return found


class TabularProblem(TableProblem):
    """Architectures whose accuracies are looked up.

    Args:
        search_space: the space of the table.
        table: accuracies by architecture.
        search: the column, in percent, that a search sees: the upper objective is 1 - accuracy / 100.
        report: the column that the result's details report, for the final architecture only.
        minimise: further columns to minimise, for a Pareto set.
        name: what to call the problem.

    Raises:
        UsageError: there is no such column.
    """

    compared = ("reported_accuracy",)

    def __init__(
        self,
        search_space: SearchSpace,
        table: Table,
        search: str,
        report: str,
        minimise: Sequence[str] = (),
        name: str = "problem",
    ) -> None:
        for column in (search, report, *minimise):
            if column not in table.columns:
                raise unknown("column of the table", column, table.columns)
        self.search_space, self.table = search_space, table
        self.search_column, self.report_column = search, report
        rows = [
            Row(
                search_space.space.values(search_space.point(a)),
                {search: figures[search]},
                (1.0 - figures[search] / 100.0, *(figures[c] for c in minimise)),
                0.0,
            )
            for a, figures in table.rows.items()
        ]
        super().__init__(search_space.space, rows, objectives=("error", *minimise), name=name)

    def details(self, x: Values, y: Values) -> dict[str, Any]:
        """The architecture, and what the table says of it."""
        space = self.search_space
        architecture = space.of_point(self.point(x))
        figures = self.table.rows[architecture]
        reported = np.array([row[self.report_column] for row in self.table.rows.values()])
        told: dict[str, Any] = {"architecture": space.text(architecture)}
        told |= {f"drawn_{k}": line for k, line in enumerate(space.draw(architecture))}
        told |= tables(space, architecture)
        told["network"] = describe(space)
        told["reported"] = self.report_column
        told["reported_accuracy"] = figures[self.report_column]
        told["best_of_the_table"] = float(reported.max())
        told["better_ones_in_the_table"] = int((reported > figures[self.report_column]).sum())
        return told


DATASETS = {"cifar10": "c10", "cifar100": "c100", "imagenet16": "in16"}


def nas_bench(file: str = "", dataset: str = "cifar10", search: str = "", report: str = "", key: str = "ops") -> Any:
    """NAS-Bench-201 as a table: search on validation accuracy after 12 epochs, report test accuracy after 200.

    Args:
        file: the table; see the documentation for its form.
        dataset: cifar10, cifar100 or imagenet16: which columns are taken by default.
        search: the column that the search sees; by default the data set's validation accuracy after 12 epochs.
        report: the column reported of the final cell; by default the test accuracy after 200 epochs.
        key: the column that holds the architectures.
    """
    if not file:
        raise UsageError(f"nas/table needs a table. {HOW}")
    if dataset not in DATASETS:
        raise unknown("data set", dataset, DATASETS)
    short = DATASETS[dataset]
    space = find_space("cell201-6")
    table = read_table(Path(file), space, key)
    return TabularProblem(space, table, search or f"{short}_val_e12", report or f"{short}_test_e200", name="nas/table")


def any_table(
    file: str = "",
    space: str = "macro",
    space_options: dict[str, Any] | None = None,
    search: str = "test_acc_first",
    report: str = "mean_acc",
    minimise: tuple[str, ...] = (),
    key: str = "ops",
) -> Any:
    """A table of your own, or that of NAS-Bench-Macro, over any search space.

    Args:
        file: CSV with a header, or JSON from architectures to figures.
        space: whose architectures the table lists.
        space_options: parameters of the space.
        search: the column that the search sees.
        report: the column reported of the final architecture.
        minimise: further columns to minimise, such as flops: a Pareto set.
        key: the column of a CSV file that holds the architectures.
    """
    if not file:
        raise UsageError(f"nas/any-table needs a table. {HOW}")
    found = find_space(space, space_options)
    return TabularProblem(found, read_table(Path(file), found, key), search, report, minimise, name="nas/any-table")
