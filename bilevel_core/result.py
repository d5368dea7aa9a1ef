"""What a solve gives back. Why it stopped, what the solver claims and what the check found are three things."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

SCHEMA = "bilevel.result/1"


class Termination(enum.StrEnum):
    """Why the solver stopped. `advice` says what to do about it."""

    CONVERGED = "converged"
    TIME_LIMIT = "time-limit"
    ITERATION_LIMIT = "iteration-limit"
    STOPPED_BY_USER = "stopped-by-user"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    LOWER_INFEASIBLE = "lower-infeasible"
    LOWER_UNBOUNDED = "lower-unbounded"
    ERROR = "error"

    @property
    def advice(self) -> str:
        """What the user can do; empty when nothing needs doing."""
        return _ADVICE[self]


_ADVICE = {
    Termination.CONVERGED: "",
    Termination.TIME_LIMIT: "The search was cut short: raise the time limit.",
    Termination.ITERATION_LIMIT: "The search was cut short: raise the limit, or leave it out.",
    Termination.STOPPED_BY_USER: "The search was stopped before its end.",
    Termination.INFEASIBLE: "No point satisfies both levels: relax the leader's constraints that contain the "
    "follower's variables, or check the data.",
    Termination.UNBOUNDED: "Bound the leader's variables, or check the sense of the leader's objective.",
    Termination.LOWER_INFEASIBLE: "The follower's own constraints contradict each other whatever the leader does.",
    Termination.LOWER_UNBOUNDED: "The follower has no optimal answer: bound the follower's variables, or check the "
    "sense of its objective.",
    Termination.ERROR: "See the message.",
}


class Claim(enum.StrEnum):
    """What the solver says of its point, weakest first. Comparable: ``Claim.LOCAL < Claim.GLOBAL``."""

    NONE = "none"
    FEASIBLE = "feasible"
    STATIONARY = "stationary"
    LOCAL = "local"
    GLOBAL = "global"

    @property
    def rank(self) -> int:
        """0 for none to 4 for global."""
        return list(Claim).index(self)

    def __lt__(self, other: str) -> bool:
        return self.rank < Claim(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Claim(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Claim(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Claim(other).rank


class Verdict(enum.StrEnum):
    """What the independent check found."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    UNVERIFIABLE = "unverifiable"


class Status(enum.StrEnum):
    """The one word for people, derived from termination, claim and certificate (see `Result.status`)."""

    OPTIMAL = "optimal"
    LOCALLY_OPTIMAL = "locally-optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    NO_SOLUTION = "no-solution"
    REFUTED = "refuted"
    ERROR = "error"


@dataclass(frozen=True)
class Certificate:
    """The outcome of the independent check of one point; numbers are in the user's units and senses.

    Attributes:
        verdict: verified, refuted or unverifiable.
        upper_violation: largest violation of the leader's constraints, bounds and integrality, relative to row scale.
        lower_violation: the same for the followers.
        lower_gap: largest excess of a follower's objective over its optimal value at this x (>= 0 up to rounding).
        lower_value: optimal value of the follower at this x, in the follower's sense; one per follower when several.
        lower_scope: ``global`` where the re-solve is valid globally, ``local`` where it is not.
        response: ``unique``, ``ties`` (other optimal answers exist) or ``unknown``.
        better_response: the leader's objective at the follower's answer that suits the leader best at this x, where
            that is better than at the point checked; else None.
        reason: one sentence on what decided the verdict.
        worst_response: the leader's objective at the follower's optimal answer that suits the leader worst at this x,
            infinite where there is no limit; None where it is not known. What an optimistic point risks. That answer
            need not satisfy the leader's constraints.
    """

    verdict: Verdict
    upper_violation: float = math.nan
    lower_violation: float = math.nan
    lower_gap: float = math.nan
    lower_value: float | tuple[float, ...] = math.nan
    lower_scope: str = "global"
    response: str = "unknown"
    better_response: float | None = None
    reason: str = ""
    worst_response: float | None = None


class Values(dict[str, np.ndarray]):
    """Arrays by variable name. The last part of a dotted name does where it is unambiguous."""

    def __missing__(self, key: str) -> np.ndarray:
        found = [name for name in self if name.rsplit(".", 1)[-1] == key]
        if len(found) == 1:
            return self[found[0]]
        raise KeyError(key if not found else f"{key} is ambiguous: {', '.join(found)}")


def _no_values() -> Values:
    return Values()


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of one solve. Two results are equal when their JSON is.

    Attributes:
        termination: why it stopped.
        claim: what the solver says of the point.
        x: the leader's variables, arrays by name (0-dimensional for scalars). Empty when there is no point.
        y: the followers' variables, likewise.
        upper_objective: the leader's objective at the point, in the user's sense.
        lower_objective: the follower's; a tuple when there are several followers.
        bound: proven bound on the leader's optimal value, in the user's sense.
        certificate: what the independent check found; None when it was not asked for or there is no point.
        trace: incumbents in the order found, each with ``time`` in seconds, ``objective``, ``bound``, and what the
            problem shows of a better point (hyperparameter tuning: ``validation_loss`` and ``test_loss``).
        solver: name of the solver.
        options: the solver's options as used.
        seed: the seed given.
        wall_time: seconds, solve and check together.
        counts: how much work: ``lower_solves``, ``nodes``, ``gradients``, ``hessian_products``, ``cuts``, ...
        versions: versions of the packages that took part.
        message: what the solver wants to add, in sentences.
        problem: name of the problem.
        details: what the problem type reports of the point in its own terms (tables, figures), JSON-ready.
    """

    termination: Termination
    claim: Claim = Claim.NONE
    x: Values = field(default_factory=_no_values)
    y: Values = field(default_factory=_no_values)
    upper_objective: float | None = None
    lower_objective: float | tuple[float, ...] | None = None
    bound: float | None = None
    certificate: Certificate | None = None
    trace: tuple[Mapping[str, float | None], ...] = ()
    solver: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed: int = 0
    wall_time: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    message: str = ""
    problem: str = ""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def has_point(self) -> bool:
        """Whether there is a point to look at."""
        return self.upper_objective is not None

    @property
    def status(self) -> Status:
        """The one word for people. ``optimal`` needs a global claim and a certificate that says verified."""
        if self.termination is Termination.ERROR:
            return Status.ERROR
        if not self.has_point:
            return _POINTLESS.get(self.termination, Status.NO_SOLUTION)
        if self.certificate is None:
            return Status.FEASIBLE
        if self.certificate.verdict is Verdict.REFUTED:
            return Status.REFUTED
        if self.certificate.verdict is Verdict.VERIFIED:
            # A follower that was re-solved only locally supports no global claim.
            if self.claim is Claim.GLOBAL and self.certificate.lower_scope == "global":
                return Status.OPTIMAL
            # Another answer at the same x that the leader prefers: then this point is no optimum, not even a local one.
            if self.claim >= Claim.LOCAL and self.certificate.better_response is None:
                return Status.LOCALLY_OPTIMAL
        return Status.FEASIBLE

    def to_json(self, *, indent: int | None = None) -> str:
        """One JSON object in the schema ``bilevel.result/1``; NaN and infinity become null."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """The same as `to_json`, as plain Python data."""
        out: dict[str, Any] = {"schema": SCHEMA, "status": self.status.value}
        for f in dataclasses.fields(self):
            out[f.name] = plain(getattr(self, f.name))
        return out

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Read what `to_json` wrote. A null number comes back as NaN inside arrays and the certificate.

        Raises:
            ValueError: if the text is not a ``bilevel.result/1`` object.
        """
        data: Any = json.loads(text)
        if not isinstance(data, dict) or cast("dict[str, Any]", data).get("schema") != SCHEMA:
            found = cast("dict[str, Any]", data).get("schema") if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"Expected an object with schema {SCHEMA!r}, got {found!r}.")
        return cls.from_dict(cast("dict[str, Any]", data))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """Read what `to_dict` gave."""
        known = {f.name for f in dataclasses.fields(cls)}
        fields = {k: v for k, v in data.items() if k in known}
        fields["termination"] = Termination(fields["termination"])
        fields["claim"] = Claim(fields["claim"])
        for name in ("x", "y"):
            fields[name] = Values({k: np.array(v, dtype=float) for k, v in fields[name].items()})
        fields["lower_objective"] = _numbers(fields["lower_objective"])
        fields["trace"] = tuple(fields["trace"])
        if fields["certificate"] is not None:
            fields["certificate"] = _certificate(fields["certificate"])
        return cls(**fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and self.to_dict() == other.to_dict()

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __str__(self) -> str:
        from bilevel_core.report import result_text

        return result_text(self)


_POINTLESS = {
    Termination.INFEASIBLE: Status.INFEASIBLE,
    Termination.LOWER_INFEASIBLE: Status.INFEASIBLE,
    Termination.UNBOUNDED: Status.UNBOUNDED,
}


def _numbers(value: Any) -> Any:
    """A number as it is, a list of numbers as a tuple with NaN for null."""
    if not isinstance(value, list):
        return value
    return tuple(math.nan if v is None else float(v) for v in cast("list[float | None]", value))


def _certificate(data: Mapping[str, Any]) -> Certificate:
    fields = dict(data)
    fields["verdict"] = Verdict(fields["verdict"])
    for name in ("upper_violation", "lower_violation", "lower_gap"):
        fields[name] = math.nan if fields[name] is None else fields[name]
    value = fields["lower_value"]
    fields["lower_value"] = math.nan if value is None else _numbers(value)
    return Certificate(**fields)


def plain(value: Any) -> Any:
    """Plain JSON data: arrays as nested lists, non-finite numbers as None, dashes in keys as underscores."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Values):
        return {name: plain(array) for name, array in value.items()}
    if isinstance(value, Mapping):
        return {str(k).replace("-", "_"): plain(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in cast("list[Any]", value)]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)
