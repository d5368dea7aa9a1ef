"""A problem, its oracle and a solver of a few lines, for tests of the driver: gradient descent on F(x, y(x)).

Lower level: y(x) = x. Upper level: F = sum (x - 3)^2, with local waves so that starts end in different places.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from bilevel_core.lower import LowerFailedError
from bilevel_core.oracles import NonFiniteError, Oracle
from bilevel_core.problems.base import Problem
from bilevel_core.result import Claim, Termination, Values
from bilevel_core.solvers import Accepted
from bilevel_core.solvers.iterative import Candidate, IterativeSolver, State, Stop


class FakeProblem(Problem):
    """``maximise`` turns the user's sense round; ``kind`` chooses what y is."""

    form = "fake"

    def __init__(self, *, size: int = 2, maximise: bool = False, kind: str = "numpy", name: str = "fake") -> None:
        self.size = size
        self.maximise = maximise
        self.kind = kind
        self.name = name


class FakeOracle(Oracle):
    form = "fake"

    def __init__(self, problem: FakeProblem) -> None:
        super().__init__()
        self.problem = problem
        self.nx = self.ny = problem.size
        self.x_lower, self.x_upper = np.full(self.nx, -10.0), np.full(self.nx, 10.0)
        self.y_lower, self.y_upper = np.full(self.nx, -np.inf), np.full(self.nx, np.inf)
        self.x_start = np.zeros(self.nx)

    def y_start(self) -> Any:
        return self.zeros()

    def zeros(self) -> Any:
        return self.from_numpy(np.zeros(self.ny))

    def to_numpy(self, y: Any) -> np.ndarray:
        return np.array(y if isinstance(y, np.ndarray) else y.numpy(), dtype=float)

    def from_numpy(self, values: np.ndarray) -> Any:
        if self.problem.kind == "torch":
            import torch

            return torch.from_numpy(np.array(values, dtype=float))
        return np.array(values, dtype=float)

    def upper(self, x: np.ndarray, y: Any) -> float:
        self.counts["upper_values"] += 1
        d = self.to_numpy(y) - 3.0
        return float(np.sum(d**2 + 4.0 * np.sin(2.0 * d)))

    def slope(self, y: Any) -> np.ndarray:
        self.counts["upper_gradients"] += 1
        d = self.to_numpy(y) - 3.0
        return 2.0 * d + 8.0 * np.cos(2.0 * d)

    def point(self, x: np.ndarray, y: Any) -> tuple[Values, Values]:
        return Values({"x": x.copy()}), Values({"y": self.to_numpy(y)})

    def objectives(self, x: np.ndarray, y: Any) -> tuple[float, float]:
        return (-1.0 if self.problem.maximise else 1.0) * self.upper(x, y), 0.0

    has_upper_rows = False  # type: ignore[assignment]
    has_lower_rows = False  # type: ignore[assignment]

    def _never(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    lower = upper_gradients = lower_gradient = lower_gradient_x = _never
    upper_rows = lower_rows = curvature = _never


@dataclass
class FakeState(State):
    momentum: Any = None
    move: float = np.inf
    history: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class FakeSolver(IterativeSolver):
    """``trouble`` is what happens in which start: ``{0: "lower"}``; ``at`` is the iteration when it does."""

    rate: float = 0.01
    tolerance: float = 1e-10
    violation: float = 0.0
    at: int = 5
    trouble: dict[str, str] = field(default_factory=dict)

    state_types: ClassVar[tuple[type, ...]] = (FakeState,)

    def accepts(self, traits: Any) -> Accepted:
        return Accepted("descends", claim="local")

    def make_oracle(self, problem: Any, context: Any) -> Oracle:
        return FakeOracle(problem)

    def init(self, oracle: Any, x0: np.ndarray, context: Any) -> FakeState:
        if self.at == 0:
            self._fail(oracle, x0)
        y = oracle.from_numpy(x0)
        oracle.counts["lower_solves"] += 1
        return FakeState(candidate=self._candidate(x0, y, oracle), momentum=0.0 * y)

    def step(self, oracle: Any, state: FakeState, context: Any) -> FakeState:
        if state.iteration + 1 == self.at:
            self._fail(oracle, state.history)
        assert state.candidate is not None
        oracle.counts["lower_solves"] += 1
        momentum = 0.5 * state.momentum + oracle.from_numpy(oracle.slope(state.candidate.y))
        x = np.clip(state.candidate.x - self.rate * oracle.to_numpy(momentum), -10.0, 10.0)
        y = oracle.from_numpy(x)
        move = float(np.abs(x - state.candidate.x).max())
        if state.iteration == 2:
            oracle.note("The third step was taken.")
        found = self._candidate(x, y, oracle)
        return FakeState(
            candidate=found,
            momentum=momentum,
            move=move,
            history=[*state.history, found.objective],
            figures={"step": move},
        )

    def done(self, state: FakeState) -> Stop | None:
        return Stop(Termination.CONVERGED, "The step is small.") if state.move < self.tolerance else None

    def _candidate(self, x: np.ndarray, y: Any, oracle: Any) -> Candidate:
        return Candidate(x, y, oracle.upper(x, y), self.violation, Claim.LOCAL)

    def _fail(self, oracle: Any, seen: Any) -> None:
        """Which start this is a solver is not told: where it begins, or its first objective, says so."""
        first = bool(np.all(seen == oracle.x_start)) if self.at == 0 else abs(seen[0] - FIRST) < 1e-9
        match self.trouble.get("first" if first else "others", self.trouble.get("all")):
            case "lower":
                raise LowerFailedError("The follower has no answer here.", Termination.LOWER_INFEASIBLE)
            case "nan":
                raise NonFiniteError("lower(x, y)", "log of a negative number")
            case "interrupt":
                raise KeyboardInterrupt
            case "die":
                if os.environ.get("FAKE_PARENT") not in (None, str(os.getpid())):
                    os._exit(3)
            case _:
                return


def first_objective(rate: float = 0.01) -> float:
    """F after the first step of the first start, by which a step knows that it is in that start."""
    oracle = FakeOracle(FakeProblem())
    x = -rate * oracle.slope(np.zeros(2))
    return oracle.upper(x, x)


FIRST = first_objective()
