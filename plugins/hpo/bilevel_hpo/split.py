"""Which rows train, which validate, and which test: the last are never seen by either level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers.

    Attributes:
        folds: (training rows, validation rows) of each fold; one pair for a hold-out set.
        test: held out from both levels.
        stopping: seen by neither level either, to say when to stop; none without early stopping.
    """

    folds: tuple[tuple[np.ndarray, np.ndarray], ...]
    test: np.ndarray
    stopping: np.ndarray

    @property
    def tuning(self) -> np.ndarray:
        """All rows but those of the test, in order."""
        return np.unique(np.concatenate([self.stopping, *(part for fold in self.folds for part in fold)]))

    @property
    def validation_rows(self) -> int:
        """How many different rows the leader sees."""
        return int(np.unique(np.concatenate([validation for _, validation in self.folds])).size)


def split(
    targets: np.ndarray,
    *,
    classes: int | Sequence[Any] = 0,
    test: float = 0.25,
    validation: float = 0.25,
    stopping: float = 0.0,
    folds: int = 1,
    seed: int = 0,
) -> Split:
    """Shuffle and split; with classes each part gets its share of every class.

    Args:
        targets: shape (rows,); class numbers where there are classes.
        classes: how many, or their labels; 0 or none of them for numbers.
        test: share of all rows that is held out.
        validation: share of all rows for validation, with one fold.
        stopping: share of all rows that say when to stop; 0 for none.
        folds: of cross-validation on all other rows; 1 for one hold-out set.
        seed: of the shuffle.

    Raises:
        UsageError: shares or folds that leave a part empty, or a class without a training row.
    """
    shares = test + stopping + (validation if folds == 1 else 0.0)
    if not (0.0 < test < 1.0 and 0.0 < validation < 1.0 and 0.0 <= stopping < 1.0 and shares < 1.0):
        raise UsageError(
            f"Expected test, validation and stopping as shares of the rows with a sum below 1, got test={test}, "
            f"validation={validation}, stopping={stopping}."
        )
    if folds < 1:
        raise UsageError(f"Expected folds of at least 1, got {folds}.")
    labels = range(classes) if isinstance(classes, int) else classes
    order = _mixed(targets, len(labels), np.random.default_rng(seed))
    held = max(1, round(test * len(order)))
    aside = max(1, round(stopping * len(order))) if stopping else 0
    rest = order[held + aside :]
    if folds == 1:
        count = max(1, round(validation * len(order)))
        pairs = ((np.sort(rest[count:]), np.sort(rest[:count])),)
    else:
        if folds > len(rest):
            raise UsageError(f"There are {len(rest)} rows for {folds} folds: lower folds.")
        parts = np.array_split(rest, folds)
        pairs = tuple((np.setdiff1d(rest, part), np.sort(part)) for part in parts)
    if any(len(train) < 2 or not len(part) for train, part in pairs):
        raise UsageError(
            f"{len(order)} rows are too few for these shares: raise their number, or lower test or validation."
        )
    for train, _ in pairs:
        lacking = set(range(len(labels))) - set(np.asarray(targets)[train].tolist())
        if lacking:
            raise UsageError(
                f"Class {labels[min(lacking)]!r} has no training row in one of the folds: its rows are too few. Leave "
                "the class out, lower folds, test or validation, or have more rows for training."
            )
    return Split(pairs, np.sort(order[:held]), np.sort(order[held : held + aside]))


def _mixed(targets: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Row numbers in random order, in which every stretch has its share of each class."""
    order = rng.permutation(len(targets))
    if not classes:
        return order
    place = np.empty(len(targets))
    for label in range(classes):
        rows = order[np.asarray(targets)[order] == label]
        place[rows] = (np.arange(len(rows)) + rng.random()) / max(1, len(rows))
    return np.argsort(place, kind="stable")
