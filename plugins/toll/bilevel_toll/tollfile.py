"""Arcs and tolls in a CSV file: columns ``link`` with arcs as TAIL-HEAD, and ``toll``; audits read ``flow`` and
``revenue``, too, and other columns are passed over.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_toll.network import Network

TOLD = ("flow", "revenue")
"""Columns of a file of tolls that an audit compares with what it computes."""


def read_tolls(path: Path, network: Network) -> np.ndarray:
    """Read tolls of a network's arcs, shape (arcs,); arcs that are not in the file have none.

    Raises:
        UsageError: by file and line: a column that is missing, an arc that does not exist or is given twice, a toll
            that is no number or negative.
    """
    tolls = np.zeros(len(network.arcs))
    for number, arc, row in _rows(path, network, "toll file", ("link", "toll")):
        tolls[arc] = _amount(row, "toll", f"{path}:{number}")
    return tolls


def read_told(path: Path, network: Network) -> dict[str, np.ndarray]:
    """What a file of tolls says of ``flow`` and ``revenue``, where it has these columns: shape (arcs,) each, NaN for
    arcs that are not in the file, and for empty fields.

    Raises:
        UsageError: see `read_tolls`.
    """
    found: dict[str, np.ndarray] = {}
    for number, arc, row in _rows(path, network, "toll file", ("link", "toll")):
        for name in TOLD:
            if (row.get(name) or "").strip():
                values = found.setdefault(name, np.full(len(network.arcs), np.nan))
                values[arc] = _amount(row, name, f"{path}:{number}")
    return found


def _amount(row: dict[str, str], column: str, where: str) -> float:
    text = (row.get(column) or "").strip()
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{where}: expected a number for {column}, got {text!r}.") from None
    if not (math.isfinite(value) and value >= 0.0):
        raise UsageError(f"{where}: expected a {column} of at least 0, got {text}.")
    return value


def read_links(path: Path, network: Network) -> list[str]:
    """Read which arcs are meant, by their labels in the column ``link``.

    Raises:
        UsageError: by file and line: no such column, an arc that does not exist or is given twice, no arc at all.
    """
    found = [network.labels[arc] for _, arc, _ in _rows(path, network, "file of arcs", ("link",))]
    if not found:
        raise UsageError(f"{path}: there are no arcs.")
    return found


def _rows(
    path: Path, network: Network, what: str, columns: tuple[str, ...]
) -> Iterator[tuple[int, int, dict[str, str]]]:
    """Line number, arc and fields of each line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UsageError(f"There is no {what} {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The {what} {str(path)!r} cannot be read: {error}.") from error
    reader = csv.DictReader(lines)
    names = [n.strip() for n in reader.fieldnames or []]
    reader.fieldnames = names
    for column in columns:
        if column not in names:
            wanted = " and ".join(columns)
            raise UsageError(
                f"{path}:1: expected column{'s' * (len(columns) > 1)} {wanted}, got {', '.join(names) or 'none'}."
            )
    seen: dict[str, int] = {}
    for row in reader:
        number, label = reader.line_num, (row.get("link") or "").strip()
        try:
            arc = network.arc_index(label)
        except UsageError as error:
            raise UsageError(f"{path}:{number}: {error}") from error
        if label in seen:
            raise UsageError(f"{path}:{number}: arc {label} is given twice, first in line {seen[label]}.")
        seen[label] = number
        yield number, arc, row
