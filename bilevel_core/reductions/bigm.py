"""Complementarity by binaries and bounds: ``slack <= Mp (1 - z)``, ``multiplier <= Md z``.

The bounds must hold at some optimal point, or points are cut off and the answer is wrong (Pineda and Morales 2019;
Kleinert, Labbé, Plein and Schmidt 2020). Where they come from, and which of them are proven, is `bounds.py`'s matter;
`at_bound` says afterwards whether the solution leans on one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.program import Function, Program, Row, Variable, append_columns
from bilevel_core.reductions.base import Reduction
from bilevel_core.reductions.pairs import Chosen, Pair

TOUCHED = 0.99
"""A multiplier or slack at this share of its bound counts as leaning on it."""


@dataclass(frozen=True)
class PairBounds:
    """Bounds of one pair: ``multiplier`` for its first column, ``slack`` for its second; and which are proven."""

    multiplier: float
    slack: float
    multiplier_proven: bool = False
    slack_proven: bool = False

    @property
    def proven(self) -> bool:
        """Whether both are known not to cut off every optimal point."""
        return self.multiplier_proven and self.slack_proven


class BigM(Reduction[Program, Program]):
    """One binary a pair. ``pairs`` are those to express, all by default; ``bounds`` has one entry for each of them, in
    the program's order, all finite.
    """

    def __init__(self, bounds: Sequence[PairBounds], pairs: Collection[Pair] | None = None) -> None:
        self.bounds = tuple(bounds)
        self._chosen = Chosen(pairs)
        self._width = 0
        self._pairs: tuple[Pair, ...] = ()

    def accepts(self, source: Program) -> str | None:
        """Takes programs with as many pairs as there are bounds, all finite."""
        pairs = self._chosen.of(source)
        if len(pairs) != len(self.bounds):
            return f"there are {len(pairs)} pairs and {len(self.bounds)} bounds"
        for (i, j), b in zip(pairs, self.bounds, strict=True):
            if not (np.isfinite(b.multiplier) and np.isfinite(b.slack)):
                names = source.columns[i].name, source.columns[j].name
                return f"the pair {names[0]}, {names[1]} has no finite bounds"
        return self._chosen.refuses(source)

    def apply(self, source: Program) -> Program:
        """Binaries ``z`` and two rows a pair; a pair with a bound of zero is decided without a binary."""
        columns = list(source.columns)
        binaries: list[Variable] = []
        rows: list[Row] = []
        self._pairs, self._width = self._chosen.of(source), len(source.columns)
        for (i, j), b in zip(self._pairs, self.bounds, strict=True):
            if b.multiplier == 0.0 or b.slack == 0.0:
                k, bound = (i, b.multiplier) if b.multiplier == 0.0 else (j, b.slack)
                columns[k] = replace(columns[k], upper=min(columns[k].upper, bound))
                continue
            z = len(source.columns) + len(binaries)
            name = columns[i].name
            binaries.append(Variable(f"z[{name}]", 0.0, 1.0, integer=True))
            rows.append(Row(f"{name}<=M z", Function(0.0, {i: 1.0, z: -b.multiplier}), upper=0.0))
            rows.append(Row(f"{columns[j].name}<=M(1-z)", Function(0.0, {j: 1.0, z: b.slack}), upper=b.slack))
        return replace(
            source,
            columns=append_columns(columns, binaries),
            rows=source.rows + tuple(rows),
            complementarities=self._chosen.rest(source),
        )

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Drop the binaries."""
        return values[: self._width]

    def extend(self, values: np.ndarray) -> np.ndarray:
        """A point of the source with the binaries that go with it."""
        free = [
            float(values[i] > values[j])
            for (i, j), b in zip(self._pairs, self.bounds, strict=True)
            if b.multiplier > 0.0 and b.slack > 0.0
        ]
        return np.concatenate([values, free])

    def at_bound(self, values: np.ndarray) -> list[tuple[int, str]]:
        """(pair, ``multiplier`` or ``slack``) for every unproven bound that the point leans on.

        A proven bound may be reached: it cuts nothing off that is needed.
        """
        found: list[tuple[int, str]] = []
        for k, ((i, j), b) in enumerate(zip(self._pairs, self.bounds, strict=True)):
            if not b.multiplier_proven and values[i] >= TOUCHED * b.multiplier:
                found.append((k, "multiplier"))
            if not b.slack_proven and values[j] >= TOUCHED * b.slack:
                found.append((k, "slack"))
        return found
