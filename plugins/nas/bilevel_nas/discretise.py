"""From a relaxed search to one architecture.

| rule | what it takes |
|---|---|
| argmax | the most probable choice of each decision; ``none`` only where the policy allows it |
| top2 | the same, and only the two strongest inputs of each node (DARTS); the others become ``none`` |
| threshold | choices whose weight exceeds a threshold, at most two inputs a node (Fair DARTS) |
| perturbation | choice by choice, the one whose removal costs most validation loss (DARTS-PT) |
| strength | the one with which alone the supernet has the smallest validation loss (operation strength) |
| budgeted | the most probable architecture within the cost cap, exactly: a mixed-integer program, or enumeration |
| evolution | the best found by regularised evolution with the supernet's weights |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from bilevel_core.errors import UsageError
from bilevel_core.sampling import Score
from bilevel_core.sampling.evolution import AgeingSampler
from bilevel_nas.oracle import SupernetOracle, View
from bilevel_nas.problem import FORWARD, UNIT
from bilevel_nas.spaces import Architecture, Choice, SearchSpace
from bilevel_nas.steps import SearchState, one_architecture_loss

if TYPE_CHECKING:
    from bilevel_nas.solver import Supernet

LOOK = 512
"""Validation images that decide at each choice."""
TUNE = 10
"""Training steps between two choices that are made by trying."""
TUNE_RATE = 0.01
ENUMERATED = 100_000
INPUTS = 2
Scores = Sequence[np.ndarray]


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
    allow = solver.allow_none
    scores = scores_of(oracle, state.x, allow_none=allow)
    if rule.kind == "evolution":
        return _evolution(oracle, state, rule.count)
    if rule.kind in ("perturbation", "strength"):
        chosen = _by_trying(solver, oracle, state, scores, rule.kind)
        return space.canonical(chosen)
    if rule.kind == "budgeted" or math.isfinite(oracle.architectures.cost_cap):
        return budgeted(space, scores, oracle.architectures.cost_cap)
    stop = oracle.parts.part("stop")
    best = fewer_skips(space, scores, stop.count) if stop.kind == "skips" else most_probable(scores)
    if rule.kind in ("top2", "threshold"):
        best = strongest_inputs(space, scores, best, rule.value if rule.kind == "threshold" else 0.0)
    return space.canonical(best)


def scores_of(oracle: SupernetOracle, x: np.ndarray, *, allow_none: bool) -> list[np.ndarray]:
    """Probability of each choice, -1 for those that may not be taken."""
    found: list[np.ndarray] = []
    for p, d, alive in zip(oracle.probabilities(oracle.x_tensor(x)), oracle.decisions, oracle.alive, strict=True):
        s = np.full(len(d.choices), -1.0)
        open_ = [k for k in alive if allow_none or k != d.zero] or list(alive)
        s[open_] = p.detach().double().cpu().numpy()[open_]
        found.append(s)
    return found


def most_probable(scores: Scores) -> Architecture:
    """The most probable choice of each decision."""
    return tuple(int(np.argmax(s)) for s in scores)


def fewer_skips(space: SearchSpace, scores: Scores, most: int) -> Architecture:
    """The most probable choices with at most so many skips in a cell: the weakest ones give way to the next best."""
    best = list(most_probable(scores))
    for cell in dict.fromkeys(d.node.rpartition("/")[0] for d in space.decisions):
        skips = [
            k
            for k, d in enumerate(space.decisions)
            if d.node.rpartition("/")[0] == cell and d.skip is not None and best[k] == d.skip
        ]
        for k in sorted(skips, key=lambda k: float(scores[k][best[k]]), reverse=True)[most:]:
            without = scores[k].copy()
            without[best[k]] = -1.0
            best[k] = int(np.argmax(without))
    return tuple(best)


def strongest_inputs(space: SearchSpace, scores: Scores, best: Architecture, threshold: float) -> Architecture:
    """Keep the two strongest inputs of each node, those above a threshold only; the strongest one always.

    Raises:
        UsageError: the decisions are no edges that could be left out.
    """
    chosen = list(best)
    nodes = {d.node for d in space.decisions}
    if "" in nodes or any(d.zero is None for d in space.decisions):
        raise UsageError(
            f"disc=top2 and threshold leave out edges, which the space {space.name!r} has none of: use argmax."
        )
    for node in nodes:
        into = [k for k, d in enumerate(space.decisions) if d.node == node]
        order = sorted(into, key=lambda k: float(scores[k][chosen[k]]), reverse=True)
        for place, k in enumerate(order):
            zero = space.decisions[k].zero
            if zero is not None and place and (place >= INPUTS or scores[k][chosen[k]] < threshold):
                chosen[k] = zero
    return tuple(chosen)


def budgeted(space: SearchSpace, scores: Scores, cap: float) -> Architecture:
    """The architecture with the largest sum of log-probabilities among those that cost no more than a cap.

    Exact: by HiGHS where decisions do not depend on each other, else by enumeration.

    Raises:
        UsageError: the space is conditional and too large to enumerate, or nothing is within the cap.
    """
    logs = [np.where(s >= 0.0, np.log(np.maximum(s, 1e-12)), -1e6) for s in scores]
    if space.space.conditional:
        if space.size > ENUMERATED:
            raise UsageError(
                f"disc=budgeted enumerates spaces whose decisions depend on each other, up to {ENUMERATED} "
                f"architectures; {space.name!r} has up to {space.size:.3g}."
            )
        within = [a for a in space.enumerate() if space.cost(a) <= cap + 1e-9]
        if not within:
            raise UsageError(f"No architecture of {space.name!r} costs at most {cap:g}.")
        return max(within, key=lambda a: sum(float(v[c]) for v, c in zip(logs, a, strict=True) if c >= 0))
    sizes = [len(v) for v in logs]
    one = np.zeros((len(sizes), sum(sizes)))
    ends = np.cumsum([0, *sizes])
    for k in range(len(sizes)):
        one[k, ends[k] : ends[k + 1]] = 1.0
    cost = np.concatenate([np.array(d.cost or (0.0,) * len(d.choices)) for d in space.decisions])
    rows = [LinearConstraint(one, 1.0, 1.0)]
    if math.isfinite(cap):
        rows.append(LinearConstraint(cost[None], -np.inf, cap))
    found = milp(-np.concatenate(logs), constraints=rows, integrality=np.ones(len(cost)), bounds=Bounds(0, 1))
    if found.x is None:
        raise UsageError(f"No architecture of {space.name!r} costs at most {cap:g}.")
    return tuple(int(np.argmax(found.x[ends[k] : ends[k + 1]])) for k in range(len(sizes)))


def _by_trying(solver: Supernet, oracle: SupernetOracle, state: SearchState, scores: Scores, kind: str) -> Architecture:
    """Decide one by one, in a random order, with a little training of the weights after each."""
    order = np.random.default_rng(oracle.seed_of_search).permutation(len(oracle.decisions))
    fixed: dict[int, int] = {}
    data = oracle.batch("upper", LOOK, 3_000_000_000)
    for k in map(int, order):
        options = list(np.flatnonzero(scores[k] >= 0.0).tolist())
        with oracle.charged(len(data[0])):
            losses = {c: oracle.loss(state.y, _trial(oracle, state, fixed, k, c, kind), data) for c in options}
        # Removing an important choice costs most; keeping it alone costs least.
        pick = max if kind == "perturbation" else min
        fixed[k] = int(pick(losses, key=losses.__getitem__)) if len(options) > 1 else options[0]
        with oracle.charged(solver.batch):
            _tune(solver, oracle, state, fixed)
    return tuple(fixed[k] for k in range(len(oracle.decisions)))


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
