"""From a relaxed search to one architecture.

| rule | what it takes |
|---|---|
| argmax | the most probable choice of each decision; ``none`` only where the policy allows it |
| top2 | the same, and only the two strongest inputs of each node (DARTS); the others become ``none`` |
| threshold | choices whose weight exceeds a threshold, at most two inputs a node (Fair DARTS) |
| skips | the most probable choices with no more than so many skips in a cell (P-DARTS) |
| perturbation | choice by choice, the one whose removal costs most validation loss (DARTS-PT) |
| strength | the one with which alone the supernet has the smallest validation loss (operation strength) |
| budgeted | the most probable architecture within the cost cap |
| evolution | the best found by regularised evolution with the supernet's weights |

A cost cap and a limit on skips hold whatever the rule: what it would take is replaced by the most probable choices
within them, found exactly (`bilevel_nas.exact`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.sampling import Score
from bilevel_core.sampling.evolution import AgeingSampler
from bilevel_nas.exact import Scores, most_probable_within
from bilevel_nas.oracle import SupernetOracle, View
from bilevel_nas.problem import FORWARD, UNIT
from bilevel_nas.spaces import Architecture, Choice, SearchSpace
from bilevel_nas.spaces.base import INACTIVE
from bilevel_nas.steps import SearchState, one_architecture_loss

if TYPE_CHECKING:
    from bilevel_nas.solver import Supernet

LOOK = 512
"""Validation images that decide at each choice."""
TUNE = 10
"""Training steps between two choices that are made by trying."""
TUNE_RATE = 0.01
INPUTS = 2


def reserve(solver: Supernet, oracle: SupernetOracle) -> float:
    """Pass-equivalents that the discretisation will need."""
    rule = oracle.parts.part("disc")
    look = FORWARD * min(LOOK, len(oracle.architectures.data.validation)) / UNIT
    if rule.kind in ("perturbation", "strength"):
        tries = sum(len(d.candidates) for d in oracle.decisions)
        return tries * look + TUNE * len(oracle.decisions) * solver.batch / UNIT
    if rule.kind == "evolution":
        return rule.count * look * oracle.search_space.single
    return 0.0


def discretise(solver: Supernet, oracle: SupernetOracle, state: SearchState) -> Architecture:
    """The architecture that a search ends with.

    Raises:
        UsageError: the rule does not fit the space, or nothing is within the cost cap.
    """
    space, rule = oracle.search_space, oracle.parts.part("disc")
    if rule.kind == "evolution":
        return _evolution(oracle, state, rule.count)
    scores = scores_of(oracle, state.x, allow_none=solver.allow_none)
    if rule.kind in ("top2", "threshold"):
        scores = strongest_inputs(space, scores, rule.value if rule.kind == "threshold" else 0.0)
    limits = Limits(oracle.architectures.cost_cap, most_skips_allowed(oracle))
    if rule.kind in ("perturbation", "strength"):
        return space.canonical(_by_trying(solver, oracle, state, scores, rule.kind, limits))
    if limits.any or rule.kind == "budgeted":
        return limits.most_probable(space, scores)
    return most_probable(space, scores)


@dataclass(frozen=True)
class Limits:
    """What an architecture must keep to.

    Attributes:
        cap: most that it may cost.
        skips: most skips in a cell; None for no limit.
    """

    cap: float
    skips: int | None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return math.isfinite(self.cap) or self.skips is not None

    def most_probable(self, space: SearchSpace, scores: Scores) -> Architecture:
        """See `most_probable_within`."""
        return most_probable_within(space, scores, self.cap, self.skips)


def most_skips_allowed(oracle: SupernetOracle) -> int | None:
    """The limit on skips that the rule of stopping or of discretising sets; None for none."""
    counts = [p.count for p in map(oracle.parts.part, ("stop", "disc")) if p.kind == "skips"]
    return min(counts, default=None)


def scores_of(oracle: SupernetOracle, x: np.ndarray, *, allow_none: bool) -> list[np.ndarray]:
    """Probability of each choice, -1 for those that may not be taken."""
    found: list[np.ndarray] = []
    for p, d, alive in zip(oracle.probabilities(oracle.x_tensor(x)), oracle.decisions, oracle.alive, strict=True):
        s = np.full(len(d.choices), -1.0)
        open_ = [k for k in alive if allow_none or k != d.zero] or list(alive)
        s[open_] = p.detach().double().cpu().numpy()[open_]
        found.append(s)
    return found


def most_probable(space: SearchSpace, scores: Scores) -> Architecture:
    """The most probable choice of each decision."""
    return space.canonical([int(np.argmax(s)) for s in scores])


def strongest_inputs(space: SearchSpace, scores: Scores, threshold: float) -> list[np.ndarray]:
    """Scores that leave nothing but ``none`` to all edges except the two strongest inputs of each node that are above
    a threshold; the strongest one is kept in any case. (All decisions are edges: see `bilevel_nas.fit`.)
    """
    found = list(scores)
    for node in dict.fromkeys(d.node for d in space.decisions):
        into = [k for k, d in enumerate(space.decisions) if d.node == node]
        order = sorted(into, key=lambda k: float(scores[k].max()), reverse=True)
        for place, k in enumerate(order):
            if place and (place >= INPUTS or float(scores[k].max()) < threshold):
                found[k] = np.where(np.arange(len(scores[k])) == space.decisions[k].zero, 1.0, -1.0)
    return found


def only(scores: Scores, chosen: Mapping[int, int]) -> list[np.ndarray]:
    """Scores that leave nothing but the choices made to the decisions that are made."""
    found = list(scores)
    for k, c in chosen.items():
        found[k] = np.where(np.arange(len(scores[k])) == c, 1.0, -1.0)
    return found


def _by_trying(
    solver: Supernet, oracle: SupernetOracle, state: SearchState, scores: Scores, kind: str, limits: Limits
) -> Architecture:
    """Decide one by one, in a random order, with a little training of the weights after each."""
    order = np.random.default_rng(oracle.seed_of_search).permutation(len(oracle.decisions))
    fixed: dict[int, int] = {}
    data = oracle.batch("upper", LOOK, 3_000_000_000)
    for k in map(int, order):
        options = _open_choices(oracle.search_space, scores, fixed, k, limits)
        with oracle.charged(len(data[0])):
            losses = {c: oracle.loss(state.y, _trial(oracle, state, fixed, k, c, kind), data) for c in options}
        # Removing an important choice costs most; keeping it alone costs least.
        pick = max if kind == "perturbation" else min
        fixed[k] = int(pick(losses, key=losses.__getitem__)) if len(options) > 1 else options[0]
        with oracle.charged(solver.batch):
            _tune(solver, oracle, state, fixed)
    return tuple(fixed[k] for k in range(len(oracle.decisions)))


def _open_choices(space: SearchSpace, scores: Scores, fixed: Mapping[int, int], here: int, limits: Limits) -> list[int]:
    """The choices of a decision that some architecture within the limits has, those made before given."""
    options = list(map(int, np.flatnonzero(scores[here] >= 0.0)))
    if not limits.any:
        return options
    found: list[int] = []
    for c in options:
        best = limits.most_probable(space, only(scores, {**fixed, here: c}))
        if all(best[k] in (chosen, INACTIVE) for k, chosen in {**fixed, here: c}.items()):
            found.append(c)
    # None is left where all that may be taken is over the limits: then what may not be is.
    return found or [max(limits.most_probable(space, only(scores, fixed))[here], 0)]


def _trial(
    oracle: SupernetOracle, state: SearchState, fixed: dict[int, int], here: int, choice: int, kind: str
) -> list[Choice]:
    """The supernet with the decisions made, and one choice taken away (perturbation) or alone (strength)."""
    found: list[Choice] = []
    for k, (d, p) in enumerate(zip(oracle.decisions, oracle.probabilities(oracle.x_tensor(state.x)), strict=True)):
        active = list(oracle.alive[k])
        if k in fixed:
            active = [fixed[k]]
        elif k == here:
            active = [choice] if kind == "strength" else [c for c in active if c != choice]
        weights = p.new_zeros(len(d.choices))
        kept = p[active]
        weights[active] = kept / kept.sum().clamp_min(1e-12)
        found.append(Choice(weights.detach(), tuple(active)))
    return found


def _tune(solver: Supernet, oracle: SupernetOracle, state: SearchState, fixed: dict[int, int]) -> None:
    """A few training steps of the supernet with the decisions made so far."""
    before = oracle.alive
    oracle.alive = tuple((fixed[k],) if k in fixed else a for k, a in enumerate(before))
    try:
        for _ in range(TUNE):
            batch = oracle.batch("lower", solver.batch, state.batches)
            oracle.view = View(batch, oracle.probe.upper, seed=state.batches)
            _, gradient = oracle.lower_gradient(state.x, state.y)
            state.y = state.y - TUNE_RATE * gradient
            state.batches += 1
    finally:
        oracle.alive = before


def _evolution(oracle: SupernetOracle, state: SearchState, trials: int) -> Architecture:
    """Regularised evolution over architectures with the supernet's weights (Real et al. 2019; Guo et al. 2020)."""
    problem, space = oracle.architectures, oracle.search_space
    sampler = AgeingSampler(space.space, oracle.seed_of_search, max(4, trials // 4), 5)
    data = oracle.batch("upper", LOOK, 3_000_000_000)
    best: tuple[float, Architecture] | None = None
    spent = 0
    while spent < trials:
        trial = sampler.ask()
        if trial is None:
            break
        architecture = space.of_point(trial.point)
        violation = problem.violation(architecture)
        spent += 1
        if violation > 0.0:
            sampler.tell(trial, Score((math.inf,), violation))
            continue
        with oracle.charged(len(data[0])):
            loss = one_architecture_loss(oracle, state.y, architecture, data)
        sampler.tell(trial, Score((loss,), 0.0))
        if best is None or loss < best[0]:
            best = loss, architecture
    if best is None:
        raise UsageError(
            f"disc=evolution: none of {trials} architectures was within the cost cap of {problem.cost_cap:g}."
        )
    return best[1]
