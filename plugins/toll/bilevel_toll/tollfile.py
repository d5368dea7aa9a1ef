"""Tolls in a CSV file: a column ``link`` with arcs as TAIL-HEAD and a column ``toll``; others are passed over."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_toll.network import Network


def read_tolls(path: Path, network: Network) -> np.ndarray:
    """Read tolls of a network's arcs, shape (arcs,); arcs that are not in the file have none.

    Raises:
        UsageError: by file and line: a column that is missing, an arc that does not exist or is given twice, a toll
            that is no number or negative.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UsageError(f"There is no toll file {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The toll file {str(path)!r} cannot be read: {error}.") from error
    reader = csv.DictReader(lines)
    names = [n.strip() for n in reader.fieldnames or []]
    for column in ("link", "toll"):
        if column not in names:
            raise UsageError(f"{path}:1: expected columns link and toll, got {', '.join(names) or 'none'}.")
    tolls = np.zeros(len(network.arcs))
    seen: dict[str, int] = {}
    for row in reader:
        number = reader.line_num
        label = (row.get("link") or "").strip()
        text = (row.get("toll") or "").strip()
        try:
            arc = network.arc_index(label)
        except UsageError as error:
            raise UsageError(f"{path}:{number}: {error}") from error
        if label in seen:
            raise UsageError(f"{path}:{number}: arc {label} is given twice, first in line {seen[label]}.")
        seen[label] = number
        try:
            toll = float(text)
        except ValueError:
            raise UsageError(f"{path}:{number}: expected a number for toll, got {text!r}.") from None
        if not (math.isfinite(toll) and toll >= 0.0):
            raise UsageError(f"{path}:{number}: expected a toll of at least 0, got {text}.")
        tolls[arc] = toll
    return tolls
