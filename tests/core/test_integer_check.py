"""The check of integer followers: one backend's answer is put to the other."""

from __future__ import annotations

import numpy as np
import pytest

from bilevel_core.backends import Solution, SolveStatus
from bilevel_core.backends.highs import Highs
from bilevel_core.program import INF, Program, Row, Variable, linear
from bilevel_core.verification.response import Deadline, Task, answer


def knapsack() -> Task:
    """max 5 a + 4 b + 3 c over 4 a + 3 b + 2 c <= 5, binary: 7 with b and c."""
    columns = tuple(Variable(n, 0.0, 1.0, True) for n in "abc")
    row = Row("capacity", linear({0: 4.0, 1: 3.0, 2: 2.0}), -INF, 5.0)
    return Task(Program(columns, linear({0: -5.0, 1: -4.0, 2: -3.0}), (row,)), Deadline.after(10.0))


def test_both_agree() -> None:
    found = answer(knapsack())
    assert found.value == pytest.approx(-7.0)
    assert found.response == "unique"


@pytest.mark.parametrize("status", [SolveStatus.OPTIMAL, SolveStatus.INFEASIBLE])
def test_a_wrong_answer_of_highs_is_found_out(monkeypatch: pytest.MonkeyPatch, status: SolveStatus) -> None:
    values = np.array([1.0, 0.0, 0.0]) if status is SolveStatus.OPTIMAL else None
    wrong = Solution(status, values, -5.0 if values is not None else np.nan)
    monkeypatch.setattr(Highs, "_solve", lambda self, program, settings: wrong)
    found = answer(knapsack())
    assert found.status is SolveStatus.OPTIMAL
    assert found.value == pytest.approx(-7.0)
    assert found.values is not None
    assert found.values.round().tolist() == [0.0, 1.0, 1.0]
