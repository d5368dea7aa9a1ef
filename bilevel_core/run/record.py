"""A run on disk: ``run.json`` (what was asked), ``events.jsonl`` (what happened), ``checkpoint`` (where an iterative
solver stands, to go on from), ``journal`` (what a sampling solver learned, trial by trial), ``result.json`` (what came
out).
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import math
import os
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.result import Result, Termination, plain
from bilevel_core.run.checkpoint import read as read_checkpoint
from bilevel_core.run.checkpoint import write
from bilevel_core.run.context import Event

log = logging.getLogger("bilevel")

SCHEMA = "bilevel.run/1"
EVENTS, CHECKPOINT, RESULT, JOURNAL = "events.jsonl", "checkpoint", "result.json", "journal"
BEST = "best"
"""The entry of a checkpoint under which a search that cannot be resumed leaves its best point, as a result in JSON."""
CUT_SHORT = (Termination.STOPPED_BY_USER, Termination.TIME_LIMIT, Termination.ITERATION_LIMIT)
"""Ends after which the best point is saved even when nobody asked for a record, and a run may be resumed."""


class RunRecord:
    """Writes one run into a folder. Files are replaced whole, so that a crash leaves the old or the new one.

    Args:
        folder: created when it does not exist; an existing run there is overwritten.
        request: what else ``run.json`` is to say of what was asked.

    Attributes:
        periodic: whether checkpoints are wanted while the run goes on, not only at its end.
        written: whether there is anything on disk.

    Raises:
        UsageError: the folder holds something that is not a run.
    """

    periodic = True

    def __init__(self, folder: Path, request: Mapping[str, Any] | None = None) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; expected a folder for the run.")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "run.json").exists():
            raise UsageError(f"{folder} is not empty and holds no run; choose another folder for --out.")
        self.folder = folder
        self.request = dict(request or {})
        self.written = False

    def start(self, request: Mapping[str, Any]) -> None:
        """Write ``run.json``, and put events, checkpoint and result of an earlier run there aside.

        Raises:
            UsageError: the folder cannot be made or written.
        """
        with self._faults_named():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clean()
            for name in (EVENTS, CHECKPOINT, RESULT, JOURNAL):
                old = self.folder / name
                if old.exists():
                    old.replace(old.with_name(f"previous-{name}"))
            asked = {**request, **self.request}
            told = {"schema": SCHEMA, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **asked}
            self._write("run.json", plain(told))
            self.written = True

    def reopen(self) -> None:
        """Go on with the run that is there: events are added to its own. A line that a crash cut off is removed.

        Raises:
            UsageError: the folder cannot be written.
        """
        with self._faults_named():
            self._clean()
            path = self.folder / EVENTS
            content = path.read_bytes() if path.exists() else b""
            if content and not content.endswith(b"\n"):
                write(path, content[: content.rfind(b"\n") + 1])
            whole = sum(8 + len(entry) for entry in self.journaled())
            if whole != (size := self._journal_size()):
                log.warning("The last entry of the journal in %s was cut off (%d bytes).", self.folder, size - whole)
                os.truncate(self.folder / JOURNAL, whole)
            self.written = True

    def event(self, event: Event) -> None:
        """Append one event; usable as a callback."""
        with (self.folder / EVENTS).open("a", encoding="utf-8") as f:
            f.write(json.dumps(event_dict(event), allow_nan=False) + "\n")

    def checkpoint(self, content: bytes) -> None:
        """Write ``checkpoint``.

        Raises:
            OSError: it cannot be written; the one before is left.
        """
        write(self.folder / CHECKPOINT, content)

    def journal(self, entry: bytes) -> None:
        """Add an entry to the journal, its length before it; nothing that is there already is written again.

        Raises:
            OSError: it cannot be written.
        """
        with (self.folder / JOURNAL).open("ab") as f:
            f.write(len(entry).to_bytes(8, "little") + entry)

    def journaled(self) -> list[bytes]:
        """The entries of the journal, oldest first; one that a crash cut off is left out.

        Raises:
            UsageError: the journal cannot be read.
        """
        try:
            content = (self.folder / JOURNAL).read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self.folder / JOURNAL} cannot be read: {error.strerror}.") from error
        found: list[bytes] = []
        at = 0
        while at + 8 <= len(content):
            end = at + 8 + int.from_bytes(content[at : at + 8], "little")
            if end > len(content):
                break
            found.append(content[at + 8 : end])
            at = end
        return found

    def _journal_size(self) -> int:
        path = self.folder / JOURNAL
        return path.stat().st_size if path.exists() else 0

    def finish(self, result: Result) -> None:
        """Write ``result.json``."""
        self._write(RESULT, result.to_dict())

    def _write(self, name: str, data: Mapping[str, Any]) -> None:
        """Write plain data as it is. (`plain` twice would change the names of variables, which are keys by then.)"""
        text = json.dumps(data, indent=1, allow_nan=False) + "\n"
        write(self.folder / name, text.encode())

    def _clean(self) -> None:
        """Remove what a crash left half written."""
        for name in ("run.json", EVENTS, CHECKPOINT, RESULT):
            for beside in self.folder.glob(f".{name}.*"):
                beside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _faults_named(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(f"The run cannot be recorded in {self.folder}: {error.strerror}.") from error


class LateRecord(RunRecord):
    """Holds a run in memory, and writes it down only when it was cut short: then its point must not be lost, and it
    must be possible to go on.

    Args:
        root: where the run's folder is made.
        request: what else ``run.json`` is to say of what was asked.
    """

    periodic = False

    def __init__(self, root: Path = Path("runs"), request: Mapping[str, Any] | None = None) -> None:
        self.root = root
        self.folder = root
        self.request = dict(request or {})
        self.written = False
        self._asked: dict[str, Any] = {}
        self._events: list[Event] = []
        self._checkpoint = b""
        self._journal: list[bytes] = []

    def start(self, request: Mapping[str, Any]) -> None:
        """Note what was asked."""
        self._asked = dict(request)

    def event(self, event: Event) -> None:
        """Note one event; not iterations, of which there may be millions."""
        if event.kind != "iteration":
            self._events.append(event)

    def checkpoint(self, content: bytes) -> None:
        """Note the checkpoint."""
        self._checkpoint = content

    def journal(self, entry: bytes) -> None:
        """Note an entry of the journal."""
        self._journal.append(entry)

    def finish(self, result: Result) -> None:
        """Write everything down if the run was cut short and left something."""
        if result.termination not in CUT_SHORT or not (result.has_point or self._checkpoint):
            return
        record = RunRecord(new_folder(self.root), self.request)
        record.start(self._asked)
        for event in self._events:
            record.event(event)
        if self._checkpoint:
            record.checkpoint(self._checkpoint)
        for entry in self._journal:
            record.journal(entry)
        record.finish(result)
        self.folder, self.written = record.folder, True


def as_record(out: str | os.PathLike[str] | RunRecord) -> RunRecord:
    """The record for a folder; a record is handed back as it is.

    Raises:
        UsageError: the folder holds something that is not a run.
    """
    if isinstance(out, RunRecord):
        return out
    if not isinstance(out, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"Expected the path of a folder for out, got {out!r}.")
    return RunRecord(Path(out))


def as_given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as ``run.json`` can hold them so that they read back as the same.

    JSON has no infinity, and no paths or sets; as text all of these read back. What has no such form becomes an object
    ``{"unkept": ...}``, for `read_options` to refuse.
    """

    def keep(value: Any) -> Any:
        if isinstance(value, enum.Enum):
            return keep(value.value)
        if isinstance(value, np.generic):
            return keep(value.item())
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, os.PathLike):
            return os.fspath(cast("os.PathLike[str]", value))
        if isinstance(value, list | tuple | set | frozenset):
            return [keep(v) for v in cast("list[Any]", value)]
        if isinstance(value, Mapping):
            return {str(k): keep(v) for k, v in cast("Mapping[Any, Any]", value).items()}
        return {"unkept": type(value).__name__}

    return {name: keep(value) for name, value in options.items()}


def read_options(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The options that a run was asked with.

    Raises:
        UsageError: one of them could not be stored.
    """
    options: dict[str, Any] = dict(request["options"])
    for name, value in options.items():
        if isinstance(value, dict) and "unkept" in value:
            raise UsageError(
                f"The run in {folder} had the option {name!r} of type {value['unkept']}, which could not be stored: "
                "it cannot be resumed."
            )
    return options


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
    """The result of a recorded run; of one that was killed or is still going, the best point that it has left.

    Raises:
        UsageError: the run has no result and left no point, or its file is damaged.
    """
    path = folder / "result.json"
    left = None if path.exists() else _left_behind(folder / CHECKPOINT)
    return as_result(_read(path, folder) if left is None else left, path)


def _left_behind(path: Path) -> dict[str, Any] | None:
    """The best point in a checkpoint, as a search without a state to go on from writes it down; None without one."""
    if not path.is_file():
        return None
    try:
        return json.loads(read_checkpoint(path).entry(BEST))
    except UsageError:  # a state to go on from, or damaged: `resume` says more
        return None


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
        if not folder.is_dir():
            raise UsageError(
                f"There is no folder {str(folder)!r}: expected that of a run (bilevel solve --out)."
            ) from error
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
