"""What the registered problems have in common: data, split, and how all is put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_hpo.data import Faults, Table, read_csv, shipped
from bilevel_hpo.models import Model
from bilevel_hpo.problem import HeldOut, TuningProblem, fold_of
from bilevel_hpo.split import Split, split


@dataclass(frozen=True)
class Source:
    """The parameters of data and split that all problems share; see `bilevel_hpo.library`."""

    dataset: str
    data: Path | None
    target: str | None
    drop: tuple[str, ...]
    faults: Faults
    test: float
    validation: float
    stopping: float
    folds: int
    split_seed: int
    prior: float

    def table(self, classify: bool) -> Table:
        """The data.

        Raises:
            UsageError: parameters that do not go together, or whatever is wrong with a file.
        """
        if self.data is not None:
            if self.target is None:
                raise UsageError("Parameter data=FILE needs target=COLUMN, the column to predict.")
            return read_csv(self.data, self.target, classify=classify, drop=self.drop, faults=self.faults)
        if self.target is not None or self.drop:
            raise UsageError("Parameters target and drop are for a file: give data=FILE, too.")
        return shipped(self.dataset)

    def parts(self, table: Table) -> Split:
        """Which rows are for what."""
        return split(
            table.targets,
            classes=table.classes,
            test=self.test,
            validation=self.validation,
            stopping=self.stopping,
            folds=self.folds,
            seed=self.split_seed,
        )


def standard(table: Table, source: Source) -> Table:
    """Columns with mean 0 and standard deviation 1, so that one regulariser means the same to each.

    On all rows but the test's: what is known of those beforehand would be known of no new row.
    """
    seen = table.inputs[source.parts(table).tuning]
    size = seen.std(axis=0)
    return replace(table, inputs=(table.inputs - seen.mean(axis=0)) / np.where(size > 0.0, size, 1.0))


def assembled(
    name: str,
    source: Source,
    table: Table,
    make: Callable[[bool, Sequence[str]], Model],
    compare: bool,
    spoil: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> TuningProblem:
    """Split, scale by rows that are not the test's, and put together.

    Args:
        name: of the problem.
        source: data and split.
        table: the data.
        make: the model; with one hyperparameter in place of many if its first argument is true; the second has
            the names of the training rows.
        compare: whether to report beside it what one hyperparameter reaches.
        spoil: what to do with the targets of the training rows, given those and the rows' numbers.
    """
    parts = source.parts(table)
    unit = 1.0 if table.classes else float(np.std(table.targets[parts.tuning]))
    targets = table.targets
    if spoil is not None:
        targets = targets.copy()
        train = parts.folds[0][0]
        targets[train] = spoil(targets[train], train)
    rows = tuple(f"row {k + 1}" for k in parts.folds[0][0])

    def built(single: bool, beside: TuningProblem | None) -> TuningProblem:
        model = make(single, rows)
        tuning, test, aside = parts.tuning, parts.test, parts.stopping
        folds = [fold_of(model, table.inputs, targets, a, b, unit) for a, b in parts.folds]
        return TuningProblem(
            model,
            folds,
            stopping=[f.train.like(table.inputs[aside], targets[aside]) for f in folds] if len(aside) else (),
            prior=source.prior,
            validation_rows=parts.validation_rows,
            held_out=HeldOut(
                (table.inputs[tuning], targets[tuning]), (table.inputs[test], table.targets[test]), beside
            ),
            notes=table.notes,
            name=name,
        )

    return built(False, built(True, None) if compare else None)
