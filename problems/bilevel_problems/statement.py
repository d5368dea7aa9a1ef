"""A small notation for bilevel problems, and how a problem is made from it.

One text a level: the level's variables with their bounds, its objective, and its rows, separated by semicolons.

    leader:   x in [0, 8]; min (x - 3)^2 + (y - 2)^2
    follower: y >= 0; min (y - 5)^2; y - 2*x <= 1; 2*y >= x + 2

Variables are ``x``, ``y`` or, when a level has several, ``x1``, ``x2``, ...; ``x1..x4`` declares four at once. The
bounds are ``in [low, high]``, ``>= low``, ``<= high`` or ``free``. Expressions have ``+ - * / ^``, brackets, numbers,
``exp`` and ``log``. They are parsed, never executed, and may be evaluated over anything that has arithmetic: Pyomo
variables to make a problem, arrays to lay a grid through it.

Nothing here imports a modelling package before `Statement.problem` is called.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilevel_core.problems.pyomo import PyomoProblem

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_RELATIONS = ("<=", ">=", "==")
_DECLARATION = re.compile(r"^(\w+?)(\d*)(?:\s*\.\.\s*\w+?(\d+))?\s*(?:in\s*\[(.+),(.+)\]|>=\s*(\S+)|<=\s*(\S+)|free)$")


@dataclass(frozen=True)
class Term:
    """A parsed expression: ``Term("x*y^2")(values, functions)``."""

    text: str

    @functools.cached_property
    def tree(self) -> ast.expr:
        """The expression's tree; checked when it is evaluated."""
        return ast.parse(self.text.replace("^", "**"), mode="eval").body

    def __call__(self, values: Mapping[str, Any], functions: Mapping[str, Callable[[Any], Any]]) -> Any:
        """The value at ``values``: a number, an array or an expression, as the values are.

        Raises:
            ValueError: the text contains anything but arithmetic, or a name without a value.
        """
        return _evaluate(self.tree, values, functions, self.text)


def _evaluate(node: ast.expr, values: Mapping[str, Any], functions: Mapping[str, Any], text: str) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.Name) and node.id in values:
        return values[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, values, functions, text)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left = _evaluate(node.left, values, functions, text)
        return _BINARY[type(node.op)](left, _evaluate(node.right, values, functions, text))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        return functions[node.func.id](_evaluate(node.args[0], values, functions, text))
    raise ValueError(f"{ast.unparse(node)!r} in {text!r}: expected arithmetic on {', '.join(values) or 'numbers'}.")


@dataclass(frozen=True)
class Row:
    """``left relation right`` with relation ``<=``, ``>=`` or ``==``."""

    left: Term
    relation: str
    right: Term


@dataclass(frozen=True)
class Level:
    """One level, parsed: bounds by variable, in order; the objective; the rows."""

    bounds: dict[str, tuple[float, float]]
    maximise: bool
    objective: Term
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Statement:
    """A problem in the notation of this module, with what is known of it.

    Attributes:
        name: its name inside its collection.
        optimum: the leader's optimal value; None when the problem has no solution.
        follower_class: ``LP``, ``QP`` (convex quadratic objective, linear rows), ``convex`` or ``nonconvex``, for fixed
            variables of the leader's.
        source: where it comes from.
        leader, follower: the texts of the two levels.
        point: an optimal point, the leader's variables first; () when there is none.
        note: what should be known of the optimum: a published value that is wrong, a tie, missing multipliers.
        needs: see `bilevel_core.plugins.specs.ProblemSpec`.
        tolerance: absolute, of ``optimum``.
    """

    name: str
    optimum: float | None
    follower_class: str
    source: str
    leader: str
    follower: str
    point: tuple[float, ...] = ()
    note: str = ""
    needs: str = ""
    tolerance: float = 1e-6

    @functools.cached_property
    def levels(self) -> tuple[Level, Level]:
        """Leader and follower, parsed.

        Raises:
            ValueError: a part of a text is neither a declaration, an objective nor a row.
        """
        return read_level(self.leader), read_level(self.follower)

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of the leader's and the follower's variables."""
        return len(self.levels[0].bounds), len(self.levels[1].bounds)

    def problem(self, name: str) -> PyomoProblem:
        """The problem, called ``name``; the leader's variables in the component ``x``, the follower's in ``y``."""
        from bilevel_problems.build import finish, model, pyo

        m = model(name)
        upper, lower = self.levels
        values = _declare(m, upper) | _declare(m.follower, lower)
        functions = {"exp": pyo.exp, "log": pyo.log}
        return finish(
            m,
            upper.objective(values, functions) + 0,
            lower.objective(values, functions) + 0,
            upper_rows=[_relation(row, values, functions) for row in upper.rows],
            lower_rows=[_relation(row, values, functions) for row in lower.rows],
            maximise=upper.maximise,
            follower_maximises=lower.maximise,
        )


def _declare(block: Any, level: Level) -> dict[str, Any]:
    """Declare a level's variables: one component for each letter, indexed if its variables are numbered."""
    from bilevel_problems.build import pyo

    values: dict[str, Any] = {}
    for letter in dict.fromkeys(name.rstrip("0123456789") for name in level.bounds):
        numbered = {int(n[len(letter) :]): n for n in level.bounds if n.startswith(letter) and n != letter}
        sides = {n: tuple(b if math.isfinite(b) else None for b in sides) for n, sides in level.bounds.items()}
        if numbered:
            block.add_component(letter, pyo.Var(list(numbered), bounds={k: sides[n] for k, n in numbered.items()}))
            values |= {n: block.component(letter)[k] for k, n in numbered.items()}
        else:
            block.add_component(letter, pyo.Var(bounds=sides[letter]))
            values[letter] = block.component(letter)
    return values


def _relation(row: Row, values: Mapping[str, Any], functions: Mapping[str, Any]) -> Any:
    left, right = row.left(values, functions), row.right(values, functions)
    if row.relation == "==":
        return left == right
    return left <= right if row.relation == "<=" else left >= right


def read_level(text: str) -> Level:
    """Parse the text of one level.

    Raises:
        ValueError: a part is neither a declaration, an objective nor a row; or there is not exactly one objective.
    """
    bounds: dict[str, tuple[float, float]] = {}
    rows: list[Row] = []
    objectives: list[tuple[bool, Term]] = []
    for part in (p.strip() for p in text.split(";")):
        if part.startswith(("min ", "max ")):
            objectives.append((part.startswith("max "), Term(part[4:].strip())))
        elif not objectives:
            bounds |= _declared(part)
        else:
            rows.append(_row(part))
    if len(objectives) != 1:
        raise ValueError(f"Expected one objective, got {len(objectives)} in {text!r}.")
    return Level(bounds, *objectives[0], tuple(rows))


def _declared(part: str) -> dict[str, tuple[float, float]]:
    found = _DECLARATION.match(part)
    if found is None:
        raise ValueError(f"{part!r} declares no variable: expected `x in [low, high]`, `x1..x3 >= low` or `x free`.")
    letter, first, last, low, high, least, most = found.groups()
    sides = (float(low or least or -math.inf), float(high or most or math.inf))
    numbers = range(int(first), int(last) + 1) if last else [first]
    return {f"{letter}{n}": sides for n in numbers}


def _row(part: str) -> Row:
    for relation in _RELATIONS:
        left, found, right = part.partition(relation)
        if found:
            return Row(Term(left.strip()), relation, Term(right.strip()))
    raise ValueError(f"{part!r} is no row: expected <=, >= or ==.")
