"""Malformed MPS and auxiliary files: each fault by file, line and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

import bilevel_core as bl

from .mps_files import AUX, INDICES, KNAPSACK_AUX, KNAPSACK_MPS, MPS


def line_of(text: str, part: str) -> int:
    """The number of the first line that contains a part; 0 where none is asked for."""
    if not part:
        return 0
    return next(n for n, line in enumerate(text.splitlines(), 1) if part in line)


def fault(folder: Path, mps: str, aux: str) -> str:
    """What reading two files says; they must not be read, and nothing but a usage error may come of it."""
    (folder / "a.mps").write_text(mps)
    (folder / "a.aux").write_text(aux)
    with pytest.raises(bl.UsageError) as caught:
        bl.read_mps(folder / "a.mps")
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("ENDATA\n", "", "", "ends without ENDATA: it is cut off"),
        ("ROWS\n", "ROWZ\n", "ROWZ", "no section 'ROWZ'. Did you mean 'ROWS'?"),
        ("BOUNDS\n", "QUADOBJ\n", "QUADOBJ", "quadratic terms are not read"),
        ("BOUNDS\n", "SOS\n", "SOS", "special ordered sets are not read"),
        ("RANGES\n", "RHS\n", "RHS\n    RNG", "section RHS is there twice"),
        ("ROWS\n", "RHS\n", "RHS", "section RHS before COLUMNS"),
        ("NAME          Small\nROWS\n N", "NAME          Small\n N", " N  COST", "expected a section such as ROWS"),
        (" L  R1\n", " L  R1\n L  R1\n", " L  R1\n L", "row 'R1' is there twice"),
        (" L  R4\n", " K  R4\n", " K  R4", "row 'R4' has type 'K'"),
        (" L  R4\n", " L  R4 R5\n", "    x         COST", "in free format line 9: expected a type and a name"),
        (
            "x         COST        -1",
            "x         COST        one",
            "one",
            "expected a number for column 'x' in row 'COST'",
        ),
        ("x         COST        -1", "x         COST        1_0", "1_0", "got '1_0'"),
        ("x         COST        -1", "x         COST        inf", "inf", "infinite coefficient"),
        ("x         COST        -1", "x         COST        nan", "nan", "got 'nan'"),
        (
            "y         R4           4",
            "y         R44          4",
            "R44",
            "no row 'R44' in section ROWS. Did you mean 'R4'?",
        ),
        (
            "y         R4           4",
            "y         R2           4",
            "y         R2           4",
            "two coefficients in row 'R2'",
        ),
        (
            "z         R4          1.5",
            "x         R4          1.5",
            "x         R4",
            "column 'x' goes on after other columns",
        ),
        ("z         R4          1.5", "z         R4", "z         R4", "one or two pairs of row and number"),
        (
            "    M1        'MARKER'                 'INTEND'\n",
            "",
            "ENDATA",
            "integer columns begin ('INTORG') and do not end",
        ),
        ("'INTORG'", "'INTEND'", "'INTEND'", "none have begun"),
        ("'INTEND'", "'INTORG'", "    M1", "begin twice"),
        ("'INTEND'", "'SOMETHING'", "'SOMETHING'", "expected 'INTORG' or 'INTEND'"),
        ("R4          16", "R5          16", "R5", "no row 'R5'"),
        ("R4          16", "R1          16", "R3           7   R1", "row 'R1' has two right-hand sides"),
        ("    RHS       R3", "    OTHER     R3", "OTHER     R3", "section RHS has a second set 'OTHER' beside 'RHS'"),
        ("COST        -3", "COST        -inf", "-inf", "infinite constant"),
        ("R1           2   R2           5", "COST         2", "RNG       COST", "row 'COST' is no constraint"),
        ("R1           2   R2           5", "R1  2  R1  5", "R1  2  R1", "row 'R1' has two ranges"),
        (" UP BND       x           10", " UQ BND       x           10", " UQ", "no type of bound 'UQ'"),
        (" UP BND       x           10", " SC BND       x           10", " SC", "semi-continuous"),
        (" UP BND       x           10", " UP BND       xx          10", "xx", "no column 'xx' in section COLUMNS"),
        (
            " UP BND       x           10",
            " UP BND       x          ten",
            "ten",
            "expected a number for the bound of 'x'",
        ),
        (" UP BND       x           10", " UP BND       x", " UP BND       x", "a column and a number after UP"),
        (" UP BND       x           10", " UP BND x 10\n UP BND x 11", "x 11", "two bounds of type UP"),
        (
            " UP BND       x           10",
            " UP BND       x           -1",
            "x           -1",
            "state it, with MI for none",
        ),
        (" UP BND       x           10", " UP BND x 10\n LO BND x 11", "x 11", "lower bound 11 of 'x' lies above"),
        (
            " UP BND       x           10",
            " UP BND x 0.7\n LO BND x 0.3",
            "x 0.3",
            "no integer between the bounds 0.3 and 0.7",
        ),
        (" UP BND       x           10", " LO BND       x         1e30", "1e30", "no value within the bound 1e30"),
        ("R4          16", "R4       -1e30", "", "row 'R4' has an infinite side"),
        ("ROWS\n", "OBJNAME\n    COSTS\nROWS\n", "ENDATA", "no row of type N named 'COSTS'"),
        ("ROWS\n", "OBJSENSE\n    UP\nROWS\n", "    UP", "expected MIN or MAX for OBJSENSE"),
    ],
)
def test_mps(tmp_path: Path, old: str, new: str, at: str, words: str) -> None:
    assert old in MPS
    text = MPS.replace(old, new, 1)
    first = at.split("\n")[0]
    line = line_of(text, first)
    said = fault(tmp_path, text, AUX)
    if at == "RHS\n    RNG":
        line = 1 + text.splitlines().index("RHS", text.splitlines().index("RHS") + 1)
    elif at == " L  R1\n L":
        line += 1
    assert said.startswith(f"a.mps:{line}: " if line else "a.mps: "), said
    assert words in said


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("@VARSBEGIN", "@VARSBEGIM", "@VARSBEGIM", "no keyword @VARSBEGIM. Did you mean '@VARSBEGIN'?"),
        ("@NUMVARS\n2\n", "", "", "@NUMVARS is missing"),
        ("@NUMCONSTRS\n2", "@NUMCONSTRS\n3", "@NUMCONSTRS", "@NUMCONSTRS says 3, and 2 are listed"),
        ("@NUMVARS\n2", "@NUMVARS\ntwo", "two", "expected a number of the follower's variables, got 'two'"),
        ("@NUMVARS\n2", "@NUMVARS", "@NUMCONSTRS", "@NUMVARS has no value: @NUMCONSTRS comes before it"),
        ("@NUMCONSTRS", "@NUMVARS", "", None),
        ("y 1.", "y", "y", "Write 0 where there is none"),
        ("y 1.", "y one", "y one", "expected a finite number for the coefficient of 'y', got 'one'"),
        ("y 1.", "yy 1.", "yy 1.", "a.mps has no column 'yy'"),
        ("z -2.5", "y -2.5", "y -2.5", "column 'y' repeats line 6"),
        ("R4", "R9", "R9", "a.mps has no row 'R9'"),
        ("R4", "COST", "COST", "row 'COST' is the objective: it is no constraint"),
        ("R4", "OTHER", "OTHER", "row 'OTHER' has type N and is not the objective"),
        ("R4", "R3", "R3", "row 'R3' repeats line 10"),
        ("@VARSEND\n", "", "@CONSTRSBEGIN", "@VARSEND is missing: @CONSTRSBEGIN comes before it"),
        ("@CONSTRSEND\n@NAME\na small one\n@MPS\nsmall.mps\n", "", "", "ends without @CONSTRSEND: it is cut off"),
        ("@NAME\na small one\n@MPS\nsmall.mps\n", "@NAME\n", "", "ends without the value of @NAME"),
        ("@NAME", "@LP", "", "@MPS and @LP are both given"),
        ("@NAME\na small", "a small", "a small", "expected a keyword"),
        ("@VARSBEGIN", "@OBJSENSE\nUP\n@VARSBEGIN", "UP", "expected MIN or MAX"),
        ("@CONSTRSEND", "@CONSTRSEND\n@VARSEND", None, "@VARSEND ends a list that has not begun"),
        (AUX, "@NUMVARS\n0\n@NUMCONSTRS\n0\n", "", "the follower has no columns"),
        (AUX, "\n", "", "the auxiliary file is empty"),
    ],
)
def test_names(tmp_path: Path, old: str, new: str, at: str | None, words: str | None) -> None:
    assert old in AUX
    text = AUX.replace(old, new, 1)
    said = fault(tmp_path, MPS, text)
    if words is None:
        assert said.startswith("a.aux:3: @NUMVARS repeats line 1")
        return
    if at is None:
        line = len(text.splitlines()) - 4
    else:
        line = line_of(text, at)
        line += 1 if "repeats line 10" in words else 0
    assert said.startswith(f"a.aux:{line}: " if line else "a.aux: "), said
    assert words in said


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("N 2\n", "", "", "there is no line N"),
        ("OS 1\n", "", "", "there is no line OS: the follower's sense"),
        ("OS 1", "OS 2", "OS 2", "expected 1 (minimise) or -1 (maximise)"),
        ("OS 1", "OS 1\nOS 1", None, "OS repeats line 9"),
        ("N 2", "N two", "N two", "expected a number of columns, got 'two'"),
        ("N 2", "N 3", "N 3", "N says 3, and there are 2 lines LC"),
        ("M 2", "M 1", "M 1", "M says 1, and there are 2 lines LR"),
        ("LO 1.\n", "", "N 2", "N says 2, and there are 1 lines LO"),
        ("LO 1.", "LO one", "LO one", "expected a finite number for LO"),
        ("LC 2", "LC", "LC", "expected LC and one value"),
        ("LC 2", "LC 4", "LC 4", "there are 4 columns, counted from 0: number 4 is beyond them"),
        ("LR 3", "LR 4", "LR 4", "there are 4 rows, counted from 0"),
        ("LC 3", "LC 2", None, "column '2' repeats line 3"),
        ("LC 2", "LQ 2", "LQ 2", "no indicator 'LQ'"),
        ("LC 2", "@LC 2", "@LC 2", "no indicator '@LC'"),
        ("OS 1", "OS 1\nIB 4", "", "there is no line IC"),
        ("OS 1", "OS 1\nIC 4\nIC 4", "", "there is no line IB"),
    ],
)
def test_indices(tmp_path: Path, old: str, new: str, at: str | None, words: str) -> None:
    text = INDICES.replace(old, new, 1)
    said = fault(tmp_path, MPS, text)
    line = {"OS repeats line 9": 10, "column '2' repeats line 3": 4}[words] if at is None else line_of(text, at)
    assert said.startswith(f"a.aux:{line}: " if line else "a.aux: "), said
    assert words in said


def test_a_number_that_is_another_columns_name(tmp_path: Path) -> None:
    said = fault(tmp_path, MPS.replace("    b  ", "    3  "), INDICES)
    assert said.startswith("a.aux:4: '3' may be the number of a column or the name of another")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("N 2\nM 3\nLC 2\nLC 3\nLR 1\nLR 2\nLR 3", "N 2\nM 1\nLC 2\nLC 3\nLR 1", "M is 1, and there are 3 rows"),
        ("N 2\nM 3\nLC 2", "N 1\nM 3", "there are 2 lines LO"),
        ("LC 2", "LC 4", "LC lists other columns than 2 to 3"),
        ("LR 1", "LR 0", "LR lists other rows than 1 to 3; 0 is the budget"),
        ("LC 2", "LC y1", "an interdiction problem has no names"),
        ("LO -7", "LO 7", "the follower minimises 7 y1 here, and -7 y1 in a.mps: make them agree"),
        ("OS 1", "OS -1", "the follower minimises 7 y1 here"),
    ],
)
def test_interdiction(tmp_path: Path, old: str, new: str, words: str) -> None:
    said = fault(tmp_path, KNAPSACK_MPS, KNAPSACK_AUX.replace(old, new, 1))
    assert said.startswith("a.aux:")
    assert words in said


def test_interdiction_needs_bounds(tmp_path: Path) -> None:
    said = fault(tmp_path, KNAPSACK_MPS.replace(" UI BND y2 2", " PL BND y2"), KNAPSACK_AUX)
    assert "column 'y2' has no upper bound" in said
