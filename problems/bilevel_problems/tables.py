"""The collections BASBLib and BOLIB, read from tables of statements in the notation of `bilevel_problems.statement`.

A table is a text file beside this module, one block a problem: ``name: optimum``, then lines ``key value``, continued
by indented lines. BOLIB's problems that stand under ``classic/`` or ``basblib/`` already are not repeated.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bilevel_core.plugins.specs import KnownOptimum, ProblemSpec
from bilevel_problems.statement import Statement

if TYPE_CHECKING:
    from bilevel_core.problems.pyomo import PyomoProblem

_KEYS = {"class", "source", "leader", "follower", "point", "note", "needs", "tolerance"}
_NEEDED = {"class", "source", "leader", "follower"}
NO_SOLUTION = "no solution"
CLASSES = {
    "LP": ("linear follower", "linear"),
    "QP": ("convex quadratic follower", "quadratic"),
    "convex": ("convex nonlinear follower", "nonlinear"),
    "nonconvex": ("nonconvex follower", "nonconvex"),
}
"""What summaries and tags say of each class of followers."""


def read_table(text: str) -> list[Statement]:
    """Read a table.

    Raises:
        ValueError: a block without a name and an optimum, or with an unknown, repeated or missing key.
    """
    return [_statement(block) for block in re.split(r"\n\s*\n", text.strip())]


def _statement(block: str) -> Statement:
    head, *lines = block.splitlines()
    name, colon, optimum = head.partition(":")
    if not colon:
        raise ValueError(f"{head!r}: expected `name: optimum`.")
    entries: dict[str, str] = {}
    key = ""
    for line in lines:
        if line.startswith("   "):  # goes on
            entries[key] += " " + line.strip()
            continue
        key, _, value = line.strip().partition(" ")
        if key not in _KEYS or key in entries:
            raise ValueError(f"{name}: {key!r} is unknown or given twice. Expected {', '.join(sorted(_KEYS))}.")
        entries[key] = value.strip()
    if missing := _NEEDED - set(entries):
        raise ValueError(f"{name}: {', '.join(sorted(missing))} missing.")
    if entries["class"] not in CLASSES:
        raise ValueError(f"{name}: class {entries['class']!r}. Expected {', '.join(CLASSES)}.")
    return Statement(
        name,
        None if optimum.strip() == NO_SOLUTION else float(optimum),
        entries["class"],
        entries["source"],
        entries["leader"],
        entries["follower"],
        tuple(float(v) for v in entries.get("point", "").split()),
        entries.get("note", ""),
        entries.get("needs", ""),
        float(entries.get("tolerance", "1e-6")),
    )


class Collection:
    """A collection: its statements by name, and for each a function that makes the problem, as an attribute."""

    def __init__(self, name: str) -> None:
        """``name`` is that of the table's file and the prefix of the problems' names."""
        self.name = name

    @functools.cached_property
    def statements(self) -> dict[str, Statement]:
        """All statements, in the table's order."""
        text = files("bilevel_problems").joinpath(f"{self.name}.txt").read_text(encoding="utf-8")
        return {s.name: s for s in read_table(text)}

    def __getattr__(self, name: str) -> Callable[[], PyomoProblem]:
        """The function that makes the problem of that name."""
        if name.startswith("_") or name not in self.statements:
            raise AttributeError(name)
        return _factory(self.statements[name], f"{self.name}/{name}")

    def specs(self) -> Iterator[ProblemSpec]:
        """A description of each problem."""
        for s in self.statements.values():
            (nx, ny), (words, tag) = s.sizes, CLASSES[s.follower_class]
            variables = f"{nx} + {ny} variables" if nx else f"{ny} variables, all the follower's"
            source = f"{s.source}. {s.note[0].upper()}{s.note[1:]}." if s.note else s.source
            yield ProblemSpec(
                f"{self.name}/{s.name}",
                f"bilevel_problems.tables:{self.name}.{s.name}",
                f"{words}, {variables}",
                known=KnownOptimum(
                    s.optimum,
                    source,
                    termination="converged" if s.optimum is not None else "infeasible",
                    tolerance=s.tolerance,
                ),
                needs=s.needs,
                tags=frozenset({tag, *({"coupling"} if _coupled(s) else ())}),
            )


def _coupled(s: Statement) -> bool:
    """Whether a row of the leader's contains a variable of the follower's."""
    names = re.compile(rf"\b({'|'.join(s.levels[1].bounds)})\b")
    return any(names.search(f"{row.left.text} {row.right.text}") for row in s.levels[0].rows)


def _factory(statement: Statement, name: str) -> Callable[[], PyomoProblem]:
    def make() -> Any:
        return statement.problem(name)

    parts = [f"{statement.source}.", "", f"Leader: {statement.leader}.", f"Follower: {statement.follower}."]
    make.__doc__ = "\n".join([*parts, *([statement.note] if statement.note else [])])
    return make


basblib = Collection("basblib")
"""54 problems of BASBLib (Paulavičius and Adjiman, 2019, CC0), without its bounds on multipliers."""

bolib = Collection("bolib")
"""Problems of BOLIB, version 2 (Zhou, Zemkoho and Tin, 2020), that stand nowhere else in this library."""


def table_problems() -> list[ProblemSpec]:
    """Descriptions of both collections."""
    return [*basblib.specs(), *bolib.specs()]
