"""LP files, which auxiliary files may name (``@LP``): read by HiGHS, whose messages say the line."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from bilevel_core.errors import MissingError
from bilevel_core.problems.mps_file import LinearFile, Source, as_bound, bounded, crossing, nearest
from bilevel_core.program import Variable


def parse_lp(source: Source) -> LinearFile:
    """Read an LP file.

    Raises:
        UsageError: with the words of HiGHS: what it cannot read, or reads only with a warning; and what is beyond a
            mixed-integer linear program.
        MissingError: highspy is not installed.
    """
    highs = _read(source)
    model = highs.getModel()
    lp = model.lp_
    if model.hessian_.dim_:
        raise source.fault(0, "quadratic terms are not read; state the problem as linear rows.")
    import highspy

    kinds = list(lp.integrality_) or [highspy.HighsVarType.kContinuous] * lp.num_col_
    columns: list[Variable] = []
    for name, lower, upper, kind in zip(lp.col_names_, lp.col_lower_, lp.col_upper_, kinds, strict=True):
        if kind not in (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger):
            raise source.fault(0, f"column {name!r} is semi-continuous: state it with a binary column.")
        low, high = as_bound(float(lower)), as_bound(float(upper))
        columns.append(bounded(name, low, high, integer=kind == highspy.HighsVarType.kInteger))
        if columns[-1].lower > columns[-1].upper:
            raise source.fault(0, crossing(name, low, high))
    matrix = lp.a_matrix_
    starts = np.array(matrix.start_, dtype=int)
    major = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    minor = np.array(matrix.index_, dtype=int)[: len(major)]
    by_column = matrix.format_ == highspy.MatrixFormat.kColwise
    return LinearFile(
        path=source.path,
        name=str(lp.model_name_),
        columns=tuple(columns),
        costs=np.array(lp.col_cost_, dtype=float),
        constant=float(lp.offset_),
        maximise=lp.sense_ == highspy.ObjSense.kMaximize,
        rows=tuple(lp.row_names_),
        lower=np.array([as_bound(v) for v in lp.row_lower_], dtype=float),
        upper=np.array([as_bound(v) for v in lp.row_upper_], dtype=float),
        entry_rows=minor if by_column else major,
        entry_columns=major if by_column else minor,
        entry_values=np.array(matrix.value_, dtype=float)[: len(major)],
        dropped={},
    )


def check_all_used(source: Source, file: LinearFile, follower: Collection[int]) -> None:
    """HiGHS takes a wrong name in the bounds for another variable, without a word: this finds it.

    Raises:
        UsageError: a column that is not the follower's and occurs nowhere.
    """
    used = {*follower, *file.entry_columns.tolist(), *np.flatnonzero(file.costs).tolist()}
    for j, column in enumerate(file.columns):
        if j not in used:
            hint = nearest(column.name, [c.name for k, c in enumerate(file.columns) if k in used])
            raise source.fault(0, f"{column.name!r} occurs in no row and in no objective: is its name right?{hint}")


def _read(source: Source) -> Any:
    """A HiGHS object that has read the file. What it says in doing so must be nothing."""
    try:
        import highspy
    except ImportError as error:
        raise MissingError("LP files are read by HiGHS. Install it with: pip install highspy") from error

    class Quiet(highspy.Highs):
        # Called while the object is made, before HiGHS prints its name and version.
        def enableCallbacks(self) -> Any:
            self.setOptionValue("log_to_console", False)
            return super().enableCallbacks()

    highs: Any = Quiet()
    with tempfile.TemporaryDirectory() as folder:
        # HiGHS goes by the suffix, and does not unpack every file.
        path, log = Path(folder, "file.lp"), Path(folder, "log")
        path.write_text("\n".join(source.lines), encoding="utf-8")
        highs.setOptionValue("log_file", str(log))
        status = highs.readModel(str(path))
        highs.setOptionValue("log_file", "")
        said = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
        said = said.replace(str(path), str(source.path))
    if status == highspy.HighsStatus.kOk and "WARNING" not in said:
        return highs
    raise source.fault(0, f"HiGHS cannot read this LP file without doubt:\n{said or 'it gives no reason.'}")
