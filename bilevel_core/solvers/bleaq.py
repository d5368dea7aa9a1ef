"""`bleaq`: mapping-based evolution (Sinha, Malo and Deb), with solves only where models promise something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from bilevel_core.errors import UsageError
from bilevel_core.sampling import Continuous, Sampler
from bilevel_core.sampling.archive import Levels
from bilevel_core.sampling.bleaq import BleaqSampler
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.descent import option
from bilevel_core.solvers.sample.methods import Starting, at_least
from bilevel_core.solvers.sample.task import Evaluation
from bilevel_core.traits import Traits

MOST = 300
"""More lower variables than this are not modelled."""


@dataclass(frozen=True)
class Bleaq(Starting):
    """Evolution on models of the follower's answer and of its optimal value.

    Source: Sinha, Malo and Deb (2017); Sinha, Lu, Deb and Malo (2020); for kriging Sinha and Shaikh (2021). With
    ``model=kriging`` a surrogate-assisted method in the sense of Islam, Singh and Ray (2017).
    """

    patience: int = option(60, "stop after so many trials without a better point; 0 for never")
    model: Literal["quadratic", "kriging"] = option("quadratic", "of both mappings")
    population: int = option(20, "how many of the best points have offspring")
    offspring: int = option(10, "how many predictions are made for one lower-level solve")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("population", self.population, 4)
        at_least("offspring", self.offspring, 1)

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Continuous problems whose follower's answer is a vector of moderate length."""
        if traits.form == "nested":
            return Refused("its answers are no vectors that could be modelled", "sample.bayes")
        if traits.upper_integers or traits.lower_integers:
            return Refused("it has integer variables, and the models are of continuous ones", "sample.evolution")
        if traits.lower_variables > MOST:
            return Refused(f"its followers have more than {MOST} variables to model", "sample.cma")
        return super().accepts(traits)

    def sampler(self, evaluation: Evaluation, seed: int) -> Sampler:
        """See `SamplingSolver.sampler`."""
        odd = [v.name for v in evaluation.space.variables if not isinstance(v, Continuous)]
        if odd:
            raise UsageError(f"bleaq models continuous variables, and {odd[0]!r} is none: use sample.evolution.")
        levels = cast("Levels", cast("Any", evaluation))
        return BleaqSampler(
            evaluation.space, seed, levels, self.model, self.population, self.offspring, self.starts(evaluation)
        )
