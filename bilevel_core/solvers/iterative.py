"""What an iterative solver is: options, `init`, `step`, `done`, and a state that says everything the next step needs.

The loop around the steps, with its limits, starts, events and checkpoints, is the same for all and lives in
`bilevel_core.solvers.driver`. A new method is one file with a frozen dataclass of options, derived from
`IterativeSolver`, and a dataclass of its state, derived from `State`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from bilevel_core.errors import BilevelError, UsageError
from bilevel_core.oracles import Oracle, Vector, make_oracle
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Solver
from bilevel_core.solvers.used_options import Only, check

FEASIBLE = 1e-6
"""Violation of the leader's constraints and bounds up to which a candidate counts as feasible."""


class CutShortError(BilevelError):
    """Raised by a step that gave up because the context had expired or was stopped. The state before it is kept: a
    step that returned half its work would make a resumed run another one.
    """


def give_up(context: RunContext) -> Callable[[], bool]:
    """What to ask now and then inside long work (`LowerSettings.hurry`): it raises where the run has to end, so that
    no half of the work is gone on with.

    Raises:
        CutShortError: the time is over or the run was stopped; raised by the function returned.
    """

    def ask() -> bool:
        if context.expired or context.stopped:
            raise CutShortError("The run was stopped, or its time was over, inside a step.")
        return False

    return ask


@dataclass(frozen=True)
class Candidate:
    """A bilevel point that a solver has in hand.

    Attributes:
        x: upper variables, shape (nx,).
        y: an answer of the lower level at ``x``, re-solved there; a vector of the oracle's kind.
        objective: F(x, y), minimised sense.
        violation: largest violation of the leader's constraints and bounds, 0 when there is none, measured by
            `bilevel_core.solvers.violation.leader_violation`.
        claim: what is known of the point once its start has converged: feasible, stationary or local.
    """

    x: np.ndarray
    y: Vector
    objective: float
    violation: float = 0.0
    claim: Claim = Claim.FEASIBLE

    @property
    def feasible(self) -> bool:
        """Whether the leader's constraints hold, up to 1e-6."""
        return self.violation <= FEASIBLE

    def better(self, other: Candidate | None) -> bool:
        """Whether to prefer this one: feasible before infeasible, then the smaller objective; of two infeasible ones
        the smaller violation.
        """
        if other is None:
            return True
        if self.feasible != other.feasible:
            return self.feasible
        if not self.feasible:
            return self.violation < other.violation
        return self.objective < other.objective


@dataclass
class State:
    """Where a method stands. Subclasses add fields: everything that `IterativeSolver.step` needs besides the oracle.

    Fields hold what a checkpoint can: numbers, texts, booleans, None, NumPy arrays, tensors, `Claim` and `Termination`
    members, lists, tuples and dictionaries of these, and dataclasses listed in `IterativeSolver.state_types`.

    Attributes:
        iteration: steps taken in this start; counted by the driver.
        candidate: current point of the method, None while there is none.
        figures: numbers for progress and the log of events, by name: ``step``, ``hypergradient_norm``, ...
    """

    iteration: int = 0
    candidate: Candidate | None = None
    figures: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def current_x(self) -> np.ndarray | None:
        """The upper variables where the method stands, shape (nx,), for events; by default the candidate's."""
        return None if self.candidate is None else self.candidate.x


@dataclass(frozen=True)
class Stop:
    """Why one start ended.

    Attributes:
        termination: ``converged``, or ``error`` with a message.
        message: what to tell the user, in sentences.
        steps: a row of figures for each step that the result's details should show (under ``steps``, with the start's
            number).
    """

    termination: Termination
    message: str = ""
    steps: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True)
class IterativeSolver(Solver):
    """Base of the solvers that improve a point step by step. Options of all of them are fields here.

    A step depends on the oracle and the state only, so that a run that goes on from a checkpoint takes the same steps
    as one that was never interrupted.

    Raises:
        UsageError: an option is out of its range.
    """

    max_iterations: int = field(default=1000, metadata={"help": "Most iterations of each start, from its beginning."})
    starts: int = field(default=1, metadata={"help": "Starting points: the problem's own, then random ones."})
    checkpoint_every: float = field(
        default=30.0, metadata={"help": "Seconds between checkpoints of a recorded run; 0 for one each iteration."}
    )

    resumable: ClassVar[bool] = True
    state_types: ClassVar[tuple[type, ...]] = ()
    """The dataclasses, the state's first of all, that may stand in a checkpoint. `Candidate` always may."""
    only: ClassVar[tuple[Only, ...]] = ()
    """Which options have an effect with some choices only; see `bilevel_core.solvers.used_options`."""

    def __post_init__(self) -> None:
        if self.max_iterations < 0:
            raise UsageError(f"Expected max_iterations of at least 0, got {self.max_iterations}.")
        if self.starts < 1:
            raise UsageError(f"Expected at least 1 for starts, got {self.starts}.")
        if not (self.checkpoint_every >= 0.0 and math.isfinite(self.checkpoint_every)):
            raise UsageError(f"Expected checkpoint_every of at least 0 seconds, got {self.checkpoint_every!r}.")
        check(self, self.only)

    def check_options(self, form: str) -> None:
        """See `Solver.check_options`."""
        check(self, self.only, form)

    def limited(self, count: int) -> IterativeSolver:
        """The same with another limit of iterations."""
        return replace(self, max_iterations=count)

    def make_oracle(self, problem: Any, context: RunContext) -> Oracle:
        """The oracle that the other methods get."""
        return make_oracle(problem, seed=context.seed, device=context.device)

    @abstractmethod
    def init(self, oracle: Oracle, x0: np.ndarray, context: RunContext) -> Any:
        """The state at the beginning of a start.

        Args:
            oracle: the problem.
            x0: upper variables to start from, shape (nx,), within their bounds.
            context: the run; steps may ask it for the time left.

        Raises:
            LowerFailedError: the lower level has no answer at ``x0``.
            NonFiniteError: a value or derivative is not finite.
            CutShortError: the time is over.
        """

    @abstractmethod
    def step(self, oracle: Oracle, state: Any, context: RunContext) -> Any:
        """One iteration: a new state; the old one stays as it is.

        Raises:
            LowerFailedError: the lower level failed, and the method knows no way around it.
            NonFiniteError: a value or derivative is not finite.
            CutShortError: the time is over.
        """

    @abstractmethod
    def done(self, state: Any) -> Stop | None:
        """Whether the start has ended, and why."""

    def run(self, problem: Any, context: RunContext) -> Result:
        """Solve with the driver: see `bilevel_core.solvers.driver`."""
        from bilevel_core.solvers.driver import drive

        return drive(self, problem, context)
