"""From weights to an architecture: exact budgets against enumeration, two inputs a node, few skips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="architecture search needs torch")

from bilevel_core.errors import UsageError
from bilevel_nas.discretise import budgeted, fewer_skips, most_probable, strongest_inputs
from bilevel_nas.spaces import SearchSpace, find_space

CELL = find_space("cell201", {"nodes": 3})
MLP = find_space("mlp", {"depth": 2, "widths": (2, 3, 5)})


def random_scores(space: SearchSpace, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(len(d.choices))) for d in space.decisions]


def value(scores: list[np.ndarray], a: tuple[int, ...]) -> float:
    return sum(float(np.log(s[c])) for s, c in zip(scores, a, strict=True) if c >= 0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), cap=st.floats(0.0, 27.0))
def test_the_budget_is_used_exactly(seed: int, cap: float) -> None:
    scores = random_scores(CELL, seed)
    found = budgeted(CELL, scores, cap)
    best = max((a for a in CELL.enumerate() if CELL.cost(a) <= cap), key=lambda a: value(scores, a))
    assert CELL.cost(found) <= cap + 1e-9
    assert value(scores, found) == pytest.approx(value(scores, best), abs=1e-9)


def test_a_budget_over_decisions_that_depend_on_each_other() -> None:
    scores = random_scores(MLP, 3)
    for cap in (2.0, 5.0, 7.0):
        found = budgeted(MLP, scores, cap)
        assert found in set(MLP.enumerate())
        assert MLP.cost(found) <= cap
    with pytest.raises(UsageError, match="costs at most"):
        budgeted(MLP, scores, 1.0)


def test_choices_that_may_not_be_taken_are_not() -> None:
    scores = random_scores(CELL, 0)
    for s in scores:
        s[0] = -1.0  # none
    assert 0 not in budgeted(CELL, scores, 27.0)
    assert budgeted(CELL, scores, 27.0) == most_probable(scores)


def test_two_inputs_a_node() -> None:
    space = find_space("darts", {"nodes": 3})
    scores = random_scores(space, 1)
    for s in scores:
        s[0] = -1.0
    found = strongest_inputs(space, scores, most_probable(scores), 0.0)
    for node in {d.node for d in space.decisions}:
        into = [k for k, d in enumerate(space.decisions) if d.node == node]
        kept = [k for k in into if found[k] != 0]
        assert len(kept) == min(2, len(into))
        weakest = min(float(scores[k].max()) for k in kept)
        assert all(float(scores[k].max()) <= weakest for k in into if k not in kept)


def test_weak_inputs_are_dropped_but_for_the_strongest() -> None:
    scores = [
        np.array([-1.0, 0.5, 0.2, 0.2, 0.1]),
        np.array([-1.0, 0.3, 0.2, 0.2, 0.1]),
        np.array([-1.0, 0.1, 0.9, 0, 0]),
    ]
    assert strongest_inputs(CELL, scores, most_probable(scores), 0.85) == (1, 0, 2)


def test_at_most_so_many_skips() -> None:
    scores = [np.array([-1.0, 0.5 + 0.1 * k, 0.2, 0.1 * k, 0.0]) for k in range(3)]
    assert most_probable(scores) == (1, 1, 1)
    assert fewer_skips(CELL, scores, 1) == (2, 2, 1)
    assert fewer_skips(CELL, scores, 3) == (1, 1, 1)
