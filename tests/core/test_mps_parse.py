"""What the MPS format allows: fixed and free, all bounds, ranges, sets without names, numbers as others write them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bilevel_core.errors import UsageError
from bilevel_core.problems.mps_file import LinearFile, Source, as_number
from bilevel_core.problems.mps_parse import parse_mps
from bilevel_core.program import Variable

INF = math.inf


def read(text: str) -> LinearFile:
    return parse_mps(Source(Path("a.mps"), tuple(text.split("\n"))))


def bounded(bounds: str, *, integer: bool = False) -> Variable:
    """The one column of a file with these bounds."""
    begin, end = (" M 'MARKER' 'INTORG'\n", " M 'MARKER' 'INTEND'\n") if integer else ("", "")
    file = read(f"ROWS\n N C\nCOLUMNS\n{begin} v C 1\n{end}BOUNDS\n{bounds}\nENDATA")
    (column,) = file.columns
    return column


@pytest.mark.parametrize(
    ("bounds", "integer", "expected"),
    [
        ("", False, (0, INF, False)),
        ("", True, (0, 1, True)),
        (" UP B v 4", False, (0, 4, False)),
        (" UP B v 4", True, (0, 4, True)),
        (" UP B v 4.7", True, (0, 4, True)),
        (" LO B v 0", True, (0, INF, True)),
        (" LO B v -3.5", True, (-3, INF, True)),
        (" LO B v -3.5", False, (-3.5, INF, False)),
        (" PL B v", True, (0, INF, True)),
        (" FX B v 2.5", False, (2.5, 2.5, False)),
        (" FR B v", False, (-INF, INF, False)),
        (" FR B v", True, (-INF, INF, True)),
        (" MI B v", False, (-INF, INF, False)),
        (" MI B v\n UP B v -2", False, (-INF, -2, False)),
        (" UP B v -2\n MI B v", False, (-INF, -2, False)),
        (" UP B v -2\n LO B v -9", False, (-9, -2, False)),
        (" UP B v 0", False, (0, 0, False)),
        (" BV B v", False, (0, 1, True)),
        (" BV B v 1.", False, (0, 1, True)),
        (" LI B v 2", False, (2, INF, True)),
        (" UI B v 7\n LI B v -7", False, (-7, 7, True)),
        (" UP B v 1e20", True, (0, INF, True)),
        (" UP B v Infinity", False, (0, INF, False)),
        (" LO B v -1e30", False, (-INF, INF, False)),
        (" UP v 4", False, (0, 4, False)),
        (" FR v", False, (-INF, INF, False)),
        (" BV v 1", False, (0, 1, True)),
        (" up B v 4", False, (0, 4, False)),
    ],
)
def test_bounds(bounds: str, integer: bool, expected: tuple[float, float, bool]) -> None:
    column = bounded(bounds, integer=integer)
    assert (column.lower, column.upper, column.integer) == expected


@pytest.mark.parametrize(
    ("kind", "side", "span", "expected"),
    [
        ("L", 5, None, (-INF, 5)),
        ("G", 5, None, (5, INF)),
        ("E", 5, None, (5, 5)),
        ("L", 5, 2, (3, 5)),
        ("L", 5, -2, (3, 5)),
        ("G", 5, 2, (5, 7)),
        ("G", 5, -2, (5, 7)),
        ("E", 5, 2, (5, 7)),
        ("E", 5, -2, (3, 5)),
        ("E", 5, 0, (5, 5)),
        ("L", 1e30, None, (-INF, INF)),
        ("G", 5, 1e30, (5, INF)),
    ],
)
def test_ranges(kind: str, side: float, span: float | None, expected: tuple[float, float]) -> None:
    ranges = "" if span is None else f"RANGES\n S R {span}\n"
    file = read(f"ROWS\n N C\n {kind} R\nCOLUMNS\n v C 1 R 1\nRHS\n S R {side}\n{ranges}ENDATA")
    assert (file.lower[0], file.upper[0]) == expected


def test_fixed_format_with_blanks_in_names() -> None:
    text = "\n".join(
        [
            "NAME          two words",
            "ROWS",
            " N  THE COST",
            " L  ROW ONE",
            "COLUMNS",
            "    COL A     THE COST            1.   ROW ONE             2.",
            "    COL B     ROW ONE             3.",
            "RHS",
            "              ROW ONE             4.",
            "BOUNDS",
            " UP BND       COL A               5.",
            " BV BND       COL B",
            "ENDATA",
        ]
    )
    file = read(text)
    assert file.name == "two words"
    assert file.columns == (Variable("COL A", 0, 5), Variable("COL B", 0, 1, True))
    assert file.rows == ("ROW ONE",)
    assert (file.upper[0], file.costs.tolist(), file.entry_values.tolist()) == (4.0, [1.0, 0.0], [2.0, 3.0])
    with pytest.raises(UsageError, match=r"a\.mps:9: a tab has no place in fixed format"):
        read(text.replace("              ROW ONE", "\t             ROW ONE"))


def test_the_rest_of_the_format() -> None:
    file = read(
        "* ENCODING=ISO-8859-1\nNAME\nOBJSENSE MIN\nOBJNAME\n    SECOND\n"
        "ROWS\n N FIRST\n N SECOND\n L R\n G EMPTY\n"
        "COLUMNS\n* a comment\n v FIRST 1 SECOND 2\n v R 1.5D1\n w R 0\n\n"
        "RHS\n R 1 SECOND -4\nRANGES\nBOUNDS\nENDATA\nwhat follows"
    )
    assert file.name == ""
    assert [c.name for c in file.columns] == ["v", "w"]
    assert file.costs.tolist() == [2.0, 0.0]
    assert file.constant == 4.0
    assert file.rows == ("R", "EMPTY")
    assert (file.entry_rows.tolist(), file.entry_columns.tolist(), file.entry_values.tolist()) == ([0], [0], [15.0])
    assert file.dropped == {"FIRST": "has type N and is not the objective", "SECOND": "is the objective"}


def test_the_objective_may_be_the_last_row() -> None:
    """As in the manual of MibS: the number of a row does not count the objective, wherever it stands."""
    file = read("ROWS\n L A\n N C\n L B\nCOLUMNS\n v B 1 C 2\n v A 3\nENDATA")
    assert file.rows == ("A", "B")
    assert file.entry_rows.tolist() == [1, 0]
    assert file.costs.tolist() == [2.0]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.", 1.0), ("-.5e-3", -0.0005), ("2d2", 200.0), ("-inf", -INF), ("1_0", None), ("nan", None), ("x", None)],
)
def test_numbers(text: str, value: float | None) -> None:
    assert as_number(text) == value
