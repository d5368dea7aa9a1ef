"""Traits, derived from the algebraic form. Convexity is checked here, never assumed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bilevel_core.problems.base import AlgebraicProblem, DifferentiableProblem, Problem, Sizes
from bilevel_core.problems.nested import NestedProblem
from bilevel_core.program import BilevelProgram, Function, Level, Row, Variable, collect, positive_semidefinite
from bilevel_core.program.expression import Call, Expression, differentiate, walk
from bilevel_core.program.expression import columns as expression_columns
from bilevel_core.sampling.space import Continuous
from bilevel_core.traits.proof import convex_over
from bilevel_core.traits.slopes import finite_slopes

CONVEX = "convex-followers"
"""Structure that a problem type declares whose followers are proven to be convex, integrality apart."""
MANY = 50
"""Nonlinear expressions over more of a follower's columns than this are not examined further."""


@dataclass(frozen=True)
class FollowerTraits:
    """One follower, as it is for fixed variables of everyone else.

    Attributes:
        name: the follower's name.
        variables: number of its variables.
        rows: number of its constraints (bounds apart).
        integers: number of its integer variables.
        objective: ``linear``, ``convex quadratic``, ``convex`` (nonlinear, proven), ``nonconvex quadratic`` or
            ``nonlinear`` (convexity not known) in its own variables.
        constraints: the same for the worst of its constraints.
        matrix_varies: whether constraint coefficients of its own variables depend on the leader's.
        smooth: whether the slopes of its objective are proven finite wherever the objective is (not so ``sqrt(y)`` at
            0); where they are not, an optimal answer need not satisfy the optimality conditions.
    """

    name: str
    variables: int
    rows: int
    integers: int
    objective: str
    constraints: str
    matrix_varies: bool = False
    smooth: bool = True

    @property
    def convex(self) -> bool | None:
        """Whether it is a convex problem for every x; None when that is not known."""
        if self.integers:
            return False
        kinds = (self.objective, self.constraints)
        if "nonconvex quadratic" in kinds:
            return False
        return None if "nonlinear" in kinds else True

    @property
    def label(self) -> str:
        """The usual short name of its class: LP, convex QP, MILP, ..."""
        mixed = "MI" if self.integers else ""
        if self.objective == "linear" and self.constraints == "linear":
            return f"{mixed}LP"
        if self.constraints == "linear" and self.objective.endswith("quadratic"):
            return f"{self.objective.split()[0]} {mixed}QP"
        if self.convex and "convex" in (self.objective, self.constraints):
            return "convex NLP"
        if {"nonlinear", "convex"} & {self.objective, self.constraints}:
            return f"{mixed}NLP"
        kind = "nonconvex" if "nonconvex quadratic" in (self.objective, self.constraints) else "convex"
        return f"{kind} {mixed}QCQP"


@dataclass(frozen=True)
class Traits:
    """What decides which solver takes a problem.

    Attributes:
        form: ``algebraic`` or ``differentiable``.
        upper_variables, upper_integers, upper_rows: the leader's sizes.
        upper_objective, upper_constraints: ``linear``, ``quadratic`` or ``nonlinear`` in all variables.
        coupled: whether a constraint of the leader's contains followers' variables.
        followers: one entry each.
        game: whether a follower's problem contains another follower's variables.
        linking_integers: whether every leader variable that a follower sees is integer and bounded.
        linking_continuous: names of the leader's variables that occur in followers' constraints and are continuous.
        structure: names of special structures that the problem type declares, such as ``network-pricing``.
        lower_bounds: whether a follower's variable is bounded.
        stochastic: whether objectives are means over batches of data.
        functions: names of the functions in nonlinear expressions of either level, as in `expression.FUNCTIONS`.
        duals: whether followers' multipliers stand in the leader's model.
    """

    form: str
    upper_variables: int = 0
    upper_integers: int = 0
    upper_rows: int = 0
    upper_objective: str = "linear"
    upper_constraints: str = "linear"
    coupled: bool = False
    followers: tuple[FollowerTraits, ...] = ()
    game: bool = False
    linking_integers: bool = False
    structure: frozenset[str] = field(default_factory=frozenset[str])
    lower_bounds: bool = False
    stochastic: bool = False
    functions: frozenset[str] = frozenset()
    duals: bool = False
    linking_continuous: tuple[str, ...] = ()

    @property
    def lower_variables(self) -> int:
        """Number of all followers' variables."""
        return sum(f.variables for f in self.followers)

    @property
    def lower_integers(self) -> int:
        """Number of all followers' integer variables."""
        return sum(f.integers for f in self.followers)

    @property
    def label(self) -> str:
        """One line: the classes of leader and followers."""
        labels: dict[str, int] = {}
        for f in self.followers:
            labels[f.label] = labels.get(f.label, 0) + 1
        lower = ", ".join(k if n == 1 else f"{n} x {k}" for k, n in labels.items())
        integer = "mixed-integer " if self.upper_integers else ""
        paid = " with followers' multipliers" if self.duals else ""
        return f"{integer}{self.upper_objective} leader{paid} over {lower}" + (" in a Nash game" if self.game else "")


def derive_traits(problem: Problem) -> Traits:
    """Find out the traits of a problem. Costs no solve."""
    if isinstance(problem, AlgebraicProblem):
        return _algebraic(problem.program())
    if isinstance(problem, DifferentiableProblem):
        return _differentiable(problem.sizes(), problem.structure)
    if isinstance(problem, NestedProblem):
        follower = FollowerTraits("follower", 0, 0, 0, "nonlinear", "nonlinear")
        integers = sum(not isinstance(v, Continuous) for v in problem.space.variables)
        return Traits(
            form=problem.form,
            upper_variables=len(problem.space),
            upper_integers=integers,
            upper_objective="nonlinear",
            followers=(follower,),
            structure=problem.structure,
        )
    return Traits(form=problem.form)


def _differentiable(sizes: Sizes, structure: frozenset[str]) -> Traits:
    """What the functions' class is, nobody knows: nonlinear, and of unknown convexity."""
    constraints = "nonlinear" if sizes.lower_rows else "linear"
    follower = FollowerTraits("follower", sizes.lower_variables, sizes.lower_rows, 0, "nonlinear", constraints)
    return Traits(
        form="differentiable",
        upper_variables=sizes.upper_variables,
        upper_rows=sizes.upper_rows,
        upper_objective="nonlinear",
        upper_constraints="nonlinear" if sizes.upper_rows else "linear",
        coupled=sizes.upper_rows > 0,
        followers=(follower,),
        structure=structure,
        lower_bounds=sizes.lower_bounds,
        stochastic=sizes.stochastic,
    )


def _algebraic(program: BilevelProgram) -> Traits:
    lower = set(program.lower_columns)
    leader = program.leader
    seen: set[int] = set()
    for follower in program.followers:
        for f in (follower.objective, *(r.function for r in follower.rows)):
            seen |= f.columns - lower
    constrained: set[int] = set()
    for follower in program.followers:
        own = frozenset(follower.columns)
        # A row without the follower's own variables restricts the leader, and does not change the follower's answer.
        constrained |= {i for r in follower.rows if r.function.columns & own for i in r.function.columns - lower}
    free = [i for i in leader.columns if not program.columns[i].fixed]
    return Traits(
        form="algebraic",
        upper_variables=len(leader.columns),
        upper_integers=sum(program.columns[i].integer for i in free),
        upper_rows=len(leader.rows),
        upper_objective=_degree_name(leader.objective),
        upper_constraints=_worst(_degree_name(r.function) for r in leader.rows),
        coupled=any(not r.function.columns.isdisjoint(lower) for r in leader.rows),
        followers=tuple(_follower(program, f) for f in program.followers),
        game=program.is_game,
        linking_integers=all(
            program.columns[i].fixed
            or (
                program.columns[i].integer
                and math.isfinite(program.columns[i].lower)
                and math.isfinite(program.columns[i].upper)
            )
            for i in seen
        ),
        structure=program.structure,
        duals=bool(program.duals),
        linking_continuous=tuple(
            program.columns[i].name
            for i in sorted(constrained)
            if not (program.columns[i].integer or program.columns[i].fixed)
        ),
        lower_bounds=any(
            math.isfinite(program.columns[i].lower) or math.isfinite(program.columns[i].upper) for i in lower
        ),
        functions=frozenset(
            node.function
            for level in (leader, *program.followers)
            for f in (level.objective, *(r.function for r in level.rows))
            if f.nonlinear is not None
            for node in walk(f.nonlinear)
            if isinstance(node, Call)
        ),
    )


def _degree_name(f: Function) -> str:
    return "linear" if f.degree <= 1 else "quadratic" if f.degree == 2 else "nonlinear"


_ORDER = ("linear", "convex quadratic", "convex", "quadratic", "nonconvex quadratic", "nonlinear")


def _worst(kinds: Iterable[str]) -> str:
    return max(kinds, key=_ORDER.index, default="linear")


def _follower(program: BilevelProgram, follower: Level) -> FollowerTraits:
    own = [i for i in follower.columns if not program.columns[i].fixed]
    own_set = frozenset(own)
    varies = any(
        r.function.nonlinear is not None or any((i in own_set) != (j in own_set) for i, j in r.function.quadratic)
        for r in follower.rows
    )
    objective = curvature(follower.objective, own_set, program.columns)
    constraints = _worst(row_curvature(r, own_set, program.columns) for r in follower.rows)
    if CONVEX in program.structure:
        # Proven where the problem was stated, by rules that its expanded form no longer shows.
        objective, constraints = ("convex" if kind == "nonlinear" else kind for kind in (objective, constraints))
    return FollowerTraits(
        name=follower.name,
        variables=len(own),
        rows=len(follower.rows),
        integers=sum(program.columns[i].integer for i in own),
        objective=objective,
        constraints=constraints,
        matrix_varies=varies,
        smooth=finite_slopes(follower.objective, program.columns, own_set),
    )


def curvature(f: Function, own: frozenset[int], columns: Sequence[Variable] = ()) -> str:
    """The class of a function in the columns ``own``, whatever the others are.

    Nonlinear functions are proven convex only within the bounds of all ``columns``; without those, ``nonlinear``.
    """
    if f.nonlinear is not None and not _linear_in(f.nonlinear, own):
        examined = columns and len(f.columns & own) <= MANY
        return "convex" if examined and convex_over(f, columns, own) else "nonlinear"
    order = sorted({i for pair in f.quadratic if set(pair) <= own for i in pair})
    if not order:
        return "linear"
    return "convex quadratic" if positive_semidefinite(f.hessian(order)) else "nonconvex quadratic"


def _linear_in(node: Expression, own: frozenset[int]) -> bool:
    """Whether a nonlinear expression is linear in the columns ``own`` (such as y x^3 in y): no second derivative."""
    inside = sorted(expression_columns(node) & own)
    if len(inside) > MANY:
        return False
    try:
        for i in inside:
            slope = collect(differentiate(node, i))
            if not slope.columns.isdisjoint(inside):
                return False
    except ValueError:  # a function without a derivative
        return False
    return True


def row_curvature(row: Row, own: frozenset[int], columns: Sequence[Variable]) -> str:
    """The class of a row as a constraint: a finite upper bound needs its function convex, a lower one concave."""
    above = curvature(row.function, own, columns) if math.isfinite(row.upper) else None
    below = curvature(-row.function, own, columns) if math.isfinite(row.lower) else None
    return _worst(kind for kind in (above, below) if kind is not None)
