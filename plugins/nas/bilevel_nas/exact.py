"""The most probable architecture under limits, exactly: a mixed-integer linear program solved by HiGHS.

One binary variable a choice; those of a decision add up to 1, or, where it exists for some choices of another decision
only, to the sum of these. So spaces whose decisions depend on each other need not be enumerated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from bilevel_core.errors import BackendError, UsageError
from bilevel_nas.spaces.base import INACTIVE, Architecture, SearchSpace

Scores = Sequence[np.ndarray]
FORBIDDEN = -1e4
"""Worth of a choice that may not be taken: it is, where nothing else is left. The smallest logarithm is -28."""


def most_probable_within(
    space: SearchSpace, scores: Scores, cap: float = math.inf, skips: int | None = None
) -> Architecture:
    """The architecture with the largest sum of log-probabilities over the decisions that have an effect in it.

    Args:
        space: the space.
        scores: probability of each choice, by decision; negative for those that may not be taken unless nothing else
            is within the limits.
        cap: most that it may cost.
        skips: most identities in one cell (decisions whose nodes are called CELL/NODE with the same CELL).

    Raises:
        UsageError: nothing is within the limits.
    """
    worth = np.concatenate([np.where(s >= 0.0, np.log(np.maximum(s, 1e-12)), FORBIDDEN) for s in scores])
    found = _solve(space, -worth, cap, skips)
    if found is None:
        limit = f"costs at most {cap:g}" + ("" if skips is None else f" with {skips} skips a cell")
        raise UsageError(f"No architecture of {space.name!r} {limit}.")
    return found


def least_cost(space: SearchSpace) -> float:
    """What the cheapest architecture costs."""
    if not any(d.cost for d in space.decisions):
        return 0.0
    found = _solve(space, _costs(space), math.inf, None)
    assert found is not None
    return space.cost(found)


def _solve(space: SearchSpace, minimise: np.ndarray, cap: float, skips: int | None) -> Architecture | None:
    """The architecture with the smallest sum; None where there is none within the limits."""
    ends = np.cumsum([0, *(len(d.choices) for d in space.decisions)])
    place = {d.name: k for k, d in enumerate(space.decisions)}
    one, total = np.zeros((len(space.decisions), int(ends[-1]))), np.zeros(len(space.decisions))
    for k, d in enumerate(space.decisions):
        one[k, ends[k] : ends[k + 1]] = 1.0
        if d.when is None:
            total[k] = 1.0
            continue
        parent = place[d.when.parent]
        for c, choice in enumerate(space.decisions[parent].choices):
            if choice in d.when.values:
                one[k, ends[parent] + c] -= 1.0
    bound: Any = total  # arrays are allowed, though the stubs say otherwise
    rows = [LinearConstraint(one, bound, bound)]
    if math.isfinite(cap):
        rows.append(LinearConstraint(_costs(space)[None], -np.inf, cap))
    if skips is not None:
        rows += [LinearConstraint(row[None], -np.inf, skips) for row in _skips(space, ends)]
    n = int(ends[-1])
    # (A relative gap would be one of the worth of what is forbidden.)
    found: Any = milp(
        minimise, constraints=rows, integrality=np.ones(n), bounds=Bounds(0, 1), options={"mip_rel_gap": 0.0}
    )
    if found.status == 2:
        return None
    if found.x is None:
        raise BackendError(f"HiGHS found no architecture of {space.name!r}: {found.message}")
    blocks = [found.x[a:b] for a, b in pairwise(ends)]
    return space.canonical([int(np.argmax(b)) if b.sum() > 0.5 else INACTIVE for b in blocks])


def _costs(space: SearchSpace) -> np.ndarray:
    return np.concatenate([np.array(d.cost or (0.0,) * len(d.choices)) for d in space.decisions])


def _skips(space: SearchSpace, ends: np.ndarray) -> list[np.ndarray]:
    """A row a cell, with ones at its identities."""
    found: dict[str, np.ndarray] = {}
    for k, d in enumerate(space.decisions):
        if d.skip is not None:
            row = found.setdefault(d.node.rpartition("/")[0], np.zeros(int(ends[-1])))
            row[ends[k] + d.skip] = 1.0
    return list(found.values())
