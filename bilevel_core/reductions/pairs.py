"""Which of a program's complementarity pairs a reduction expresses: all that are left, or those it was told.

Columns are only ever appended, so a pair (multiplier column, slack column) names itself through a chain of reductions.
"""

from __future__ import annotations

from collections.abc import Collection

from bilevel_core.program import Program

Pair = tuple[int, int]


class Chosen:
    """The pairs that a reduction takes: ``None`` for all that the program has."""

    def __init__(self, pairs: Collection[Pair] | None) -> None:
        self.pairs = None if pairs is None else frozenset(pairs)

    def of(self, source: Program) -> tuple[Pair, ...]:
        """The chosen pairs, in the program's order."""
        if self.pairs is None:
            return source.complementarities
        return tuple(p for p in source.complementarities if p in self.pairs)

    def rest(self, source: Program) -> tuple[Pair, ...]:
        """The pairs that are left to others."""
        if self.pairs is None:
            return ()
        return tuple(p for p in source.complementarities if p not in self.pairs)

    def refuses(self, source: Program) -> str | None:
        """Why not: a chosen pair is not there, or may be negative."""
        for pair in (self.pairs or frozenset()) - set(source.complementarities):
            return f"columns {pair[0]} and {pair[1]} are no complementarity pair of the program"
        for pair in self.of(source):
            for k in pair:
                if source.columns[k].lower < 0.0:
                    return f"column {source.columns[k].name!r} of a complementarity pair may be negative"
        return None
