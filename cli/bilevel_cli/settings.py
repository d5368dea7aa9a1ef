"""Settings: flags, then ``BILEVEL_*``, then ``bilevel.toml`` or ``[tool.bilevel]``, then defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from bilevel_core.errors import UsageError
from bilevel_core.run.options import read


@dataclass(frozen=True)
class Settings:
    """What may be set for every solve.

    Attributes:
        solver: name of the solver, or ``auto``.
        seed: seed of everything random.
        time_limit: seconds, or None.
        device: ``auto``, ``cpu`` or a torch device.
        executor: where parallel work runs, or None for here.
        format: how the result is printed: ``text``, ``json``, ``jsonl``, or the name of a plugin's reporter.
        out: folder for the record, ``auto`` for a new one under ``runs/``, or None for none.
        progress: what is shown meanwhile.
    """

    solver: str = "auto"
    seed: int = 0
    time_limit: float | None = None
    device: str = "auto"
    executor: str | None = None
    format: str = "text"
    out: str | None = None
    progress: Literal["auto", "bar", "log", "none"] = "auto"


def load(flags: Mapping[str, Any], directory: Path | None = None) -> Settings:
    """Merge all sources.

    Args:
        flags: from the command line; None where not given.
        directory: where the search for a file starts; the working directory by default.

    Raises:
        UsageError: an unknown key or a bad value; the message names the file or the variable.
    """
    merged: dict[str, Any] = {}
    path, table = _file(directory or Path.cwd())
    if path is not None:
        merged |= _checked(table, str(path))
    for field in fields(Settings):
        text = os.environ.get(f"BILEVEL_{field.name.upper()}")
        if text:
            merged |= _checked({field.name: text}, f"BILEVEL_{field.name.upper()}")
    merged |= {k: v for k, v in flags.items() if v is not None}
    return Settings(**merged)


def _checked(given: Any, place: str) -> dict[str, Any]:
    """Settings of one source; a fault names the source."""
    if not isinstance(given, dict):
        raise UsageError(f"{place}: expected a table of settings, got {given!r}.")
    try:
        return read(Settings, cast("dict[str, Any]", given), kind="setting")
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error


def _file(directory: Path) -> tuple[Path | None, Any]:
    """The nearest settings file, here or in a folder above, and what it holds for us, not yet checked."""
    for folder in (directory, *directory.parents):
        for name in ("bilevel.toml", "pyproject.toml"):
            path = folder / name
            if not path.is_file():
                continue
            try:
                data = tomllib.loads(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                if name == "pyproject.toml":
                    continue  # somebody else's file: its faults are not ours to report
                raise UsageError(f"{path} cannot be read: {error}.") from error
            if name == "bilevel.toml":
                return path, data
            tool: Any = data.get("tool")
            if isinstance(tool, dict) and "bilevel" in tool:
                return path, cast("dict[str, Any]", tool)["bilevel"]
    return None, {}
