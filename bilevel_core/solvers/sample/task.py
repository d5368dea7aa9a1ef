"""A trial as a task: what is sent to wherever the lower level is solved, and what comes back. Both can be pickled."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.lower import LowerSettings
from bilevel_core.oracles import some_of
from bilevel_core.problems.base import Problem
from bilevel_core.result import Values
from bilevel_core.sampling import Score, Space


@dataclass(frozen=True)
class EvaluationSettings:
    """How the lower level is solved at each point.

    Attributes:
        lower: algebraic: ``local`` (the oracle's own methods), ``global`` (HiGHS, SCIP), or ``auto`` by the class.
        box: half-width of the region searched where a leader's variable has no finite bound; 0 refuses such.
        method, tolerance, iterations, learning_rate: differentiable: as in `LowerSettings`.
        device: where to compute.
    """

    lower: str = "auto"
    box: float = 0.0
    method: str = "auto"
    tolerance: float = 1e-8
    iterations: int = 1000
    learning_rate: float = 0.1
    device: str = "auto"

    def lower_settings(self, budget: float, hurry: Callable[[], bool]) -> LowerSettings:
        """The settings of one solve with a share of the whole budget."""
        return LowerSettings(
            method=self.method,
            tolerance=self.tolerance,
            max_iterations=max(1, math.ceil(budget * self.iterations)),
            learning_rate=self.learning_rate,
            hurry=hurry,
        )


@dataclass(frozen=True)
class Task:
    """One trial.

    Attributes:
        index: its number.
        point: a point of the space, shape (n,).
        budget: share of the lower level's full budget.
        seed: for everything random in the solve; made of the run's seed and the index.
        start: what the lower level starts from: a vector y, or a nested problem's ``state``; None for its own start.
        device: where to compute; "" for the run's device.
        deadline: time (`time.time`) at which to give up; None for never.
    """

    index: int
    point: np.ndarray
    budget: float = 1.0
    seed: int = 0
    start: Any = None
    device: str = ""
    deadline: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        index: the trial's number.
        point: its point, to tell a journal of another run.
        score: for the sampler, without the answer.
        y: the answer: a vector, or a nested problem's values by name; None without one, or where it is not kept.
        state: what a nested problem's larger budget goes on from; else None.
        memory: of the oracle, with the answer.
        user: the leader's objective in the user's sense; NaN without an answer.
        cost: share of a whole lower-level solve that was spent; 0 where none was needed.
        proven: whether the answer is proven globally optimal for the follower.
        counts: work done, by kind.
        message: why there is no answer.
        failed: whether the task broke, in contrast to a lower level that has no answer.
        cut: whether it gave up because of the deadline: then it counts as never tried.
    """

    index: int
    point: np.ndarray
    score: Score = field(default_factory=Score)
    y: Any = None
    state: Any = None
    memory: Any = None
    user: float = math.nan
    cost: float = 0.0
    proven: bool = False
    counts: dict[str, int] = field(default_factory=dict[str, int])
    message: str = ""
    failed: bool = False
    cut: bool = False


class Evaluation(ABC):
    """One problem as samplers see it: a space, and an outcome for each of its points.

    Attributes:
        space: what is sampled.
        objectives: number of the leader's objectives.
        maximise: whether the user's leader maximises.
        budgeted: whether a part of the lower level's budget means anything.
        needs_confirmation: whether answers are local ones where `confirm` may find better.
    """

    space: Space
    objectives: int = 1
    maximise: bool = False
    budgeted: bool = False
    needs_confirmation: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the result's message."""
        return ()

    @abstractmethod
    def evaluate(self, task: Task, hurry: Callable[[], bool]) -> Outcome:
        """Solve the lower level at a point.

        Raises:
            LowerFailedError, NonFiniteError: there is no answer.
        """

    def evaluate_many(self, tasks: Sequence[Task], hurry: Callable[[], bool]) -> list[Outcome]:
        """The same for several tasks with one budget on one device, as one program.

        Raises:
            UsageError: the problem cannot be solved so.
        """
        raise UsageError("Only differentiable lower levels are solved together: leave out batch.")

    @abstractmethod
    def result(self, outcome: Outcome) -> tuple[Values, Values, float, float | tuple[float, ...]]:
        """x, y, and both levels' objectives of an outcome with an answer, in the user's terms."""

    def progress(self, outcome: Outcome) -> dict[str, float]:
        """What the problem shows of a better point while it is solved; see `TorchProblem.progress`."""
        return {}

    def start(self) -> np.ndarray | None:
        """A point of the space to try first; None where the problem suggests none."""
        return None

    def told(self, point: np.ndarray) -> dict[str, Any]:
        """What events say of a point, by name: all of a few variables, some of many; choices as they are called."""
        values, names = self.space.values(point), self.space.names
        return {names[k]: values[names[k]] for k in some_of(range(len(names))) if names[k] in values}

    def assess(self, point: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """The leader's objective, minimised, and the violation of its constraints at any (x, y): no solve.

        Raises:
            NotImplementedError: the problem's answers are no vectors.
            NonFiniteError: a value is not finite.
        """
        raise NotImplementedError

    def confirm(self, outcome: Outcome, seconds: float) -> Outcome:
        """The same point with its lower level solved as well as can be; the outcome itself where it is already."""
        return outcome


def make_evaluation(problem: Problem, settings: EvaluationSettings, seed: int) -> Evaluation:
    """The evaluation of a problem.

    Raises:
        UsageError: a leader's variable without finite bounds, or a problem of another form.
        MissingError: what the form needs is not installed.
    """
    from bilevel_core.problems.base import AlgebraicProblem
    from bilevel_core.problems.nested import NestedProblem

    if isinstance(problem, AlgebraicProblem):
        from bilevel_core.solvers.sample.algebraic import AlgebraicEvaluation

        return AlgebraicEvaluation(problem, settings)
    if isinstance(problem, NestedProblem):
        from bilevel_core.solvers.sample.nested import NestedEvaluation

        return NestedEvaluation(problem, settings)
    from bilevel_core.solvers.sample.torch import TorchEvaluation

    return TorchEvaluation(problem, settings, seed)
