"""Problems written as MPS and auxiliary files read back as themselves: instances, Pyomo models, random programs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import highspy
import numpy as np
import pyomo.environ as pyo
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bilevel_core as bl
from bilevel_core.problems.base import AlgebraicProblem
from bilevel_core.program import INF, BilevelProgram, Function, Level, Row, Variable, linear

from .models import bard_511
from .mps_files import (
    KNAPSACK_AUX,
    KNAPSACK_MPS,
    KNAPSACK_TEXT,
    Stated,
    instances,
    nearly,
    same_up_to_sense,
    shared_instances,
)

PARTS = ("columns", "leader", "followers")


@pytest.mark.parametrize("dialect", ["names", "indices"])
@pytest.mark.parametrize("path", instances(), ids=lambda p: p.stem)
def test_instances_come_back(path: Path, dialect: Any, tmp_path: Path) -> None:
    if dialect == "indices" and path.stat().st_size > 100_000:
        pytest.skip("the large ones once are enough")
    program = bl.read_mps(path).program()
    written = bl.write_mps(bl.read_mps(path), tmp_path / "a.mps", dialect=dialect, layout="fixed")
    assert (written.renamed, written.notes) == ({}, ())
    again = bl.read_mps(tmp_path / "a.mps").program()
    assert [getattr(again, part) for part in PARTS] == [getattr(program, part) for part in PARTS]


def test_interdiction_instances_come_back(tmp_path: Path) -> None:
    """Those of the library are written with the leader's part implied, and mean the same; the others are refused."""
    taken = 0
    for path in shared_instances():
        problem = bl.read_mps(path)
        try:
            bl.write_mps(problem, tmp_path / "a.mps", dialect="interdiction")
        except bl.UsageError as error:
            assert "This is no interdiction problem" in str(error)  # noqa: PT017
            continue
        taken += 1
        again = bl.read_mps(tmp_path / "a.mps")
        assert values_by_meaning(problem) == values_by_meaning(again)
    assert taken == 10


def values_by_meaning(problem: AlgebraicProblem) -> list[Any]:
    """Objectives and violations at random points of an interdiction problem, the leader's variables told by the row
    y <= u (1 - x) that they stand in.
    """
    program = problem.program()
    (follower,) = program.followers
    pairs: dict[str, int] = {}
    for row in follower.rows:
        (*xs,) = [i for i in row.function.columns if i in program.leader.columns]
        if xs:
            (y,) = row.function.columns - {xs[0]}
            pairs[program.columns[y].name] = xs[0]
    rng = np.random.default_rng(1)
    out: list[Any] = []
    for _ in range(3):
        values = np.zeros(len(program.columns))
        for y in sorted(follower.columns, key=lambda i: program.columns[i].name):
            values[y] = rng.integers(0, 2)
            values[pairs[program.columns[y].name]] = rng.integers(0, 2)
        found = problem.evaluate(values)
        rows = [sorted(v for _, v, _ in side) for side in (found.upper, found.lower)]
        out.append((found.upper_objective, found.lower_objectives, rows))
    return out


def integer_model() -> Any:
    """Integer variables at both levels, indexed ones, a range, an equality, constants, awkward names."""
    m: Any = pyo.ConcreteModel(name="a model with blanks")
    m.x = pyo.Var([1, 2], domain=pyo.NonNegativeIntegers, bounds=(0, 10))
    m.free = pyo.Var()
    m.follower = bl.Follower()
    m.follower.y = pyo.Var(["a b", "@c"], domain=pyo.Integers, bounds=(-5, 5))
    m.follower.z = pyo.Var(domain=pyo.NonNegativeReals)
    x, y, z = m.x, m.follower.y, m.follower.z
    m.objective = pyo.Objective(expr=-x[1] - 7 * y["a b"] + 0.1 * m.free + 2.5)
    m.link = pyo.Constraint(expr=m.free == x[2] - z)
    m.follower.objective = pyo.Objective(expr=y["a b"] - y["@c"] / 3 + z)
    m.follower.range = pyo.Constraint(expr=(-4, 2 * x[1] - y["a b"] + 1, 7.25))
    m.follower.row = pyo.Constraint(expr=-2 * x[2] + 4 * y["@c"] - z >= -16)
    return m


def test_a_pyomo_model_comes_back(tmp_path: Path) -> None:
    model = integer_model()
    for dialect in ("names", "indices"):
        written = bl.write_mps(model, tmp_path / "a.mps", dialect=dialect)
        again = bl.read_mps(tmp_path / "a.mps")
        program = bl.PyomoProblem(model).program()
        names = [c.name for c in again.program().columns]
        assert names == [written.renamed.get(c.name, c.name) for c in program.columns]
        assert not any(" " in n for n in names)
        plain = Stated(
            BilevelProgram(
                tuple(Variable(n, c.lower, c.upper, c.integer) for n, c in zip(names, program.columns, strict=True)),
                program.leader,
                program.followers,
            )
        )
        assert same_up_to_sense(again.program()) == same_up_to_sense(plain.program())
        assert again.program().followers[0].rows[0].lower == -5.0  # the constant went to the sides
        assert written.notes == ()


def test_a_pyomo_model_and_its_files_agree_at_points(tmp_path: Path) -> None:
    problem = bl.PyomoProblem(integer_model())
    bl.write_mps(problem, tmp_path / "a.mps.gz")
    again = bl.read_mps(tmp_path / "a.mps.gz")
    rng = np.random.default_rng(3)
    for _ in range(10):
        values = rng.integers(-6, 7, 6).astype(float)
        mine, theirs = problem.evaluate(values), again.evaluate(values)
        assert mine.upper_objective == pytest.approx(theirs.upper_objective)
        assert mine.lower_objectives == pytest.approx(theirs.lower_objectives)
        for a, b in ((mine.upper, theirs.upper), (mine.lower, theirs.lower)):
            assert sorted(v for _, v, _ in a) == pytest.approx(sorted(v for _, v, _ in b))


def test_what_the_files_do_not_hold_is_said(tmp_path: Path) -> None:
    model = bard_511(maximise_follower=True)
    model.objective.sense = pyo.maximize
    model.follower.objective.expr = model.follower.objective.expr + 3 * model.x + 4
    model.loose = pyo.Constraint(expr=(-INF, model.x, INF))
    written = bl.write_mps(model, tmp_path / "a.mps", dialect="indices")
    assert len(written.notes) == 3
    for words in ("The leader maximises", "without its terms in x and its constant -4", "left out: loose"):
        assert words in str(written)
    program = bl.read_mps(tmp_path / "a.mps").program()
    assert program.leader.objective == linear({0: -1.0, 1: 4.0})
    assert (program.followers[0].objective, program.followers[0].maximise) == (linear({1: 1.0}), True)
    bl.write_mps(model, tmp_path / "a.mps", dialect="names")
    program = bl.read_mps(tmp_path / "a.mps").program()
    assert (program.followers[0].objective, program.followers[0].maximise) == (linear({1: 1.0}), False)


def test_independent_followers_are_written_as_one(tmp_path: Path) -> None:
    m: Any = pyo.ConcreteModel()
    m.x = pyo.Var(bounds=(0, 4), domain=pyo.Integers)
    m.followers = bl.Follower([1, 2])
    for k in (1, 2):
        f = m.followers[k]
        f.y = pyo.Var(bounds=(0, 9), domain=pyo.Integers)
        f.objective = pyo.Objective(expr=k * f.y, sense=pyo.maximize if k == 2 else pyo.minimize)
        f.row = pyo.Constraint(expr=f.y + m.x >= k)
    m.objective = pyo.Objective(expr=m.x)
    written = bl.write_mps(m, tmp_path / "a.mps")
    assert "The 2 followers are written as one" in str(written)
    (follower,) = bl.read_mps(tmp_path / "a.mps").program().followers
    assert follower.objective == linear({1: 1.0, 2: -2.0})
    assert [r.name for r in follower.rows] == ["followers[1].row", "followers[2].row"]


def test_names_of_eight_characters(tmp_path: Path) -> None:
    model = integer_model()
    model.follower.objective.expr = model.follower.y["a b"]
    written = bl.write_mps(model, tmp_path / "a.mps", layout="fixed")
    assert written.renamed["x[1]"] == "C0000000"
    assert written.renamed["follower.row"] == "R0000002"
    for line in written.files[0].read_text().splitlines():
        assert len(line) <= 72
        assert all(len(word) <= 12 for word in line.split()) or line.startswith("NAME")
    again = bl.read_mps(tmp_path / "a.mps")
    assert [c.integer for c in again.program().columns] == [True, True, False, True, True, False]
    model.objective.expr += model.x[2] / 3
    with pytest.raises(bl.UsageError, match=r"'C0000001' in 'OBJ' is 0\.33333.*Use layout='free'"):
        bl.write_mps(model, tmp_path / "a.mps", layout="fixed")


def test_the_interdiction_dialect(tmp_path: Path) -> None:
    (tmp_path / "a.mps").write_text(KNAPSACK_MPS)
    (tmp_path / "a.aux").write_text(KNAPSACK_AUX)
    problem = bl.read_mps(tmp_path / "a.mps")
    written = bl.write_mps(problem, tmp_path / "b.mps", dialect="interdiction", layout="fixed")
    assert (tmp_path / "b.aux").read_text() == KNAPSACK_AUX
    assert "ROOM" in (tmp_path / "b.mps").read_text()
    assert "take_" not in (tmp_path / "b.mps").read_text()
    assert "The leader's variables are implied" in str(written)
    assert bl.read_mps(tmp_path / "b.mps").program().text() == KNAPSACK_TEXT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("bound", "the leader's 'take_y1' is not binary"),
        ("budget", "the leader has 2 rows, and not one budget"),
        ("equal", "the leader's row 'budget' is no budget"),
        ("goal", "not the negative of the follower's"),
        ("link", "row 'take_y2' is not of the form"),
        ("missing", "not every variable of the follower's has a binary"),
        ("twice", "row 'again' bounds 'y1' by 'take_y1' a second time"),
    ],
)
def test_what_is_no_interdiction_problem(tmp_path: Path, change: str, words: str) -> None:
    (tmp_path / "a.mps").write_text(KNAPSACK_MPS)
    (tmp_path / "a.aux").write_text(KNAPSACK_AUX)
    program = bl.read_mps(tmp_path / "a.mps").program()
    columns, leader, (follower,) = list(program.columns), program.leader, program.followers
    goal, upper, lower = leader.objective, list(leader.rows), list(follower.rows)
    match change:
        case "bound":
            columns[0] = Variable("take_y1", 0.0, 2.0, integer=True)
        case "budget":
            upper.append(Row("more", linear({0: 1.0}), -INF, 1.0))
        case "equal":
            upper[0] = Row("budget", upper[0].function, 2.0, 2.0)
        case "goal":
            goal = linear({2: 7.0, 3: 9.0})
        case "link":
            lower[2] = Row("take_y2", linear({1: 2.0, 3: 1.0}), -INF, 3.0)
        case "missing":
            lower.pop(2)
        case _:
            lower.append(Row("again", linear({0: 1.0, 2: 1.0}), -INF, 1.0))
    levels = (
        Level("leader", goal, tuple(upper), leader.columns),
        Level("follower", follower.objective, tuple(lower), follower.columns),
    )
    changed = Stated(BilevelProgram(tuple(columns), levels[0], (levels[1],)))
    with pytest.raises(bl.UsageError, match="This is no interdiction problem") as caught:
        bl.write_mps(changed, tmp_path / "b.mps", dialect="interdiction")
    assert words in str(caught.value)
    assert not (tmp_path / "b.mps").exists()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    model = bard_511()
    for path, options, words in (
        ("a.txt", {}, "ends with .mps"),
        ("a.mps", {"dialect": "xml"}, "Expected dialect names, indices or interdiction, got 'xml'"),
        ("a.mps", {"layout": "wide"}, "Expected layout free or fixed, got 'wide'"),
        ("no/such/a.mps", {}, "cannot be written"),
    ):
        with pytest.raises(bl.UsageError, match=words):
            bl.write_mps(model, tmp_path / path, **options)
    model.follower.objective.expr = model.follower.y**2
    with pytest.raises(bl.UsageError, match="objective of 'follower' is not linear"):
        bl.write_mps(model, tmp_path / "a.mps")
    model = bard_511()
    model.product = pyo.Constraint(expr=model.x * model.follower.y <= 3)
    with pytest.raises(bl.UsageError, match="Row 'product' is not linear"):
        bl.write_mps(model, tmp_path / "a.mps")
    model = bard_511()
    model.objective.expr += model.follower.dual[model.follower.rows[1]]
    with pytest.raises(bl.UsageError, match="multipliers"):
        bl.write_mps(model, tmp_path / "a.mps")
    with pytest.raises(bl.UsageError, match="Expected a bilevel problem"):
        bl.write_mps(3, tmp_path / "a.mps")


# Random programs.

NUMBERS = st.one_of(
    st.integers(-30, 30).map(float),
    st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-9),
)
NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=12)


@st.composite
def programs(draw: st.DrawFn, names_of: st.SearchStrategy[str] = NAMES) -> BilevelProgram:
    n = draw(st.integers(1, 5))
    names = draw(st.lists(names_of, min_size=n, max_size=n, unique=True))
    columns: list[Variable] = []
    for name in names:
        integer = draw(st.booleans())
        ends = sorted(draw(st.tuples(NUMBERS, NUMBERS)))
        if integer:
            ends = [math.floor(e) for e in ends]
        lower = draw(st.sampled_from([0.0, -INF, float(ends[0])]))
        upper = draw(st.sampled_from([INF, float(ends[1]), 1.0]))
        columns.append(Variable(name, min(lower, upper), upper, integer))
    own = draw(st.sets(st.integers(0, n - 1), min_size=1))

    def function(allowed: Any) -> Function:
        chosen = draw(st.lists(st.sampled_from(sorted(allowed)), unique=True))
        return linear({i: draw(NUMBERS) for i in chosen})

    row_names = draw(st.lists(names_of, max_size=6, unique=True))
    rows: list[Row] = []
    for name in row_names:
        ends = sorted(draw(st.tuples(NUMBERS, NUMBERS)))
        lower, upper = draw(st.sampled_from([(-INF, ends[1]), (ends[0], INF), (ends[0], ends[0]), tuple(ends)]))
        rows.append(Row(name, function(range(n)), lower, upper))
    cut = draw(st.integers(0, len(rows)))
    upper_goal = function(range(n)) + draw(NUMBERS)
    leader = Level("leader", upper_goal, tuple(rows[:cut]), tuple(i for i in range(n) if i not in own))
    follower = Level("follower", function(own), tuple(rows[cut:]), tuple(sorted(own)), draw(st.booleans()))
    return BilevelProgram(tuple(columns), leader, (follower,), name=draw(NAMES))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs(), dialect=st.sampled_from(["names", "indices"]))
def test_random_programs_come_back(tmp_path: Path, program: BilevelProgram, dialect: Any) -> None:
    path = tmp_path / "a.mps"
    bl.write_mps(Stated(program), path, dialect=dialect)
    again = bl.read_mps(path).program()
    assert [(c.lower, c.upper, c.integer) for c in again.columns] == [
        (c.lower, c.upper, c.integer) for c in program.columns
    ]
    assert len({c.name for c in again.columns}) == len(program.columns)
    for mine, theirs in zip((program.leader, *program.followers), (again.leader, *again.followers), strict=True):
        assert theirs.objective == mine.objective
        assert theirs.columns == mine.columns
        assert len(theirs.rows) == len(mine.rows)
        for a, b in zip(mine.rows, theirs.rows, strict=True):
            assert nearly(Row(b.name, a.function, a.lower, a.upper), b)
    assert again.followers[0].maximise == (dialect == "indices" and program.followers[0].maximise)
    # Written once more, nothing changes any more: neither names nor numbers.
    assert bl.write_mps(bl.read_mps(path), path, dialect=dialect).renamed == {}
    assert bl.read_mps(path).program() == again


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs(st.sampled_from(["x", "y", "NAME", "RHS", "a b", "follower.y[1,2]", "longer_than_eight"])))
def test_highs_reads_what_is_written(tmp_path: Path, program: BilevelProgram) -> None:
    path = tmp_path / "a.mps"
    bl.write_mps(Stated(program), path)
    h = highspy.Highs()
    h.setOptionValue("output_flag", False)
    assert h.readModel(str(path)) != highspy.HighsStatus.kError
    lp = h.getLp()
    rows = [r for level in (program.leader, *program.followers) for r in level.rows]
    assert list(lp.col_lower_) == [c.lower for c in program.columns]
    assert list(lp.col_upper_) == [c.upper for c in program.columns]
    kinds = list(lp.integrality_) or [highspy.HighsVarType.kContinuous] * lp.num_col_
    assert [k == highspy.HighsVarType.kInteger for k in kinds] == [c.integer for c in program.columns]
    assert lp.offset_ == program.leader.objective.constant
    assert list(lp.col_cost_) == [program.leader.objective.linear.get(j, 0.0) for j in range(len(program.columns))]
    for row, lower, upper in zip(rows, lp.row_lower_, lp.row_upper_, strict=True):
        assert nearly(row, Row(row.name, row.function, lower, upper))
