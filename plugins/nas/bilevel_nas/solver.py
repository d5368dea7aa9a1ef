"""`supernet`: relax the architecture, train one network that holds all, and make one architecture of it.

Good at: spaces too large to sample, small budgets. Bad at: telling architectures apart whose difference is less than
noise; no run guarantees anything, and random search and hand-made cells belong beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.oracles import Oracle
from bilevel_core.result import Result, Termination
from bilevel_core.run import RunContext
from bilevel_core.solvers.base import Accepted, Refused
from bilevel_core.solvers.descent import option
from bilevel_core.solvers.iterative import Candidate, IterativeSolver, Stop, give_up
from bilevel_core.solvers.used_options import Only
from bilevel_core.traits import Traits
from bilevel_nas import parallel
from bilevel_nas.discretise import reserve
from bilevel_nas.oracle import SupernetOracle
from bilevel_nas.parts import IMPLICIT, KINDS, SECOND_ORDER, Parts
from bilevel_nas.presets import find_preset
from bilevel_nas.problem import STRUCTURE, ArchitectureProblem
from bilevel_nas.spaces.operations import ACTIVATIONS, SMOOTH
from bilevel_nas.steps import (
    LAG,
    WINDOW,
    SearchState,
    dominant_eigenvalue,
    move_architecture,
    prune,
    ranking,
    train_weights,
)

LOOKS = 20
"""Times that the eigenvalue is looked at in a search."""


def _hyper(*kinds: str) -> Callable[[Any, str | None], bool | None]:
    """Whether the part ``hyper`` is one of these kinds."""
    return lambda solver, form: solver.parts.part("hyper").kind in kinds


@dataclass(frozen=True)
class Supernet(IterativeSolver):
    """Search on a supernet, by a preset of the literature or by parts of your own choice.

    Raises:
        UsageError: parts that do not go together, or an option out of its range.
    """

    preset: str = option("auxiliary", "method to begin with; `bilevel nas presets` lists them")
    relax: str = option("", "softmax, sigmoid, gumbel, gates, dirichlet; default: the preset's, as for all parts")
    mask: str = option("", "full, partial:K, sample1, prune:N")
    hyper: str = option("", "first, fd, unroll:K, neumann:K, cg:K, aux:K, reinforce, none")
    lower: str = option("", "sgd, freeze")
    reg: str = option(
        "", "beta, zero-one, entropy, cost, decay, perturbation, skip-dropout, joined by +; none for none"
    )
    stop: str = option("", "epochs, skips:N, stable:N, eigenvalue:FACTOR")
    disc: str = option("", "argmax, top2, threshold:T, skips:N, perturbation, strength, budgeted, evolution:N")
    edges: bool | None = option(None, "weigh the edges into each node too (PC-DARTS)")
    curvature: Literal["gn", "hessian"] = option("gn", "of implicit methods: Gauss-Newton, or the whole Hessian")
    activation: str = option("silu", "of the supernet; second-order methods need a smooth one")
    budget: float | None = option(None, "pass-equivalents; default: the problem's")
    batch: int = option(64, "images a step")
    second_order_batch: int = option(256, "training images an implicit step of the architecture")
    validation_batch: int = option(1024, "validation images an implicit step of the architecture")
    every: int | None = option(None, "weight steps for each architecture step; default: 1, or 10 for implicit methods")
    warm: float = option(0.15, "share of the budget before the architecture moves")
    weight_rate: float = option(0.05, "first learning rate of the weights, falling along a cosine")
    momentum: float = option(0.9, "of the weights")
    clip: float = option(5.0, "largest norm of the weights' gradient")
    weight_decay: float = option(5e-4, "of the weights")
    architecture_rate: float | None = option(
        None, "Adam's, of the architecture; default: 0.01, or 0.1 for implicit ones"
    )
    radius: float = option(0.2, "longest step of the auxiliary program in any architecture parameter")
    damping: float = option(0.1, "added to the lower Hessian of implicit methods")
    neumann_step: float = option(0.1, "step length of hyper=neumann")
    allow_none: bool = option(False, "let the final architecture hold the operation that cuts an edge")
    beside: Literal["problem", "random", "none"] = option(
        "problem", "random search at the same budget beside the result; problem: as the problem says"
    )
    starts: int = option(1, "searches from different architecture parameters, which share the budget")
    max_iterations: int = option(1_000_000, "most architecture steps, where the budget is not to end a search")

    only: ClassVar[tuple[Only, ...]] = (
        Only(
            ("curvature", "damping", "second_order_batch", "validation_batch"),
            "with an implicit hyper (neumann, cg, aux)",
            _hyper(*IMPLICIT),
        ),
        Only(("radius",), "with hyper=aux", _hyper("aux")),
        Only(("neumann_step",), "with hyper=neumann", _hyper("neumann")),
        Only(
            ("architecture_rate",),
            "where Adam moves the architecture (hyper is neither aux nor none)",
            lambda solver, form: solver.parts.part("hyper").kind not in ("aux", "none"),
        ),
    )
    uses_device: ClassVar[bool] = True
    state_types: ClassVar[tuple[type, ...]] = (SearchState,)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.parts
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"Expected activation among {', '.join(ACTIVATIONS)}, got {self.activation!r}.")
        if self.parts.part("hyper").kind in SECOND_ORDER and self.activation not in SMOOTH:
            raise UsageError(
                f"hyper={self.parts.hyper} needs second derivatives, and a supernet with activation={self.activation} "
                f"has none: use one of {', '.join(SMOOTH)}."
            )
        for name in ("batch", "second_order_batch", "validation_batch"):
            if getattr(self, name) < 2:
                raise UsageError(f"Expected {name} of at least 2, got {getattr(self, name)}.")
        for name in ("weight_rate", "clip", "radius", "neumann_step"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UsageError(f"Expected a positive number for {name}, got {getattr(self, name)!r}.")
        if not (0.0 <= self.warm < 1.0 and 0.0 <= self.momentum < 1.0 and self.damping >= 0.0):
            raise UsageError("Expected warm and momentum in [0, 1), and damping of at least 0.")
        for name in ("every", "budget", "architecture_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"Expected a positive number for {name}, got {value!r}.")

    # The configuration.

    @cached_property
    def parts(self) -> Parts:
        """The preset's parts, with those replaced that were given."""
        given = {label: getattr(self, label) for label in KINDS if getattr(self, label)}
        if given.get("reg") == "none":
            given["reg"] = ""
        if self.edges is not None:
            given["edges"] = self.edges
        return replace(find_preset(self.preset).parts, **given)

    @property
    def implicit(self) -> bool:
        """Whether a system in the lower Hessian is solved."""
        return self.parts.part("hyper").kind in IMPLICIT

    @property
    def gauss_newton(self) -> bool:
        """Whether its products are Gauss-Newton's."""
        return self.implicit and self.curvature == "gn"

    @property
    def core_curvature(self) -> str:
        """The curvature by the core's name."""
        return "gauss-newton" if self.curvature == "gn" else "hessian"

    @property
    def rate(self) -> float:
        """Adam's rate for the architecture parameters."""
        if self.architecture_rate is not None:
            return self.architecture_rate
        return 0.1 if self.implicit else 0.01

    @property
    def period(self) -> int:
        """Weight steps for each architecture step."""
        if self.every is not None:
            return self.every
        return 10 if self.implicit else 1

    @property
    def watches(self) -> bool:
        """Whether the dominant eigenvalue is looked at during the search."""
        return self.parts.part("stop").kind == "eigenvalue" or "decay" in self.parts.regularisers

    # A solver of the core.

    def accepts(self, traits: Traits) -> Accepted | Refused:
        """Architecture problems whose networks are trained."""
        if STRUCTURE not in traits.structure:
            return Refused("it is no search for an architecture that is trained", "a solver for its class")
        return Accepted(
            f"supernet search, preset {self.preset} ({self.parts.text or 'softmax, first order'})", "feasible"
        )

    def make_oracle(self, problem: Any, context: RunContext) -> Oracle:
        """The relaxed problem."""
        if not isinstance(problem, ArchitectureProblem):
            raise UsageError(f"Expected an architecture problem, got {type(problem).__name__}.")
        if problem.objectives[0] != "error":
            raise UsageError(
                f"A supernet is searched for the smallest validation error, and the first objective is "
                f"{problem.objectives[0]!r}: put error first, or use a solver sample.*."
            )
        return SupernetOracle(
            problem,
            self.parts,
            activation=self.activation,
            weight_decay=self.weight_decay,
            seed=context.seed,
            device=context.device,
        )

    def total(self, oracle: SupernetOracle) -> float:
        """Pass-equivalents of the search of one start before the architecture is made discrete."""
        whole = self.budget if self.budget is not None else oracle.architectures.budget
        left = (whole - reserve(self, oracle)) / self.starts
        if left <= 0.0:
            raise UsageError(
                f"The budget of {whole:g} pass-equivalents is used up by disc={self.parts.disc}: raise it."
            )
        return left

    def init(self, oracle: Oracle, x0: np.ndarray, context: RunContext) -> SearchState:
        """See `IterativeSolver.init`."""
        assert isinstance(oracle, SupernetOracle)
        self.total(oracle)
        y = oracle.y_start()
        oracle.passes = 0.0
        return SearchState(
            x=x0.copy(),
            y=y,
            momentum=y * 0.0,
            first=np.zeros_like(x0),
            second=np.zeros_like(x0),
            alive=oracle.alive,
            decay=self.weight_decay,
        )

    def step(self, oracle: Oracle, state: SearchState, context: RunContext) -> SearchState:
        """See `IterativeSolver.step`: as many weight steps as belong to one architecture step, and that."""
        assert isinstance(oracle, SupernetOracle)
        hurry = give_up(context)
        new = copy(state)
        new.residuals, new.accepted = list(state.residuals), list(state.accepted)
        new.eigenvalues, new.past = list(state.eigenvalues), list(state.past)
        oracle.alive, oracle.passes, oracle.weight_decay = state.alive, state.passes, state.decay
        total = self.total(oracle)
        before = oracle.passes
        for _ in range(self.period):
            hurry()
            train_weights(self, oracle, new, min(1.0, oracle.passes / total))
        progress = min(1.0, oracle.passes / total)
        if progress >= self.warm:
            hurry()
            previous = new.x
            move_architecture(self, oracle, new, progress)
            self._after_move(oracle, new, previous, progress, total)
        new.passes = oracle.passes
        # The next step must not take the search beyond its budget by more than half of itself.
        if not new.ended and oracle.passes + 0.5 * (oracle.passes - before) >= total:
            new.ended = f"the budget of {total:.4g} pass-equivalents is spent"
        new.figures = {"pass_equivalents": oracle.passes, "progress": progress, "moves": float(new.moves)}
        if new.ended:
            self._finish(oracle, new)
        return new

    def _after_move(
        self, oracle: SupernetOracle, state: SearchState, previous: np.ndarray, progress: float, total: float
    ) -> None:
        """Pruning, and the rules that end a search early or raise the weights' decay."""
        parts = self.parts
        if parts.part("mask").kind == "prune":
            prune(oracle, state, progress, parts.part("mask").count)
        stop = parts.part("stop")
        # (At random first parameters there may be too many already.)
        if stop.kind == "skips" and most_skips(oracle, state.x) > stop.count >= most_skips(oracle, previous):
            state.x = previous
            state.ended = f"a cell would have more than {stop.count} skips"
        elif stop.kind == "stable":
            now = ranking(oracle, state.x)
            state.steady = state.steady + 1 if now == state.ranking else 0
            state.ranking = now
            if state.steady >= stop.count:
                state.ended = f"the ranking of all choices has been the same for {stop.count} steps"
        if self.watches and progress >= self.warm + len(state.eigenvalues) * (1.0 - self.warm) / LOOKS:
            value = dominant_eigenvalue(oracle, state.x, state.y, self.batch, 4_000_000_000 + state.moves)
            state.eigenvalues.append(value)
            state.past = [*state.past, state.x.copy()][-(LAG + 1) :]
            self._judge_eigenvalue(state, stop.value if stop.kind == "eigenvalue" else 0.0)

    def _judge_eigenvalue(self, state: SearchState, factor: float) -> None:
        values = np.abs(state.eigenvalues)
        if len(values) < WINDOW + LAG:
            return
        now, then = float(values[-WINDOW:].mean()), float(values[-WINDOW - LAG : -LAG].mean())
        if factor and now > factor * then:
            state.x = state.past[0]
            state.ended = f"the dominant eigenvalue grew by a factor of {now / then:.2f} within {LAG} looks"
        elif not factor and now > 1.3 * then:
            state.decay = min(state.decay * self.parts.regularisers["decay"], 100.0 * self.weight_decay)

    def _finish(self, oracle: SupernetOracle, state: SearchState) -> None:
        """The point that the search stands for."""
        oracle.summary = summary(state)
        oracle.view = oracle.probe
        state.candidate = Candidate(state.x, state.y, oracle.upper(state.x, state.y))

    def done(self, state: SearchState) -> Stop | None:
        """See `IterativeSolver.done`."""
        return Stop(Termination.CONVERGED, f"The search ended: {state.ended}.") if state.ended else None

    def run(self, problem: Any, context: RunContext) -> Result:
        """Search, make one architecture of it, train that, and report; see `bilevel_nas.report`."""
        from bilevel_core.solvers.driver import Run
        from bilevel_nas.report import conclude

        if parallel.ranks() > 1 and context.time_limit is not None:
            raise UsageError(
                "A time limit ends the ranks of a process group after different steps, and one waits for the other "
                "for ever: leave it out, and set budget instead."
            )
        oracle = self.make_oracle(problem, context)
        assert isinstance(oracle, SupernetOracle)
        search = Run(self, oracle, context)
        outcome = search.guarded(search.all_starts)
        return conclude(self, problem, oracle, search, outcome, context)


def summary(state: SearchState) -> dict[str, Any]:
    """What is kept of a state beside its point."""
    return {
        "passes": state.passes,
        "moves": state.moves,
        "batches": state.batches,
        "residuals": list(state.residuals),
        "negative": state.negative,
        "accepted": list(state.accepted),
        "eigenvalues": list(state.eigenvalues),
        "alive": state.alive,
        "ended": state.ended,
    }


def most_skips(oracle: SupernetOracle, x: np.ndarray) -> int:
    """The largest number of skips among the most probable choices of a cell (nodes called CELL/NODE)."""
    counts: dict[str, int] = {}
    for p, d in zip(oracle.probabilities(oracle.x_tensor(x)), oracle.decisions, strict=True):
        if d.skip is None:
            continue
        best = max(d.candidates, key=lambda k, p=p: float(p[k]))
        cell = d.node.rpartition("/")[0]
        counts[cell] = counts.get(cell, 0) + (best == d.skip)
    return max(counts.values(), default=0)
