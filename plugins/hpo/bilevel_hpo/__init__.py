"""Hyperparameter tuning as a bilevel problem: the leader picks hyperparameters, the follower trains the model.

`BilevelSearchCV` is the scikit-learn face, `TrainingProblem` the torch face, `tune` descends with early stopping, and
`TuningProblem` is the problem of the library ``hpo/*``. Names are resolved on first use: importing the package imports
neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bilevel_core.errors import MissingError

if TYPE_CHECKING:
    from bilevel_hpo.descents import tune as tune
    from bilevel_hpo.early import resume_training as resume_training
    from bilevel_hpo.early import tune_training as tune_training
    from bilevel_hpo.knobs import Augmentation as Augmentation
    from bilevel_hpo.knobs import Knob as Knob
    from bilevel_hpo.knobs import LabelSmoothing as LabelSmoothing
    from bilevel_hpo.knobs import LossMixing as LossMixing
    from bilevel_hpo.knobs import SampleWeights as SampleWeights
    from bilevel_hpo.knobs import WeightDecay as WeightDecay
    from bilevel_hpo.problem import TuningProblem as TuningProblem
    from bilevel_hpo.search import BilevelSearchCV as BilevelSearchCV
    from bilevel_hpo.search import OvertuningWarning as OvertuningWarning
    from bilevel_hpo.training import TrainingProblem as TrainingProblem
    from bilevel_hpo.training import meta_problem as meta_problem

_PLACES = {
    "Augmentation": "knobs",
    "BilevelSearchCV": "search",
    "Knob": "knobs",
    "LabelSmoothing": "knobs",
    "LossMixing": "knobs",
    "OvertuningWarning": "search",
    "SampleWeights": "knobs",
    "TrainingProblem": "training",
    "TuningProblem": "problem",
    "WeightDecay": "knobs",
    "meta_problem": "training",
    "resume_training": "early",
    "tune": "descents",
    "tune_training": "early",
}

__all__ = [
    "Augmentation",
    "BilevelSearchCV",
    "Knob",
    "LabelSmoothing",
    "LossMixing",
    "OvertuningWarning",
    "SampleWeights",
    "TrainingProblem",
    "TuningProblem",
    "WeightDecay",
    "meta_problem",
    "resume_training",
    "tune",
    "tune_training",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'bilevel_hpo' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"bilevel_hpo.{_PLACES[name]}"), name)
    except ImportError as error:
        raise MissingError(f'{name} needs a package that is missing: {error}. pip install "bilevel[hpo]"') from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
