"""Bayesian optimisation by Optuna: Gaussian processes, or tree-structured Parzen estimators."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Generator
from typing import Any

import numpy as np

from bilevel_core.errors import MissingError
from bilevel_core.sampling.base import Sampler, Score, Trial
from bilevel_core.sampling.space import Categorical, Continuous, Space


class BayesSampler(Sampler):
    """A model of the objective is asked where an improvement is most likely (Optuna's ``GPSampler``, ``TPESampler``).

    Good at: expensive lower levels, up to some hundreds of trials; mixed spaces; ``tpe`` conditional ones too. Bad at:
    many workers at once, thousands of trials. Source: Jones, Schonlau and Welch (1998); Bergstra et al. (2011).

    Args:
        space: what to sample.
        seed: for everything random.
        model: ``gp`` (needs torch) or ``tpe``.
        initial: number of random points before the model is asked.
        starts: points to try first.

    Raises:
        MissingError: Optuna is not installed, or for ``gp`` torch.
    """

    def __init__(self, space: Space, seed: int, model: str, initial: int, starts: tuple[np.ndarray, ...] = ()) -> None:
        super().__init__(space, seed, starts)
        try:
            import optuna
        except ImportError as error:
            raise MissingError("sample.bayes needs Optuna. Install it with: pip install 'bilevel[sampling]'") from error
        if model == "gp":
            try:
                import torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
            except ImportError as error:
                raise MissingError("model=gp needs torch: install it, or take model=tpe.") from error
        self._optuna: Any = optuna
        self._model, self._initial = model, initial
        with _quiet(optuna):
            self._study: Any = optuna.create_study(sampler=self._sampler())
        self._trials: dict[int, Any] = {}
        self._worst = 0.0

    def _sampler(self) -> Any:
        seed = int(self.rng(0).integers(2**31))
        samplers = self._optuna.samplers
        if self._model == "gp":
            return samplers.GPSampler(
                seed=seed, n_startup_trials=self._initial, constraints_func=_violation, warn_independent_sampling=False
            )
        conditional = self.space.conditional
        return samplers.TPESampler(
            seed=seed,
            n_startup_trials=self._initial,
            constraints_func=_violation,
            multivariate=True,
            group=conditional,
            warn_independent_sampling=False,
        )

    def _start(self) -> Trial | None:
        trial = super()._start()
        if trial is not None:
            with _quiet(self._optuna):
                self._study.enqueue_trial(self.space.values(trial.point))
                self._ask()
        return trial

    def _propose(self, rng: np.random.Generator) -> Trial | None:
        with _quiet(self._optuna):
            point = self._ask()
        if not (self.space.finite and self.space.key(point) in self.seen):
            return self.trial(point)
        new = self.untried(rng)
        with _quiet(self._optuna):
            self._study.tell(self._trials.pop(self.asked), state=self._optuna.trial.TrialState.FAIL)
            if new is None:
                self._over = True
                return None
            self._study.enqueue_trial(self.space.values(new))
            self._ask()
        return self.trial(new)

    def _ask(self) -> np.ndarray:
        self._trials[self.asked] = trial = self._study.ask()
        point = np.full(len(self.space), math.nan)
        for k, v in enumerate(self.space.variables):
            if not self.space.active(point, k):
                continue
            if isinstance(v, Categorical):
                # By position: choices may be of any kind, and Optuna keeps only some.
                point[k] = (
                    trial.suggest_int(f"{v.name}#", 0, 0)
                    if len(v.choices) == 1
                    else v.choices.index(trial.suggest_categorical(v.name, v.choices))
                )
            elif isinstance(v, Continuous):
                point[k] = trial.suggest_float(v.name, v.lower, v.upper, log=v.log and v.lower < v.upper)
            else:
                point[k] = trial.suggest_int(v.name, v.lower, v.upper)
        return self.space.canonical(point)

    def _learn(self, trial: Trial, score: Score) -> None:
        asked = self._trials.pop(trial.index)
        with _quiet(self._optuna):
            if not math.isfinite(score.violation) and not score.objectives:
                self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
                return
            value = score.objectives[0] if score.objectives else self._worst
            self._worst = max(self._worst, value)
            asked.set_user_attr("violation", 0.0 if score.feasible else score.violation)
            self._study.tell(asked, value)


def _violation(trial: Any) -> tuple[float, ...]:
    return (float(trial.user_attrs.get("violation", 0.0)),)


@contextlib.contextmanager
def _quiet(optuna: Any) -> Generator[None]:
    """Without Optuna's log lines, and its warnings that parts of it are experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
