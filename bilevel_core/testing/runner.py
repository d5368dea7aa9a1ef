"""Runs a solver class as `bl.solve` runs a registered one, and hands out what a check needs to see."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from bilevel_core.choose import verdict_of
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import KnownOptimum, ProblemSpec
from bilevel_core.problems.base import AlgebraicProblem, Problem
from bilevel_core.problems.nested import NestedProblem
from bilevel_core.result import Result
from bilevel_core.run import Callback, RunContext
from bilevel_core.run.checkpoint import Stored
from bilevel_core.run.options import read
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.testing.check import NotApplicable
from bilevel_core.traits import derive_traits


@dataclass(frozen=True)
class Case:
    """A problem on which solvers are run.

    Attributes:
        name: what messages call it.
        make: gives the problem anew.
        known: its optimum, or how a correct run ends.
    """

    name: str
    make: Callable[[], Problem]
    known: KnownOptimum | None = None


def case_of(problem: str | ProblemSpec | Case) -> Case:
    """A case from a registered name or a description.

    Raises:
        UsageError: there is no such problem.
    """
    if isinstance(problem, Case):
        return problem
    spec = get_registry().find("problems", problem) if isinstance(problem, str) else problem
    assert isinstance(spec, ProblemSpec)

    def make() -> Problem:
        return spec.load()()

    return Case(spec.name, make, spec.known)


@dataclass
class Keeper:
    """Keeps checkpoints in memory, as a run's folder would."""

    periodic: bool = True
    content: bytes = b""
    entries: list[bytes] = field(default_factory=list[bytes])

    def checkpoint(self, content: bytes) -> None:
        """See `bilevel_core.run.context.Keeper`."""
        self.content = content

    def journal(self, entry: bytes) -> None:
        """See `bilevel_core.run.context.Keeper`."""
        self.entries.append(entry)


@dataclass(frozen=True)
class Runner:
    """A solver class and the options that it is run with.

    Attributes:
        factory: the class.
        options: its options.
        time_limit: seconds for each run.
    """

    factory: type[Solver]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    time_limit: float | None = 60.0

    @property
    def name(self) -> str:
        """What messages call the solver."""
        return self.factory.__name__

    def make(self, **more: Any) -> Solver:
        """The solver with its options, read as `bl.solve` reads them."""
        return self.factory(**read(self.factory, {**self.options, **more}, owner=f"solver {self.name!r}"))

    def verdict(self, problem: Problem) -> Accepted | Refused:
        """What the solver says of the problem."""
        return verdict_of(self.make(), problem, derive_traits(problem))

    def takes(self, problem: Problem) -> Accepted:
        """The same where it accepts.

        Raises:
            NotApplicable: it refuses.
        """
        verdict = self.verdict(problem)
        if isinstance(verdict, Refused):
            raise NotApplicable(f"{self.name} refuses it: {verdict.reason}")
        return verdict

    def run(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        time_limit: float | None = None,
        device: str = "auto",
        callbacks: Sequence[Callback] = (),
        keeper: Keeper | None = None,
        restored: Stored | None = None,
        stopped: bool = False,
        **options: Any,
    ) -> Result:
        """One run, without the check of the point.

        Args:
            problem: what to solve.
            seed, time_limit, device, callbacks, keeper, restored: see `bilevel_core.RunContext`.
            stopped: whether the user has asked to stop before it begins.
            options: options that replace those of the runner.
        """
        method = self.make(**options)
        method.check_options(problem.form)
        context = RunContext(
            time_limit=self.time_limit if time_limit is None else time_limit,
            seed=seed,
            device=device,
            callbacks=callbacks,
            keeper=keeper,
            restored=restored,
            journaled=() if keeper is None or restored is None else tuple(keeper.entries),
        )
        if stopped:
            context.stop()
        result = method.run(problem, context)
        return dataclasses.replace(result, solver=self.name, options=dataclasses.asdict(cast("Any", method)), seed=seed)


def text_of(problem: Problem) -> str:
    """All of a problem that a solver could have changed, as text to compare.

    Raises:
        NotApplicable: the problem is of a type that the kit cannot look into.
    """
    model: Any = getattr(problem, "model", None)
    if model is not None and hasattr(model, "pprint"):
        out = io.StringIO()
        model.pprint(ostream=out)
        return out.getvalue()
    if problem.form == "differentiable" and hasattr(problem, "x0"):
        return f"{_tensor(problem, 'x0')}\n{_tensor(problem, 'y0')}"
    if isinstance(problem, AlgebraicProblem):
        return problem.program().text()
    if isinstance(problem, NestedProblem):
        return repr(problem.space)
    raise NotApplicable(f"problems of type {type(problem).__name__} cannot be compared before and after")


def _tensor(problem: Any, name: str) -> str:
    tensor = getattr(problem, name).detach().cpu()
    return f"{tensor.dtype} {np.asarray(tensor.double()).tolist()}"


def maximises(problem: Problem) -> bool:
    """Whether the leader maximises."""
    return isinstance(problem, AlgebraicProblem) and problem.program().leader.maximise
