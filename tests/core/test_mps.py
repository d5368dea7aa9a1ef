"""Problems read from MPS, LP and auxiliary files: what is read, every dialect, and that points of them are checked."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import highspy
import numpy as np
import pytest

import bilevel_core as bl

from .mps_files import (
    AUX,
    INDICES,
    KNAPSACK_AUX,
    KNAPSACK_MPS,
    KNAPSACK_TEXT,
    MPS,
    TEXT,
    instances,
    shared_instances,
)

LP = r"""\ the same problem
minimize
 obj: - x + 2 b - 7 y + 3
subject to
 R1: - 3 x + 2 y <= 12
 low1: - 3 x + 2 y >= 10
 R3: b - y <= 7
 R4: 4 y + 1.5 z <= 16
bounds
 x <= 10
 -inf <= y <= 5
general
 x
binary
 b
end
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "small.mps").write_text(MPS)
    (tmp_path / "small.aux").write_text(AUX)
    return tmp_path / "small.mps"


def test_what_is_read(files: Path) -> None:
    problem = bl.read_mps(files)
    assert problem.program().text() == TEXT
    assert problem.name == "a small one"
    upper, lower = problem.groups()
    assert [g.name for g in upper] == ["x", "b"]
    assert [g.name for g in lower] == ["y", "z"]


@pytest.mark.parametrize(
    "aux",
    [
        pytest.param(INDICES, id="indices"),
        pytest.param(INDICES.replace("LC 2", "LC y").replace("LR 2", "LR R3"), id="indices-with-names"),
        pytest.param(AUX.replace("@NUMCONSTRS", "@NUMCONSTR").replace("CONSTRS", "CONSTR"), id="manual"),
        pytest.param(AUX.replace("@CONSTRSBEGIN", "@CONSTSBEGIN").replace("@CONSTRSEND", "@CONSTSEND"), id="older"),
        pytest.param(AUX.replace("@VARSBEGIN", "@OBJSENSE\nMIN\n@VARSBEGIN"), id="sense"),
        pytest.param("* a comment\n" + AUX.replace("@NUMVARS\n2", "@numvars 2"), id="comment-and-case"),
        pytest.param(AUX.replace("@MPS\nsmall.mps\n", ""), id="no-file-named"),
        pytest.param(AUX.replace("\n", "  \r\n"), id="windows"),
    ],
)
def test_dialects(files: Path, aux: str) -> None:
    files.with_suffix(".aux").write_bytes(aux.encode())
    assert bl.read_mps(files).program().text() == TEXT


def test_senses(files: Path) -> None:
    files.write_text(MPS.replace("ROWS\n", "OBJSENSE\n    MAX\nROWS\n"))
    for aux in (INDICES.replace("OS 1", "OS -1"), AUX.replace("@VARSBEGIN", "@OBJSENSE\nMAX\n@VARSBEGIN")):
        files.with_suffix(".aux").write_text(aux)
        problem = bl.read_mps(files)
        lines = problem.program().text().splitlines()
        assert lines[0] == "leader: minimise (user: maximise) x - 2 b + 7 y - 3"
        assert "follower: minimise (user: maximise) -y + 2.5 z" in lines
        found = problem.evaluate(np.array([1.0, 2.0, 3.0, 4.0]))
        assert found.upper_objective == -1 + 4 - 21 + 3
        assert found.lower_objectives == (3 - 10,)
    files.write_text(MPS.replace("ROWS\n", "OBJSENSE MAXIMIZE\nROWS\n", 1))
    assert bl.read_mps(files).program().leader.maximise


def test_interdiction(tmp_path: Path) -> None:
    path = tmp_path / "knapsack.mps"
    path.write_text(KNAPSACK_MPS)
    for aux in (KNAPSACK_AUX, KNAPSACK_AUX.replace("LC 2", "LC 0").replace("LC 3", "LC 1")):
        path.with_suffix(".aux").write_text(aux)
        assert bl.read_mps(path).program().text() == KNAPSACK_TEXT
    # The order of LC is that of LO, and not that of IC.
    swapped = KNAPSACK_AUX.replace("LC 2\nLC 3", "LC 3\nLC 2").replace("LO -7\nLO -8", "LO -8\nLO -7")
    path.with_suffix(".aux").write_text(swapped)
    assert bl.read_mps(path).program().text() == KNAPSACK_TEXT


def test_lp_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.lp").write_text(LP)
    (tmp_path / "other.aux").write_text(AUX.replace("@MPS\nsmall.mps", "@LP\nsmall.lp"))
    for problem in (bl.read_mps(tmp_path / "other.aux"), bl.read_mps(tmp_path / "small.lp", tmp_path / "other.aux")):
        lines = problem.program().text().splitlines()
        assert lines[0] == TEXT.splitlines()[0]
        assert "  R4: 4 y + 1.5 z <= 16" in lines
        for bound in ("x in [0, 10] integer", "b in [0, 1] integer", "y in [-inf, 5] real", "z in [0, inf] real"):
            assert f"  {bound}" in lines
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2 y <= 12", "2 2 y <= 12", "small.lp:5:"),
        (" x <= 10", " xx <= 10", "'xx' occurs in no row"),
        (" x <= 10", " x <= -1", "lower bound 0 of 'x'"),
        (" x <= 10", " 0.2 <= x <= 0.8", "no integer between"),
        ("- 7 y", "- 7 y + [ x^2 ] / 2", "quadratic"),
        ("general", "semi", "semi-continuous"),
        ("end", "", "end"),
    ],
)
def test_faults_of_lp_files(tmp_path: Path, old: str, new: str, words: str) -> None:
    (tmp_path / "small.lp").write_text(LP.replace(old, new))
    (tmp_path / "small.aux").write_text(AUX)
    with pytest.raises(bl.UsageError, match=r"small\.lp") as caught:
        bl.read_mps(tmp_path / "small.lp")
    assert words in str(caught.value)


def test_where_files_are_looked_for(files: Path, tmp_path: Path) -> None:
    assert bl.read_mps(files.with_suffix(".aux")).program().text() == TEXT
    packed = tmp_path / "packed.mps.gz"
    packed.write_bytes(gzip.compress(MPS.encode()))
    (tmp_path / "packed.mps.aux").write_text(AUX.replace("small.mps", "C:\\elsewhere\\packed.mps"))
    assert bl.read_mps(packed).program().text() == TEXT
    (tmp_path / "packed.mps.aux").rename(tmp_path / "only.aux")
    assert bl.read_mps(tmp_path / "only.aux").program().text() == TEXT
    with pytest.raises(bl.UsageError, match=r"looked for packed\.aux and packed\.mps\.aux"):
        bl.read_mps(packed)
    with pytest.raises(bl.UsageError, match="There is no file"):
        bl.read_mps(tmp_path / "nothing.mps")
    with pytest.raises(bl.UsageError, match=r"There is no auxiliary file .*none"):
        bl.read_mps(files, tmp_path / "none.aux")
    (tmp_path / "lonely.aux").write_text(AUX.replace("small.mps", "gone.mps"))
    with pytest.raises(bl.UsageError, match=r"lonely.aux: there is no file 'gone.mps', which it names"):
        bl.read_mps(tmp_path / "lonely.aux")
    packed.write_bytes(packed.read_bytes()[:40])
    with pytest.raises(bl.UsageError, match="cannot be read"):
        bl.read_mps(packed, files.with_suffix(".aux"))
    (tmp_path / "picture.mps").write_bytes(b"\x89PNG\0\0")
    with pytest.raises(bl.UsageError, match="binary"):
        bl.read_mps(tmp_path / "picture.mps", files.with_suffix(".aux"))


def test_residuals_are_those_of_the_program(files: Path) -> None:
    """Two ways to the same numbers: from the file's entries, and from the program's functions."""
    problem = bl.read_mps(files)
    program = problem.program()
    rng = np.random.default_rng(7)
    for _ in range(20):
        values = rng.uniform(-20, 20, 4)
        found = problem.evaluate(values)
        assert found.upper_objective == pytest.approx(program.leader.objective.evaluate(values))
        assert found.lower_objectives[0] == pytest.approx(program.followers[0].objective.evaluate(values))
        for given, level in ((found.upper, program.leader), (found.lower, program.followers[0])):
            by_name = {name: (violation, scale) for name, violation, scale in given}
            assert len(by_name) == len(level.rows) + len(level.columns)
            for row in level.rows:
                assert by_name[row.name][0] == pytest.approx(row.violation(values))
                assert by_name[row.name][1] >= row.function.scale(values) - 1e-12
            for i in level.columns:
                c = program.columns[i]
                outside = max(0.0, c.lower - values[i], values[i] - c.upper)
                fraction = abs(values[i] - round(values[i])) if c.integer else 0.0
                assert by_name[c.name][0] == pytest.approx(max(outside, fraction))


def test_points_are_checked() -> None:
    """Moore and Bard 1990: optimum -22 at (2, 2); at (2, 3) the follower could do better."""
    path = next(p for p in shared_instances() if p.name == "moore90.mps")
    problem = bl.read_mps(path)
    good = bl.verify(problem, {"C0001": 2}, {"C0002": 2})
    assert (good.verdict, good.lower_value) == ("verified", 2.0)
    bad = bl.verify(problem, {"C0001": 2}, {"C0002": 3})
    assert bad.verdict == "refuted"
    assert bad.lower_gap == pytest.approx(1.0)
    traits = bl.classify(problem).traits
    assert (traits.upper_integers, traits.lower_integers, traits.linking_integers) == (1, 1, True)


def test_a_continuous_problem_is_solved_from_its_files(tmp_path: Path) -> None:
    """Bard, Practical Bilevel Optimization (1998), example 5.1.1: optimum -12 at (4, 4)."""
    rows = {"R1": ("G", 1, 1, 3), "R2": ("L", -2, 1, 0), "R3": ("L", 2, 1, 12), "R4": ("L", 3, -2, 4)}
    lines = ["NAME bard", "ROWS", " N COST", *(f" {kind} {n}" for n, (kind, *_) in rows.items()), "COLUMNS"]
    for k, (name, cost) in enumerate((("x", 1), ("y", -4))):
        lines += [f" {name} COST {cost}", *(f" {name} {n} {row[1 + k]}" for n, row in rows.items())]
    lines += ["RHS", *(f" RHS {n} {row[3]}" for n, row in rows.items()), "ENDATA"]
    (tmp_path / "bard.mps").write_text("\n".join(lines))
    listed = "\n".join(rows)
    (tmp_path / "bard.aux").write_text(
        f"@NUMVARS\n1\n@NUMCONSTRS\n4\n@VARSBEGIN\ny 1\n@VARSEND\n@CONSTRSBEGIN\n{listed}\n@CONSTRSEND\n"
    )
    result = bl.solve(bl.read_mps(tmp_path / "bard.mps"))
    assert result.status == "optimal"
    assert result.upper_objective == pytest.approx(-12.0)
    assert result.x["x"] == pytest.approx(4.0)


def test_sizes_of_the_instances() -> None:
    """Counts stated with the instances, which other software made."""
    paths = {p.stem: p for p in shared_instances()}
    with (next(iter(paths.values())).parent / "instances.csv").open() as f:
        for line in csv.DictReader(f):
            program = bl.read_mps(paths[line["name"]]).program()
            (follower,) = program.followers
            lower = set(program.lower_columns)
            columns = program.columns
            binary = [c.integer and (c.lower, c.upper) == (0.0, 1.0) for c in columns]
            leader = program.leader
            linking = {i for r in follower.rows for i in r.function.columns} - lower
            found = {
                "n_upper": len(leader.columns),
                "n_upper_int": sum(columns[i].integer for i in leader.columns),
                "n_upper_bin": sum(binary[i] for i in leader.columns),
                "n_lower": len(lower),
                "n_lower_int": sum(columns[i].integer for i in lower),
                "n_lower_bin": sum(binary[i] for i in lower),
                "m_upper": len(leader.rows),
                "m_lower": len(follower.rows),
                "m_coupling": sum(not r.function.columns.isdisjoint(lower) for r in leader.rows),
                "n_linking": len(linking),
            }
            assert found == {k: int(line[k]) for k in found}, line["name"]


@pytest.mark.parametrize("path", instances(), ids=lambda p: p.stem)
def test_highs_reads_the_same(path: Path) -> None:
    file = bl.read_mps(path).file
    h = highspy.Highs()
    h.setOptionValue("output_flag", False)
    h.readModel(str(path))
    lp = h.getLp()
    assert [c.name for c in file.columns] == list(lp.col_names_)
    assert list(file.rows) == list(lp.row_names_)
    assert [(c.lower, c.upper) for c in file.columns] == list(zip(lp.col_lower_, lp.col_upper_, strict=True))
    assert [c.integer for c in file.columns] == [k == highspy.HighsVarType.kInteger for k in lp.integrality_]
    assert file.costs.tolist() == list(lp.col_cost_)
    assert file.constant == lp.offset_
    assert file.lower.tolist() == list(lp.row_lower_)
    assert file.upper.tolist() == list(lp.row_upper_)
    starts = lp.a_matrix_.start_
    columns = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    stored = set(zip(lp.a_matrix_.index_, columns.tolist(), lp.a_matrix_.value_, strict=True))
    mine = set(zip(file.entry_rows.tolist(), file.entry_columns.tolist(), file.entry_values.tolist(), strict=True))
    assert mine == stored
