"""The options of each sampling solver, and the sampler that they make."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.sampling import Sampler, Space
from bilevel_core.sampling.bayes import BayesSampler
from bilevel_core.sampling.evolution import AgeingSampler, DifferentialSampler
from bilevel_core.sampling.generations import CmaSampler, NsgaSampler
from bilevel_core.sampling.halving import HalvingSampler
from bilevel_core.sampling.local import LocalSampler
from bilevel_core.sampling.recurrent import RecurrentSampler
from bilevel_core.sampling.reinforce import ReinforceSampler
from bilevel_core.sampling.simple import GridSampler, RandomSampler, SobolSampler
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.descent import option
from bilevel_core.solvers.sample.solver import SHARED, SamplingSolver
from bilevel_core.solvers.sample.task import Evaluation
from bilevel_core.solvers.used_options import Only, for_forms, with_choice
from bilevel_core.traits import Traits


@dataclass(frozen=True)
class Starting(SamplingSolver):
    """Solvers that may begin at the problem's own starting point."""

    from_start: bool = option(True, "try the problem's own starting point first (the high-point relaxation's optimum)")

    only: ClassVar[tuple[Only, ...]] = (*SHARED, for_forms(("algebraic", "differentiable"), "from_start"))

    def starts(self, evaluation: Evaluation) -> tuple[np.ndarray, ...]:
        """The points to try first."""
        found = evaluation.start() if self.from_start else None
        return () if found is None else (found,)


@dataclass(frozen=True)
class Grid(SamplingSolver):
    """Every point of a grid; a finite space whole, which proves the optimum where every follower is solved globally."""

    resolution: int = option(11, "levels of each continuous variable, ends included; integers take all their values")

    several_objectives: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("resolution", self.resolution, 1)

    def claim(self, traits: Traits) -> str:
        """Global where the leader's space may be finite."""
        finite = traits.upper_integers == traits.upper_variables
        return "global" if finite else "feasible"

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        return GridSampler(evaluation.space, seed, self.resolution)


@dataclass(frozen=True)
class Random(SamplingSolver):
    """Random points, drawn evenly."""

    several_objectives: ClassVar[bool] = True

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        return RandomSampler(evaluation.space, seed)


@dataclass(frozen=True)
class Sobol(SamplingSolver):
    """A scrambled Sobol sequence."""

    several_objectives: ClassVar[bool] = True

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        return SobolSampler(evaluation.space, seed)


@dataclass(frozen=True)
class Bayes(Starting):
    """Bayesian optimisation of the leader's value by Optuna (Kieffer et al. 2017 for bilevel problems)."""

    model: Literal["auto", "gp", "tpe"] = option(
        "auto",
        "gp: Gaussian process (needs torch); tpe: Parzen estimators; auto: gp where torch is, but for conditions",
    )
    initial: int = option(10, "random points before the model is asked")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("initial", self.initial, 1)

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        model = self.model
        if model == "auto":
            smooth = importlib.util.find_spec("torch") is not None and not evaluation.space.conditional
            model = "gp" if smooth else "tpe"
        return BayesSampler(evaluation.space, seed, model, self.initial, self.starts(evaluation))


@dataclass(frozen=True)
class Cma(Starting):
    """CMA-ES with restarts, for variables that have an order."""

    sigma: float = option(0.25, "first step, as a share of each variable's range")
    population: int = option(0, "members of the first run; 0 for the package's choice")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.sigma <= 1.0:
            raise UsageError(f"Expected sigma in (0, 1], got {self.sigma!r}.")
        if self.population < 0 or 0 < self.population < 4:
            raise UsageError(f"Expected population of at least 4, or 0, got {self.population}.")

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        return CmaSampler(evaluation.space, seed, self.sigma, self.population, self.starts(evaluation))


@dataclass(frozen=True)
class Evolution(Starting):
    """Evolution without generations, differential or regularised by ageing."""

    scheme: Literal["auto", "differential", "ageing"] = option(
        "auto", "differential: numbers; ageing: choices, conditions and noise; auto: by the space"
    )
    population: int = option(0, "number of members; 0 for 5 a variable, from 10 to 50")
    tournament: int = option(5, "ageing: how many members compete to have a child")

    only: ClassVar[tuple[Only, ...]] = (*Starting.only, with_choice("scheme", ("auto", "ageing"), "tournament"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population < 0 or 0 < self.population < 4:
            raise UsageError(f"Expected population of at least 4, or 0, got {self.population}.")
        at_least("tournament", self.tournament, 1)

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        space, starts = evaluation.space, self.starts(evaluation)
        size = self.population or min(50, max(10, 5 * len(space)))
        scheme = self.scheme if self.scheme != "auto" else ("ageing" if _without_order(space) else "differential")
        if scheme == "ageing":
            return AgeingSampler(space, seed, size, self.tournament, starts)
        return DifferentialSampler(space, seed, size, starts)


@dataclass(frozen=True)
class Nsga2(Starting):
    """NSGA-II, for several upper objectives: the result's details hold the Pareto set."""

    population: int = option(40, "number of members")

    several_objectives: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("population", self.population, 4)

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        return NsgaSampler(evaluation.space, seed, evaluation.objectives, self.population, self.starts(evaluation))


@dataclass(frozen=True)
class Local(Starting):
    """Hill climbing with restarts."""

    step: float = option(0.1, "first step of continuous variables, as a share of their ranges")
    smallest_step: float = option(1e-7, "share at which a climb ends, and the next one begins elsewhere")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.smallest_step < self.step <= 1.0:
            raise UsageError(f"Expected 0 < smallest_step < step <= 1, got {self.smallest_step!r} and {self.step!r}.")

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        return LocalSampler(evaluation.space, seed, self.step, self.smallest_step, self.starts(evaluation))


@dataclass(frozen=True)
class Reinforce(Starting):
    """REINFORCE: a controller that learns which values pay."""

    controller: Literal["factorised", "recurrent"] = option(
        "factorised", "factorised: a distribution a variable; recurrent: a network that sees the choices before (torch)"
    )
    rate: float = option(0.2, "learning rate of the controller; a tenth of it for the recurrent one")
    entropy: float = option(0.01, "weight of the distributions' entropy, which keeps them from narrowing too early")
    memory: int = option(30, "past trials that a reward is measured by")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.rate <= 10.0 or self.entropy < 0.0:
            raise UsageError(
                f"Expected a positive rate and an entropy of at least 0, got {self.rate!r}, {self.entropy!r}."
            )
        at_least("memory", self.memory, 2)

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        starts = self.starts(evaluation)
        if self.controller == "recurrent":
            return RecurrentSampler(evaluation.space, seed, self.rate / 10.0, self.memory, self.entropy, starts)
        return ReinforceSampler(evaluation.space, seed, self.rate, self.memory, self.entropy, starts)


@dataclass(frozen=True)
class Halving(Starting):
    """Successive halving or Hyperband on the lower level's budget, promoted trials going on from their own answers."""

    scheme: Literal["hyperband", "halving"] = option(
        "hyperband", "hyperband: all brackets in turn; halving: the boldest"
    )
    eta: int = option(3, "how much the field shrinks, and the budget grows, from rung to rung")
    smallest_budget: float = option(1.0 / 27.0, "first budget of the boldest bracket, as a share of the whole")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("eta", self.eta, 2)
        if not 0.0 < self.smallest_budget <= 1.0:
            raise UsageError(f"Expected smallest_budget in (0, 1], got {self.smallest_budget!r}.")

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Problems whose lower level is trained, so that a part of the training means something."""
        if traits.form == "algebraic":
            return Refused(
                "its followers are solved to the end, so that there is no budget to save", "another sampling solver"
            )
        return super().accepts(traits)

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        starts = self.starts(evaluation)
        hyperband = self.scheme == "hyperband"
        return HalvingSampler(evaluation.space, seed, self.eta, self.smallest_budget, hyperband, starts)


def at_least(name: str, value: int, least: int) -> None:
    """Refuse an option below its least value."""
    if value < least:
        raise UsageError(f"Expected {name} of at least {least}, got {value}.")


def _without_order(space: Space) -> bool:
    from bilevel_core.sampling import Categorical

    return space.conditional or any(isinstance(v, Categorical) for v in space.variables)
