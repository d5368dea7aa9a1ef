"""From weights to an architecture: exact budgets against enumeration, two inputs a node, few skips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="architecture search needs torch")

from bilevel_core.errors import UsageError
from bilevel_nas.discretise import Limits, only, strongest_inputs
from bilevel_nas.discretise import most_probable as argmax
from bilevel_nas.exact import least_cost, most_probable_within
from bilevel_nas.spaces import SearchSpace, find_space

CELL = find_space("cell201", {"nodes": 3})
MLP = find_space("mlp", {"depth": 2, "widths": (2, 3, 5)})
MOBILE = find_space("mobile", {"stages": 1, "depth": 3})


def random_scores(space: SearchSpace, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(len(d.choices))) for d in space.decisions]


def value(scores: list[np.ndarray], a: tuple[int, ...]) -> float:
    return sum(float(np.log(s[c])) for s, c in zip(scores, a, strict=True) if c >= 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 1.0), skips=st.sampled_from([None, 0, 1, 2]))
@pytest.mark.parametrize("space", [CELL, MLP, MOBILE], ids=lambda s: s.name)
def test_limits_are_kept_to_exactly(space: SearchSpace, seed: int, share: float, skips: int | None) -> None:
    """Against enumeration, also of spaces whose decisions depend on each other."""
    scores = random_scores(space, seed)
    every = list(space.enumerate())
    costs = [space.cost(a) for a in every]
    assert least_cost(space) == pytest.approx(min(costs))
    cap = min(costs) + share * (max(costs) - min(costs))
    found = most_probable_within(space, scores, cap, skips)

    def within(a: tuple[int, ...]) -> bool:
        taken = sum(c == d.skip for c, d in zip(a, space.decisions, strict=True) if d.skip is not None)
        return space.cost(a) <= cap + 1e-9 and (skips is None or taken <= skips)

    assert within(found)
    assert found in every
    assert value(scores, found) == pytest.approx(max(value(scores, a) for a in every if within(a)), abs=1e-9)


def test_what_is_over_every_limit_is_refused() -> None:
    with pytest.raises(UsageError, match="costs at most 1"):
        most_probable_within(MLP, random_scores(MLP, 3), 1.0)
    with pytest.raises(UsageError, match="0 skips"):
        most_probable_within(find_space("cell201", {"nodes": 2}), only([np.ones(5)], {0: 1}), -1.0, 0)


def test_choices_that_may_not_be_taken_are_not() -> None:
    scores = random_scores(CELL, 0)
    for s in scores:
        s[0] = -1.0  # none
    assert 0 not in most_probable_within(CELL, scores, 27.0)
    assert most_probable_within(CELL, scores, 27.0) == argmax(CELL, scores)
    # Where nothing else is left they are: a cell without `none` and with a skip at most has a cost of 1 at least.
    for s in scores:
        s[4] = -1.0
    assert sorted(most_probable_within(CELL, scores, 0.5, 1)) in ([0, 0, 1], [0, 1, 4], [1, 4, 4])


def test_two_inputs_a_node() -> None:
    space = find_space("darts", {"nodes": 3})
    scores = random_scores(space, 1)
    for s in scores:
        s[0] = -1.0
    found = argmax(space, strongest_inputs(space, scores, 0.0))
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
    assert argmax(CELL, strongest_inputs(CELL, scores, 0.85)) == (1, 0, 2)
    # A cost cap takes a conv1x1 away and leaves the edges that are out.
    assert Limits(0.5, None).most_probable(CELL, strongest_inputs(CELL, scores, 0.85)) == (1, 0, 1)


def test_at_most_so_many_skips() -> None:
    scores = [np.array([-1.0, 0.5 + 0.1 * k, 0.2, 0.1 * k, 0.0]) for k in range(3)]
    assert argmax(CELL, scores) == (1, 1, 1)
    assert Limits(np.inf, 1).most_probable(CELL, scores) == (2, 2, 1)
    assert Limits(np.inf, 3).most_probable(CELL, scores) == (1, 1, 1)
