"""Files and problems for the tests of MPS and auxiliary files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bilevel_core.problems.base import AlgebraicProblem, Group, Residuals
from bilevel_core.program import BilevelProgram, Level, Row

MPS = """* the example of the manual of MibS, with more of everything
NAME          Small
ROWS
 N  COST
 L  R1
 G  R2
 E  R3
 N  OTHER
 L  R4
COLUMNS
    M0        'MARKER'                 'INTORG'
    x         COST        -1   R1          -3
    x         R2           1   OTHER        5
    b         COST         2   R3           1
    M1        'MARKER'                 'INTEND'
    y         COST        -7   R1           2
    y         R2           2   R3          -1
    y         R4           4
    z         R4          1.5
RHS
    RHS       R1          12   R2         -20
    RHS       R3           7   R4          16
    RHS       COST        -3
RANGES
    RNG       R1           2   R2           5
    RNG       R3          -4
BOUNDS
 UP BND       x           10
 MI BND       y
 UP BND       y            5
ENDATA
"""
AUX = """@NUMVARS
2
@NUMCONSTRS
2
@VARSBEGIN
y 1.
z -2.5
@VARSEND
@CONSTRSBEGIN
R3
R4
@CONSTRSEND
@NAME
a small one
@MPS
small.mps
"""
INDICES = """N 2
M 2
LC 2
LC 3
LR 2
LR 3
LO 1.
LO -2.5
OS 1
"""
TEXT = """leader: minimise -x + 2 b - 7 y + 3
  R1: 10 <= -3 x + 2 y <= 12
  R2: -20 <= x + 2 y <= -15
  x in [0, 10] integer
  b in [0, 1] integer
follower: minimise y - 2.5 z
  R3: 3 <= b - y <= 7
  R4: 4 y + 1.5 z <= 16
  y in [-inf, 5] real
  z in [0, inf] real"""
"""What the files say, worked out by hand from the description of the format."""

KNAPSACK_MPS = """NAME knapsack
ROWS
 N COST
 L ROOM
COLUMNS
 y1 COST -7 ROOM 3
 y2 COST -8 ROOM 4
RHS
 RHS ROOM 5
BOUNDS
 BV BND y1
 UI BND y2 2
ENDATA
"""
KNAPSACK_AUX = """N 2
M 3
LC 2
LC 3
LR 1
LR 2
LR 3
LO -7
LO -8
OS 1
IC 1
IC 2
IB 2
"""
KNAPSACK_TEXT = """leader: minimise 7 y1 + 8 y2
  budget: take_y1 + 2 take_y2 <= 2
  take_y1 in [0, 1] integer
  take_y2 in [0, 1] integer
follower: minimise -7 y1 - 8 y2
  ROOM: 3 y1 + 4 y2 <= 5
  take_y1: take_y1 + y1 <= 1
  take_y2: 2 take_y2 + y2 <= 2
  y1 in [0, 1] integer
  y2 in [0, 2] integer"""


def instances() -> list[Path]:
    """The instances of the shared data; a test over none is skipped, which says why."""
    root = os.environ.get("BILEVEL_SHARED_DATA")
    folder = Path(root) if root else Path(__file__).parents[3] / "shared" / "data"
    return sorted((folder / "miblp").glob("*.mps"))


def shared_instances() -> list[Path]:
    """The same inside a test."""
    found = instances()
    if not found:
        pytest.skip("no shared data: set BILEVEL_SHARED_DATA to its folder")
    return found


def same_up_to_sense(program: BilevelProgram) -> tuple[object, ...]:
    """What two programs must agree in that differ only in senses, in names of levels, and in constants of rows."""

    def level(of: Level) -> tuple[object, ...]:
        rows = tuple(
            (r.name, dict(r.function.linear), r.lower - r.function.constant, r.upper - r.function.constant)
            for r in of.rows
        )
        return of.objective.constant, dict(of.objective.linear), rows, of.columns

    return program.columns, level(program.leader), [level(f) for f in program.followers]


def nearly(row: Row, other: Row) -> bool:
    """Whether two rows are equal but for the last digit of one of two sides."""
    size = max(abs(row.lower), abs(row.upper), 1e-300)
    near = replace(row, lower=other.lower, upper=other.upper) == other
    return near and all(
        a == b or abs(a - b) <= 4e-16 * size for a, b in ((row.lower, other.lower), (row.upper, other.upper))
    )


class Stated(AlgebraicProblem):
    """A problem given by its program alone; it can be written, and not checked."""

    def __init__(self, program: BilevelProgram) -> None:
        self.name = program.name
        self._program = program

    def program(self) -> BilevelProgram:
        return self._program

    def groups(self) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        raise NotImplementedError

    def evaluate(self, values: np.ndarray) -> Residuals:
        raise NotImplementedError
