"""Asking the users at one point after the other: counted, within a budget; and one way downhill as a task that may run
in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from bilevel_toll.congestion.equilibrium import Flows
from bilevel_toll.congestion.pieces import Piece, descend
from bilevel_toll.congestion.problem import TrafficProblem
from bilevel_toll.congestion.tolls import CongestedTolls

if TYPE_CHECKING:
    from bilevel_toll.congestion.answers import Answers, Entry

Told = Callable[[float, np.ndarray], None]


class EndError(Exception):
    """The budget, the time or the user's patience is over."""


class Asker:
    """Values and slopes of a problem's first objective. Each equilibrium starts from the one before.

    Args:
        problem: whose users are asked.
        budget: most equilibria.
        halted: whether to end now.
        told: called with each value that is better than all before, and its point.
        answers: where answers are recorded, and recorded ones come from; None for nowhere. With a record only `value`
            and `derivatives` may be called: the other methods need flows, which recorded answers are without.

    Attributes:
        count, gradients, newton_steps: work done.
        best: the best value and its point.
        better: each value that was better than all before: after how many equilibria, the value, the point.
        ledger: gradients and Newton steps before each equilibrium.
    """

    def __init__(
        self,
        problem: TrafficProblem,
        budget: int,
        halted: Callable[[], bool],
        told: Told | None = None,
        answers: Answers | None = None,
    ) -> None:
        self.problem, self.budget, self._halted, self._told, self._answers = problem, budget, halted, told, answers
        self.lower, self.upper = problem.bounds
        self.last: Flows = problem.untouched
        self._last_x, self._routes_only = self.lower, False
        self.count = self.gradients = self.newton_steps = 0
        self.best: tuple[float, np.ndarray] | None = None
        self.better: list[tuple[int, float, np.ndarray]] = []
        self.ledger: list[tuple[int, int]] = []
        if answers is not None:
            answers.enter(self)

    @property
    def standing(self) -> tuple[np.ndarray, Flows]:
        """The point asked last where there was an equilibrium, and that."""
        return self._last_x, self.last

    def resume_from(self, x: np.ndarray, routes: Flows) -> None:
        """Start the next equilibrium from flows of which only the routes are known, those at a point."""
        self._last_x, self.last, self._routes_only = x, routes, True

    @property
    def sizes(self) -> np.ndarray:
        """The variables' scales: a tenth of their ranges."""
        return 0.1 * (self.upper - self.lower)

    def value(self, x: np.ndarray) -> float:
        """The objective at a point, brought back into the leader's constraints; infinite where there is no equilibrium.

        Raises:
            EndError: no more may be asked.
        """
        if self.count >= self.budget or self._halted():
            raise EndError
        self.ledger.append((self.gradients, self.newton_steps))
        x = self.problem.within(x)
        answer = self._ask("value", x, lambda: self._equilibrium(x))
        self.count += 1
        self.newton_steps += answer["newton_steps"]
        value = float(answer["value"])
        if not np.isfinite(value):
            return float("inf")
        if self.best is None or value < self.best[0]:
            self.best = (value, x.copy())
            self.better.append((self.count, value, x.copy()))
            if self._told is not None:
                self._told(value, x)
        return value

    def _ask(self, kind: str, x: np.ndarray, compute: Callable[[], Entry], **more: Any) -> Entry:
        answer = compute() if self._answers is None else self._answers.ask(kind, x, compute, **more)
        assert answer is not None
        return answer

    def _equilibrium(self, x: np.ndarray) -> Entry:
        flows = self.problem.flows(x, self.last)
        value = float("inf")
        if flows.converged:
            value = self.problem.value(x, flows, self.problem.aims[0])
            self.last, self._last_x, self._routes_only = flows, x, False
        return {"value": value, "newton_steps": flows.newton_steps}

    def derivatives(self, x: np.ndarray, rows: Sequence[int], curved: bool) -> Entry:
        """``gradient``, shape (n,), and second derivatives at the point asked last, None where not asked for: these
        rows of the Hessian, ``rows`` of shape (rows, n), and its ``diagonal``, shape (n,). All of it would make
        checkpoints of large networks large.
        """

        def compute() -> Entry:
            if self._routes_only:
                self.last, self._routes_only = self.problem.flows(self._last_x, self.last), False
            hessian = self.problem.hessian(x, self.last) if curved else None
            return {
                "gradient": self.problem.gradient(x, self.last)[0],
                "rows": None if hessian is None else hessian[list(rows)],
                "diagonal": None if hessian is None else np.diag(hessian).copy(),
            }

        self.gradients += 1
        return self._ask("derivatives", x, compute, of=tuple(int(k) for k in rows))

    def slope(self, x: np.ndarray) -> np.ndarray:
        """The gradient at the point asked last."""
        self.gradients += 1
        return self.problem.gradient(self.problem.within(x), self.last)[0]

    def around(self, x: np.ndarray) -> Piece:
        """Value and both derivatives at a point."""
        value, n = self.value(x), len(x)
        if not np.isfinite(value):
            return Piece(x, value, np.zeros(n), np.zeros((n, n)))
        hessian = self.problem.hessian(x, self.last)
        return Piece(x, value, self.slope(x), np.zeros((n, n)) if hessian is None else hessian)

    def downhill(self, x: np.ndarray, curved: bool, tolerance: float, steps: int) -> None:
        """Descend from a point: Newton steps over pieces where there are second derivatives, else gradient steps."""
        if curved:
            descend(self.around, x, self.lower, self.upper, tolerance=tolerance, steps=steps)
            return
        size = self.sizes
        base = abs(self.value(x)) or 1.0

        def both(z: np.ndarray) -> tuple[float, np.ndarray]:
            value = self.value(z * size)
            return value / base, self.slope(z * size) * size / base

        limits = list(zip(self.lower / size, self.upper / size, strict=True))
        if self.problem.limit(x) is None:
            options: Any = {"ftol": tolerance, "gtol": 1e-8, "maxfun": steps, "maxiter": steps}
            minimize(both, x / size, jac=True, method="L-BFGS-B", bounds=limits, options=options)
            return
        minimize(
            both, x / size, jac=True, method="SLSQP", bounds=limits, constraints=[self.constraint()],
            options={"ftol": tolerance, "maxiter": steps},
        )  # fmt: skip

    def constraint(self) -> dict[str, Any]:
        """The leader's constraint in scaled variables, as `scipy.optimize.minimize` takes it."""
        size, limit = self.sizes, self.problem.limit
        return {
            "type": "ineq",
            "fun": lambda z: (limit(z * size) or (0.0, size))[0],
            "jac": lambda z: (limit(z * size) or (0.0, size))[1] * size,
        }


@dataclass(frozen=True)
class Task:
    """A way downhill to be gone.

    Attributes:
        x: where it starts, shape (variables,), or (groups,) where only some may be tolled.
        groups: numbers of the groups of arcs that may be tolled; None for all variables.
        budget: most equilibria.
        curved: whether there are second derivatives.
        tolerance: see `TollDesign`.
        steps: most steps.
        others: further points, of the same shape; the way starts from the best of all.
    """

    x: np.ndarray
    groups: tuple[int, ...] | None
    budget: int
    curved: bool
    tolerance: float
    steps: int = 100
    others: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Way:
    """One that was gone.

    Attributes:
        better: see `Asker.better`.
        ledger: gradients and Newton steps before each equilibrium, and all of them at the end.
        ended: whether it was cut short, by its budget or by time.
        lost: why there is nothing of it: its process died.
    """

    better: tuple[tuple[int, float, np.ndarray], ...] = ()
    ledger: tuple[tuple[int, int], ...] = ((0, 0),)
    ended: bool = False
    lost: str = ""

    @property
    def count(self) -> int:
        """Equilibria."""
        return len(self.ledger) - 1


def walk(problem: TrafficProblem, task: Task, halted: Callable[[], bool], told: Told | None = None) -> Way:
    """Go downhill. What comes out depends on problem and task only, unless it is halted."""
    part = problem
    if task.groups is not None:
        assert isinstance(problem, CongestedTolls)
        part = problem.restricted(task.groups)
    asker, ended = Asker(part, task.budget, halted, told), False
    try:
        start = task.x
        if task.others:
            points = (task.x, *task.others)
            values = [asker.value(x) for x in points]
            start = points[int(np.argmin(values))]
        asker.downhill(start, task.curved, task.tolerance, task.steps)
    except EndError:
        ended = True
    return Way(tuple(asker.better), (*asker.ledger, (asker.gradients, asker.newton_steps)), ended)
