"""The checks of problems: each a function of a `Subject`, which raises `Failed`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bilevel_core.oracles import make_oracle
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import ProblemSpec
from bilevel_core.problems.base import AlgebraicProblem, Problem, as_problem
from bilevel_core.result import Status, Termination, Verdict
from bilevel_core.run.options import describe, read
from bilevel_core.testing.check import NotApplicable, expect
from bilevel_core.testing.objectives import objectives_at
from bilevel_core.testing.runner import maximises

Point = tuple[Mapping[str, Any], Mapping[str, Any]]
STEP = 1e-5
"""Of central differences, relative to max(1, |value|)."""


@dataclass(frozen=True)
class Subject:
    """A problem and what its author says of it.

    Attributes:
        problem: a registered name, or a description.
        parameters: what it is made with.
        point: the declared optimum, x and y by variable name.
    """

    problem: str | ProblemSpec
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    point: Point | None = None

    @property
    def spec(self) -> ProblemSpec:
        """The description.

        Raises:
            UsageError: there is no problem of that name.
        """
        if isinstance(self.problem, ProblemSpec):
            return self.problem
        found = get_registry().find("problems", self.problem)
        assert isinstance(found, ProblemSpec)
        return found

    def make(self) -> Problem:
        """The problem anew."""
        factory: Any = self.spec.load()
        return as_problem(factory(**read(factory, self.parameters, kind="parameter", owner=self.spec.name)))


def documented(subject: Subject) -> None:
    """It has a summary, and each parameter a text."""
    spec = subject.spec
    expect(bool(spec.summary.strip()), f"{spec.name} has no summary: give its ProblemSpec one line for the list.")
    silent = [o.name for o in describe(spec.load()) if not o.help]
    expect(
        not silent,
        f"{spec.name} has parameters without a text: {', '.join(silent)}. Document them under Args: in the docstring "
        f"of {spec.factory}.",
    )


def source_cited(subject: Subject) -> None:
    """Whoever declares an optimum says where it comes from."""
    known = subject.spec.known
    if known is None:
        raise NotApplicable("no optimum is declared")
    expect(
        len(known.source.split()) >= 2,
        f"{subject.spec.name} declares an optimum with the source {known.source!r}. Expected a reference, or how it "
        "was computed.",
    )


def bounds_sound(subject: Subject) -> None:
    """No lower bound above its upper one, and none that is NaN."""
    problem = subject.make()
    for name, low, high in _bounds(problem):
        expect(not (math.isnan(low) or math.isnan(high)), f"{subject.spec.name}: a bound of {name} is NaN.")
        expect(low <= high, f"{subject.spec.name}: {name} has the bounds {low:g} and {high:g}, which leave no value.")


def shapes_kept(subject: Subject) -> None:
    """A point becomes arrays by name and back, without loss."""
    problem = subject.make()
    if not isinstance(problem, AlgebraicProblem):
        raise NotApplicable(f"{problem.form} problems keep their own structure")
    count = len(problem.program().columns)
    values = problem.complete(_inside(problem, np.random.default_rng(0)))
    x, y = problem.point(values)
    hidden = len(problem.hidden_columns())
    size = len({c for groups in problem.groups() for g in groups for c in g.columns})
    expect(
        size == count,
        f"{subject.spec.name}: its groups of variables cover {size} of the {count} columns of its program.",
    )
    back = problem.vector(x, y)
    expect(
        bool(np.allclose(back, values, rtol=1e-12, atol=1e-12)),
        f"{subject.spec.name}: a point read back from its arrays by name is another one ({hidden} hidden columns).",
    )


def deterministic(subject: Subject) -> None:
    """Made twice, it is the same problem."""
    first, second = subject.make(), subject.make()
    a, b = (_fingerprint(p) for p in (first, second))
    expect(
        a == b,
        f"{subject.spec.name} made twice gives two problems. Draw random data from a seed that is a parameter.",
    )


def gradients_agree(subject: Subject, tolerance: float) -> None:
    """First derivatives of both objectives, and of constraints, are those that central differences give."""
    problem = subject.make()
    if problem.form not in ("algebraic", "differentiable"):
        raise NotApplicable(f"{problem.form} problems have no derivatives")
    oracle = make_oracle(problem)
    if oracle.is_random:
        raise NotApplicable("the objectives draw random numbers")
    if oracle.precision > 1e-12:
        raise NotApplicable("single precision is too coarse for differences; make the problem of float64 as well")
    rng = np.random.default_rng(0)
    x = oracle.random_start(rng)
    start = oracle.to_numpy(oracle.y_start())
    y = np.clip(start + 0.1 * rng.normal(size=oracle.ny), oracle.y_lower, oracle.y_upper)
    name = subject.spec.name

    def upper(z: np.ndarray) -> float:
        return oracle.upper(z[: oracle.nx], oracle.from_numpy(z[oracle.nx :]))

    def lower(z: np.ndarray) -> float:
        return oracle.lower(z[: oracle.nx], oracle.from_numpy(z[oracle.nx :]))

    point = np.concatenate([x, y])
    vector = oracle.from_numpy(y)
    _, by_x, by_y = oracle.upper_gradients(x, vector)
    _compare(name, "the leader's objective", np.concatenate([by_x, oracle.to_numpy(by_y)]), upper, point, tolerance)
    _, f_y = oracle.lower_gradient(x, vector)
    whole = np.concatenate([oracle.lower_gradient_x(x, vector), oracle.to_numpy(f_y)])
    _compare(name, "the follower's objective", whole, lower, point, tolerance)
    if isinstance(problem, AlgebraicProblem):
        _statement_agrees(name, problem, rng)


def declared_point_holds(subject: Subject) -> None:
    """The declared point is feasible at both levels, lower-level optimal, and has the declared value."""
    from bilevel_core.api import verify

    if subject.point is None:
        raise NotApplicable("no point is declared")
    x, y = subject.point
    problem = subject.make()
    certificate = verify(problem, x, y)
    expect(
        certificate.verdict is Verdict.VERIFIED,
        f"{subject.spec.name}: the declared point is {certificate.verdict.value}: {certificate.reason}",
    )
    known = subject.spec.known
    if known is None or known.upper_objective is None:
        return
    got = objectives_at(problem, x, y).upper
    expect(
        abs(got - known.upper_objective) <= known.tolerance * max(1.0, abs(known.upper_objective)),
        f"{subject.spec.name}: the declared point has the leader's value {got:g}, and the declared optimum is "
        f"{known.upper_objective:g}.",
    )


def declared_optimum_found(subject: Subject, time_limit: float) -> None:
    """What ``auto`` finds and proves is the declared optimum, or the declared end."""
    from bilevel_core.api import solve

    spec = subject.spec
    if spec.known is None:
        raise NotApplicable("no optimum is declared")
    if subject.parameters:
        raise NotApplicable("the declared optimum is that at the default parameters")
    problem = subject.make()
    result = solve(problem, time_limit=time_limit)
    known = spec.known.upper_objective
    if known is None:
        expect(
            result.termination is Termination(spec.known.termination),
            f"{spec.name} is declared to be {spec.known.termination}, and {result.solver} says "
            f"{result.termination.value}: {result.message}",
        )
        return
    got = result.upper_objective
    expect(got is not None, f"{spec.name}: {result.solver} found no point: {result.message}")
    assert got is not None
    slack = max(spec.known.tolerance, 1e-6) * max(1.0, abs(known))
    better = (known - got) * (-1.0 if maximises(problem) else 1.0)
    verified = result.certificate is not None and result.certificate.verdict is Verdict.VERIFIED
    expect(
        better <= slack or not verified,
        f"{spec.name}: {result.solver} found a verified point with {got:g}, better than the declared {known:g}.",
    )
    if result.status is not Status.OPTIMAL:
        raise NotApplicable(f"{result.solver} proves nothing of it: {result.status.value}")
    gap = 0.0 if result.bound is None else abs(got - result.bound)
    expect(
        abs(better) <= slack + gap,
        f"{spec.name}: {result.solver} proves {got:g}, and the declared optimum is {known:g}.",
    )


def _bounds(problem: Problem) -> list[tuple[str, float, float]]:
    if isinstance(problem, AlgebraicProblem):
        return [(c.name, c.lower, c.upper) for c in problem.program().columns]
    if problem.form == "differentiable":
        oracle = make_oracle(problem)
        both = [("x", oracle.x_lower, oracle.x_upper), ("y", oracle.y_lower, oracle.y_upper)]
        return [
            (f"{n}[{k}]", float(a), float(b))
            for n, low, high in both
            for k, (a, b) in enumerate(zip(low, high, strict=True))
        ]
    raise NotApplicable(f"{problem.form} problems check their own space")


def _inside(problem: AlgebraicProblem, rng: np.random.Generator) -> np.ndarray:
    """A point within the bounds, integer where it must be."""
    values: list[float] = []
    for c in problem.program().columns:
        low = c.lower if math.isfinite(c.lower) else min(c.upper, 0.0) - 2.0
        high = min(c.upper if math.isfinite(c.upper) else math.inf, max(low, 0.0) + 4.0)
        value = float(rng.uniform(low, high))
        values.append(float(round(value)) if c.integer else value)
    return np.array(values)


def _fingerprint(problem: Problem) -> Any:
    if isinstance(problem, AlgebraicProblem):
        return problem.program().text()
    if problem.form == "differentiable":
        oracle = make_oracle(problem)
        y = oracle.y_start()
        random = oracle.is_random
        values = () if random else (oracle.upper(oracle.x_start, y), oracle.lower(oracle.x_start, y))
        return (oracle.nx, oracle.ny, oracle.x_start.tobytes(), oracle.to_numpy(y).tobytes(), *values)
    return (type(problem).__name__, repr(getattr(problem, "space", None)))


def _compare(
    name: str, what: str, gradient: np.ndarray, value: Callable[[np.ndarray], float], z: np.ndarray, tolerance: float
) -> None:
    for k in range(len(z)):
        step = STEP * max(1.0, abs(z[k]))
        ahead, behind = z.copy(), z.copy()
        ahead[k] += step
        behind[k] -= step
        slope = (value(ahead) - value(behind)) / (2.0 * step)
        size = max(1.0, abs(slope), abs(value(z)))
        expect(
            abs(slope - gradient[k]) <= tolerance * size,
            f"{name}: entry {k} of the gradient of {what} is {gradient[k]:g}, and central differences give {slope:g}.",
        )


def _statement_agrees(name: str, problem: AlgebraicProblem, rng: np.random.Generator) -> None:
    """The algebraic form and the user's own model have the same objectives at some points."""
    program = problem.program()
    for _ in range(3):
        values = problem.complete(_inside(problem, rng))
        stated = problem.evaluate(values)
        pairs = [(program.leader, stated.upper_objective)]
        pairs += zip(program.followers, stated.lower_objectives, strict=True)
        for level, told in pairs:
            own = level.in_users_sense(level.objective.evaluate(values))
            expect(
                abs(own - told) <= 1e-9 * max(1.0, abs(told)),
                f"{name}: the objective of the {level.name} is {told:g} in the model and {own:g} in its program.",
            )
