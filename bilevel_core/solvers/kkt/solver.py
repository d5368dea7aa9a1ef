"""`kkt`: each follower replaced by its optimality conditions, and their pairs expressed in one of several modes.

Good at: linear and convex followers, any leader that SCIP takes, integer leader variables, several followers. With the
modes ``relaxed`` and ``penalised``: large nonlinear problems, locally.
Bad at: many pairs (hundreds to thousands, by structure), followers with integers or nonconvex ones (refused).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from bilevel_core.backends.scip import SCIP_FUNCTIONS
from bilevel_core.errors import UsageError, unknown
from bilevel_core.problems.base import AlgebraicProblem, Problem
from bilevel_core.result import Claim, Result
from bilevel_core.run import RunContext
from bilevel_core.solvers import used_options
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.solvers.kkt.modes import EXACT, LOCAL
from bilevel_core.solvers.used_options import check
from bilevel_core.traits import FollowerTraits, Traits, derive_traits

GAP, STARTS, ENLARGEMENTS = 1e-6, 5, 6


def _help(text: str) -> dict[str, str]:
    return {"help": text}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata=_help(text))


def _no_options() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class KKT(Solver):
    """Single-level reformulation by the Karush-Kuhn-Tucker conditions.

    Source: Fortuny-Amat and McCarl (1981). Exact for followers that are convex with linear constraints; for other
    convex constraints multipliers may not exist at the optimum, and the claim is ``stationary`` at most.
    """

    takes_duals: ClassVar[bool] = True

    complementarity: Literal["sos1", "indicator", "bigm", "strong-duality", "relaxed", "penalised"] = _option(
        "sos1",
        "how pairs are expressed: special ordered sets, indicators (both SCIP), binaries with bounds, one row a "
        "follower by strong duality (both HiGHS where it can); or locally (Ipopt): products relaxed or penalised",
    )
    modes: dict[str, str] = field(
        default_factory=_no_options,
        metadata={"help": "modes of single constraints, bounds or (also strong-duality) followers: modes.NAME=bigm"},
    )
    backend: str = _option("auto", "which backend solves the single-level program: auto, or one of `bilevel backends`")
    gap: float = _option(GAP, "exact modes: relative optimality gap at which the search may stop")
    multiplier_bound: float | None = _option(
        None, "bigm: bound on every multiplier; derived where it can be, else a guess that is enlarged"
    )
    slack_bound: float | None = _option(
        None, "bigm: bound on every slack; derived where it can be, else a guess that is enlarged"
    )
    multiplier_bounds: dict[str, float] = field(
        default_factory=_no_options,
        metadata={
            "help": "bigm: bounds on multipliers of single constraints or followers: multiplier_bounds.NAME=VALUE"
        },
    )
    slack_bounds: dict[str, float] = field(
        default_factory=_no_options, metadata=_help("bigm: the same for slacks: slack_bounds.NAME=VALUE")
    )
    max_enlargements: int = _option(ENLARGEMENTS, "bigm: how often unproven bounds that are leaned on grow tenfold")
    starts: int = _option(STARTS, "relaxed, penalised: from how many points the local search starts")
    response: Literal["optimistic", "pessimistic"] = _option(
        "optimistic", "which of several optimal answers the followers give: the leader's best or its worst"
    )
    backend_options: dict[str, Any] = field(
        default_factory=_no_options,
        metadata=_help("passed to the backend: backend_options.NAME=VALUE"),
    )

    def __post_init__(self) -> None:
        used = [self.complementarity, *self.modes.values()]
        for name, mode in self.modes.items():
            if mode not in (*EXACT, *LOCAL):
                raise unknown("complementarity mode", mode, (*EXACT, *LOCAL), see=f"It stands in modes.{name}.")
        if self.local and (wrong := sorted(set(used) - set(LOCAL))):
            raise UsageError(f"{self.complementarity} is local and {wrong[0]} exact: they cannot be mixed.")
        if not self.local and (wrong := sorted(set(used) - set(EXACT))):
            raise UsageError(f"{self.complementarity} is exact and {wrong[0]} local: they cannot be mixed.")
        for mode, what in (("sos1", "special ordered sets"), ("indicator", "indicators")):
            if mode in used and self.backend == "highs":
                raise UsageError(f"HiGHS has no {what}: use complementarity=bigm, or backend=scip.")
        for name in ("multiplier_bound", "slack_bound"):
            value, table = getattr(self, name), getattr(self, name + "s")
            for label, bound in [(name, value), *((f"{name}s.{k}", v) for k, v in table.items())]:
                if bound is not None and not (np.isfinite(bound) and bound > 0.0):
                    raise UsageError(f"Expected a positive number for {label}, got {bound!r}.")
        if not 0.0 <= self.gap < 1.0:
            raise UsageError(f"Expected a gap in [0, 1), got {self.gap!r}.")
        if self.max_enlargements < 0:
            raise UsageError(f"Expected max_enlargements >= 0, got {self.max_enlargements}.")
        if self.starts < 1:
            raise UsageError(f"Expected starts >= 1, got {self.starts}.")
        check(self, used_options.KKT)
        if self.local and self.backend not in ("auto", "ipopt"):
            raise UsageError(f"{self.complementarity} is solved by Ipopt: leave backend out, or choose an exact mode.")

    @property
    def local(self) -> bool:
        """Whether the modes are those of a local search."""
        return self.complementarity in LOCAL

    @property
    def modes_text(self) -> str:
        """The modes in use, for people."""
        return " and ".join(dict.fromkeys([self.complementarity, *self.modes.values()]))

    def with_sets(self) -> KKT:
        """The same options with special ordered sets for all pairs, which need no bounds."""
        none = {"multiplier_bound": None, "slack_bound": None, "multiplier_bounds": {}, "slack_bounds": {}}
        return replace(self, complementarity="sos1", modes={}, max_enlargements=ENLARGEMENTS, **none)

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Algebraic problems with continuous followers known to be convex; local modes take unknown convexity too."""
        if traits.form != "algebraic":
            return Refused("its levels are callables, not expressions", "a differentiable solver")
        for f in traits.followers:
            refused = self._refuses(f)
            if refused is not None:
                return refused
        if self.local:
            if traits.upper_integers:
                return Refused(
                    f"the leader has {traits.upper_integers} integer variable(s), which a local search cannot take",
                    "an exact mode (complementarity=sos1)",
                )
            how = f"optimality conditions, complementarity {self.modes_text}, solved by Ipopt from {self.starts} points"
            return Accepted(how, Claim.STATIONARY)
        if unknown_functions := sorted(traits.functions - SCIP_FUNCTIONS):
            return Refused(
                f"no global backend knows {', '.join(f'{name}()' for name in unknown_functions)}",
                "a local search, as complementarity=relaxed",
            )
        exact = not doubt(traits)
        sets = {"sos1", "indicator"} & {self.complementarity, *self.modes.values()}
        by = "SCIP" if sets else "HiGHS where it can, else SCIP"
        if self.backend != "auto":
            by = self.backend
        how = f"optimality conditions, complementarity by {self.modes_text}, solved by {by}"
        if self.response == "pessimistic":
            how += ", with an adversary that chooses among the followers' optimal answers"
        return Accepted(how, Claim.GLOBAL if exact else Claim.STATIONARY)

    def _refuses(self, f: FollowerTraits) -> Refused | None:
        if f.integers:
            return Refused(
                f"follower {f.name!r} has {f.integers} integer variable(s), so it has no optimality conditions",
                "an exact mixed-integer bilevel solver (branch-and-cut)",
            )
        if f.convex is False:
            return Refused(
                f"follower {f.name!r} is nonconvex, so points that satisfy its optimality conditions need not be "
                "optimal for it",
                "a global solver for nonconvex followers (global)",
            )
        if f.convex is None and not self.local:
            return Refused(
                f"follower {f.name!r} has nonlinear terms beyond degree two, whose convexity is not known",
                "a global solver for nonconvex followers (global), or for a stationary point complementarity=relaxed",
            )
        if self.complementarity == "strong-duality" and not (
            f.constraints == "linear" and f.objective in ("linear", "convex quadratic") and not f.matrix_varies
        ):
            return Refused(
                f"follower {f.name!r} is no linear or convex quadratic program with constant coefficients, as strong "
                "duality in one row needs",
                "complementarity=sos1",
            )
        return None

    def refuses(self, problem: Problem) -> Refused | None:
        """See `Solver.refuses`: cones, modes, bounds, backend and response that this problem's structure excludes."""
        if not isinstance(problem, AlgebraicProblem):
            return None
        from bilevel_core.solvers.kkt.refusals import refusal

        return refusal(self, problem)

    def run(self, problem: AlgebraicProblem, context: RunContext) -> Result:
        """See `Solver.run`."""
        if self.response == "pessimistic":
            from bilevel_core.solvers.pessimistic import run_pessimistic

            return run_pessimistic(self, problem, context)
        if self.local:
            from bilevel_core.solvers.kkt.local import run_local

            return run_local(self, problem, context)
        from bilevel_core.solvers.kkt.exact import ExactRun

        return ExactRun(self, problem, context, doubt=doubt(derive_traits(problem))).result()


def doubt(traits: Traits) -> str:
    """Why optimal answers need not satisfy the optimality conditions; empty where they always do."""
    for f in traits.followers:
        if f.constraints != "linear":
            return f"Follower {f.name!r} has nonlinear constraints, and multipliers need not exist at the optimum"
        if not f.smooth:
            return (
                f"The objective of follower {f.name!r} has no finite slope at an edge of its domain, and answers there "
                "satisfy no optimality conditions"
            )
    return ""
