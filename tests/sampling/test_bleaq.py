"""Mapping-based evolution: the models, and few lower-level solves on problems whose follower is smooth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bilevel_core as bl
from bilevel_core.lower import respond
from bilevel_core.oracles import make_oracle
from bilevel_core.plugins.registry import get_registry
from bilevel_core.sampling import Continuous, Score, Space
from bilevel_core.sampling.archive import Archive, Joint, Member
from bilevel_core.sampling.bleaq import BleaqSampler
from bilevel_core.sampling.mapping import Kriging, Polynomial

OPTIMA = {1: 0.0, 2: 0.0, 6: 0.0, 10: 4.0, 11: -1.0}
"""Sinha, Malo and Deb (2014), at the library's default sizes, five variables."""


def smd(number: int, **sizes: Any) -> Any:
    return get_registry().problems[f"smd/smd{number}"].load()(**sizes)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_quadratic_mappings_are_reproduced(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)
    u = rng.uniform(size=(30, 3))
    values = np.array([[x @ a[k] @ x + b[k] @ x + c[k] for k in range(2)] for x in u])
    x = rng.uniform(size=3)
    expected = [x @ a[k] @ x + b[k] @ x + c[k] for k in range(2)]
    np.testing.assert_allclose(Polynomial(u, values, x)(x), expected, atol=1e-5)


def test_with_few_samples_the_mapping_is_linear_or_the_nearest() -> None:
    u = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    values = (u @ [2.0, -1.0])[:, None] + 3.0
    np.testing.assert_allclose(Polynomial(u, values, np.array([0.5, 0.5]))(np.array([0.2, 0.7])), [2.7], atol=1e-6)
    np.testing.assert_array_equal(Polynomial(u[:2], values[:2], np.array([0.9, 0.0]))(np.array([0.2, 0.7])), [5.0])


def test_kriging_interpolates_and_predicts_smooth_functions() -> None:
    rng = np.random.default_rng(0)
    u = rng.uniform(size=(40, 2))
    values = np.column_stack([np.sin(3 * u[:, 0]) + u[:, 1], np.exp(u[:, 1])])
    model = Kriging(u, values, np.array([0.5, 0.5]))
    np.testing.assert_allclose(model(u[7]), values[7], atol=1e-4)
    x = np.array([0.45, 0.55])
    np.testing.assert_allclose(model(x), [np.sin(1.35) + 0.55, np.exp(0.55)], atol=5e-3)


class Opposed:
    """F = -(y - x)^2 and f = (y - x)^2: the leader gains where the follower is not at its own, y = x <= 2."""

    y_lower, y_upper = np.array([0.0]), np.array([2.0])

    def joint(self, point: np.ndarray, y: np.ndarray) -> Joint:
        apart, none = float((y[0] - point[0]) ** 2), np.zeros(0)
        return Joint(-apart, apart, none, none, np.array([y[0] - 2.0]), none)


def test_of_several_predictions_the_one_that_the_follower_likes_best_counts() -> None:
    """Samples of a curve that no quadratic fits: what misses it most would seem best to the leader."""
    archive = Archive(Space((Continuous("x", 0.0, 1.0),)), Opposed(), "quadratic")
    for k, u in enumerate((0.0, 0.1, 0.2, 0.9, 1.0)):
        y = np.array([u + 0.5 * (u > 0.5)])
        archive.add(Member(np.array([u]), y, Score((0.0,), 0.0, y, 0.0), k))
    for u in (0.05, 0.3, 0.5, 0.8):
        at = np.array([u])
        found = archive.predict(at)
        said = [
            archive.mapping(at, "answer")(at),
            archive.members[int(np.argmin(abs(np.array([m.u[0] for m in archive.members]) - u)))].y,
        ]
        values = [Opposed().joint(at, archive.clipped(y)).lower for y in said]
        assert Opposed().joint(at, found.y).lower <= min(values)
        assert found.rank == (0, -Opposed().joint(at, found.y).lower)


def test_an_answer_that_was_a_local_one_is_no_longer_the_best() -> None:
    sampler = BleaqSampler(Space((Continuous("x", 0.0, 1.0),)), 0, Opposed(), "quadratic", 4, 2)
    for value in (3.0, -5.0, 1.0):
        trial = sampler.ask()
        assert trial is not None
        sampler.tell(trial, Score((value,), 0.0, trial.point, 0.0))
    archive = sampler.archive
    assert archive.best.index == 1
    sampler.amend(1, Score((7.0,), 0.0, np.array([1.5]), -2.0))
    assert archive.best.index == 2
    at = archive.members[1].u
    np.testing.assert_allclose(archive.mapping(at, "answer")(at), [1.5], atol=1e-6)
    np.testing.assert_allclose(archive.mapping(at, "value")(at), [-2.0], atol=1e-6)


@pytest.mark.parametrize("number", [7, 8])
def test_local_optima_of_ten_variables_are_left(number: int) -> None:
    """Griewank's and Ackley's functions in the leader's variables, with a follower in conflict."""
    options = {"lower_solves": 120, "target": 1e-2, "from_start": False, "patience": 0}
    result = bl.solve(smd(number, p=3, q=3, r=2), "bleaq", options, seed=0, verify=False)
    assert result.upper_objective == pytest.approx(0.0, abs=1e-2)


def test_among_a_continuum_of_answers_the_follower_gives_the_leaders() -> None:
    """SMD11 with two tied variables: the answers are a circle, and one point of it satisfies the leader."""
    oracle = make_oracle(smd(11, p=3, q=3, r=2))
    found = respond(oracle, np.zeros(5))
    assert oracle.upper_rows(np.zeros(5), found.y).violation <= 1e-6
    assert oracle.upper(np.zeros(5), found.y) == pytest.approx(-1.0, abs=1e-3)


@pytest.mark.parametrize("number", OPTIMA)
def test_few_lower_level_solves_do(number: int) -> None:
    options = {"lower_solves": 60, "target": OPTIMA[number] + 1e-3, "from_start": False, "patience": 0}
    result = bl.solve(smd(number), "bleaq", options, seed=1, verify=False)
    assert result.upper_objective == pytest.approx(OPTIMA[number], abs=1e-3)
    assert result.counts["lower_solves"] <= 60
    assert "target" in result.message


def test_kriging_and_more_variables() -> None:
    options = {"lower_solves": 80, "target": 1e-2, "from_start": False, "patience": 0}
    for more, sizes in (({"model": "kriging"}, {}), ({}, {"p": 2, "q": 2, "r": 2})):
        result = bl.solve(smd(1, **sizes), "bleaq", {**options, **more}, seed=0, verify=False)
        assert result.upper_objective is not None
        assert result.upper_objective <= 1e-2


def test_without_progress_it_ends_by_itself() -> None:
    result = bl.solve(smd(6), "bleaq", {"lower_solves": 500, "patience": 15}, seed=0)
    assert result.termination == "converged"
    assert result.counts["trials"] < 100
    assert result.claim == "feasible"
    assert result.certificate is not None
    assert result.certificate.verdict == "verified"
