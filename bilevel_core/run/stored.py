"""A recorded run read back as a whole, for figures and reports: what was asked, what happened, what came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bilevel_core.errors import UsageError
from bilevel_core.result import Result
from bilevel_core.run.record import EVENTS, read_request, read_result


@dataclass(frozen=True)
class StoredRun:
    """One run on disk.

    Attributes:
        folder: where it is.
        request: ``run.json``: problem, solver, options, seed, ...
        events: what happened, oldest first, each with ``event`` (its kind), ``time`` in seconds, and figures.
        result: what came out, or the best point of a run that was killed; None where it left none.
        make: makes the problem that was solved; None where nobody knows how.
    """

    folder: Path
    request: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    result: Result | None = None
    make: Callable[[], Any] | None = None

    @property
    def name(self) -> str:
        """The problem's name."""
        return str(self.request.get("name", self.request.get("problem", "problem")))

    @property
    def solver(self) -> str:
        """The solver's name."""
        return str(self.request.get("solver", "")) if self.result is None else self.result.solver

    def problem(self) -> Any:
        """The problem that was solved, made anew.

        Raises:
            UsageError: nobody knows how, or what it was made from is gone.
        """
        if self.make is None:
            raise UsageError(f"The run in {self.folder} does not say how its problem is made.")
        return self.make()

    def of_kind(self, *kinds: str) -> list[Mapping[str, Any]]:
        """The events of some kinds."""
        return [e for e in self.events if e.get("event") in kinds]

    def series(self, name: str, *kinds: str) -> list[tuple[Mapping[str, Any], float]]:
        """Each event of these kinds (``iteration`` by default) that has the figure, with the figure."""
        found = [(e, e.get(name)) for e in self.of_kind(*(kinds or ("iteration",)))]
        return [(e, float(v)) for e, v in found if isinstance(v, int | float) and not isinstance(v, bool)]


def read_run(folder: Path, make: Callable[[], Any] | None = None) -> StoredRun:
    """Read a run.

    Args:
        folder: its folder.
        make: makes its problem.

    Raises:
        UsageError: the folder holds no run, or a file in it is damaged.
    """
    request = read_request(folder)
    try:
        result = read_result(folder)
    except UsageError:
        if (folder / "result.json").exists():
            raise
        result = None
    return StoredRun(folder, request, tuple(read_events(folder)), result, make)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """What ``events.jsonl`` says; a last line that a crash cut off is left out.

    Raises:
        UsageError: it cannot be read, or another line is damaged.
    """
    path = folder / EVENTS
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    found: list[dict[str, Any]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            data: Any = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines) and not text.endswith("\n"):
                break
            raise UsageError(f"{path}, line {number} is damaged: {error}.") from error
        if not isinstance(data, dict):
            raise UsageError(f"{path}, line {number}: expected an object, got {line[:60]!r}.")
        found.append(cast("dict[str, Any]", data))
    return found
