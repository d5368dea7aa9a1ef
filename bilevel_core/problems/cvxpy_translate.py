"""CVXPY's expressions as `Function`s: affine parts through its tensors, smooth atoms as they are, and atoms with kinks
by columns of their own.

A convex atom that is minimised or bounded above (a concave one that is maximised or bounded below) may be replaced by
a new column on the right side of it: Grant, Boyd and Ye (2006), "Disciplined convex programming". Which side is
asked for is the argument ``want``: 1 for "not below", -1 for "not above", 0 for "equal".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import cvxpy
import numpy as np
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.reductions.dcp2cone.canonicalizers import CANON_METHODS
from cvxpy.utilities.scopes import dpp_scope

from bilevel_core.errors import ModelError
from bilevel_core.problems import cvxpy_atoms as atoms
from bilevel_core.problems.cvxpy_affine import affine, constants, is_affine, is_constant, shown
from bilevel_core.problems.cvxpy_check import unreadable
from bilevel_core.problems.cvxpy_hidden import Solved, Split, fresh_variables
from bilevel_core.problems.cvxpy_rows import MARGIN, Rows, entry
from bilevel_core.program import INF, Function, Variable, linear, total

cp: Any = cvxpy
Functions = list[Function]

PIECES = {"abs": 1, "maximum": 1, "max": 1, "norm_inf": 1, "minimum": -1, "min": -1}
"""Atoms that are the largest (1) or smallest (-1) of a few pieces."""
NORMS = ("Pnorm", "PnormApprox")
PRODUCTS = ("multiply", "MulExpression", "DivExpression")
HAIR = 1e-8
"""How far bounds stay from the end of a domain that does not belong to it."""
READ = ("Inequality", "NonPos", "NonNeg", "Equality", "Zero", "SOC", "ExpCone", "PSD")
"""Constraints that can be read."""


class Translator(Rows):
    """Translates for one level, and collects the rows and hidden columns that this brings; see `Rows`."""

    def __init__(
        self, level: str, columns: list[Variable], functions: dict[int, Functions], own: set[int] | None
    ) -> None:
        super().__init__(level, columns, functions, own)
        self.where = level
        self._known: dict[tuple[int, int], tuple[Any, Functions]] = {}

    def __call__(self, expression: Any, want: int, where: str) -> Functions:
        """Translate a frozen expression; ``where`` names it in errors.

        Raises:
            ModelError: an atom that cannot be read where it stands.
        """
        self.where = where
        return self.read(expression, want)

    def read(self, expression: Any, want: int) -> Functions:
        """As `__call__`, for parts of an expression."""
        key = (id(expression), want)
        if key not in self._known:
            # The expression is kept with its translation, so that its id stays its own.
            self._known[key] = (expression, self._read(expression, want))
        return self._known[key][1]

    def _read(self, expression: Any, want: int) -> Functions:
        if is_constant(expression):
            return constants(expression, self.where)
        if is_affine(expression):
            return affine(expression, self.functions)
        name = type(expression).__name__
        if isinstance(expression, AffAtom):
            varying = [a for a in expression.args if not is_constant(a)]
            return (
                self._product(expression, want)
                if len(varying) > 1 and name in PRODUCTS
                else self._sum(expression, want)
            )
        exact = self._smooth(expression, name, want)
        if exact is not None:
            return exact
        if name in PIECES:
            return self._pieces(expression, name, want)
        if name == "norm1":
            return self._norm1(expression, want)
        if name in NORMS and float(expression.p) == 2.0:
            return self._norm2(expression, want)
        if name == "huber" and want > 0:
            return self._huber(expression)
        return self._by_cvxpy(expression, want)

    # Arguments.

    def _sides(self, expression: Any, want: int) -> list[int]:
        """Which side of each argument is asked for, by the atom's monotonicity."""
        with dpp_scope():
            return [
                want if expression.is_incr(i) else -want if expression.is_decr(i) else 0
                for i in range(len(expression.args))
            ]

    def _arguments(self, expression: Any, want: int) -> list[Functions]:
        sides = self._sides(expression, want)
        return [self.read(a, side) for a, side in zip(expression.args, sides, strict=True)]

    def _sum(self, expression: Any, want: int) -> Functions:
        """An affine atom of arguments that are not: each argument is a variable to CVXPY, its translation to us."""
        functions = dict(self.functions)
        arguments: list[Any] = []
        for argument, side in zip(expression.args, self._sides(expression, want), strict=True):
            if is_affine(argument):
                arguments.append(argument)
            else:
                arguments.append(cp.Variable(argument.shape))
                functions[arguments[-1].id] = self.read(argument, side)
        return affine(expression.copy(arguments), functions)

    def _product(self, expression: Any, want: int) -> Functions:
        """A product or quotient of two parts that both vary."""
        a, b = expression.args
        sides = [0, 0]
        for k, other in ((0, b), (1, a)):
            if is_affine(other):
                sides[k] = want if other.is_nonneg() else -want if other.is_nonpos() else 0
        left, right = self.read(a, sides[0]), self.read(b, sides[1])
        shapes = (a.shape, b.shape)
        kind = type(expression).__name__
        if kind == "MulExpression" and a.shape and b.shape:
            return atoms.matrix_product(left, right, shapes)
        if kind == "DivExpression":
            right = [atoms.inverse(f) for f in self.read(b, 0)]
        left, right = atoms.broadcast(left, right, shapes)
        return [u.times(v) for u, v in zip(left, right, strict=True)]

    # Smooth atoms.

    def _smooth(self, expression: Any, name: str, want: int) -> Functions | None:
        """Atoms that need no columns of their own; None for others."""
        if name in atoms.UNARY:
            arguments = self._arguments(expression, want)[0]
            if name in atoms.LEAST:
                self._bounded(arguments, atoms.LEAST[name] + (HAIR if name in atoms.OPEN else 0.0))
            return [atoms.UNARY[name](f) for f in arguments]
        if name in atoms.BINARY:
            shapes = [a.shape for a in expression.args]
            arguments = self._arguments(expression, want)
            self._bounded(arguments[0], 0.0)
            self._bounded(arguments[1], HAIR)
            left, right = atoms.broadcast(arguments[0], arguments[1], shapes)
            return [atoms.BINARY[name](x, y) for x, y in zip(left, right, strict=True)]
        if name in atoms.POWERS:
            return self._power(expression, want)
        if name == "log_sum_exp":
            return atoms.reduced(expression, atoms.log_sum_exp, self._arguments(expression, want)[0])
        if name == "QuadForm" and is_constant(expression.args[1]):
            matrix = expression.args[1].value
            matrix = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix, dtype=float)
            return [atoms.quad_form(self.read(expression.args[0], 0), matrix)]
        if name == "quad_over_lin":
            return self._quad_over_lin(expression, want)
        if name in ("GeoMean", "GeoMeanApprox", "geo_mean") and getattr(expression, "axis", None) is None:
            arguments = self._arguments(expression, want)[0]
            self._domain(arguments)
            return [atoms.geometric_mean(arguments, [float(w) for w in expression.w])]
        return None

    def _power(self, expression: Any, want: int) -> Functions:
        if expression.p.parameters():
            raise ModelError(f"{self.where}: the exponent of {shown(expression)} is a parameter: give a number.")
        exponent = float(expression.p.value)
        arguments = self._arguments(expression, want)[0]
        if not (exponent >= 0.0 and exponent % 2.0 == 0.0):
            self._domain(arguments)  # CVXPY defines every other power for nonnegative arguments only
        return [atoms.power(f, exponent) for f in arguments]

    def _domain(self, arguments: Functions) -> None:
        for f in arguments:
            if f.degree == 0 or (len(f.columns) == 1 and f.degree == 1 and self._nonnegative(f)):
                continue
            self.at_most(self.called("domain"), -f)

    def _bounded(self, arguments: Functions, least: float) -> None:
        """The end of an atom's domain as a bound of a follower's variable, where the argument is one variable.

        It tells solvers where to search and where to start. Where the atom has no value at the end itself, the bound
        is a hair inside, which takes no answer away: the slope has no end there.
        """
        for f in arguments:
            if self.own is None or f.degree != 1 or len(f.linear) != 1 or self.own.isdisjoint(f.linear):
                continue
            inside = f - least
            if not self._nonnegative(inside):
                self.at_most(self.called("domain"), -inside)

    def _nonnegative(self, f: Function) -> bool:
        ((i, c),) = f.linear.items()
        bound = self.columns[i].lower if c > 0.0 else self.columns[i].upper
        return np.isfinite(bound) and f.constant + c * bound >= 0.0

    def _quad_over_lin(self, expression: Any, want: int) -> Functions:
        denominator = self.read(expression.args[1], 0)[0]
        if denominator.degree == 0:
            squares = atoms.reduced(expression, atoms.square_sum, self._arguments(expression, want)[0])
            return [f.scaled(1.0 / denominator.constant) for f in squares]
        if want <= 0:
            squares = atoms.reduced(expression, atoms.square_sum, self.read(expression.args[0], 0))
            return [f.times(atoms.inverse(denominator)) for f in squares]
        numerator = self._arguments(expression, want)[0]
        out = self.epigraph(expression, "quad_over_lin")
        for t, group in zip(out, atoms.lanes(expression.args[0].shape, getattr(expression, "axis", None)), strict=True):
            # |u|^2 <= t d  is  |(2 u, t - d)| <= t + d
            parts = [numerator[i].scaled(2.0) for i in group]
            self.cone(self.called("quad_over_lin"), t + denominator, [*parts, t - denominator])
        return out

    # Atoms with kinks.

    def pieces(self, expression: Any, want: int) -> list[Functions] | None:
        """For each entry of a largest-of or smallest-of atom, the functions it is chosen from; None for other atoms."""
        name = type(expression).__name__
        if name not in PIECES or PIECES[name] != want:
            return None
        arguments = self._arguments(expression, want)
        if name in ("maximum", "minimum"):
            size = int(expression.size)
            stretched = [a * size if len(a) == 1 and size > 1 else a for a in arguments]
            return [list(group) for group in zip(*stretched, strict=True)]
        if name == "abs":
            return [[f, -f] for f in arguments[0]]
        groups = atoms.lanes(expression.args[0].shape, expression.axis)
        signs = (1.0, -1.0) if name == "norm_inf" else (1.0,)
        return [[arguments[0][i].scaled(s) for i in group for s in signs] for group in groups]

    def _pieces(self, expression: Any, name: str, want: int) -> Functions:
        found = self.pieces(expression, want)
        if found is not None:
            out = self.epigraph(expression, name)
            for t, group in zip(out, found, strict=True):
                (column,) = t.linear
                self.choices.append((column, want, list(group)))
                for piece in group:
                    self.at_most(self.called(name), (piece - t).scaled(float(want)))
            return out
        if name == "abs":
            return [atoms.absolute(f) for f in self.read(expression.args[0], 0)]
        if name in ("maximum", "minimum") and len(expression.args) == 2:
            sign = 0.5 * PIECES[name]
            sides = [self.read(a, 0) for a in expression.args]
            left, right = atoms.broadcast(sides[0], sides[1], [a.shape for a in expression.args])
            return [
                total([u.scaled(0.5), v.scaled(0.5), atoms.absolute(u - v).scaled(sign)])
                for u, v in zip(left, right, strict=True)
            ]
        raise unreadable(self.where, expression, want)

    def _norm1(self, expression: Any, want: int) -> Functions:
        sizes = self.read(cp.abs(expression.args[0]), max(want, 0))
        return atoms.reduced(expression, total, sizes)

    def _norm2(self, expression: Any, want: int) -> Functions:
        groups = atoms.lanes(expression.args[0].shape, expression.axis)
        if want <= 0:
            argument = self.read(expression.args[0], 0)
            return [atoms.power(atoms.square_sum([argument[i] for i in group]), 0.5) for group in groups]
        argument = self._arguments(expression, want)[0]
        out = self.epigraph(expression, "norm2")
        for t, group in zip(out, groups, strict=True):
            self.cone(self.called("norm2"), t, [argument[i] for i in group])
        return out

    def _huber(self, expression: Any) -> Functions:
        """The least of ``n^2 + 2 M |x - n|`` over n."""
        if not is_constant(expression.M):
            raise ModelError(f"{self.where}: the threshold of {shown(expression)} is a parameter: give a number.")
        threshold = float(expression.M.value)
        argument = self.read(expression.args[0], 0)
        size = len(argument)
        columns = self.new("huber", 2 * size)
        name = self.called("huber")
        self.hidden.append(Split(name, tuple(columns), expression.args[0], threshold))
        out: Functions = []
        for x, n, t in zip(argument, columns[:size], columns[size:], strict=True):
            rest = x - linear({n: 1.0})
            if self.own is not None:
                most = threshold + MARGIN * (1.0 + threshold)
                self.columns[n] = replace(self.columns[n], lower=-most, upper=most)
                self.choices.append((t, 1, [rest, -rest]))
            for sign in (1.0, -1.0):
                self.at_most(self.called("huber"), rest.scaled(sign) - linear({t: 1.0}))
            out.append(Function(0.0, {t: 2.0 * threshold}, {(n, n): 1.0}))
        return out

    def _by_cvxpy(self, expression: Any, want: int) -> Functions:
        """Any other atom, through the canonical form that CVXPY has for it."""
        method: Callable[..., Any] | None = CANON_METHODS.get(type(expression))
        if method is None or not (
            (want > 0 and expression.is_atom_convex()) or (want < 0 and expression.is_atom_concave())
        ):
            raise unreadable(self.where, expression, want)
        if "solver_context" in inspect.signature(method).parameters:
            method = partial(method, solver_context=None)
        sides = self._sides(expression, want)
        arguments: list[Any] = []
        stand_ins: list[tuple[Any, Any]] = []
        for argument, side in zip(expression.args, sides, strict=True):
            if is_affine(argument):
                arguments.append(argument)
                continue
            stand_in = cp.Variable(argument.shape)
            self.functions[stand_in.id] = self.read(argument, side)
            arguments.append(stand_in)
            stand_ins.append((argument, stand_in))
        form, constraints = method(expression.copy(arguments), arguments)
        for constraint in constraints:
            if type(constraint).__name__ not in READ or (
                type(constraint).__name__ == "PSD" and constraint.args[0].shape[0] > 2
            ):
                raise ModelError(
                    f"{self.where}: {shown(expression)} leads to a cone of type {type(constraint).__name__}, for which "
                    "there are no optimality conditions here. Linear, quadratic, second-order and exponential cones "
                    "can be read."
                )
        fresh = fresh_variables(form, constraints, tuple(v for a in arguments for v in a.variables()))
        columns: list[int] = []
        for v in fresh:
            lower = 0.0 if v.is_nonneg() else -INF
            made = self.new(type(expression).__name__, int(v.size), lower)
            self.functions[v.id] = [linear({i: 1.0}) for i in made]
            columns += made
        name = self.called(type(expression).__name__)
        self.hidden.append(Solved(name, tuple(columns), expression, method, tuple(fresh), tuple(stand_ins)))
        for constraint in constraints:
            self.constraint(constraint, self.called(type(expression).__name__))
        return self.read(form, want)

    # Constraints.

    def constraint(self, constraint: Any, name: str) -> None:
        """The rows of one frozen constraint.

        Raises:
            ModelError: a kind of constraint that cannot be read; the message says what to write instead.
        """
        self.where = name
        match type(constraint).__name__:
            case "Inequality":
                self._inequality(constraint.args[0], constraint.args[1], name)
            case "NonPos":
                self._inequality(constraint.args[0], cp.Constant(0.0), name)
            case "NonNeg":
                self._inequality(cp.Constant(0.0), constraint.args[0], name)
            case "Equality":
                self.equal(self.read(constraint.args[0] - constraint.args[1], 0), name)
            case "Zero":
                self.equal(self.read(constraint.args[0], 0), name)
            case "SOC":
                t, x = self.read(constraint.args[0], 0), self.read(constraint.args[1], 0)
                shape = constraint.args[1].shape
                groups = atoms.lanes(shape, constraint.axis) if len(shape) == 2 else [list(range(len(x)))]
                for k, (bound, group) in enumerate(zip(t, groups, strict=True)):
                    self.cone(entry(name, k, len(t)), bound, [x[i] for i in group])
            case "ExpCone":
                self._exponential(constraint, name)
            case "PSD" if constraint.args[0].shape[0] <= 2:
                self.semidefinite(self.read(constraint.args[0], 0), name)
            case "PSD":
                raise ModelError(
                    f"{name}: a semidefinite constraint ({shown(constraint)}) of more than two rows cannot be read: "
                    "its complementarity is not written in linear and second-order terms. Restrict the matrix to be "
                    "diagonally dominant, or to 2 x 2 blocks."
                )
            case kind:
                raise ModelError(
                    f"{name}: a constraint of type {kind} ({shown(constraint)}) cannot be read. Write it with <=, >=, "
                    "== and CVXPY's atoms, or as SOC or ExpCone."
                )

    def _inequality(self, left: Any, right: Any, name: str) -> None:
        for low, high, side in ((left, right, 1), (right, left, -1)):
            kind = type(low).__name__
            if is_affine(low):
                continue
            found = self.pieces(low, side)
            if found is not None:
                bounds = self.read(high, -side) * (len(found) if high.size == 1 else 1)
                for k, (group, bound) in enumerate(zip(found, bounds, strict=True)):
                    for n, piece in enumerate(group):
                        row = entry(entry(name, k, len(found)), n, len(group))
                        self.at_most(row, (piece - bound).scaled(float(side)))
                return
            if kind in NORMS and float(low.p) == 2.0 and side > 0 and low.axis is None and high.size == 1:
                self.cone(name, self.read(high, -1)[0], self._arguments(low, 1)[0])
                return
        difference = self.read(left - right, 1)
        for k, f in enumerate(difference):
            self.at_most(entry(name, k, len(difference)), f)

    def _exponential(self, constraint: Any, name: str) -> None:
        """``y exp(x / y) <= z`` and ``y >= 0``."""
        x, y, z = (self.read(a, 0) for a in constraint.args)
        for k, (a, b, c) in enumerate(zip(x, y, z, strict=True)):
            ratio = a.scaled(1.0 / b.constant) if b.degree == 0 else a.times(atoms.inverse(b))
            self.at_most(entry(name, k, len(x)), b.times(atoms.UNARY["exp"](ratio)) - c)
            if b.degree:
                self.at_most(f"{entry(name, k, len(x))}:y", -b)
