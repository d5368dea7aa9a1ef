"""Which pair of an optimality system is expressed in which mode, and which bounds the user gave for it.

Pairs are named as the constraints are: a row's name means both its sides, ``ROW:lower`` and ``ROW:upper`` one of them,
``VARIABLE:lower`` and ``VARIABLE:upper`` a bound, ``VARIABLE`` both bounds, a follower's name all its pairs. The more
specific name wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bilevel_core.errors import UsageError, unknown
from bilevel_core.program import BilevelProgram, Program
from bilevel_core.reductions.kkt import Multiplier
from bilevel_core.reductions.pairs import Pair

EXACT = ("sos1", "indicator", "bigm", "strong-duality")
LOCAL = ("relaxed", "penalised")
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What is done with each pair.

    Attributes:
        by_mode: the pairs of each mode in use, in the system's order.
        followers: the numbers of the followers in mode ``strong-duality``.
        multiplier_bounds: the user's bound of each pair's multiplier, where there is one.
        slack_bounds: the same for its slack.
    """

    by_mode: Mapping[str, tuple[Pair, ...]]
    followers: tuple[int, ...] = ()
    multiplier_bounds: Mapping[Pair, float] = field(default_factory=dict[Pair, float])
    slack_bounds: Mapping[Pair, float] = field(default_factory=dict[Pair, float])

    def pairs(self, mode: str) -> tuple[Pair, ...]:
        """The pairs in a mode."""
        return self.by_mode.get(mode, ())

    @property
    def text(self) -> str:
        """The modes in words."""
        return ", ".join(self.by_mode)


def make_plan(
    program: BilevelProgram,
    system: Program,
    multipliers: Sequence[Multiplier],
    default: str,
    modes: Mapping[str, str],
    multiplier_bounds: Mapping[str, float],
    slack_bounds: Mapping[str, float],
) -> Plan:
    """Resolve the user's names.

    Args:
        program: the bilevel program.
        system: its optimality system.
        multipliers: the system's multipliers.
        default: the mode of pairs that ``modes`` does not name.
        modes: modes by name.
        multiplier_bounds, slack_bounds: bounds by name; they belong to pairs in mode ``bigm``.

    Raises:
        UsageError: a name that is no constraint's, variable's or follower's; a bound for a pair in another mode; or
            ``strong-duality`` for only some of a follower's pairs.
    """
    names = [_names(program, system, m) for m in multipliers]
    chosen = _resolve(names, modes, "modes")
    by_mode: dict[str, list[Pair]] = {}
    for m, mode in zip(multipliers, chosen, strict=True):
        by_mode.setdefault(mode or default, []).append((m.column, m.slack_column))
    if not multipliers:
        by_mode[default] = []
    plan = Plan(
        {k: tuple(v) for k, v in by_mode.items()},
        _whole_followers(program, multipliers, [mode or default for mode in chosen]),
        _bounds(names, multipliers, multiplier_bounds, "multiplier_bounds"),
        _bounds(names, multipliers, slack_bounds, "slack_bounds"),
    )
    large = set(plan.pairs("bigm"))
    for option, given, found in (
        ("multiplier_bounds", multiplier_bounds, plan.multiplier_bounds),
        ("slack_bounds", slack_bounds, plan.slack_bounds),
    ):
        idle = [n for n in given if not any(n in alias for alias in _of(names, multipliers, large))]
        if idle or not large.issuperset(found):
            name = idle[0] if idle else next(iter(given))
            raise UsageError(
                f"Option '{option}.{name}': bounds belong to pairs in mode bigm, and it names others. Set "
                f"modes.{name}=bigm, or leave the bound out."
            )
    return plan


def _of(names: Sequence[tuple[str, ...]], multipliers: Sequence[Multiplier], pairs: set[Pair]) -> list[tuple[str, ...]]:
    return [n for n, m in zip(names, multipliers, strict=True) if (m.column, m.slack_column) in pairs]


def _names(program: BilevelProgram, system: Program, m: Multiplier) -> tuple[str, ...]:
    """The names that mean a pair, the most specific first."""
    column = system.columns[m.column].name
    name = column.removeprefix("lambda[").rsplit("]", 1)[0] if column.startswith("lambda[") else column
    follower = program.followers[m.follower]
    for side in (":lower", ":upper"):
        if name.endswith(side):
            return name, name.removesuffix(side), follower.name
    return f"{name}:upper", name, follower.name


def _resolve(names: Sequence[tuple[str, ...]], given: Mapping[str, T], option: str) -> list[T | None]:
    known = {n for alias in names for n in alias}
    for name in given:
        if name not in known:
            raise unknown("constraint", name, known, see=f"It stands in the option {option}.")
    return [next((given[n] for n in alias if n in given), None) for alias in names]


def _bounds(
    names: Sequence[tuple[str, ...]], multipliers: Sequence[Multiplier], given: Mapping[str, float], option: str
) -> dict[Pair, float]:
    found = _resolve(names, given, option)
    return {(m.column, m.slack_column): b for m, b in zip(multipliers, found, strict=True) if b is not None}


def _whole_followers(
    program: BilevelProgram, multipliers: Sequence[Multiplier], modes: Sequence[str]
) -> tuple[int, ...]:
    out: list[int] = []
    for k, follower in enumerate(program.followers):
        own = {mode for m, mode in zip(multipliers, modes, strict=True) if m.follower == k}
        if "strong-duality" in own:
            if len(own) > 1:
                raise UsageError(
                    f"strong-duality takes all constraints of follower {follower.name!r} or none: set "
                    f"modes.{follower.name}=strong-duality and leave its constraints out."
                )
            out.append(k)
    return tuple(out)
