"""A run on disk: ``run.json`` (what was asked), ``events.jsonl`` (what happened), ``result.json`` (what came out)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bilevel_core.errors import UsageError
from bilevel_core.result import Result, plain
from bilevel_core.run.context import Event

SCHEMA = "bilevel.run/1"


class RunRecord:
    """Writes one run into a folder. Files are replaced whole, so that a crash leaves the old or the new one.

    Args:
        folder: created when it does not exist; an existing run there is overwritten.

    Raises:
        UsageError: the folder holds something that is not a run.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; expected a folder for the run.")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "run.json").exists():
            raise UsageError(f"{folder} is not empty and holds no run; choose another folder for --out.")
        self.folder = folder

    def start(self, request: Mapping[str, Any]) -> None:
        """Write ``run.json``, and put the events and the result of an earlier run there aside.

        Raises:
            UsageError: the folder cannot be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in ("events", "result"):
                old = next(self.folder.glob(f"{name}.json*"), None)
                if old is not None:
                    old.replace(old.with_name(f"previous-{old.name}"))
            self._write("run.json", {"schema": SCHEMA, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **request})
        except OSError as error:
            raise UsageError(f"The run cannot be recorded in {self.folder}: {error.strerror}.") from error

    def event(self, event: Event) -> None:
        """Append one event; usable as a callback."""
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(event_dict(event), allow_nan=False) + "\n")

    def finish(self, result: Result) -> None:
        """Write ``result.json``."""
        self._write("result.json", result.to_dict())

    def _write(self, name: str, data: Mapping[str, Any]) -> None:
        beside = self.folder / f".{name}.{os.getpid()}"
        try:
            with beside.open("w", encoding="utf-8") as f:
                json.dump(plain(data), f, indent=1, allow_nan=False)
                f.write("\n")
            beside.replace(self.folder / name)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def event_dict(event: Event) -> dict[str, Any]:
    """An event as one JSON object."""
    return {"event": event.kind, "time": round(event.time, 6), **plain(event.data)}


def read_request(folder: Path) -> dict[str, Any]:
    """What ``run.json`` says was asked.

    Raises:
        UsageError: the folder holds no run, or its file is damaged.
    """
    return _read(folder / "run.json", folder)


def read_result(folder: Path) -> Result:
    """The result of a recorded run.

    Raises:
        UsageError: the run has no result (it may still be going, or was killed), or its file is damaged.
    """
    path = folder / "result.json"
    return as_result(_read(path, folder), path)


def as_result(data: Mapping[str, Any], path: Path) -> Result:
    """A result from its plain data.

    Raises:
        UsageError: a field is missing or has the wrong form; ``path`` names where the data came from.
    """
    try:
        return Result.from_dict(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is no result: {type(error).__name__} at {error}.") from error


def _read(path: Path, folder: Path) -> dict[str, Any]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} holds no {path.name}: expected the folder of a run (bilevel solve --out)."
        ) from error
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} is damaged: expected a JSON object.")
    return {str(k): v for k, v in data.items()}  # pyright: ignore[reportUnknownArgumentType]


def new_folder(root: Path = Path("runs")) -> Path:
    """A folder name that is not taken: ``runs/20260102-030405``."""
    base = root / time.strftime("%Y%m%d-%H%M%S")
    folder, k = base, 2
    while folder.exists():
        folder, k = Path(f"{base}-{k}"), k + 1
    return folder
