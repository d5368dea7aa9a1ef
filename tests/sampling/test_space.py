"""Spaces: points, conditions, the unit cube, neighbours, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bilevel_core.errors import ModelError, UsageError
from bilevel_core.sampling import Categorical, Condition, Continuous, Integer, Space

from .problems import CONDITIONAL, MIXED

ALL = Space(
    (
        Continuous("u", -5.0, 10.0),
        Continuous("rate", 1e-4, 1.0, log=True),
        Integer("n", 0, 3),
        Categorical("kind", ("a", None, 2.5)),
        Integer("depth", 1, 4, Condition("kind", (None, 2.5))),
        Categorical("act", ("relu", "tanh"), Condition("depth", (3, 4))),
    )
)


@given(st.integers(0, 2**32))
def test_points_survive_the_unit_cube_and_their_own_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    point = ALL.random(rng)
    np.testing.assert_allclose(ALL.from_unit(ALL.to_unit(point)), point, rtol=1e-9)
    assert ALL.key(ALL.point(ALL.values(point))) == ALL.key(point)
    values = ALL.values(point)
    assert ("depth" in values) == (values["kind"] != "a")
    assert ("act" in values) == (values.get("depth", 0) >= 3)


@given(st.integers(0, 2**32))
def test_neighbours_differ_in_one_variable_and_what_depends_on_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    point = ALL.random(rng)
    before, after = ALL.values(point), ALL.values(ALL.mutate(point, rng))
    changed = {k for k in before if k in after and after[k] != before[k]}
    assert len(changed) <= 1
    appeared = set(before) ^ set(after)
    assert appeared <= {"depth", "act"}
    assert changed or appeared or before["u"] in (-5.0, 10.0) or before["rate"] in (1e-4, 1.0)
    for name, value in after.items():
        v = ALL.variables[ALL.position[name]]
        assert value in v.choices if isinstance(v, Categorical) else v.lower <= value <= v.upper


def test_enumeration_meets_every_point_once() -> None:
    mixed, conditional = Space(MIXED), Space(CONDITIONAL)
    assert len({mixed.key(p) for p in mixed.enumerate(1)}) == 12 * 7 * 3 == mixed.size
    points = [conditional.key(p) for p in conditional.enumerate(1)]
    assert len(points) == len(set(points)) == 7
    line = Space((Continuous("u", 0.0, 1.0), Integer("k", 0, 1)))
    assert [tuple(p) for p in line.enumerate(3)] == [(0, 0), (0, 1), (0.5, 0), (0.5, 1), (1, 0), (1, 1)]
    assert line.size == math.inf


def test_random_points_cover_discrete_values_evenly() -> None:
    space = Space((Integer("k", -1, 1), Categorical("c", ("x", "y"))))
    rng = np.random.default_rng(0)
    drawn = [space.key(space.random(rng)) for _ in range(600)]
    assert len(set(drawn)) == 6
    assert min(drawn.count(k) for k in set(drawn)) > 70


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ((Integer("k", 0, 1), Integer("k", 0, 1)), "called 'k'"),
        ((Continuous("u", 0.0, math.inf),), "finite bounds"),
        ((Continuous("u", 1.0, 0.0),), "in order"),
        ((Continuous("u", 0.0, 1.0, log=True),), "positive bounds"),
        ((Integer("k", 0.5, 1),), "integer bounds"),  # type: ignore[arg-type]
        ((Categorical("c", ()),), "at least one"),
        ((Categorical("c", ("a", "a")),), "different choices"),
        ((Integer("k", 0, 1, Condition("c", ("a",))),), "before it"),
        ((Continuous("u", 0.0, 1.0), Integer("k", 0, 1, Condition("u", (0.5,)))), "before it"),
        ((Integer("a", 0, 1), Integer("k", 0, 1, Condition("a", (2,)))), "cannot be"),
    ],
)
def test_wrong_spaces_are_refused(variables: tuple[object, ...], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        Space(variables)  # type: ignore[arg-type]


def test_wrong_values_are_refused() -> None:
    space = Space(MIXED)
    for values, text in (
        ({"i": 1, "j": 2}, "'c'"),
        ({"i": 1, "j": 2, "c": "z"}, "one of"),
        ({"i": 99, "j": 2, "c": "a"}, "from -3 to 8"),
        ({"i": 1.5, "j": 2, "c": "a"}, "an integer"),
        ({"i": "x", "j": 2, "c": "a"}, "a number"),
        ({"q": 1}, "no variable 'q'"),
    ):
        with pytest.raises(UsageError, match=text):
            space.point(values)
