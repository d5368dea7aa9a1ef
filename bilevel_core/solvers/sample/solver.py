"""The sampling solvers: the upper level is a black box, and the lower level is solved at each point that is tried.

What they share is here: budget, early stopping, trials in flight. Which point is next is said by a sampler of
`bilevel_core.sampling`; each solver in `bilevel_core.solvers.sample.methods` is the options of one.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from bilevel_core.errors import UsageError
from bilevel_core.result import Result
from bilevel_core.run import RunContext
from bilevel_core.sampling import Sampler
from bilevel_core.sampling.simple import GridSampler
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.solvers.descent import option
from bilevel_core.solvers.sample.task import Evaluation, EvaluationSettings, make_evaluation
from bilevel_core.solvers.used_options import Only, check, for_form, for_forms
from bilevel_core.traits import Traits

USUAL_SOLVES = 200
"""The budget where neither the user nor the problem says one."""


def _trained(solver: Any, form: str | None) -> bool | None:
    return (
        None if form is None else form == "differentiable" and solver.lower_method not in ("auto", "lbfgs", "newton-cg")
    )


SHARED: tuple[Only, ...] = (
    for_form("algebraic", "lower"),
    for_form("differentiable", "lower_method", "lower_tolerance", "batch"),
    for_forms(("algebraic", "differentiable"), "lower_iterations"),
    for_forms(("differentiable", "nested"), "devices"),
    Only(("learning_rate",), "with an optimiser such as adam or sgd as lower_method", _trained),
)


@dataclass(frozen=True)
class SamplingSolver(Solver):
    """Base of the sampling solvers. Options of all of them are fields here.

    Raises:
        UsageError: an option is out of its range.
    """

    lower_solves: int | None = option(
        None,
        "budget: most lower-level solves, parts of a solve counting as such; default: what the problem says, or 200",
    )
    target: float | None = option(
        None, "stop at a leader's objective as good as this, in the user's sense; of several, the first"
    )
    patience: int = option(0, "stop after so many trials without a better point; 0 for never")
    parallel: int = option(0, "trials in flight; 0 for as many as the executor has workers")
    order: Literal["index", "arrival"] = option(
        "index",
        "in which order the sampler learns of outcomes: index: the same run on any machine; arrival: as they come",
    )
    box: float = option(0.0, "half-width of the region searched where the leader's variables have no bounds; 0 refuses")
    lower: Literal["auto", "local", "global"] = option(
        "auto",
        "how followers are solved; auto: globally if they have integers; at the end the best points' ones always",
    )
    lower_method: str = option("auto", "method of differentiable lower levels: auto, lbfgs, newton-cg, adam, ...")
    lower_tolerance: float = option(1e-8, "gradient norm at which such a solve ends")
    lower_iterations: int = option(1000, "most iterations of one lower-level solve: its whole budget")
    learning_rate: float = option(0.1, "of lower-level optimisers such as adam and sgd")
    devices: tuple[str, ...] = option((), "devices to hand out to trials, such as cuda:0,cuda:1; default: the run's")
    batch: int = option(1, "differentiable: lower levels solved together, as one tensor program (torch.func.vmap)")
    checkpoint_every: float = option(30.0, "seconds between notes of the time taken; every outcome is kept at once")

    only: ClassVar[tuple[Only, ...]] = SHARED
    uses_device: ClassVar[bool] = True
    several_objectives: ClassVar[bool] = False
    resumable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("lower_solves", "lower_iterations", "batch"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"Expected {name} of at least 1, got {getattr(self, name)}.")
        for name in ("patience", "parallel"):
            if getattr(self, name) < 0:
                raise UsageError(f"Expected {name} of at least 0, got {getattr(self, name)}.")
        for name in ("box", "checkpoint_every"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0.0):
                raise UsageError(f"Expected {name} of at least 0, got {getattr(self, name)!r}.")
        for name in ("lower_tolerance", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0.0):
                raise UsageError(f"Expected a positive number for {name}, got {getattr(self, name)!r}.")
        if self.target is not None and not math.isfinite(self.target):
            raise UsageError(f"Expected a finite number for target, got {self.target!r}.")
        check(self, self.only)

    @abstractmethod
    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """The sampler over a problem's space.

        Raises:
            UsageError: the method does not take such a space.
            MissingError: its package is not installed.
        """

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Every problem whose lower level can be solved at fixed x."""
        if traits.form not in ("algebraic", "differentiable", "nested"):
            return Refused(f"there is no way to solve the lower level of {traits.form} problems at fixed x")
        if traits.game:
            return Refused(
                "the followers play a Nash game, whose equilibria at fixed x are no minimum of a function", "kkt"
            )
        if not traits.upper_variables:
            return Refused("the leader has no variables to sample")
        return Accepted(f"{self.what()}; the lower level is solved at each point", self.claim(traits))

    def what(self) -> str:
        """The method in a few words: the first sentence of the class's documentation."""
        return re.split(r"(?<!\bal)\.(?:\s|$)", type(self).__doc__ or "", maxsplit=1)[0].strip()

    def claim(self, traits: Traits) -> str:
        """The strongest claim on such problems."""
        return "feasible"

    def check_options(self, form: str) -> None:
        """See `Solver.check_options`."""
        check(self, self.only, form)

    def limited(self, count: int) -> SamplingSolver:
        """The same with another budget of lower-level solves."""
        return replace(self, lower_solves=count)

    def budget(self, problem: Any) -> int:
        """Most lower-level solves of a search for the problem."""
        return self.lower_solves or getattr(problem, "usual_solves", None) or USUAL_SOLVES

    def window(self, executor: Executor | None) -> int:
        """How many trials may be untold at a time."""
        if self.parallel:
            return self.parallel
        workers = getattr(executor, "workers", None) or getattr(executor, "_max_workers", None) or 1
        return max(1, int(workers)) * self.batch

    def evaluation_settings(self, context: RunContext) -> EvaluationSettings:
        """How the lower level is solved at each point."""
        return EvaluationSettings(
            lower=self.lower,
            box=self.box,
            method=self.lower_method,
            tolerance=self.lower_tolerance,
            iterations=self.lower_iterations,
            learning_rate=self.learning_rate,
            device=context.device,
        )

    def run(self, problem: Any, context: RunContext) -> Result:
        """Search: see `bilevel_core.solvers.sample.drive`."""
        from bilevel_core.solvers.sample.drive import Search

        if problem.form == "algebraic" and context.device not in ("auto", "cpu"):
            raise UsageError(f"Expressions are evaluated on the CPU only; leave out device={context.device!r}.")
        evaluation = make_evaluation(problem, self.evaluation_settings(context), context.seed)
        if evaluation.objectives > 1 and not self.several_objectives:
            raise UsageError(
                f"The problem has {evaluation.objectives} upper objectives, and this solver takes one: use "
                "sample.nsga2, sample.random or sample.grid."
            )
        # A leader whose bounds leave one point has nothing to sample.
        sampler = (
            self.sampler(evaluation, context.seed) if len(evaluation.space) else GridSampler(evaluation.space, 0, 1)
        )
        return Search(self, problem, evaluation, sampler, context).run()
