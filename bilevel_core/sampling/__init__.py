"""Spaces and samplers: which point to try next. Solves nothing, and knows nothing of bilevel problems."""

from bilevel_core.sampling.base import FEASIBLE, Sampler, Score, Trial
from bilevel_core.sampling.space import Categorical, Condition, Continuous, Integer, Space

__all__ = [
    "FEASIBLE",
    "Categorical",
    "Condition",
    "Continuous",
    "Integer",
    "Sampler",
    "Score",
    "Space",
    "Trial",
]
