"""Where `auxiliary` stands between two steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel_core.lower import Response
from bilevel_core.solvers.iterative import State
from bilevel_core.solvers.limited_memory import Memory


@dataclass
class AuxiliaryState(State):
    """State of `Auxiliary`.

    Attributes:
        response: the lower level's answer at the candidate.
        excess: sum of the leader's violations there.
        adjoint: of the last hypergradient, to start the next linear solve from.
        memory: curvature estimate of the reduced objective.
        last_x, last_gradient, last_active: point, hypergradient and active set that the next pair is made with.
        sound: whether the last hypergradient rests on a solved system at a minimum of the lower level.
        largest: the largest descent that a direction of length 1 promised so far.
        terms: size of what cancels in the last hypergradient.
        length: last accepted step length.
        weight: of the leader's violations in the merit function.
        plain: whether the last search failed, so that the next does without the curvature estimate.
        leaps: how often a trust-region step had to go on from a point where no direction descends.
        ended: why the start is over; "" while it is not.
    """

    response: Response | None = None
    excess: float = 0.0
    adjoint: Any = None
    memory: Memory | None = None
    last_x: np.ndarray | None = None
    last_gradient: np.ndarray | None = None
    last_active: np.ndarray | None = None
    sound: bool = True
    largest: float = 0.0
    terms: float = 0.0
    length: float = 1.0
    weight: float = 0.0
    plain: bool = False
    leaps: int = 0
    ended: str = ""
