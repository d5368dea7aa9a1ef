"""`CvxpyProblem`: leader and followers as CVXPY problems; parameters of the followers stand for the leader's variables.

Each follower is convex by CVXPY's rules for every value of its parameters (DCP and DPP), which proves what other
problem types have to examine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cvxpy
import numpy as np

from bilevel_core.errors import ModelError
from bilevel_core.problems.base import AlgebraicProblem, Group, Residuals
from bilevel_core.problems.cvxpy_affine import affine, freeze, is_affine, shown
from bilevel_core.problems.cvxpy_check import check_disciplined, check_parameters, read_variable
from bilevel_core.problems.cvxpy_hidden import Hidden
from bilevel_core.problems.cvxpy_residuals import Residual, constraint_residuals, domain_residuals, number
from bilevel_core.problems.cvxpy_translate import Translator
from bilevel_core.program import BilevelProgram, Function, Level, Row, Variable, linear

cp: Any = cvxpy

CONVEX = "convex-followers"
"""The structure that a program declares whose followers are proven to be convex, integrality apart."""


class CvxpyProblem(AlgebraicProblem):
    """A bilevel problem written in CVXPY.

    The problems are read when the bilevel problem is made, and are never changed. Variables in a lower problem are that
    follower's; all others are the leader's, and appear in results under their names. Constraints are called by their
    label where they have one, else ``leader.c1``, ``follower.c1``, ...

    Args:
        upper: the leader's problem, over its own and the followers' variables. It need not be convex: products,
            powers, exponentials and logarithms of affine expressions can be read anywhere.
        lower: the follower's problem, or a list of them. DCP and DPP, with linear, quadratic, second-order and
            exponential cones; semidefinite ones up to 2 x 2.
        leader: which parameters of the followers stand for what: a leader's variable, or an affine expression of
            variables that are not that follower's (another follower's: a Nash game). Parameters that are not named
            are constants.
        name: what to call the problem.

    Raises:
        ModelError: a follower that is not DCP or DPP, an atom that cannot be read where it stands, a parameter without
            a value or whose sign is not guaranteed, two variables with one name; the message names it.
    """

    def __init__(
        self,
        upper: Any,
        lower: Any,
        leader: Mapping[Any, Any] | None = None,
        *,
        name: str = "problem",
    ) -> None:
        self.upper = upper
        self.lowers: tuple[Any, ...] = tuple(lower) if isinstance(lower, Sequence) else (lower,)
        self.leader = dict(leader or {})
        self.name = name
        self._check_given()
        self._names = ["follower"] if len(self.lowers) == 1 else [f"follower{k + 1}" for k in range(len(self.lowers))]
        self._variables, self._owners = self._find_variables()
        self._check_names()
        self._check_leader()
        self._check_labels()
        self._groups: tuple[list[Group], list[Group]] = ([], [])
        self._columns: list[Variable] = []
        self._functions: dict[int, list[Function]] = {}
        self._owned: list[list[int]] = [[] for _ in range(len(self.lowers) + 1)]
        self._hidden: list[Hidden] = []
        self._read_variables()
        self._declared = tuple(self._columns)
        self._program = self._read_program()

    def program(self) -> BilevelProgram:
        """See `AlgebraicProblem.program`."""
        return self._program

    def groups(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        """One group per CVXPY variable, and hidden ones behind them."""
        return tuple(self._groups[0]), tuple(self._groups[1])

    def evaluate(self, values: np.ndarray) -> Residuals:
        """Evaluate CVXPY's own expressions. Values of variables and parameters are put back afterwards."""
        before = self._set(values)
        try:
            with np.errstate(all="ignore"):
                return Residuals(
                    number(self.upper.objective.args[0]),
                    tuple(number(p.objective.args[0]) for p in self.lowers),
                    tuple(self._residuals(self.upper, "leader", -1, values)),
                    tuple(r for k, p in enumerate(self.lowers) for r in self._residuals(p, self._names[k], k, values)),
                )
        finally:
            self._put_back(before)

    def complete(self, values: np.ndarray) -> np.ndarray:
        """See `AlgebraicProblem.complete`: every epigraph is tight."""
        out = values.copy()
        before = self._set(values)
        try:
            with np.errstate(all="ignore"):
                for hidden in self._hidden:
                    out[list(hidden.columns)] = hidden.values(out)
        finally:
            self._put_back(before)
        return out

    # Checks of what was given.

    def _check_given(self) -> None:
        for label, problem in (("upper", self.upper), *(("lower", p) for p in self.lowers)):
            if not isinstance(problem, cp.Problem):
                raise ModelError(f"Expected a cvxpy.Problem for {label}, got {type(problem).__name__}.")
        if not self.lowers:
            raise ModelError("There is no follower: give one cvxpy.Problem as lower, or a list of them.")
        for p, e in self.leader.items():
            if not isinstance(p, cp.Parameter):
                raise ModelError(f"leader maps parameters to variables, and {shown(p)} is no cvxpy.Parameter.")
            if not isinstance(e, cp.Expression):
                raise ModelError(f"Parameter {p.name()!r} stands for {e!r}, which is no CVXPY variable or expression.")
            if p.shape != e.shape:
                raise ModelError(f"Parameter {p.name()!r} has shape {p.shape}, and {shown(e)} has {e.shape}.")
            if not is_affine(e) or e.parameters():
                raise ModelError(f"Parameter {p.name()!r} stands for {shown(e)}, which is not affine in variables.")

    def _find_variables(self) -> tuple[list[Any], list[int]]:
        """All variables, and whose they are: -1 for the leader's."""
        owner: dict[int, int] = {}
        found: dict[int, Any] = {}
        for k, problem in enumerate(self.lowers):
            for v in problem.variables():
                if owner.setdefault(v.id, k) != k:
                    raise ModelError(
                        f"Variable {v.name()!r} stands in {self._names[owner[v.id]]!r} and in {self._names[k]!r}: it "
                        "is one follower's, and others see it through a parameter (leader={parameter: variable})."
                    )
                found[v.id] = v
        upper = {v.id: v for e in (self.upper, *self.leader.values()) for v in e.variables()}
        ordered = {i: v for i, v in upper.items() if i not in owner} | found
        return list(ordered.values()), [owner.get(i, -1) for i in ordered]

    def _check_names(self) -> None:
        seen: dict[str, Any] = {}
        for v in self._variables:
            if v.name() in seen:
                raise ModelError(
                    f"Two variables are called {v.name()!r}: give them names of their own, as in cp.Variable(name='x')."
                )
            seen[v.name()] = v

    def _check_leader(self) -> None:
        owner = {v.id: o for v, o in zip(self._variables, self._owners, strict=True)}
        used = {p.id for problem in (self.upper, *self.lowers) for p in problem.parameters()}
        for p, e in self.leader.items():
            if p.id not in used:
                raise ModelError(f"Parameter {p.name()!r} stands in none of the problems: take it out of leader.")
            for k, problem in enumerate(self.lowers):
                mine = [v.name() for v in e.variables() if owner[v.id] == k]
                if mine and p.id in {q.id for q in problem.parameters()}:
                    raise ModelError(
                        f"Parameter {p.name()!r} of {self._names[k]!r} stands for {mine[0]!r}, which stands in that "
                        "follower's own problem and so is its variable: use the parameter there in its place."
                    )

        if -1 not in self._owners:
            lower = {v.id for problem in self.lowers for v in problem.variables()}
            both = [v.name() for v in self.upper.variables() if v.id in lower]
            raise ModelError(
                "The leader decides nothing: every variable stands in a lower problem, and so is a follower's"
                + (f" ({', '.join(map(repr, both))})." if both else ".")
                + " Where a lower problem needs the leader's variable x, let a parameter stand for it there: "
                "p = cp.Parameter(), and leader={p: x}."
            )

    def _check_labels(self) -> None:
        """Rows are called by name in options and reports: no two of the leader's, or of the followers', share one."""
        followers = [
            n for p, name in zip(self.lowers, self._names, strict=True) for n, _ in _named(p.constraints, name)
        ]
        for names in ([n for n, _ in _named(self.upper.constraints, "leader")], followers):
            twice = next((n for k, n in enumerate(names) if n in names[:k]), None)
            if twice is not None:
                raise ModelError(f"Two constraints are called {twice!r}: give each a label of its own.")

    # Reading.

    def _read_variables(self) -> None:
        for v, owner in zip(self._variables, self._owners, strict=True):
            columns, entries = read_variable(v)
            first = len(self._columns)
            self._columns += columns
            places = entries + first
            self._owned[owner + 1] += range(first, len(self._columns))
            self._groups[min(owner + 1, 1)].append(Group(v.name(), v.shape, tuple(places.tolist())))
            order = places.reshape(v.shape).flatten(order="F").tolist()
            self._functions[v.id] = [linear({i: 1.0}) for i in order]
        for p, e in self.leader.items():
            self._functions[p.id] = affine(e, self._functions)

    def _read_program(self) -> BilevelProgram:
        levels = [self._level(self.upper, "leader", -1)]
        check_parameters(list(self.leader), self._functions, self._columns)
        levels += [self._level(p, name, k) for k, (p, name) in enumerate(zip(self.lowers, self._names, strict=True))]
        return BilevelProgram(
            tuple(self._columns), levels[0], tuple(levels[1:]), name=self.name, structure=frozenset({CONVEX})
        )

    def _level(self, problem: Any, name: str, owner: int) -> Level:
        kept = frozenset(p.id for p in self.leader)
        objective = type(problem.objective)(freeze(problem.objective.args[0], kept))
        constraints = [
            (label, c.copy([freeze(a, kept) for a in c.args])) for label, c in _named(problem.constraints, name)
        ]
        if owner >= 0:
            check_disciplined(objective, constraints, name)
        own = self._owned[owner + 1]
        read = Translator(name, self._columns, self._functions, None if owner < 0 else set(own))
        maximise = isinstance(objective, cp.Maximize)
        function = read(objective.args[0], -1 if maximise else 1, f"the objective of {name!r}")[0]
        for label, c in constraints:
            read.constraint(c, label)
        for v, o in zip(self._variables, self._owners, strict=True):
            if o == owner and v.attributes.get("PSD"):
                read.semidefinite(self._functions[v.id], f"{v.name()} semidefinite")
        own += read.made
        self._hidden += read.hidden
        names = {i: self._columns[i].name for i in read.made}
        side = self._groups[min(owner + 1, 1)]
        side += [Group(n, (), (i,), hidden=True) for i, n in names.items()]
        labels = tuple(str(c.label) for c in problem.constraints if getattr(c, "label", None))
        rows = _as_bounds(read.rows, self._columns, set(own), labels, leader=owner < 0)
        read.bound_hidden()
        return Level(name, -function if maximise else function, tuple(rows), tuple(own), maximise)

    # Values.

    def _set(self, values: np.ndarray) -> list[tuple[Any, Any]]:
        """Give variables and the leader's parameters their values, without the checks that CVXPY makes of signs."""
        leaves = [*self._variables, *self.leader]
        before = [(leaf, leaf.value) for leaf in leaves]
        places = {g.name: g for side in self._groups for g in side}
        for v in self._variables:
            v.save_value(np.array(values[list(places[v.name()].columns)], dtype=float).reshape(v.shape))
        for p, e in self.leader.items():
            p.save_value(np.asarray(e.value, dtype=float).reshape(p.shape))
        return before

    def _put_back(self, before: list[tuple[Any, Any]]) -> None:
        for leaf, value in before:
            leaf.save_value(value)

    def _residuals(self, problem: Any, name: str, owner: int, values: np.ndarray) -> list[Residual]:
        out = list(domain_residuals(problem.objective.args[0], f"{name}.objective"))
        for label, c in _named(problem.constraints, name):
            out += constraint_residuals(c, label)
            for a in c.args:
                out += domain_residuals(a, label)
        for i in self._owned[owner + 1]:
            if i < len(self._declared):
                out.append(_bound_residual(self._declared[i], float(values[i])))
        for v, o in zip(self._variables, self._owners, strict=True):
            if o == owner and v.attributes.get("PSD"):
                out += constraint_residuals(v >> 0, f"{v.name()} semidefinite")
        return out


def _named(constraints: Sequence[Any], level: str) -> list[tuple[str, Any]]:
    return [(getattr(c, "label", None) or f"{level}.c{k}", c) for k, c in enumerate(constraints, start=1)]


def _as_bounds(
    rows: Sequence[Row], columns: list[Variable], own: set[int], labels: Sequence[str], *, leader: bool
) -> list[Row]:
    """Inequalities on one of the level's own columns become its bounds; others, and what would leave nothing, stay.

    So do rows that the user labelled, to be called by their names; those of the leader's, which have no multipliers,
    are bounds as well.
    """
    kept: list[Row] = []
    for row in rows:
        f = row.function
        if row.equality or f.degree != 1 or len(f.linear) != 1:
            kept.append(row)
            continue
        ((i, c),) = f.linear.items()
        labelled = any(row.name == label or row.name.startswith((f"{label}[", f"{label}:")) for label in labels)
        if i not in own or (labelled and not leader):
            kept.append(row)
            continue
        ends = sorted((row.lower / c, row.upper / c))
        old = columns[i]
        new = replace(old, lower=max(old.lower, ends[0] + 0.0), upper=min(old.upper, ends[1] + 0.0))
        if old.integer:
            new = replace(new, lower=float(np.ceil(new.lower - 1e-9)), upper=float(np.floor(new.upper + 1e-9)))
        if new.lower > new.upper:
            kept.append(row)
            continue
        columns[i] = new
        if labelled:
            kept.append(row)
    return kept


def _bound_residual(column: Variable, value: float) -> Residual:
    violation = max(0.0, column.lower - value, value - column.upper)
    if column.integer:
        violation = max(violation, abs(value - round(value)))
    return column.name, violation, max([1.0, *(abs(b) for b in (column.lower, column.upper) if np.isfinite(b))])
