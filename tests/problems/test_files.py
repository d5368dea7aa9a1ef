"""Every problem of the library that MPS and auxiliary files can hold comes back from them; the others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry
from bilevel_core.program import BilevelProgram, Function

INTEGER = ("classic/moore-bard", "classic/mibs-manual", "classic/knapsack-interdiction")


def linear_throughout(program: BilevelProgram) -> bool:
    levels = (program.leader, *program.followers)
    functions = [f for level in levels for f in (level.objective, *(r.function for r in level.rows))]
    return all(f.degree <= 1 for f in functions) and not program.duals


def test_linear_problems_come_back(tmp_path: Path) -> None:
    taken: set[str] = set()
    library = {n: s for n, s in get_registry().problems.items() if s.factory.startswith("bilevel_problems.")}
    for name, spec in library.items():
        problem = spec.load()()
        program = problem.program()
        if not linear_throughout(program):
            with pytest.raises(bl.UsageError, match=r"is not linear|uses a follower's multipliers"):
                bl.write_mps(problem, tmp_path / "a.mps")
            continue
        written = bl.write_mps(problem, tmp_path / "a.mps")
        again = bl.read_mps(tmp_path / "a.mps").program()
        taken.add(name)
        assert [(c.lower, c.upper, c.integer) for c in again.columns] == [
            (c.lower, c.upper, c.integer) for c in program.columns
        ], name
        assert again.leader.objective == program.leader.objective, name
        assert again.leader.maximise is False
        (follower,) = again.followers
        own = set(program.lower_columns)
        total = Function()
        for f in program.followers:
            total = total + f.objective
        assert follower.objective.linear == {i: v for i, v in total.linear.items() if i in own}, name
        lost = total.constant != 0.0 or not total.columns <= own
        assert any("objective is written without" in note for note in written.notes) == lost, name
        mine = [r for level in (program.leader, *program.followers) for r in level.rows]
        theirs = [*again.leader.rows, *follower.rows]
        assert len(again.leader.rows) == len(program.leader.rows)
        for a, b in zip(mine, theirs, strict=True):
            assert b.function.linear == a.function.linear, (name, a.name)
            sides = (a.lower - a.function.constant, a.upper - a.function.constant)
            assert (b.lower, b.upper) == pytest.approx(sides, rel=1e-15), (name, a.name)
    assert taken.issuperset(INTEGER)
    assert len(taken) >= 40
