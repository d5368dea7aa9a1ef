"""`global`: the followers at a fixed x, solved globally, and the leader's best or worst among their optimal answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bilevel_core.backends import Backend, Solution, SolveSettings, SolveStatus
from bilevel_core.backends.face import natural_scale
from bilevel_core.backends.highs import Highs
from bilevel_core.backends.ipopt import Ipopt
from bilevel_core.backends.scip import Scip, tight_feastol
from bilevel_core.errors import BackendError
from bilevel_core.program import INF, BilevelProgram, Function, Program, Row, Variable, total
from bilevel_core.reductions import Chain
from bilevel_core.reductions.kkt import OptimalityConditions
from bilevel_core.run import RunContext
from bilevel_core.solvers.single_level import polish
from bilevel_core.solvers.start import with_multipliers

EXACT = 1e-7
"""How far from optimal, relative to the scale of its objective, a follower's answer in an incumbent may be: less than
what the check allows.
"""
FEASIBLE = 1e-6
TIE = 1e-9
"""An answer of an incumbent that is further from optimal than this (relative) is not taken for a tie."""
TILT = 1e-7
"""The weight of the leader's choice beside the followers' objectives, both relative to their scales, where answers are
made exact: it moves an answer along ties, and hardly in other directions.
"""
GAP = 1e-7
"""Gap, absolute and relative, up to which the followers' problems are solved."""
RESPONSE_GAP = 1e-5
"""The same for the leader's choice among optimal answers."""
AUXILIARY_SECONDS = 5.0
FAR = 1e4
"""Where columns without bounds are cut off, to see what is possible far out."""
ROUND = 9
"""Leader's values that agree to so many decimals are one and the same x."""


class CutShortError(Exception):
    """A solve that had to come to its end did not."""


@dataclass(frozen=True)
class Optimal:
    """The followers' optimal values at an x, and one optimal answer of each, put into the point.

    Attributes:
        values: by follower.
        point: one number per column.
        attained: whether every follower has an optimal answer. Where one is unbounded at this x its answer here is the
            best within `FAR`: open to it, so that a cut can be made of it, but not optimal.
    """

    values: tuple[float, ...]
    point: np.ndarray
    attained: bool = True


class Followers:
    """Solves the followers of a problem; counts what it does.

    Args:
        program: the problem.
        context: of the run; its time limit holds for every solve.
        convex: the numbers of the followers that are proven to be convex for every x: a local search solves those.
    """

    def __init__(self, program: BilevelProgram, context: RunContext, convex: Collection[int] = ()) -> None:
        self.program = program
        self.context = context
        self.convex = frozenset(convex)
        self.pulse: Callable[[], bool] = lambda: context.stopped
        self.solves = 0
        self.unbounded = ""
        """What was said of a follower that had no optimal answer at some x; empty as long as none was met."""
        self._known: dict[bytes, Optimal | None] = {}
        lower = frozenset(program.lower_columns)
        self.tied = [r for r in program.leader.rows if not r.function.columns.isdisjoint(lower)]
        self.own_columns = [i for i in range(len(program.columns)) if i not in lower]

    def optimal(self, point: np.ndarray) -> Optimal | None:
        """The followers' answers at the point's x; None where a follower has no feasible one.

        Raises:
            CutShortError: a solve was cut short, or failed.
        """
        key = (np.round(point[self.own_columns], ROUND) + 0.0).tobytes()
        if key not in self._known:
            self._known[key] = self._optimal(point)
        return self._known[key]

    def _optimal(self, point: np.ndarray) -> Optimal | None:
        out = point.copy()
        values: list[float] = []
        attained = True
        for k in range(len(self.program.followers)):
            alone, columns = self.program.follower_at(k, point)
            found = self._convex(alone, point[list(columns)]) if k in self.convex else None
            found = found or self.solve(alone)
            if found.status is SolveStatus.INFEASIBLE:
                return None
            if found.status in (SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
                attained = False
                self.unbounded = self.unbounded or self._no_optimum(k, point)
                alone = replace(alone, columns=fenced(alone.columns))
                found = self.solve(alone)
                if found.status is SolveStatus.INFEASIBLE:
                    return None
            if found.values is None or not found.solved:
                raise CutShortError(f"A follower's problem ended {found.status}. {found.message}".strip())
            answer = clipped(alone, found.values)
            out[list(columns)] = answer
            values.append(alone.objective.evaluate(answer))
        return Optimal(tuple(values), out, attained)

    def _no_optimum(self, k: int, point: np.ndarray) -> str:
        program, level = self.program, self.program.followers[k]
        seen = {i for f in (level.objective, *(r.function for r in level.rows)) for i in f.columns} - set(level.columns)
        where = ", ".join(f"{program.columns[i].name} = {point[i]:.6g}" for i in sorted(seen)[:5])
        at = f" at {where}" if where else ""
        return f"Follower {level.name!r} is unbounded{at}: its objective has no optimum over its constraints."

    def _convex(self, alone: Program, start: np.ndarray) -> Solution | None:
        """The answer of a convex follower by a local search; None where that fails, or HiGHS is exact."""
        if Highs().accepts(alone) is None or Ipopt().refusal(alone) is not None:
            return None
        self.solves += 1
        settings = SolveSettings(start=start, time_limit=AUXILIARY_SECONDS, options={"tol": 1e-10})
        try:
            found = Ipopt().solve(alone, settings)
        except BackendError:
            return None
        return found if found.values is not None and found.solved and alone.violation(found.values) <= 1e-8 else None

    def solve(
        self, program: Program, *, seconds: float | None = None, gap: float = GAP, absolute: float | None = None
    ) -> Solution:
        """Solve a program globally: HiGHS where it can, else SCIP with tight tolerances, up to a gap (relative, and
        absolute where no other is given), and its answer made exact by a local search from there.
        """
        self.solves += 1
        left = self.context.remaining()
        limit = left if seconds is None else seconds if left is None else min(seconds, left)
        last = Solution(SolveStatus.ERROR)
        backends: tuple[Backend, ...] = (Highs(), Scip())
        for backend in backends:
            if backend.refusal(program) is not None:
                continue
            options: dict[str, float] = {}
            if backend.name == "scip":
                options = {
                    "numerics/feastol": tight_feastol(program, degree=2),
                    "limits/absgap": gap * _size(program) if absolute is None else absolute,
                }
            how = SolveSettings(
                time_limit=limit, seed=self.context.seed, gap=gap, options=options, progress=lambda *_: self.pulse()
            )
            try:
                last = backend.solve(program, how)
            except BackendError as error:
                last = Solution(SolveStatus.ERROR, message=str(error))
                continue
            if last.status is SolveStatus.INTERRUPTED:
                if self.context.stopped:
                    raise CutShortError("Stopped.")
                raise KeyboardInterrupt
            if last.status is not SolveStatus.ERROR:
                exact = backend.name == "highs" or not last.solved or gap > GAP
                return last if exact else self._exact(program, last)
        return last

    @staticmethod
    def _exact(program: Program, found: Solution) -> Solution:
        """An answer of a branch-and-bound that stopped within tolerances, improved by a local search from it."""
        if found.values is None or program.sos1 or program.indicators:
            return found
        fixed = program.fix({i: float(round(found.values[i])) for i, c in enumerate(program.columns) if c.integer})
        if Ipopt().refusal(fixed) is not None or all(c.fixed for c in fixed.columns):
            return found
        try:
            better = Ipopt().solve(
                fixed, SolveSettings(start=found.values, time_limit=AUXILIARY_SECONDS, options={"tol": 1e-11})
            )
        except BackendError:
            return found
        if better.values is None or not better.solved:
            return found
        clean = program.violation(better.values) <= max(1e-9, program.violation(found.values))
        if clean and better.objective <= found.objective + EXACT * natural_scale(program.objective, found.values):
            return replace(found, values=better.values, objective=better.objective)
        return found

    def gaps(self, point: np.ndarray, optimal: Optimal) -> list[float]:
        """By follower: how far its answer in the point is from optimal, relative to the scale of its objective."""
        out: list[float] = []
        for k, follower in enumerate(self.program.followers):
            here = follower.objective.evaluate(point)
            out.append((here - optimal.values[k]) / self.scale(k, optimal.point))
        return out

    def scale(self, k: int, point: np.ndarray) -> float:
        """What an error in a follower's objective is relative to: its largest term at the point."""
        alone, columns = self.program.follower_at(k, point)
        return natural_scale(alone.objective, point[list(columns)])

    def response(
        self,
        optimal: Optimal,
        *,
        worst: Function | None = None,
        slacks: Sequence[float] | None = None,
        settle: bool = True,
    ) -> np.ndarray | None:
        """The leader's best among the followers' optimal answers that satisfy its constraints; None where none does.

        Args:
            optimal: the followers' optimal answers at some x.
            worst: find instead the answer at which this function is largest, whether or not it suits the leader.
            slacks: by follower, how far from optimal an answer may be; `EXACT` of the objective's scale by default.
            settle: whether answers that are optimal up to a tolerance are made exact by descent.

        Raises:
            CutShortError: the solve was cut short, or failed.
        """
        program, point = self.program, optimal.point
        lower = program.lower_columns
        position = {c: n for n, c in enumerate(lower)}
        goal = program.leader.objective if worst is None else -worst

        def at_x(f: Function) -> Function:
            return f.fix({i: float(point[i]) for i in f.columns if i not in position}).renumbered(position)

        constraints = [replace(r, function=at_x(r.function)) for r in (self.tied if worst is None else [])]
        rows: list[Row] = []
        for k, follower in enumerate(program.followers):
            constraints += [replace(r, function=at_x(r.function)) for r in follower.rows]
            scale = self.scale(k, point)
            room = optimal.values[k] + (EXACT * scale if slacks is None else slacks[k])
            rows.append(
                Row(
                    f"optimal for {follower.name}",
                    at_x(follower.objective).scaled(10.0 / scale),
                    -INF,
                    10.0 * room / scale,
                )
            )
        columns = tuple(program.columns[i] for i in lower)
        kept = tuple(r for r in (*constraints, *rows) if r.function.columns or r.violation(()) > FEASIBLE)
        found = self.solve(Program(columns, at_x(goal), kept), gap=RESPONSE_GAP)
        if found.status is SolveStatus.INFEASIBLE:
            return None
        if found.values is None or not found.solved:
            raise CutShortError(f"The leader's choice among answers ended {found.status}. {found.message}".strip())
        out = point.copy()
        out[list(lower)] = clipped(Program(columns, Function()), found.values)
        if not settle:
            return out
        ties = self._along_ties(Program(columns, at_x(goal), tuple(r for r in constraints if r.function.columns)), out)
        if ties is not None and max(self.gaps(ties, optimal)) <= TIE:
            return ties
        downhill = self.downhill(out)
        return downhill if worst is not None or excess(self.tied, downhill) <= FEASIBLE else out

    def _along_ties(self, choice: Program, point: np.ndarray) -> np.ndarray | None:
        """The point with answers that are exact and, among those that tie, the choice's: by a local search on the sum
        of the followers' objectives and a very small part of the choice's. None where HiGHS has made them exact.

        Args:
            choice: what is chosen among answers, and the constraints, over the followers' columns.
            point: where the search begins.
        """
        lower = self.program.lower_columns
        position = {c: n for n, c in enumerate(lower)}
        goals: list[Function] = []
        curved = False
        for k in range(len(self.program.followers)):
            alone, columns = self.program.follower_at(k, point)
            curved |= Highs().accepts(alone) is not None
            own = alone.objective.renumbered({n: position[c] for n, c in enumerate(columns)})
            goals.append(own.scaled(1.0 / self.scale(k, point)))
        if not curved:
            return None
        here = point[list(lower)]
        goals.append(choice.objective.scaled(TILT / natural_scale(choice.objective, here)))
        tilted = replace(choice, objective=total(goals))
        found = self._exact(tilted, Solution(SolveStatus.OPTIMAL, here, tilted.objective.evaluate(here)))
        if found.values is None:
            return None
        out = point.copy()
        out[list(lower)] = clipped(tilted, found.values)
        return out

    def downhill(self, point: np.ndarray) -> np.ndarray:
        """The point with what each follower's answer becomes by descent: exact where it was so up to a tolerance."""
        out = point.copy()
        for k in range(len(self.program.followers)):
            alone, columns = self.program.follower_at(k, point)
            if Highs().accepts(alone) is not None:
                here = point[list(columns)]
                found = self._exact(alone, Solution(SolveStatus.OPTIMAL, here, alone.objective.evaluate(here)))
                if found.values is not None:
                    out[list(columns)] = clipped(alone, found.values)
        return out

    def feasible(self, point: np.ndarray) -> bool:
        """Whether a point satisfies all constraints of both levels, and all objectives have values there."""
        levels = (self.program.leader, *self.program.followers)
        defined = all(np.isfinite(level.objective.evaluate(point)) for level in levels)
        return defined and self.program.high_point().violation(point) <= FEASIBLE

    def on_its_piece(self, point: np.ndarray) -> np.ndarray | None:
        """The leader's best on the piece of the optimality system where the point lies (the same constraints active):
        what a local search finds from there. Integers stay as they are. None where there is no such system.
        """
        program = self.program
        integers = {i: float(round(point[i])) for i, c in enumerate(program.columns) if c.integer}
        fixed = replace(program, columns=program.high_point().fix(integers).columns)
        conditions = OptimalityConditions()
        try:
            chain = Chain(fixed).then(conditions)
            values = with_multipliers(fixed, chain.target, conditions.multipliers, point)
            if values is None:
                return None
            left = self.context.remaining()
            clean = polish(chain.target, values, AUXILIARY_SECONDS if left is None else min(left, AUXILIARY_SECONDS))
        except (ValueError, BackendError):  # a function without a derivative, or a search that breaks down
            return None
        return None if clean is None or clean.values is None else chain.invert(clean.values)


def fenced(columns: Iterable[Variable]) -> tuple[Variable, ...]:
    """The columns with bounds within `FAR`; those beyond it keep theirs."""
    return tuple(
        replace(c, lower=max(c.lower, min(-FAR, c.upper)), upper=min(c.upper, max(FAR, c.lower))) for c in columns
    )


def _size(program: Program) -> float:
    """What a gap is relative to before anything is known of the value."""
    f = program.objective
    return 1.0 if f.nonlinear is not None else min(1.0, f.size) or 1.0


def clipped(program: Program, values: np.ndarray) -> np.ndarray:
    """Values within bounds, and integers whole."""
    lower = np.array([c.lower for c in program.columns])
    upper = np.array([c.upper for c in program.columns])
    whole = np.array([c.integer for c in program.columns], dtype=bool)
    return np.clip(np.where(whole, np.round(values), values), lower, upper)


def excess(rows: Sequence[Row], point: np.ndarray) -> float:
    """The largest violation of rows at a point, relative to scale."""
    return max((r.violation(point) / r.function.scale(point) for r in rows), default=0.0)
