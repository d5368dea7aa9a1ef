"""What a running solver knows of its run: time left, seed, whether to stop, and where progress goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from bilevel_core.run.checkpoint import Stored

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run.

    Attributes:
        kind: ``start``, ``phase`` (a step of the method begins), ``iteration`` (progress inside one), ``incumbent``
            (a better point), ``end``.
        time: seconds since the start of the run.
        data: figures, JSON-ready: ``objective``, ``bound``, ``nodes``, ``message``, ...; ``x``, where there is one: the
            leader's values by name, of many variables some 24, in units that people know.
    """

    kind: str
    time: float
    data: dict[str, Any] = field(default_factory=dict[str, Any])


Callback = Callable[[Event], Any]


class Keeper(Protocol):
    """Where checkpoints go.

    Attributes:
        periodic: whether they are wanted while the run goes on, not only at its end.
    """

    periodic: bool

    def checkpoint(self, content: bytes) -> None:
        """Keep the newest one.

        Raises:
            OSError: it cannot be written; the one before is left.
        """
        ...

    def journal(self, entry: bytes) -> None:
        """Add an entry to those that are kept already.

        Raises:
            OSError: it cannot be written.
        """
        ...


class RunContext:
    """Handed to `Solver.run`. Not shared between runs.

    Args:
        time_limit: seconds, or None for no limit.
        seed: seed for everything random in the run.
        device: ``auto``, ``cpu`` or a torch device.
        callbacks: called with each `Event`; one that returns True asks the solver to stop.
        executor: where independent pieces of work go; None runs them here, one after the other.
        keeper: where solvers that have a state put checkpoints; None keeps none.
        restored: a checkpoint to go on from (`bilevel_core.run.checkpoint.Stored`).
        journaled: the entries of the journal that belong to it, oldest first.
        elapsed_before: seconds that the run took until that checkpoint; they count as elapsed, not for the limit.
    """

    def __init__(
        self,
        *,
        time_limit: float | None = None,
        seed: int = 0,
        device: str = "auto",
        callbacks: Sequence[Callback] = (),
        executor: Executor | None = None,
        keeper: Keeper | None = None,
        restored: Stored | None = None,
        journaled: Sequence[bytes] = (),
        elapsed_before: float = 0.0,
    ) -> None:
        self.time_limit = time_limit
        self.seed = seed
        self.device = device
        self.executor = executor
        self.keeper = keeper
        self.restored = restored
        self.journaled = tuple(journaled)
        self.elapsed_before = elapsed_before
        self.trace: list[dict[str, float | None]] = []
        self._callbacks = tuple(callbacks)
        self._start = time.monotonic()
        self._stopped = False
        self._told = False
        self._given = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, those before it was resumed included."""
        return self.elapsed_before + self._spent

    @property
    def _spent(self) -> float:
        return time.monotonic() - self._start

    def remaining(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        if self.time_limit is None:
            return None
        left = max(0.0, self.time_limit - self._spent)
        self._given = max(self._given, left)
        self._told = self._told or left == 0.0
        return left

    @property
    def expired(self) -> bool:
        """Whether the time limit has passed."""
        over = self.time_limit is not None and self._spent >= self.time_limit
        self._told = self._told or over
        return over

    @property
    def stopped(self) -> bool:
        """Whether a callback or the user asked to stop."""
        self._told = self._told or self._stopped
        return self._stopped

    def watch(self) -> None:
        """Begin a piece of work that may be hurried; see `hurried`."""
        self._told, self._given = False, 0.0

    @property
    def hurried(self) -> bool:
        """Whether the work since `watch` may have been cut short: somebody was told that the time is over or the run
        stopped, or was given the seconds left and has used them up.
        """
        if self._told or self._given == 0.0 or self.time_limit is None:
            return self._told
        # Backends measure the time that they are given by clocks of their own.
        return self._spent >= self.time_limit - max(0.01, 0.01 * self._given)

    def stop(self) -> None:
        """Ask the solver to stop at the next chance."""
        self._stopped = True

    def report(self, kind: str, **data: Any) -> bool:
        """Tell the callbacks; returns whether to stop. Incumbents join the trace, with their ``figures``."""
        event = Event(kind, self.elapsed, data)
        if kind == "incumbent":
            self.trace.append(
                {
                    "time": event.time,
                    "objective": data.get("objective"),
                    "bound": data.get("bound"),
                    **data.get("figures", {}),
                },
            )
        for callback in self._callbacks:
            if callback(event) is True:
                self._stopped = True
        return self._stopped

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Apply a pure, picklable function to each item, through the executor where there is one."""
        if self.executor is None:
            return [function(i) for i in items]
        return list(self.executor.map(function, items))
