"""SMD1 to SMD12 of Sinha, Malo and Deb: test problems of any size whose difficulties are put together from parts.

Source: Sinha, Malo, Deb (2014), Test problem construction for single-objective bilevel optimization, Evolutionary
Computation 22(3). The leader has ``x1`` (p variables) and ``x2`` (r), the follower ``y1`` (q; q + s in SMD6) and ``y2``
(r). Objectives are sums of a part in ``x1``, a part in ``y1``, and a part in ``x2`` and ``y2`` that ties the levels;
where the third enters with opposite signs, the levels are in conflict.

Intervals that are open in the paper are closed here a little inside (`OPEN_TAN`, `OPEN_LOG`), which cuts off no answer
of a follower. The floors of SMD9 are expressed exactly by integers, `OPEN_FLOOR` apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from bilevel_core.errors import UsageError
from bilevel_core.problems.pyomo import PyomoProblem
from bilevel_problems.build import finish, model, pyo

OPEN_TAN = 1e-3
"""Distance kept from pi/2 in tan(y2): tan reaches 1000 there, and the answers need no more than 100."""

OPEN_LOG = 1e-6
"""Distance kept from 0 in log: it reaches -13.8 there, and the answers need no less than -5."""

OPEN_FLOOR = 1e-6
"""Distance kept from the open end of each shell in SMD9."""

_WIDE = (-5.0, 10.0)
_TAN = (OPEN_TAN - math.pi / 2, math.pi / 2 - OPEN_TAN)


def _start(number: int, sizes: dict[str, int], x2: tuple[float, float], y2: tuple[float, float]) -> Any:
    """An empty model with the variables; ``sizes``: p, q, r, and s where there is one."""
    least = {"p": 1, "q": 2 if number in (5, 8) else 0 if number == 6 else 1, "r": 1, "s": 2}
    for name, size in sizes.items():
        if size < least[name]:
            raise UsageError(f"smd/smd{number}: expected {name} of at least {least[name]}, got {size}.")
    if sizes.get("s", 0) % 2:
        raise UsageError(f"smd/smd{number}: expected an even s, got {sizes['s']}: its variables come in pairs.")
    m = model(f"smd/smd{number}")
    m.x1 = pyo.Var(range(1, sizes["p"] + 1), bounds=_WIDE)
    m.x2 = pyo.Var(range(1, sizes["r"] + 1), bounds=x2)
    m.follower.y1 = pyo.Var(range(1, sizes["q"] + sizes.get("s", 0) + 1), bounds=_WIDE)
    m.follower.y2 = pyo.Var(range(1, sizes["r"] + 1), bounds=y2)
    return m


def _squares(v: Any, centre: float = 0.0) -> Any:
    return sum((v[i] - centre) ** 2 if centre else v[i] ** 2 for i in v)


def _gap(m: Any, left: Callable[[Any], Any], right: Callable[[Any], Any]) -> Any:
    """The part that ties the levels: the squared distance of functions of x2 and y2."""
    return sum((left(m.x2[i]) - right(m.follower.y2[i])) ** 2 for i in m.x2)


def _same(v: Any) -> Any:
    return v


def _rastrigin(v: Any) -> Any:
    return len(v) + sum(v[i] ** 2 - pyo.cos(2 * math.pi * v[i]) for i in v)


def _banana(v: Any) -> Any:
    """The function of the paper: Rosenbrock's, with 1 for its 100."""
    return sum((v[i + 1] - v[i] ** 2) ** 2 + (v[i] - 1) ** 2 for i in list(v)[:-1])


def _above_cubes(*groups: Any) -> Iterable[Any]:
    """For each variable of the groups: it is at least the sum of the cubes of all others."""
    variables = [v[i] for v in groups for i in v]
    for one in variables:
        others = [v for v in variables if v is not one]
        if others:
            yield one - sum(v**3 for v in others) >= 0
        else:
            yield one >= 0


def _sized(factory: Callable[..., PyomoProblem]) -> Callable[..., PyomoProblem]:
    """Document the parameters that all of them have, for listings."""
    texts = ["p: entries of x1.", "q: entries of y1.", "r: entries of x2, and of y2."]
    if factory.__name__ == "smd6":
        texts.append("s: further entries of y1, in pairs.")
    factory.__doc__ = "\n    ".join([f"{factory.__doc__}\n\nArgs:", *texts])
    return factory


@_sized
def smd1(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """Both levels are convex near their optima, and want the same."""
    m = _start(1, {"p": p, "q": q, "r": r}, _WIDE, _TAN)
    tie, y1 = _gap(m, _same, pyo.tan), _squares(m.follower.y1)
    return finish(m, _squares(m.x1) + y1 + _squares(m.x2) + tie, _squares(m.x1) + y1 + tie)


@_sized
def smd2(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """The levels are in conflict: a follower that is not solved to its optimum flatters the leader."""
    m = _start(2, {"p": p, "q": q, "r": r}, (-5.0, 1.0), (OPEN_LOG, math.e))
    tie, y1 = _gap(m, _same, pyo.log), _squares(m.follower.y1)
    return finish(m, _squares(m.x1) - y1 + _squares(m.x2) - tie, _squares(m.x1) + y1 + tie)


@_sized
def smd3(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """The follower has many local optima in y1 (Rastrigin); the levels want the same."""
    m = _start(3, {"p": p, "q": q, "r": r}, _WIDE, _TAN)
    tie = _gap(m, lambda v: v**2, pyo.tan)
    upper = _squares(m.x1) + _squares(m.follower.y1) + _squares(m.x2) + tie
    return finish(m, upper, _squares(m.x1) + _rastrigin(m.follower.y1) + tie)


@_sized
def smd4(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """The follower has many local optima in y1 (Rastrigin), and the levels are in conflict."""
    m = _start(4, {"p": p, "q": q, "r": r}, (-1.0, 1.0), (0.0, math.e))
    tie = _gap(m, abs, lambda v: pyo.log(1 + v))
    upper = _squares(m.x1) - _squares(m.follower.y1) + _squares(m.x2) - tie
    return finish(m, upper, _squares(m.x1) + _rastrigin(m.follower.y1) + tie)


@_sized
def smd5(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """The follower has a curved valley in y1 and two optimal answers in y2; the levels are in conflict."""
    m = _start(5, {"p": p, "q": q, "r": r}, _WIDE, _WIDE)
    tie, y1 = _gap(m, abs, lambda v: v**2), _banana(m.follower.y1)
    return finish(m, _squares(m.x1) - y1 + _squares(m.x2) - tie, _squares(m.x1) + y1 + tie)


@_sized
def smd6(p: int = 1, q: int = 0, r: int = 1, s: int = 2) -> PyomoProblem:
    """The follower has a line of optimal answers for every x, of which the leader prefers one."""
    m = _start(6, {"p": p, "q": q, "r": r, "s": s}, _WIDE, _WIDE)
    tie, y = _gap(m, _same, _same), m.follower.y1
    own = sum(y[i] ** 2 for i in range(1, q + 1))
    tied = sum(y[i] ** 2 for i in range(q + 1, q + s + 1))
    pairs = sum((y[i + 1] - y[i]) ** 2 for i in range(q + 1, q + s, 2))
    return finish(m, _squares(m.x1) - own + tied + _squares(m.x2) - tie, _squares(m.x1) + own + pairs + tie)


@_sized
def smd7(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """The leader has many local optima in x1 (Griewank); the levels are in conflict."""
    m = _start(7, {"p": p, "q": q, "r": r}, (-5.0, 1.0), (OPEN_LOG, math.e))
    tie, y1 = _gap(m, _same, pyo.log), _squares(m.follower.y1)
    waves = math.prod(pyo.cos(m.x1[i] / math.sqrt(i)) for i in m.x1)
    upper = 1 + _squares(m.x1) / 400 - waves - y1 + _squares(m.x2) - tie
    return finish(m, upper, sum(m.x1[i] ** 3 for i in m.x1) + y1 + tie)


@_sized
def smd8(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """The leader has many local optima in x1 (Ackley), the follower a curved valley; the levels are in conflict.

    Neither level's objective has a derivative at the optimum x1 = 0.
    """
    m = _start(8, {"p": p, "q": q, "r": r}, _WIDE, _WIDE)
    tie, y1 = _gap(m, _same, lambda v: v**3), _banana(m.follower.y1)
    waves = sum(pyo.cos(2 * math.pi * m.x1[i]) for i in m.x1) / p
    ackley = 20 + math.e - 20 * pyo.exp(-0.2 * pyo.sqrt(_squares(m.x1) / p)) - pyo.exp(waves)
    return finish(m, ackley - y1 + _squares(m.x2) - tie, sum(abs(m.x1[i]) for i in m.x1) + y1 + tie)


@_sized
def smd9(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """The feasible sets of both levels are shells around the origin, with gaps between them.

    The paper's constraint t - floor(t + 1/2) >= 0 on t, a level's sum of squares, holds exactly where k <= t < k + 1/2
    for an integer k: each level gets that integer as a variable, ``x_shell`` and ``y_shell``.
    """
    m = _start(9, {"p": p, "q": q, "r": r}, (-5.0, 1.0), (OPEN_LOG - 1, math.e - 1))
    m.x_shell = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, 100 * p + 25 * r))
    m.follower.y_shell = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, 100 * q + 3 * r))
    tie, y1 = _gap(m, _same, lambda v: pyo.log(1 + v)), _squares(m.follower.y1)
    return finish(
        m,
        _squares(m.x1) - y1 + _squares(m.x2) - tie,
        _squares(m.x1) + y1 + tie,
        upper_rows=_shell(_squares(m.x1) + _squares(m.x2), m.x_shell),
        lower_rows=_shell(y1 + _squares(m.follower.y2), m.follower.y_shell),
    )


def _shell(size: Any, shell: Any) -> list[Any]:
    return [size - shell >= 0, size - shell <= 0.5 - OPEN_FLOOR]


@_sized
def smd10(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """Constraints at both levels that hold with equality at the optimum, and cut each level's set in two."""
    m = _start(10, {"p": p, "q": q, "r": r}, _WIDE, _TAN)
    tie, y1 = _gap(m, _same, pyo.tan), m.follower.y1
    return finish(
        m,
        _squares(m.x1, 2) + _squares(y1) + _squares(m.x2, 2) - tie,
        _squares(m.x1) + _squares(y1, 2) + tie,
        upper_rows=_above_cubes(m.x1, m.x2),
        lower_rows=_above_cubes(y1),
    )


@_sized
def smd11(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """The follower must stay away from its wish: a sphere of optimal answers, of which the leader allows some.

    At the leader's optimum x2 = 0 nearly every change of x2 to one side leaves no allowed answer.
    """
    m = _start(11, {"p": p, "q": q, "r": r}, (-1.0, 1.0), (1 / math.e, math.e))
    tie, y1 = _gap(m, _same, pyo.log), _squares(m.follower.y1)
    return finish(
        m,
        _squares(m.x1) - y1 + _squares(m.x2) - tie,
        _squares(m.x1) + y1 + tie,
        upper_rows=[m.x2[i] - pyo.log(m.follower.y2[i]) >= 1 / math.sqrt(r) for i in m.x2],
        lower_rows=[tie >= 1],
    )


@_sized
def smd12(p: int = 1, q: int = 2, r: int = 1) -> PyomoProblem:
    """The constraints of SMD10 and of SMD11 together."""
    m = _start(12, {"p": p, "q": q, "r": r}, (-14.1, 14.1), (-1.5, 1.5))
    tie, y1 = _gap(m, _same, pyo.tan), m.follower.y1
    height = sum(pyo.tan(abs(m.follower.y2[i])) for i in m.x2)
    return finish(
        m,
        _squares(m.x1, 2) + _squares(y1) + _squares(m.x2, 2) + height - tie,
        _squares(m.x1) + _squares(y1, 2) + tie,
        upper_rows=[*(m.x2[i] - pyo.tan(m.follower.y2[i]) >= 0 for i in m.x2), *_above_cubes(m.x1, m.x2)],
        lower_rows=[tie >= 1, *_above_cubes(y1)],
    )
