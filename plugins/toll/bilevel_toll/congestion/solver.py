"""`toll-design`: tolls or capacities against user equilibrium, by derivatives from several starts and a polish.

Good at: smooth pieces, tens of variables, a few dozen equilibria in all. Bad at: proving anything: the function has
kinks where routes come into use, and several local minima. Only total time has a bound, that of the best flows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.result import Claim, Result, Termination, Values
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.solvers.descent import option
from bilevel_core.traits import Traits
from bilevel_toll.congestion.answers import Answers
from bilevel_toll.congestion.asking import EndError
from bilevel_toll.congestion.booths import BoothSearch
from bilevel_toll.congestion.equilibrium import Flows
from bilevel_toll.congestion.fan import Fan
from bilevel_toll.congestion.problem import STRUCTURE, TrafficProblem
from bilevel_toll.congestion.search import Progress, Search
from bilevel_toll.congestion.tolls import CongestedTolls

GRADIENT = 1e-4
"""Stationary: the projected gradient times the range of the variables, as a share of the objective."""


@dataclass(frozen=True)
class TollDesign(Solver):
    """Descent through the equilibrium's sensitivity from several starts, then a search without gradients.

    Tolls have second derivatives, too, and take Newton steps on the pieces that the used routes make (see `pieces`);
    capacities, and networks on which more than 1,000 routes are used, take gradient steps (L-BFGS-B; SLSQP within a
    budget). Where only so many arcs may have a toll, `booths` chooses them. Searches go through the run's executor.

    Sources: Tobin and Friesz (1988) for derivatives of equilibria; Verhoef (2002) for second-best tolls; the polish is
    COBYQA (Ragonneau 2022).
    """

    starts: int = option(
        -1,
        "searches by derivatives: from the best of zero, shares of marginal costs, and random points; -1: 9 where "
        "second derivatives are known, else 4",
    )
    random: int = option(4, "random points among those that starts are chosen from")
    global_solves: int = option(-1, "equilibria for CMA-ES before the gradient; -1: 300 for revenue, none for others")
    polish: int = option(
        -1,
        "equilibria for the search without gradients; -1: none where second derivatives are known, else 12 for each "
        "variable, at most 400",
    )
    perturbations: int = option(-1, "with most_booths: rounds of tolling some more arcs and dropping as many; -1: 12")
    solves: int = option(2000, "budget: most equilibria in all")
    tolerance: float = option(1e-10, "relative decrease of the objective at which a gradient search ends")
    checkpoint_every: float = option(30.0, "seconds between checkpoints of a recorded run; 0 for one each answer")

    resumable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        least = {"starts": -1, "random": 0, "global_solves": -1, "polish": -1, "perturbations": -1, "solves": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise UsageError(f"Expected {name} of at least {lowest}, got {getattr(self, name)}.")
        if self.starts == 0:
            raise UsageError("Expected starts of at least 1, or -1 for the default, got 0.")
        if not (self.checkpoint_every >= 0.0 and math.isfinite(self.checkpoint_every)):
            raise UsageError(f"Expected checkpoint_every of at least 0 seconds, got {self.checkpoint_every!r}.")
        if not 0.0 < self.tolerance < 1.0:
            raise UsageError(f"Expected a tolerance in (0, 1), got {self.tolerance!r}.")

    def limited(self, count: int) -> TollDesign:
        """The same with another budget of equilibria."""
        return replace(self, solves=count)

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Problems whose follower is a user equilibrium."""
        if STRUCTURE not in traits.structure:
            return Refused("its follower is no user equilibrium of a network", "a general solver")
        return Accepted("hypergradients of the equilibrium from several starts, then COBYQA", "global")

    def run(self, problem: TrafficProblem, context: RunContext) -> Result:
        """See `Solver.run`."""
        if not isinstance(problem, TrafficProblem):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"Expected a problem with a user equilibrium, got {type(problem).__name__}.")
        if len(problem.aims) > 1:
            raise UsageError(
                f"The problem has {len(problem.aims)} objectives, and this solver takes one: use sample.nsga2."
            )
        if self.perturbations >= 0 and not (isinstance(problem, CongestedTolls) and problem.limited):
            raise UsageError("perturbations is for problems with most_booths, fewer than tollable arcs: leave it out.")
        answers = Answers(problem, context, self.checkpoint_every, type(self).__name__)
        progress, ended = Progress(self, problem, context, answers), False
        with Fan(problem, context, answers) as fan:
            try:
                if isinstance(problem, CongestedTolls) and problem.limited:
                    BoothSearch(progress, problem, fan).run()
                else:
                    Search(progress, problem, fan).run()
            except EndError:
                ended = True
            except KeyboardInterrupt:
                context.stop()
                ended = True
            finally:
                answers.checkpoint()
        return _assemble(progress, ended)


def _assemble(progress: Progress, ended: bool) -> Result:
    """The best point, its equilibrium computed from the beginning, and what may be said of it."""
    problem, context, counts = progress.problem, progress.context, progress.counts
    found = progress.answers.best
    if found is None:
        # Nothing that may be reported has been tried yet: the lower bounds are a point, too.
        lower = problem.bounds[0]
        x = np.ceil(lower) if problem.space.finite else lower
    else:
        x = found[1]
    if isinstance(problem, CongestedTolls) and problem.limited:
        # Tolls that take no booth are none.
        x = np.where(problem.tolled(x), x, 0.0)
    flows = problem.flows(x, problem.untouched)
    value = problem.value(x, flows, problem.aims[0])
    claim, notes = Claim.FEASIBLE, list[str]()
    if not flows.converged:
        claim = Claim.NONE
        notes.append(
            f"The equilibrium at the point reported did not converge: its relative gap is {flows.relative_gap:.1e}. "
            "Nothing is claimed of it."
        )
    elif progress.optimal:
        claim = Claim.GLOBAL
        notes.append("The total time is the least there can be, up to one part in a million: no tolls do better.")
    elif _stationary(problem, x, flows, value):
        claim = Claim.STATIONARY
    if claim is not Claim.GLOBAL:
        work = f"{counts['gradients']} gradients and {counts['lower_solves']} equilibria"
        notes.append(f"Best found with {work}; better points are not excluded.")
    termination = Termination.CONVERGED
    if ended and not progress.optimal:
        termination = (
            Termination.STOPPED_BY_USER
            if context.stopped
            else Termination.TIME_LIMIT
            if counts["lower_solves"] < progress.options.solves
            else Termination.ITERATION_LIMIT
        )
    return Result(
        termination=termination,
        claim=claim,
        x=problem.values(x),
        y=Values({"flow": problem.split(flows)}),
        upper_objective=value,
        lower_objective=flows.potential,
        bound=None if progress.bound is None else min(progress.bound, value),
        trace=tuple(context.trace),
        counts=counts,
        message=" ".join([*notes, *progress.notes, *progress.answers.notes]),
    )


def _stationary(problem: TrafficProblem, x: np.ndarray, flows: Flows, value: float) -> bool:
    """Whether the projected gradient vanishes, relative to the objective over the variables' range.

    Nothing is said where variables are whole, or a constraint beside the bounds may be in the way.
    """
    if problem.space.finite or (isinstance(problem, CongestedTolls) and problem.limited):
        return False
    limit = problem.limit(x)
    if limit is not None and limit[0] <= 1e-6:
        return False
    gradient, residual = problem.gradient(x, flows)
    lower, upper = problem.bounds
    spread = upper - lower
    move = np.clip(x - gradient * spread, lower, upper) - x
    size = float(np.abs(np.where(np.abs(move) < 1e-12 * spread, 0.0, gradient) * spread).max(initial=0.0))
    return residual < 1e-6 and size / max(abs(value), 1e-300) <= GRADIENT
