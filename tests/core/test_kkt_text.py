"""Reductions as text: what goes in and what must come out."""

from __future__ import annotations

import numpy as np
import pytest

from bilevel_core.program import BilevelProgram, Function, Level, Program, Row, Variable
from bilevel_core.reductions import Chain
from bilevel_core.reductions.bigm import BigM, PairBounds
from bilevel_core.reductions.bounds import derive_bounds, enlarge, first_bounds, unproven
from bilevel_core.reductions.indicator import Indicator
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.reductions.penalised import Penalised
from bilevel_core.reductions.relaxed import Relaxed
from bilevel_core.reductions.sos1 import Sos1
from bilevel_core.reductions.strong_duality import StrongDuality


def example() -> BilevelProgram:
    """Leader: integer x in [0, 4]. Follower: max y - y^2 / 2 over y >= 0 with 1 <= x + y <= 5 and x <= 3."""
    return BilevelProgram(
        columns=(Variable("x", 0.0, 4.0, integer=True), Variable("y", 0.0)),
        leader=Level(
            "leader",
            Function(0.0, {0: 1.0, 1: -2.0}),
            (Row("budget", Function(0.0, {0: 1.0, 1: 1.0}), upper=9.0),),
            (0,),
        ),
        followers=(
            Level(
                "f",
                Function(0.0, {1: -1.0}, {(1, 1): 0.5}),
                (
                    Row("range", Function(0.0, {0: 1.0, 1: 1.0}), 1.0, 5.0),
                    Row("only-x", Function(0.0, {0: 1.0}), upper=3.0),
                ),
                (1,),
                maximise=True,
            ),
        ),
    )


CONDITIONS = """\
minimise x - 2 y
budget: x + y <= 9
slack[range]: -x - y - slack[range] + 5 = 0
slack[range:lower]: x + y - slack[range:lower] - 1 = 0
only-x: x <= 3
stationarity[y]: y + lambda[range] - lambda[range:lower] - lambda[y:lower] - 1 = 0
lambda[range] _|_ slack[range]
lambda[range:lower] _|_ slack[range:lower]
lambda[y:lower] _|_ y
x in [0, 4] integer
y in [0, inf] real
lambda[range] in [0, inf] real
slack[range] in [0, inf] real
lambda[range:lower] in [0, inf] real
slack[range:lower] in [0, inf] real
lambda[y:lower] in [0, inf] real"""


def test_optimality_conditions() -> None:
    assert OptimalityConditions().apply(example()).text() == CONDITIONS


def test_sets() -> None:
    chain = Chain(example()).then(OptimalityConditions()).then(Sos1())
    text = chain.target.text()
    assert text == CONDITIONS.replace("lambda[range] _|_ slack[range]", "sos1(lambda[range], slack[range])").replace(
        "lambda[range:lower] _|_ slack[range:lower]", "sos1(lambda[range:lower], slack[range:lower])"
    ).replace("lambda[y:lower] _|_ y", "sos1(lambda[y:lower], y)")
    np.testing.assert_array_equal(chain.invert(np.arange(7.0)), [0.0, 1.0])


def test_bounds_and_binaries() -> None:
    system = OptimalityConditions().apply(example())
    bounds = [PairBounds(10.0, 5.0), PairBounds(0.0, 7.0), PairBounds(20.0, 6.0)]
    reduction = BigM(bounds)
    lines = reduction.apply(system).text().splitlines()
    assert "lambda[range]<=M z: lambda[range] - 10 z[lambda[range]] <= 0" in lines
    assert "slack[range]<=M(1-z): slack[range] + 5 z[lambda[range]] <= 5" in lines
    assert "y<=M(1-z): y + 6 z[lambda[y:lower]] <= 6" in lines
    # a bound of zero decides the pair without a binary
    assert "lambda[range:lower] in [0, 0] real" in lines
    assert sum(line.startswith("z[") for line in lines) == 2
    assert not any("_|_" in line for line in lines)


def test_a_point_at_an_unproven_bound_is_seen() -> None:
    system = OptimalityConditions().apply(example())
    reduction = BigM([PairBounds(10.0, 5.0), PairBounds(4.0, 7.0, True, True), PairBounds(20.0, 6.0)])
    reduction.apply(system)
    values = np.array([0.0, 5.95, 9.95, 0.0, 4.0, 7.0, 0.0])
    assert reduction.at_bound(values) == [(0, "multiplier"), (2, "slack")]


def test_derived_bounds_hold_and_are_not_loose() -> None:
    program = example()
    conditions = OptimalityConditions()
    system = conditions.apply(program)
    derived = derive_bounds(system, program.high_point(), conditions)
    # With y in [0, 5]: stationarity is y - 1 + l1 - l2 - l3 = 0, so a basic multiplier is at most 1 (l1) or 4 (l2, l3).
    assert [b.multiplier for b in derived] == pytest.approx([1.0, 4.0, 4.0], rel=1e-4)
    assert [b.slack for b in derived] == pytest.approx([5.0, 4.0, 5.0], rel=1e-4)
    assert all(b.proven for b in derived)
    small = first_bounds(derived, 0.5, None)
    assert [b.multiplier_proven for b in small] == [False, False, False]
    grown = enlarge(small, derived, unproven(small))
    assert all(b.proven for b in grown), "a tenfold bound beyond the proven one is replaced by it"


def test_integer_followers_have_no_conditions() -> None:
    program = example()
    columns = (program.columns[0], Variable("y", 0.0, 3.0, integer=True))
    reason = OptimalityConditions().accepts(BilevelProgram(columns, program.leader, program.followers))
    assert reason is not None
    assert "'y'" in reason


def test_equalities_fixed_columns_and_bilinear_rows() -> None:
    # f: min y z, with x y + z = 2 and z fixed at 1: mu is free, z has no stationarity condition
    program = BilevelProgram(
        columns=(Variable("x", 1.0, 2.0), Variable("y"), Variable("z", 1.0, 1.0)),
        leader=Level("leader", Function(0.0, {0: 1.0}), (), (0,)),
        followers=(
            Level(
                "f",
                Function(0.0, {}, {(1, 2): 1.0}),
                (Row("r", Function(0.0, {2: 1.0}, {(0, 1): 1.0}), 2.0, 2.0),),
                (1, 2),
            ),
        ),
    )
    lines = OptimalityConditions().apply(program).text().splitlines()
    assert "stationarity[y]: z + x*mu[r] = 0" in lines
    assert "mu[r] in [-inf, inf] real" in lines
    assert not any(line.startswith("stationarity[z]") for line in lines)


def test_a_chain_names_the_step_that_refuses() -> None:
    program = Program((Variable("a", -1.0), Variable("b", 0.0)), Function(), complementarities=((0, 1),))
    with pytest.raises(ValueError, match="Sos1: column 'a'"):
        Chain(program).then(Sos1())


def rewritten(step: object) -> list[str]:
    """The lines that a step adds to the example's optimality system, and after a minus those that it removes."""
    before = CONDITIONS.splitlines()
    after = Chain(example()).then(OptimalityConditions()).then(step).target.text().splitlines()  # type: ignore[arg-type]
    return [line for line in after if line not in before] + [f"- {line}" for line in before if line not in after]


NO_PAIRS = [
    "- lambda[range] _|_ slack[range]",
    "- lambda[range:lower] _|_ slack[range:lower]",
    "- lambda[y:lower] _|_ y",
]


def test_indicators() -> None:
    assert rewritten(Indicator()) == [
        "z[lambda[range]] = 1 => lambda[range] <= 0",
        "z[lambda[range]] = 0 => slack[range] <= 0",
        "z[lambda[range:lower]] = 1 => lambda[range:lower] <= 0",
        "z[lambda[range:lower]] = 0 => slack[range:lower] <= 0",
        "z[lambda[y:lower]] = 1 => lambda[y:lower] <= 0",
        "z[lambda[y:lower]] = 0 => y <= 0",
        "z[lambda[range]] in [0, 1] integer",
        "z[lambda[range:lower]] in [0, 1] integer",
        "z[lambda[y:lower]] in [0, 1] integer",
        *NO_PAIRS,
    ]
    step = Indicator()
    target = step.apply(OptimalityConditions().apply(example()))
    # x = 1, y = 1: no multiplier is needed, and range and range:lower have slack
    values = step.extend(np.array([1.0, 1.0, 0.0, 3.0, 0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(values[7:], [1.0, 1.0, 1.0])
    assert target.violation(values) == 0.0
    values[7] = 0.0
    assert target.violation(values) == 3.0, "slack[range] is 3 where its indicator wants at most 0"


def test_relaxed_products() -> None:
    assert rewritten(Relaxed(0.01)) == [
        "lambda[range]*slack[range]<=eps: lambda[range]*slack[range] <= 0.01",
        "lambda[range:lower]*slack[range:lower]<=eps: lambda[range:lower]*slack[range:lower] <= 0.01",
        "lambda[y:lower]*y<=eps: y*lambda[y:lower] <= 0.01",
        *NO_PAIRS,
    ]


def test_penalised_products() -> None:
    assert rewritten(Penalised(10.0)) == [
        "minimise x - 2 y + 10 y*lambda[y:lower] + 10 lambda[range]*slack[range]"
        " + 10 lambda[range:lower]*slack[range:lower]",
        "- minimise x - 2 y",
        *NO_PAIRS,
    ]


def test_strong_duality() -> None:
    # y (y - 1) + lambda[range] (5 - x) + lambda[range:lower] (x - 1): y^2 / 2 - y plus y^2 / 2 less the dual objective
    conditions = OptimalityConditions()
    system = conditions.apply(example())
    text = StrongDuality(example(), conditions).apply(system).text().splitlines()
    row = "strong-duality[f]: -y + 5 lambda[range] - lambda[range:lower] - x*lambda[range] + x*lambda[range:lower]"
    assert f"{row} + y^2 <= 0" in text
    assert not any("_|_" in line for line in text)


def test_strong_duality_with_bounds_is_linear_but_for_the_followers_own_square() -> None:
    conditions = OptimalityConditions()
    system = conditions.apply(example())
    columns = {m.column: (0.0, 4.0) for m in conditions.multipliers}
    step = StrongDuality(example(), conditions, None, columns)
    target = step.apply(system)
    lines = target.text().splitlines()
    assert "bits[x]: x - bit0[x] - 2 bit1[x] - 4 bit2[x] = 0" in lines
    assert "bit1[x]*lambda[range]<=high z: -4 bit1[x] + bit1[x]*lambda[range] <= 0" in lines
    assert "bit1[x]*lambda[range]>=v-high(1-z): -lambda[range] - 4 bit1[x] + bit1[x]*lambda[range] >= -4" in lines
    gap = next(r.function for r in target.rows if r.name == "strong-duality[f]")
    assert set(gap.quadratic) == {(1, 1)}
    assert step.largest == 4.0
    # extended points satisfy the new rows, and the gap is the sum of the products of the pairs
    rng = np.random.default_rng(3)
    for x in range(5):
        y, lam = float(rng.uniform(1.0, 1.5)), float(rng.uniform(0.0, 2.0))
        slacks = 5.0 - x - y, x + y - 1.0
        lower = y - 1.0 + lam  # stationarity with lambda[range:lower] = lower, lambda[y:lower] = 0
        values = step.extend(np.array([x, y, lam, slacks[0], lower, slacks[1], 0.0]))
        assert gap.evaluate(values) == pytest.approx(lam * slacks[0] + lower * slacks[1])
        rest = [r for r in target.rows if r.name != "strong-duality[f]" and "slack" not in r.name]
        assert max(r.violation(values) for r in rest) < 1e-9 or slacks[0] < 0.0
        np.testing.assert_array_equal(step.invert(values), values[:7])


def test_strong_duality_refuses_varying_coefficients() -> None:
    program = BilevelProgram(
        columns=(Variable("x", 1.0, 2.0), Variable("y", 0.0)),
        leader=Level("leader", Function(0.0, {0: 1.0}), (), (0,)),
        followers=(Level("f", Function(0.0, {1: 1.0}), (Row("r", Function(0.0, {}, {(0, 1): 1.0}), 2.0),), (1,)),),
    )
    conditions = OptimalityConditions()
    reason = StrongDuality(program, conditions).accepts(conditions.apply(program))
    assert reason is not None
    assert "'f'" in reason


def test_modes_of_subsets_leave_the_other_pairs() -> None:
    conditions = OptimalityConditions()
    system = conditions.apply(example())
    first, second, third = system.complementarities
    chain = Chain(system).then(Sos1([second])).then(Indicator([third]))
    assert chain.target.complementarities == (first,)
    assert chain.target.sos1 == (second,)
    chain = chain.then(BigM([PairBounds(2.0, 5.0)], [first]))
    assert chain.target.complementarities == ()
    values = np.array([1.0, 1.0, 0.0, 3.0, 0.0, 1.0, 0.0])
    full = chain.extend(values, stage=0)
    assert chain.target.violation(full) == 0.0
    np.testing.assert_array_equal(chain.invert(full), values)
    with pytest.raises(ValueError, match="no complementarity pair"):
        chain.then(Sos1([first]))
