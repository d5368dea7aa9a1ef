"""Complementarity, pair by pair, in the optimality systems of the whole library.

A method that drives one sum of all products to a small number can stop with a pair that is far from complementary, and
a leader's objective that is wrong by much more than the tolerance: so no sums here.
"""

from __future__ import annotations

import numpy as np
import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.program import Program
from bilevel_core.reductions.bigm import BigM
from bilevel_core.reductions.bounds import derive_bounds, first_bounds
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.sos1 import Sos1
from bilevel_core.solvers.single_level import pick, polish

SOLVABLE = {
    name: spec
    for name, spec in get_registry().problems.items()
    if name.startswith(("classic/", "trap/"))
    and not spec.needs
    and "integer" not in spec.tags
    and spec.known is not None
    and spec.known.upper_objective is not None
}

UNCONSTRAINED = {"classic/bard-1998-813", "classic/lampariello-sagratella"}
"""Their followers have neither rows nor bounds, and so no pairs."""


def _system_and_answer(name: str, mode: str) -> tuple[bl.PyomoProblem, Program, np.ndarray]:
    problem = SOLVABLE[name].load()()
    program = problem.program()
    conditions = OptimalityConditions()
    system = conditions.apply(program)
    if mode == "sos1":
        reduction = Sos1()
    else:
        derived = derive_bounds(system, program.high_point(), conditions)
        reduction = BigM(first_bounds(derived, None, None))
    target = reduction.apply(system)
    solution = pick(target).solve(target)
    assert solution.values is not None
    clean = polish(system, reduction.invert(solution.values))
    assert clean is not None
    assert clean.values is not None
    return problem, system, clean.values


def test_there_is_something_to_check() -> None:
    assert len(SOLVABLE) >= 15


@pytest.mark.parametrize("mode", ["sos1", "bigm"])
@pytest.mark.parametrize("name", sorted(SOLVABLE))
def test_every_pair_and_every_condition_holds(name: str, mode: str) -> None:
    problem, system, values = _system_and_answer(name, mode)
    assert bool(system.complementarities) == (name not in UNCONSTRAINED)
    for i, j in system.complementarities:
        assert min(values[i], values[j]) >= -1e-8
        assert min(abs(values[i]), abs(values[j])) <= 1e-9, f"{system.columns[i].name}, {system.columns[j].name}"
    assert system.violation(values) <= 1e-6
    known = SOLVABLE[name].known
    assert known is not None
    reached = problem.evaluate(values[: len(problem.program().columns)]).upper_objective
    assert reached == pytest.approx(known.upper_objective, rel=1e-6, abs=1e-6)
