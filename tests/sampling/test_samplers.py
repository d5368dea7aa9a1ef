"""Samplers alone, without any bilevel problem: optima, reproduction, replay, constraints."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bilevel_core.errors import UsageError
from bilevel_core.sampling import Categorical, Continuous, Integer, Sampler, Score, Space
from bilevel_core.sampling.bayes import BayesSampler
from bilevel_core.sampling.evolution import AgeingSampler, DifferentialSampler
from bilevel_core.sampling.generations import CmaSampler, NsgaSampler, ranked_values
from bilevel_core.sampling.halving import HalvingSampler
from bilevel_core.sampling.local import LocalSampler
from bilevel_core.sampling.recurrent import RecurrentSampler
from bilevel_core.sampling.reinforce import ReinforceSampler
from bilevel_core.sampling.simple import GridSampler, RandomSampler, SobolSampler

from .problems import CONDITIONAL, MIXED

Make = Callable[[Space, int], Sampler]
SAMPLERS: dict[str, Make] = {
    "grid": lambda space, seed: GridSampler(space, seed, 9),
    "random": RandomSampler,
    "sobol": SobolSampler,
    "local": lambda space, seed: LocalSampler(space, seed, 0.1, 1e-5),
    "differential": lambda space, seed: DifferentialSampler(space, seed, 15),
    "ageing": lambda space, seed: AgeingSampler(space, seed, 15, 5),
    "reinforce": lambda space, seed: ReinforceSampler(space, seed, 0.2, 30, 0.01),
    "halving": lambda space, seed: HalvingSampler(space, seed, 3, 1 / 9, True),
}
OPTIONAL: dict[str, tuple[str, Make]] = {
    "cma": ("cma", lambda space, seed: CmaSampler(space, seed, 0.3, 0)),
    "nsga2": ("pymoo", lambda space, seed: NsgaSampler(space, seed, 1, 15)),
    "tpe": ("optuna", lambda space, seed: BayesSampler(space, seed, "tpe", 8)),
    "recurrent": ("torch", lambda space, seed: RecurrentSampler(space, seed, 0.02, 30, 0.01)),
}
SAMPLERS |= {name: make for name, (package, make) in OPTIONAL.items() if importlib.util.find_spec(package)}
CONTINUOUS = Space((Continuous("u", -5.0, 10.0), Continuous("v", -5.0, 10.0)))


def mixed(space: Space, point: np.ndarray) -> Score:
    x = space.values(point)
    return Score((float((x["i"] - 5) ** 2 + (x["j"] - 2) ** 2 + (x["c"] != "b")),), 0.0)


def bowl(space: Space, point: np.ndarray) -> Score:
    return Score((float(np.sum((point - np.array([1.0, 3.3])) ** 2)),), 0.0)


def run(sampler: Sampler, score: Any, count: int, window: int = 1) -> list[tuple[Any, float, Score]]:
    """Trials in order, told in order, with as many in flight."""
    flying: list[Any] = []
    path: list[tuple[Any, float, Score]] = []
    while len(path) < count:
        while len(flying) < window and (trial := sampler.ask()) is not None:
            flying.append(trial)
        if not flying:
            assert sampler.over
            break
        trial = flying.pop(0)
        found = score(sampler.space, trial.point)
        path.append((sampler.space.key(trial.point), trial.budget, found))
        sampler.tell(trial, found)
    return path


def without(names: set[str]) -> list[str]:
    return [n for n in SAMPLERS if n not in names]


@pytest.mark.parametrize("name", without({"cma", "tpe", "recurrent"}))
@pytest.mark.parametrize("window", [1, 3])
def test_a_finite_space_is_searched_whole_and_no_point_twice(name: str, window: int) -> None:
    space = Space((Integer("i", 3, 8), Integer("j", 0, 3), Categorical("c", ("a", "b"))))
    path = run(SAMPLERS[name](space, 3), mixed, 500, window)
    whole = [key for key, budget, _ in path if budget == 1.0]
    if name != "halving":  # which gives only the better ones the whole budget
        assert len(whole) == len(set(whole)) == 48
    assert min(score.objectives[0] for _, budget, score in path if budget == 1.0) == 0.0


@pytest.mark.parametrize("name", [n for n in ("cma", "tpe", "recurrent") if n in SAMPLERS])
def test_a_finite_space_is_searched_whole_by_the_slower_ones(name: str) -> None:
    space = Space((Integer("i", 3, 6), Integer("j", 0, 3)))
    path = run(SAMPLERS[name](space, 3), lambda s, p: Score((float((p[0] - 5) ** 2 + (p[1] - 2) ** 2),), 0.0), 100)
    assert len({key for key, _, _ in path}) == len(path) == 16


@pytest.mark.parametrize("name", without({"cma", "grid", "halving", "recurrent"}))
def test_conditional_spaces(name: str) -> None:
    space = Space(CONDITIONAL)
    path = run(SAMPLERS[name](space, 0), lambda s, p: Score((5.0 - 0.5 * len(s.values(p)),), 0.0), 50)
    assert len({key for key, _, _ in path}) == len(path) == 7


@pytest.mark.parametrize("name", without({"recurrent"}))
def test_the_seed_decides(name: str) -> None:
    def keys(seed: int) -> list[Any]:
        return [step[:2] for step in run(SAMPLERS[name](CONTINUOUS, seed), bowl, 40, 2)]

    assert keys(7) == keys(7)
    assert name == "grid" or keys(7) != keys(8)


@pytest.mark.parametrize(
    ("name", "count", "close"),
    [
        ("local", 200, 1e-3),
        ("differential", 300, 1e-2),
        ("ageing", 400, 0.5),
        ("cma", 300, 1e-4),
        ("reinforce", 400, 0.2),
        ("nsga2", 400, 0.1),
        ("tpe", 80, 0.5),
    ],
)
def test_methods_that_learn_come_close(name: str, count: int, close: float) -> None:
    if name not in SAMPLERS:
        pytest.skip(f"the package of {name} is not installed")
    path = run(SAMPLERS[name](CONTINUOUS, 1), bowl, count)
    assert min(score.objectives[0] for _, _, score in path) < close


@pytest.mark.parametrize("name", ["local", "differential", "ageing", "cma", "nsga2", "tpe", "reinforce"])
def test_feasible_points_come_before_better_ones_that_are_not(name: str) -> None:
    """u + v <= 0 excludes the bowl's own minimum; half of the infeasible points have no objective at all."""
    if name not in SAMPLERS:
        pytest.skip(f"the package of {name} is not installed")

    def score(space: Space, point: np.ndarray) -> Score:
        over = max(0.0, float(point.sum()))
        if over > 4.0:
            return Score((), over) if over < 10.0 else Score()
        return Score((float(bowl(space, point).objectives[0]),), over)

    count = 40 if name == "tpe" else 250
    path = run(SAMPLERS[name](CONTINUOUS, 2), score, count)
    best = min((s for _, _, s in path), key=lambda s: s.rank)
    assert best.feasible
    # The optimum under the constraint is 4.3^2 / 2 = 9.245 (the distance of the point from the line).
    loose = {"tpe": 20.0, "ageing": 4.0, "reinforce": 4.0}
    assert 9.245 - 1e-4 <= best.objectives[0] < 9.245 + loose.get(name, 1.0)


def test_ranks_put_feasibility_first() -> None:
    scores = [Score((1e6,), 0.0), Score((-5.0,), 2.0), Score((), 1.0), Score(), Score((0.0,), 1e-7)]
    assert sorted(range(5), key=lambda k: scores[k].rank) == [4, 0, 2, 1, 3]
    values = ranked_values(scores)
    assert sorted(range(5), key=lambda k: values[k]) == [4, 0, 2, 1, 3]
    assert all(math.isfinite(v) for v in ranked_values([Score(), Score((), 3.0)]))


def test_halving_promotes_the_best_with_more_budget() -> None:
    path = run(HalvingSampler(CONTINUOUS, 0, 3, 1 / 9, False), bowl, 13)
    budgets = [budget for _, budget, _ in path]
    assert budgets == [1 / 9] * 9 + [1 / 3] * 3 + [1.0]
    first = sorted(path[:9], key=lambda step: step[2].rank)
    assert [step[0] for step in path[9:12]] == [step[0] for step in first[:3]]
    assert path[12][0] == first[0][0]


def test_halving_hands_on_the_trial_that_a_promotion_goes_on_from() -> None:
    sampler = HalvingSampler(CONTINUOUS, 0, 2, 0.5, False)
    trials = [sampler.ask() for _ in range(4)]
    assert trials[2] is None or trials[2].budget == 0.5
    asked = [t for t in trials if t is not None]
    for trial in asked:
        sampler.tell(trial, bowl(CONTINUOUS, trial.point))
    promoted = sampler.ask()
    assert promoted is not None
    assert promoted.budget == 1.0
    best = min(asked, key=lambda t: bowl(CONTINUOUS, t.point).rank)
    assert promoted.parent == best.index


def test_spaces_without_order_are_refused_by_cma() -> None:
    pytest.importorskip("cma")
    with pytest.raises(UsageError, match=r"'c'.*sample\.evolution"):
        CmaSampler(Space(MIXED), 0, 0.3, 0)


def test_the_recurrent_controller_refuses_numbers() -> None:
    pytest.importorskip("torch")
    with pytest.raises(UsageError, match=r"'u'.*factorised"):
        RecurrentSampler(CONTINUOUS, 0, 0.01, 10, 0.0)


def test_gaussian_processes_come_close_in_few_trials() -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = run(BayesSampler(CONTINUOUS, 0, "gp", 6), bowl, 10)
    assert min(score.objectives[0] for _, _, score in path[6:]) < 0.5


def test_global_random_states_are_left_alone() -> None:
    state = np.random.get_state()[1].copy()
    for name in ("cma", "nsga2", "tpe"):
        if name in SAMPLERS:
            run(SAMPLERS[name](CONTINUOUS, 0), bowl, 20)
    np.testing.assert_array_equal(state, np.random.get_state()[1])
