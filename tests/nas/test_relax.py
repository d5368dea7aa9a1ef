"""Relaxations: what they draw, how often, and whose derivative they pass back."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

from bilevel_nas.parts import KINDS, Parts  # noqa: E402
from bilevel_nas.relax import Drawn, Relaxation, make_relaxation  # noqa: E402
from bilevel_nas.solver import Supernet  # noqa: E402
from bilevel_nas.spaces import one_hot  # noqa: E402
from bilevel_nas.steps import SearchState, _controller  # noqa: E402

from .test_gradient import tiny  # noqa: E402

ALPHA = (0.4, -0.3, 0.9, 0.0)
ALL = (0, 1, 2, 3)
EVERY = [(name, "full") for name in KINDS["relax"]] + [("gumbel", "sample1"), ("softmax", "sample1")]


def draw(relaxation: Relaxation, seed: int, alive: tuple[int, ...] = ALL, alpha: Any = None) -> Drawn:
    a = torch.tensor(ALPHA, dtype=torch.float64) if alpha is None else alpha
    return relaxation.weigh(a, alive, 0.5, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "mask"), EVERY)
def test_a_draw_is_a_function_of_its_seed_and_leaves_out_what_is_gone(name: str, mask: str) -> None:
    relaxation = make_relaxation(name, mask)
    before = torch.random.get_rng_state()
    for seed in range(20):
        first, again = draw(relaxation, seed), draw(relaxation, seed)
        assert torch.equal(first.weights, again.weights)
        assert first.active == again.active
        if name != "sigmoid":
            assert float(first.weights.sum()) == pytest.approx(1.0)
        less = draw(relaxation, seed, alive=(0, 2))
        assert set(less.active) <= {0, 2}
        assert float(less.weights[[1, 3]].abs().max()) < 1e-12
        assert all(float(first.weights[k]) == 0.0 for k in ALL if k not in first.active)
    assert torch.equal(before, torch.random.get_rng_state())
    differ = {tuple(draw(relaxation, seed).weights.tolist()) for seed in range(20)}
    assert (len(differ) > 1) == relaxation.random


@pytest.mark.parametrize(("name", "mask"), [("gumbel", "sample1"), ("softmax", "sample1")])
def test_one_choice_is_drawn_as_often_as_the_softmax_says(name: str, mask: str) -> None:
    relaxation = make_relaxation(name, mask)
    taken = [draw(relaxation, seed).active for seed in range(2000)]
    assert all(len(a) == 1 for a in taken)
    shares = np.bincount([a[0] for a in taken], minlength=4) / 2000
    expected = np.exp(ALPHA) / np.exp(ALPHA).sum()
    assert shares == pytest.approx(expected, abs=4.0 * np.sqrt(0.25 / 2000))


def test_dirichlet_weights_have_the_mean_that_is_told() -> None:
    relaxation = make_relaxation("dirichlet", "full")
    mean = torch.stack([draw(relaxation, seed).weights for seed in range(500)]).mean(0)
    told = relaxation.probabilities(torch.tensor(ALPHA, dtype=torch.float64), ALL)
    assert torch.allclose(mean, told, atol=0.05)


def test_gates_evaluate_one_of_two_paths_and_pass_back_the_softmax_of_the_two() -> None:
    relaxation = make_relaxation("gates", "full")
    for seed in range(10):
        alpha = torch.tensor(ALPHA, dtype=torch.float64, requires_grad=True)
        drawn = draw(relaxation, seed, alpha=alpha)
        assert len(drawn.active) == 2
        assert sorted(drawn.weights.detach().tolist()) == pytest.approx([0.0, 0.0, 0.0, 1.0])
        slopes = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
        (found,) = torch.autograd.grad((slopes * drawn.weights).sum(), alpha)
        pair = list(drawn.active)
        two = torch.softmax(alpha[pair], 0)
        (expected,) = torch.autograd.grad((slopes[pair] * two).sum(), alpha)
        assert torch.allclose(found, expected)


def test_the_controller_estimates_the_derivative_of_the_expected_loss() -> None:
    """REINFORCE's mean against the sum over all architectures of a tiny space."""
    parts = Parts(mask="sample1", hyper="reinforce")
    oracle = tiny(parts)
    solver = Supernet(preset="enas", batch=12)
    oracle.batch = lambda level, size, number, rank=0: getattr(oracle.view, level)  # type: ignore[method-assign]
    x = np.random.default_rng(2).normal(size=oracle.nx) * 0.5
    state = SearchState(x=x, y=3.0 * oracle.y_start(), alive=oracle.alive)
    flat = oracle.x_tensor(x).requires_grad_(True)
    total = flat.new_zeros(())
    for codes in itertools.product(*(range(len(d.choices)) for d in oracle.decisions)):
        chance = torch.stack([p[c] for p, c in zip(oracle.probabilities(flat), codes, strict=True)]).prod()
        total = total + chance * oracle.loss(state.y, one_hot(oracle.search_space, codes, flat), oracle.view.upper)
    expected = torch.autograd.grad(total, flat)[0].numpy()
    found: list[np.ndarray] = []
    for k in range(400):
        state.moves = k
        found.append(_controller(solver, oracle, state, 0.5))
    spread = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 4.0 * spread + 1e-9)
    assert float(np.linalg.norm(expected)) > 5.0 * float(np.linalg.norm(spread))
