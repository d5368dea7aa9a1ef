"""Samplers that think in generations: CMA-ES, and NSGA-II for several objectives, by the libraries for them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from bilevel_core.errors import MissingError, UsageError
from bilevel_core.sampling.base import Sampler, Score, Trial
from bilevel_core.sampling.space import Categorical, Key, Space

STALE = 1
"""Generations without a new point, after which a random one is tried."""


class GenerationSampler(Sampler):
    """Base: vectors of the unit cube, a generation at a time. Vectors that are rounded to a point that has been tried
    get that point's score, without another trial.
    """

    def __init__(self, space: Space, seed: int, starts: tuple[np.ndarray, ...] = ()) -> None:
        super().__init__(space, seed, starts)
        self._vectors: list[np.ndarray] = []
        self._keys: list[Key] = []
        self._outcomes: dict[Key, Score] = {}
        self._slots: dict[int, Key] = {}

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        for _ in range(STALE):
            if not self._vectors:
                self._vectors = self._generation()
                self._keys = []
            while len(self._keys) < len(self._vectors):
                point = self.space.from_unit(self._vectors[len(self._keys)])
                key = self.space.key(point)
                self._keys.append(key)
                if key not in self.seen:
                    return self.trial(point)
            scores = [self.seen[key] for key in self._keys]
            if any(score is None for score in scores):
                return None
            self._absorb(self._vectors, [score for score in scores if score is not None])
            self._vectors = []
        point = self.untried(rng)
        return None if point is None else self.trial(point)

    def _repeats(self, trial: Trial) -> bool:
        return False  # `_propose` sees to that

    def _exhausted(self) -> bool:
        return self.space.finite and self.untried(self.rng(self.asked)) is None

    @abstractmethod
    def _generation(self) -> list[np.ndarray]:
        """The vectors of the next generation, each in the unit cube, shape (n,)."""

    @abstractmethod
    def _absorb(self, vectors: list[np.ndarray], scores: list[Score]) -> None:
        """What came of a generation, in its order."""


class CmaSampler(GenerationSampler):
    """CMA-ES (the package ``cma``), restarted with twice the population when it has converged.

    Good at: continuous variables that matter jointly, ill-conditioned and noisy objectives. Bad at: fewer evaluations
    than some fifty times the number of variables. Refuses categorical and conditional variables.
    Source: Hansen and Ostermeier (2001); Auger and Hansen (2005) for the restarts.

    Args:
        space: what to sample.
        seed: for everything random.
        sigma: first step, as a share of each variable's range.
        population: of the first run; 0 for the package's own choice.
        starts: points to try first; the first one is where the first run starts.

    Raises:
        UsageError: a variable without an order, or one that is conditional.
        MissingError: ``cma`` is not installed.
    """

    def __init__(
        self, space: Space, seed: int, sigma: float, population: int, starts: tuple[np.ndarray, ...] = ()
    ) -> None:
        super().__init__(space, seed, starts)
        odd = [v.name for v in space.variables if isinstance(v, Categorical) or v.when is not None]
        if odd:
            raise UsageError(
                f"sample.cma needs variables with an order that always exist, and {odd[0]!r} is none: use "
                "sample.evolution or sample.bayes."
            )
        self._cma = _import_cma()
        self._sigma, self._population = sigma, population
        self._runs = 0
        self._es: Any = None

    def _generation(self) -> list[np.ndarray]:
        if self._es is None or self._es.stop(ignore_list=("ftarget", "maxfevals", "timeout")):
            self._es = self._new()
        return [np.clip(np.asarray(v, dtype=float), 0.0, 1.0)[: len(self.space)] for v in self._ask()]

    def _ask(self) -> list[Any]:
        self._raw = list(self._es.ask())
        return self._raw

    def _absorb(self, vectors: list[np.ndarray], scores: list[Score]) -> None:
        self._es.tell(self._raw, ranked_values(scores))

    def _new(self) -> Any:
        n = len(self.space)
        rng = np.random.default_rng([self.seed % 2**64, 1 << 40, self._runs])
        start = np.full(n, 0.5)
        if self._runs == 0 and self.starts:
            start = self.space.to_unit(self.space.canonical(self.starts[0]))
        elif self._runs:
            start = rng.uniform(size=n)
        normal: Callable[..., np.ndarray] = lambda *shape: rng.standard_normal(shape)  # noqa: E731
        options = {"bounds": [0.0, 1.0], "verbose": -9, "verb_log": 0, "randn": normal, "seed": math.nan}
        if self._population or self._runs:
            first = self._population or int(4 + 3 * math.log(n))
            options["popsize"] = first * 2**self._runs
        if n == 1:
            # The package wants two variables: the second one has no effect.
            start = np.append(start, 0.5)
        self._runs += 1
        return self._cma.CMAEvolutionStrategy(start, self._sigma, options)

    @property
    def figures(self) -> dict[str, float]:
        """See `Sampler.figures`."""
        return {} if self._es is None else {"sigma": float(self._es.sigma), "restarts": float(self._runs - 1)}


def ranked_values(scores: list[Score]) -> list[float]:
    """One number a score, in the order of `Score.rank`: objectives of feasible points, above them violations, and
    above those what has no answer.
    """
    worst = max((s.objectives[0] for s in scores if s.feasible), default=0.0)
    size = max(1.0, abs(worst))
    infeasible = [s.violation for s in scores if s.rank[0] == 1]
    top = worst + size * (1.0 + max(infeasible, default=0.0))
    values = {0: lambda s: s.objectives[0], 1: lambda s: worst + size * s.violation, 2: lambda s: top + size}
    return [float(values[s.rank[0]](s)) for s in scores]


class NsgaSampler(GenerationSampler):
    """NSGA-II (the package ``pymoo``): non-dominated sorting and crowding, for one or several upper objectives.

    Good at: the Pareto set of two or three upper objectives. Bad at: few evaluations. Integers are rounded, and so are
    categorical variables. Source: Deb, Pratap, Agarwal and Meyarivan (2002).

    Args:
        space: what to sample.
        seed: for everything random.
        objectives: number of upper objectives.
        population: number of members.
        starts: points to try first.

    Raises:
        MissingError: ``pymoo`` is not installed.
    """

    def __init__(
        self, space: Space, seed: int, objectives: int, population: int, starts: tuple[np.ndarray, ...] = ()
    ) -> None:
        super().__init__(space, seed, starts)
        try:
            from pymoo.algorithms.moo.nsga2 import NSGA2
            from pymoo.core.evaluator import Evaluator
            from pymoo.core.problem import Problem
            from pymoo.problems.static import StaticProblem
            from pymoo.termination import get_termination
        except ImportError as error:
            raise MissingError("sample.nsga2 needs pymoo. Install it with: pip install 'bilevel[sampling]'") from error
        self._static, self._evaluator = StaticProblem, Evaluator
        self._objectives = objectives
        self._problem: Any = Problem(n_var=len(space), n_obj=objectives, n_ieq_constr=1, xl=0.0, xu=1.0)
        self._algorithm: Any = NSGA2(pop_size=population)
        self._algorithm.setup(
            self._problem, termination=get_termination("n_gen", 10**9), seed=seed % 2**32, verbose=False
        )
        self._members: Any = None

    def _generation(self) -> list[np.ndarray]:
        self._members = self._algorithm.ask()
        if self._members is None or not len(self._members):
            return []
        return [np.asarray(v, dtype=float) for v in self._members.get("X")]

    def _absorb(self, vectors: list[np.ndarray], scores: list[Score]) -> None:
        if not vectors:
            return
        answered = [s.objectives for s in scores if s.objectives]
        worst = np.max(np.array(answered), axis=0) if answered else np.zeros(self._objectives)
        values = np.array([s.objectives or tuple(worst) for s in scores], dtype=float)
        # No answer counts as a violation beyond all others.
        finite = [s.violation for s in scores if math.isfinite(s.violation)]
        none = 10.0 * max(1.0, max(finite, default=1.0))
        rows = np.array(
            [[0.0 if s.feasible else (s.violation if math.isfinite(s.violation) else none)] for s in scores]
        )
        self._evaluator().eval(self._static(self._problem, F=values, G=rows), self._members)
        self._algorithm.tell(infills=self._members)


def _import_cma() -> Any:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cma
    except ImportError as error:
        raise MissingError("sample.cma needs cma. Install it with: pip install 'bilevel[sampling]'") from error
    return cma
