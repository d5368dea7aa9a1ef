"""`Program.violation` against its definition, constraint by constraint, on random programs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bilevel_core.program import INF, Function, Program, Row, Variable
from bilevel_core.program import expression as ex


def by_definition(program: Program, values: np.ndarray) -> float:
    worst = 0.0
    for c, v in zip(program.columns, values, strict=True):
        scale = max(1.0, abs(v))
        worst = max(worst, (c.lower - v) / scale, (v - c.upper) / scale)
        if c.integer:
            worst = max(worst, abs(v - round(v)))
    for row in program.rows:
        v = row.violation(values)
        worst = max(worst, INF if math.isnan(v) else v / row.function.scale(values))
    for i, j in program.complementarities:
        worst = max(worst, min(abs(values[i]), abs(values[j])))
    for group in program.sos1:
        worst = max(worst, sorted(abs(values[i]) for i in group)[-2] if len(group) > 1 else 0.0)
    for z, value, k in program.indicators:
        if round(values[z]) == value:
            worst = max(worst, values[k])
    return worst


def drawn(seed: int) -> tuple[Program, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))

    def function() -> Function:
        linear = {int(i): float(rng.normal()) for i in rng.choice(n, int(rng.integers(0, n + 1)), replace=False)}
        pair = tuple(sorted(int(i) for i in rng.integers(0, n, 2)))
        quadratic = {(pair[0], pair[1]): float(rng.normal())} if rng.random() < 0.4 else {}
        curved = ex.power(ex.Column(0), ex.Constant(3.0)) if rng.random() < 0.2 else None
        return Function(float(rng.normal()), linear, quadratic, curved)

    columns = tuple(
        Variable(f"v{i}", -float(rng.random()), float(rng.random()), bool(rng.random() < 0.3)) for i in range(n)
    )
    ends = [(-INF, 0.0), (0.0, INF), (0.0, 0.0), (-0.5, 0.5)]
    rows = tuple(Row(f"r{k}", function(), *ends[int(rng.integers(4))]) for k in range(int(rng.integers(0, 6))))
    pairs = tuple((int(rng.integers(n)), int(rng.integers(n))) for _ in range(int(rng.integers(0, 3))))
    sets = (tuple(range(n)),) if rng.random() < 0.3 else ()
    switches = ((0, 1, n - 1),) if rng.random() < 0.3 else ()
    program = Program(columns, Function(), rows, complementarities=pairs, sos1=sets, indicators=switches)
    return program, rng.normal(size=n) * float(10.0 ** rng.integers(-2, 4))


@pytest.mark.parametrize("seed", range(150))
def test_it_is_the_largest_of_all_constraints(seed: int) -> None:
    program, values = drawn(seed)
    assert program.violation(values) == pytest.approx(by_definition(program, values), rel=1e-12, abs=1e-14)


def test_an_undefined_row_is_violated_without_end() -> None:
    root = ex.power(ex.Column(0), ex.Constant(0.5))
    program = Program((Variable("v"),), Function(), (Row("r", Function(nonlinear=root), 0.0, INF),))
    assert program.violation(np.array([-1.0])) == INF
    assert program.violation(np.array([4.0])) == 0.0


def test_a_point_that_is_not_a_number_satisfies_nothing() -> None:
    assert Program((Variable("v"),), Function()).violation(np.array([np.nan])) == INF
