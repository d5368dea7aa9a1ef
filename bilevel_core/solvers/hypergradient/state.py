"""Where a descent along hypergradients stands, and whether it still gets anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bilevel_core.lower import Response
from bilevel_core.oracles import Oracle
from bilevel_core.solvers.iterative import State
from bilevel_core.solvers.limited_memory import Memory

IDLE = 15
"""Steps of L-BFGS, tightened repetitions included, that lower neither the objective nor clearly the hypergradient's
norm, before it ends: its hypergradients, approximate or damped, do not descend there.
"""


@dataclass
class DescentState(State):
    """State of `HypergradientDescent`.

    Attributes:
        response: the lower level's answer at the candidate.
        gradient: hypergradient there, shape (nx,).
        adjoint: of that hypergradient, to start the next linear solve from.
        memory: of L-BFGS.
        first, second: moments of Adam, or the momentum of SGD, shape (nx,).
        largest: the largest norm of the projected hypergradient so far.
        slow: how many steps in a row have improved the objective by no more than rounding.
        lowest, flattest: the smallest objective, and the smallest norm of the projected hypergradient that was clearly
            below the one before.
        idle: how many steps in a row have lowered neither.
        tight: whether the next search solves the lower level beyond its tolerance, since one with less failed nearby.
        plain: whether the last search failed, so that the next goes along the plain gradient.
        ended: why the start is over; "" while it is not.
    """

    response: Response | None = None
    gradient: np.ndarray = field(default_factory=lambda: np.zeros(0))
    adjoint: Any = None
    memory: Memory | None = None
    first: np.ndarray = field(default_factory=lambda: np.zeros(0))
    second: np.ndarray = field(default_factory=lambda: np.zeros(0))
    largest: float = 0.0
    slow: int = 0
    lowest: float = np.inf
    flattest: float = np.inf
    idle: int = 0
    tight: bool = False
    plain: bool = False
    ended: str = ""


def watched(oracle: Oracle, state: DescentState) -> DescentState:
    """The state with its progress noted, ended where there has been none for long."""
    assert state.candidate is not None
    value, norm = state.candidate.objective, state.figures["hypergradient_norm"]
    lower = value < state.lowest - 10.0 * oracle.precision * max(1.0, abs(value))
    flatter = norm < 0.9 * state.flattest
    idle = 0 if lower or flatter else state.idle + 1
    ended = state.ended
    if idle >= IDLE and not ended:
        ended = (
            f"The last {idle} steps lowered neither the objective nor the hypergradient's norm, {norm:.2g}: it does "
            "not point downhill there, as happens where it is damped, approximate, or of a lower level solved roughly."
        )
    lowest, flattest = min(value, state.lowest), norm if flatter else state.flattest
    return replace(state, lowest=lowest, flattest=flattest, idle=idle, ended=ended)


def looseness(state: DescentState) -> float:
    """The norm that tolerances may follow; 0 for the tightest."""
    return 0.0 if state.tight or state.iteration == 0 else state.figures["hypergradient_norm"]
