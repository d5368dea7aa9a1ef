"""Trips from files of any kind: TNTP, or a matrix of an Open Matrix (OMX) file, which needs the package openmatrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bilevel_core.errors import MissingError, UsageError
from bilevel_toll.network import Demand
from bilevel_toll.tntp import read_trips

SUFFIX = ".omx"


def is_omx(path: Path) -> bool:
    """Whether a path is FILE.omx or FILE.omx/MATRIX."""
    return SUFFIX in (path.suffix.lower(), path.parent.suffix.lower())


def read_any(path: Path) -> list[Demand]:
    """Trips between different zones, from FILE.omx, FILE.omx/MATRIX, or a TNTP trip file.

    Raises:
        UsageError: see `read_trips` and `read_omx`.
        MissingError: openmatrix is not installed.
    """
    return read_omx(path) if is_omx(path) else read_trips(path)


def read_omx(path: Path) -> list[Demand]:
    """Trips of a matrix: zones are named by the file's mapping (lookup), by 1, 2, ... where it has none.

    Args:
        path: FILE.omx, or FILE.omx/MATRIX where it holds several.

    Raises:
        UsageError: a file that cannot be read, no such matrix or several to choose from, several mappings, a matrix
            that is not square, zones of one name, trips that are negative or no number, by origin and destination.
        MissingError: openmatrix is not installed.
    """
    try:
        import openmatrix
    except ImportError as error:
        raise MissingError(f"{path}: OMX files need the package openmatrix: pip install 'bilevel[omx]'") from error
    file, wanted = (path, "") if path.suffix.lower() == SUFFIX else (path.parent, path.name)
    if not file.is_file():
        raise UsageError(f"There is no file {str(file)!r}.")
    try:
        opened: Any = openmatrix.open_file(str(file), "r")
    except (OSError, RuntimeError, ValueError) as error:  # PyTables' own errors are among these
        raise UsageError(f"The file {str(file)!r} cannot be read as OMX: {error}.") from error
    with opened:
        names = [str(n) for n in opened.list_matrices()]
        if wanted and wanted not in names:
            raise UsageError(f"{file}: there is no matrix {wanted!r}; there are: {', '.join(names) or 'none'}.")
        if not wanted and len(names) != 1:
            choice = f"{file}/{names[0]}" if names else "none"
            raise UsageError(
                f"{file}: expected one matrix, got {len(names)}: {', '.join(names) or 'none'}. Say which: {choice}."
            )
        trips = np.asarray(opened[wanted or names[0]], dtype=float)
        mappings = [str(n) for n in opened.list_mappings()]
        if len(mappings) > 1:
            raise UsageError(
                f"{file}: expected at most one mapping of zones, got {len(mappings)}: {', '.join(mappings)}."
            )
        entries: Any = opened.map_entries(mappings[0]) if mappings else range(1, len(trips) + 1)
        zones = [z.decode() if isinstance(z, bytes) else str(z) for z in entries]
    return _demands(file, wanted or names[0], trips, zones)


def _demands(file: Path, name: str, trips: np.ndarray, zones: list[str]) -> list[Demand]:
    if trips.shape != (len(zones), len(zones)):
        raise UsageError(f"{file}: expected {name!r} to have {len(zones)} rows and columns, got shape {trips.shape}.")
    twice = sorted({z for z in zones if zones.count(z) > 1})
    if twice:
        raise UsageError(f"{file}: two zones are called {twice[0]!r}.")
    wrong = np.argwhere(~(np.isfinite(trips) & (trips >= 0.0)))
    if len(wrong):
        i, j = wrong[0]
        raise UsageError(
            f"{file}: expected trips of at least 0, got {trips[i, j]:g} in {name!r} from {zones[i]} to {zones[j]}."
        )
    return [
        Demand(zones[i], zones[j], float(trips[i, j]), f"{file}/{name}") for i, j in np.argwhere(trips > 0.0) if i != j
    ]
