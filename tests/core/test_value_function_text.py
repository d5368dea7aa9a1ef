"""The value-function reductions as text: what goes in and what must come out."""

from __future__ import annotations

import numpy as np

from bilevel_core.program import BilevelProgram, Dual, Function, Level, Row, Variable, collect
from bilevel_core.program import expression as ex
from bilevel_core.reductions import Chain
from bilevel_core.reductions.value_function import Answer, ValueFunction
from bilevel_core.reductions.worst_case import Threat, WorstCase


def example() -> BilevelProgram:
    """Leader: min x - y over x in [0, 4]. Follower: min x y + y over y in [0, 5] with 1 <= x + y <= 5."""
    return BilevelProgram(
        columns=(Variable("x", 0.0, 4.0), Variable("y", 0.0, 5.0)),
        leader=Level("leader", Function(0.0, {0: 1.0, 1: -1.0}), (), (0,)),
        followers=(
            Level(
                "f",
                Function(0.0, {1: 1.0}, {(0, 1): 1.0}),
                (Row("range", Function(0.0, {0: 1.0, 1: 1.0}), 1.0, 5.0),),
                (1,),
            ),
        ),
    )


TWO = Answer(0, {1: Function(2.0)})
MOVING = Answer(0, {1: Function(5.0, {0: -1.0})})

DISJUNCTION = """\
minimise x - y
range: 1 <= x + y <= 5
no worse than f 1.0: -200 x + 100 y - excess[no worse than f 1.0] + 100 x*y - 200 <= 0
no worse than f 1.1: -x - excess[no worse than f 1.1] + 3 <= 0
no worse than f 1: z[no worse than f 1.0] + z[no worse than f 1.1] >= 1
z[no worse than f 1.0] = 1 => excess[no worse than f 1.0] <= 0
z[no worse than f 1.1] = 1 => excess[no worse than f 1.1] <= 0
x in [0, 4] real
y in [0, 5] real
z[no worse than f 1.0] in [0, 1] integer
excess[no worse than f 1.0] in [0, 2300] real
z[no worse than f 1.1] in [0, 1] integer
excess[no worse than f 1.1] in [0, 3] real"""

PLAIN = """\
minimise x - y
range: 1 <= x + y <= 5
no worse than f 1: -200 x + 100 y + 100 x*y - 200 <= 0
x in [0, 2] real
y in [0, 5] real"""


def test_an_answer_that_x_may_forbid_is_a_disjunction() -> None:
    chain = Chain(example()).then(ValueFunction([TWO]))
    assert chain.target.text() == DISJUNCTION
    np.testing.assert_array_equal(chain.invert(np.arange(6.0)), [0.0, 1.0])


def test_within_a_box_where_nothing_forbids_it_the_cut_is_a_plain_row() -> None:
    assert ValueFunction([TWO], {0: (0.0, 2.0)}).apply(example()).text() == PLAIN


def test_an_answer_that_moves_with_x_stays_feasible() -> None:
    # y = 5 - x keeps x + y = 5 whatever x is: no alternative, f(x, y) <= (x + 1) (5 - x)
    lines = ValueFunction([MOVING]).apply(example()).text().splitlines()
    assert "no worse than f 1: -400 x + 100 y + 100 x^2 + 100 x*y - 500 <= 0" in lines
    assert not any(line.startswith("z[") for line in lines)


def test_answers_that_are_never_open_or_never_better_give_no_cut() -> None:
    never = Answer(0, {1: Function(6.0)})
    worst = Answer(0, {1: Function(5.0)})  # feasible at x = 0 only
    text = ValueFunction([never, worst], {0: (1.0, 4.0)}).apply(example()).text()
    assert "no worse" not in text


def test_an_undefined_answer_gives_no_cut() -> None:
    # f = y log(x - y): at y = 2 it has no value for x <= 2, and a row with it would forbid such x
    program = example()
    log = ex.call("log", ex.add(ex.Column(0), ex.multiply(ex.MINUS_ONE, ex.Column(1))))
    follower = Level("f", collect(ex.multiply(ex.Column(1), log)), (), (1,))
    program = BilevelProgram(program.columns, program.leader, (follower,))
    assert "no worse" not in ValueFunction([TWO]).apply(program).text()
    assert "no worse" in ValueFunction([TWO], {0: (2.5, 4.0)}).apply(program).text()


def test_an_answer_that_keeps_an_equation_by_construction_is_a_cut() -> None:
    """w + y / 3 = exp(x) holds for y = 2, w = exp(x) - 2 / 3 at every x; intervals term by term do not say so."""
    program = example()
    power = Function(nonlinear=ex.call("exp", ex.Column(0)))
    tie = Row("tie", Function(0.0, {2: 1.0, 1: 1.0 / 3.0}) - power, 0.0, 0.0)
    follower = Level("f", Function(0.0, {2: 1.0}, {(1, 1): 1.0}), (tie,), (1, 2))
    tied = BilevelProgram((*program.columns, Variable("w")), program.leader, (follower,))
    answer = Answer(0, {1: Function(2.0), 2: power.scaled(0.1).scaled(10.0) - 2.0 / 3.0})
    assert "no worse than f 1: 100 w + 100 y^2 + " in ValueFunction([answer]).apply(tied).text()
    other = Answer(0, {1: Function(1.0), 2: power - 2.0 / 3.0})
    assert "no worse" not in ValueFunction([other]).apply(tied).text()


def test_what_is_not_taken() -> None:
    program = example()
    priced = BilevelProgram(
        (*program.columns, Variable("price")), program.leader, program.followers, duals=(Dual(2, 0, 0),)
    )
    assert "multipliers" in str(ValueFunction().accepts(priced))
    other = Level("g", Function(0.0, {}, {(0, 1): 1.0}), (), (0,))
    game = BilevelProgram(program.columns, Level("leader", Function(), (), ()), (program.followers[0], other))
    assert "Nash" in str(ValueFunction().accepts(game))
    assert ValueFunction().accepts(program) is None


def test_a_threat_is_counted_or_worse_for_the_follower() -> None:
    text = WorstCase([], [Threat((TWO,), (0.1,))], {0: (0.0, 2.0)}).apply(example()).text()
    lines = text.splitlines()
    assert lines[0] == "minimise worst"
    assert "own answer: x - y - worst <= 0" in lines
    assert "expects 1.0: x - worst - excess[expects 1.0] - 2 <= 0" in lines
    assert "expects 1.1: -100 x*y" not in text
    assert any(line.startswith("expects 1.1: -200 x + 100 y") and line.endswith("- 190 <= 0") for line in lines)
    assert "expects 1: z[expects 1.0] + z[expects 1.1] >= 1" in lines
    assert "worst in [-5, 2] real" in lines


def test_a_worst_value_may_lie_beyond_bounds_of_optimal_answers() -> None:
    """A box that holds for optimal answers of a follower says nothing of those that are nearly so."""
    text = WorstCase([], [Threat((TWO,), (0.1,))], {0: (0.0, 2.0), 1: (3.0, 4.0)}).apply(example()).text()
    assert "y in [3, 4] real" in text
    assert "worst in [-4, 2] real" in text  # x - y for x in [0, 2]; at most 2 for y in [0, 5], not -1
