"""Points of algebraic problems: the leader's own rows are looked at first, then every follower is solved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bilevel_core.errors import RefusedError, UsageError
from bilevel_core.lower import LowerFailedError, LowerSettings, respond
from bilevel_core.lower.exact import respond_exactly
from bilevel_core.oracles import NonFiniteError
from bilevel_core.oracles.algebraic import AlgebraicOracle
from bilevel_core.oracles.relaxation import relaxed_point
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.program import BilevelProgram
from bilevel_core.result import Values
from bilevel_core.sampling import FEASIBLE, Continuous, Integer, Score, Space
from bilevel_core.sampling.archive import Joint
from bilevel_core.solvers.sample.box import leader_box, no_bounds
from bilevel_core.solvers.sample.task import Evaluation, EvaluationSettings, Outcome, Task
from bilevel_core.traits.traits import derive_traits


class AlgebraicEvaluation(Evaluation):
    """See `Evaluation`. Columns of the leader's that its bounds fix are no variables of the space.

    Raises:
        UsageError: a leader's variable that nothing bounds.
    """

    def __init__(self, problem: AlgebraicProblem, settings: EvaluationSettings) -> None:
        self.problem = problem
        self.settings = settings
        self.program: BilevelProgram = problem.program()
        self.maximise = self.program.leader.maximise
        self._traits = derive_traits(problem)
        integers = self._traits.lower_integers > 0
        self.globally = integers if settings.lower == "auto" else settings.lower == "global"
        if integers and not self.globally:
            raise UsageError("Followers with integer variables are solved globally: leave out lower=local.")
        self.oracle = None if integers else AlgebraicOracle(problem)
        self.needs_confirmation = not self.globally and any(f.convex is not True for f in self._traits.followers)
        lower, upper = leader_box(self.program, settings.box)
        self._base = np.zeros(len(self.program.columns))
        variables: list[Continuous | Integer] = []
        self._columns: list[int] = []
        for i in self.program.leader.columns:
            column = self.program.columns[i]
            low, high = float(lower[i]), float(upper[i])
            if column.integer and math.isfinite(low) and math.isfinite(high):
                low, high = math.ceil(low - 1e-9), math.floor(high + 1e-9)
            if low >= high:
                self._base[i] = low if column.fixed or low == high else 0.5 * (low + high)
                continue
            if not (math.isfinite(low) and math.isfinite(high)):
                raise UsageError(no_bounds(column.name))
            variables.append(
                Integer(column.name, int(low), int(high)) if column.integer else Continuous(column.name, low, high)
            )
            self._columns.append(i)
        self.space = Space(tuple(variables))
        mine = set(self.program.leader.columns)
        self._own_rows = [r for r in self.program.leader.rows if r.function.columns <= mine]

    def start(self) -> np.ndarray | None:
        """See `Evaluation.start`: x of the high-point relaxation's optimum."""
        found = relaxed_point(self.program.high_point())
        return None if found is None else self.space.canonical(found[self._columns])

    def values(self, point: np.ndarray) -> np.ndarray:
        """One number per column of the program: x, and zeros for the followers'."""
        out = self._base.copy()
        out[self._columns] = point
        return out

    def evaluate(self, task: Task, hurry: Callable[[], bool]) -> Outcome:
        """See `Evaluation.evaluate`. Where the leader's own rows are violated no follower is solved."""
        values = self.values(task.point)
        early = _violation(self.program, values, self._own_rows)
        if early > FEASIBLE:
            return Outcome(
                task.index, task.point, Score((), early), message="The leader's own constraints are violated."
            )
        start = task.start
        if self.globally:
            found = respond_exactly(self.program, values)
            return self._outcome(task, found.values, sum(found.lower), found.proven, {"lower_solves": 1})
        return self._local(task, values, start)

    def _local(self, task: Task, values: np.ndarray, start: Any) -> Outcome:
        oracle = self.oracle
        if oracle is None:
            raise RefusedError("There is no oracle for this problem.")
        oracle.counts.clear()
        x = values[oracle.x_columns]
        found = respond(oracle, x, start, LowerSettings(max_iterations=self.settings.iterations))
        counts = {k: int(v) for k, v in oracle.counts.items()}
        counts["lower_iterations"] = found.iterations
        values[oracle.y_columns] = found.y
        proven = all(f.convex is True and f.objective in ("linear", "convex quadratic") for f in self._traits.followers)
        return self._outcome(task, values, found.value, proven and found.converged, counts)

    def _outcome(self, task: Task, values: np.ndarray, lower: float, proven: bool, counts: dict[str, int]) -> Outcome:
        leader = self.program.leader
        objective = leader.objective.evaluate(values)
        if not math.isfinite(objective):
            return Outcome(
                task.index, task.point, cost=1.0, counts=counts, message="The leader's objective is undefined."
            )
        return Outcome(
            task.index,
            task.point,
            Score((objective,), _violation(self.program, values, leader.rows), value=lower),
            y=values[list(self.program.lower_columns)],
            user=leader.in_users_sense(objective),
            cost=1.0,
            proven=proven,
            counts=counts,
        )

    def assess(self, point: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """See `Evaluation.assess`."""
        values = self.values(point)
        values[list(self.program.lower_columns)] = y
        return self.program.leader.objective.evaluate(values), _violation(
            self.program, values, self.program.leader.rows
        )

    def joint(self, point: np.ndarray, y: np.ndarray) -> Joint:
        """Both levels at any (x, y), for methods that model the answer.

        Raises:
            ValueError: a value is undefined there.
        """
        oracle = self.oracle
        if oracle is None:
            raise RefusedError("There is no oracle for this problem.")
        x = self.values(point)[oracle.x_columns]
        try:
            upper, lower = oracle.upper_rows(x, y), oracle.lower_rows(x, y)
            return Joint(oracle.upper(x, y), oracle.lower(x, y), upper.g, upper.h, lower.g, lower.h)
        except NonFiniteError as error:
            raise ValueError(str(error)) from error

    @property
    def y_lower(self) -> np.ndarray:
        """Lower bounds of the followers' variables."""
        return np.array([self.program.columns[i].lower for i in self.program.lower_columns], dtype=float)

    @property
    def y_upper(self) -> np.ndarray:
        """Upper bounds of the followers' variables."""
        return np.array([self.program.columns[i].upper for i in self.program.lower_columns], dtype=float)

    def result(self, outcome: Outcome) -> tuple[Values, Values, float, float | tuple[float, ...]]:
        """See `Evaluation.result`."""
        values = self.values(outcome.point)
        values[list(self.program.lower_columns)] = outcome.y
        residuals = self.problem.evaluate(values)
        lower = residuals.lower_objectives
        return (*self.problem.point(values), residuals.upper_objective, lower[0] if len(lower) == 1 else lower)

    def confirm(self, outcome: Outcome, seconds: float) -> Outcome:
        """See `Evaluation.confirm`: followers that are not known to be convex are solved globally, in these seconds."""
        if outcome.proven or outcome.y is None or not self.needs_confirmation:
            return outcome
        task = Task(outcome.index, outcome.point)
        try:
            found = respond_exactly(self.program, self.values(outcome.point), seconds)
        except LowerFailedError:
            return outcome
        new = self._outcome(task, found.values, sum(found.lower), found.proven, {"lower_solves": 1})
        tied = abs(new.score.value - outcome.score.value) <= 1e-7 * max(1.0, abs(outcome.score.value))
        # Of answers that are as good for the follower, the leader gets the better one.
        if not found.proven or (tied and outcome.score.rank <= new.score.rank):
            return replace(outcome, proven=found.proven and tied)
        return new


def _violation(program: BilevelProgram, values: np.ndarray, rows: Any) -> float:
    """The largest violation of some of the leader's rows, each relative to its scale, as in the check."""
    found = [r.violation(values) / r.function.scale(values) for r in rows]
    return math.inf if any(math.isnan(v) for v in found) else max(found, default=0.0)
