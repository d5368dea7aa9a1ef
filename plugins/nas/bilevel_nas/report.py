"""From the end of a supernet search to a result: the architecture, its training, and how the search went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevel_core.result import Claim, Result, Values
from bilevel_core.run import RunContext
from bilevel_core.solvers.assemble import without_point
from bilevel_core.solvers.driver import Run
from bilevel_nas import parallel
from bilevel_nas.discretise import discretise
from bilevel_nas.oracle import SupernetOracle
from bilevel_nas.problem import ArchitectureProblem
from bilevel_nas.spaces import Architecture
from bilevel_nas.steps import LAG, WINDOW, SearchState, dominant_eigenvalue

if TYPE_CHECKING:
    from bilevel_nas.solver import Supernet

COLLAPSED = 0.5
"""Share of parameter-free operations above which an architecture counts as collapsed."""
FEW = 5
"""Fewer steps of the architecture than so many leave it nearly where it began."""
LOOSE = 0.9
"""Mean relative residual above which linear solves say little; few products keep a batch's noise out (see `parts`)."""


def conclude(
    solver: Supernet,
    problem: ArchitectureProblem,
    oracle: SupernetOracle,
    search: Run,
    outcome: Result,
    context: RunContext,
) -> Result:
    """The result of a search that has come to its end, or was cut short.

    Args:
        solver: its options.
        problem: what was searched.
        oracle: the relaxed problem.
        search: where the search stands.
        outcome: what the driver made of it.
        context: the run.
    """
    stories = stories_of(search)
    if not stories:
        return without_point(outcome.termination, context, outcome.message, counts=dict(outcome.counts))
    state, kept = stories[0]
    spent = {k: sum(s[k] for _, s in stories) for k in ("passes", "moves", "batches")}
    oracle.alive, oracle.passes = tuple(tuple(a) for a in kept["alive"]), float(spent["passes"])
    panel = diagnosis(solver, oracle, state, kept)
    architecture = parallel.of_first_rank(discretise(solver, oracle, state))
    panel["supernet_accuracy"] = oracle.accuracy(state.x, state.y)
    panel["discretised_accuracy"] = oracle.accuracy(state.x, state.y, architecture)
    passes = oracle.passes
    context.report("phase", message="training the architecture found")
    answer = problem.solve_lower(architecture, device=context.device)
    upper = answer.upper if isinstance(answer.upper, tuple) else (answer.upper,)
    panel["trained_accuracy"] = 100.0 * (1.0 - upper[0])
    panel["pass_equivalents"] = passes
    texts = [*said_of(outcome, oracle, solver, kept), *warnings_of(solver, problem, architecture, panel, kept)]
    details: dict[str, Any] = {"preset": solver.preset, "parts": solver.parts.text or "the defaults", **panel}
    details["stopped_because"] = kept["ended"] or str(outcome.termination)
    details |= baseline(solver, problem, context, passes)
    x = problem.values(problem.search_space.point(architecture))
    counts = {k: v for k, v in outcome.counts.items() if k != "iterations"}
    counts |= {
        "lower_solves": 1,
        "pass_equivalents": round(passes),
        "architecture_steps": int(spent["moves"]),
        "weight_steps": int(spent["batches"]),
    }
    return Result(
        termination=outcome.termination,
        claim=Claim.FEASIBLE,
        x=x,
        y=Values({k: np.asarray(v, dtype=float) for k, v in answer.y.items()}),
        upper_objective=upper[0],
        lower_objective=answer.lower,
        trace=tuple(context.trace),
        counts=counts,
        versions={"torch": torch.__version__},
        message=" ".join(t for t in texts if t),
        details=details,
    )


def stories_of(search: Run) -> list[tuple[SearchState, dict[str, Any]]]:
    """Architecture parameters and weights of each start, and what is kept of its way: the one that the result is made
    of first, which is the best that came to its end, or else the first.
    """
    from bilevel_nas.solver import summary

    ended: list[tuple[float, SearchState, dict[str, Any]]] = []
    going: list[tuple[SearchState, dict[str, Any]]] = []
    for _, record in sorted(search.saved.records.items()):
        if record.best is not None and record.best_memory is not None:
            kept = dict(record.best_memory["summary"])
            state = SearchState(x=record.best.x, y=record.best.y, alive=kept["alive"], batches=kept["batches"])
            ended.append((record.best.objective, state, kept))
        elif record.state is not None:
            going.append((record.state, summary(record.state)))
    return [(state, kept) for _, state, kept in sorted(ended, key=lambda e: e[0])] + going


def said_of(outcome: Result, oracle: SupernetOracle, solver: Supernet, kept: dict[str, Any]) -> list[str]:
    """How the search ended, in sentences."""
    if kept["ended"]:
        return [outcome.message]
    return [
        *oracle.notes,
        f"The search was cut short at {kept['passes']:.4g} of {solver.total(oracle):.4g} pass-equivalents: the "
        "architecture is made of what there was by then.",
    ]


def diagnosis(solver: Supernet, oracle: SupernetOracle, state: SearchState, kept: dict[str, Any]) -> dict[str, Any]:
    """The collapse panel, but for what is known only of the architecture."""
    before = oracle.passes
    eigenvalue = dominant_eigenvalue(oracle, state.x, state.y, solver.batch, 5_000_000_000)
    oracle.passes = before  # looking at the end of a search is no work of the method
    oracle.view = oracle.probe
    told: dict[str, Any] = {
        "entropy": float(oracle.entropy(oracle.x_tensor(state.x))),
        "architecture_eigenvalue": eigenvalue,
    }
    if kept["eigenvalues"]:
        told["first_eigenvalue"] = float(kept["eigenvalues"][0])
    if kept["residuals"]:
        told["solve_residual"] = float(np.mean(kept["residuals"]))
        told["negative_curvature"] = int(kept["negative"])
    if kept["accepted"]:
        told["joint_steps_accepted"] = float(np.mean(kept["accepted"]))
    return told


def warnings_of(
    solver: Supernet,
    problem: ArchitectureProblem,
    architecture: Architecture,
    panel: dict[str, Any],
    kept: dict[str, Any],
) -> list[str]:
    """What the user should be told of how the search went."""
    texts: list[str] = []
    moves, looks = int(kept["moves"]), len(kept["eigenvalues"])
    if not moves:
        texts.append("The architecture parameters were never moved: this is a random architecture.")
    elif moves < FEW and solver.parts.part("hyper").kind != "none":
        texts.append(
            f"The architecture parameters were moved {moves} times only: raise the budget, or lower every"
            f"{', second_order_batch' if solver.implicit else ''} or warm."
        )
    if solver.watches and looks < WINDOW + LAG:
        texts.append(
            f"The dominant eigenvalue was looked at {looks} times, and is compared from {WINDOW + LAG} times on: it "
            "had no say in this search."
        )
    share = problem.search_space.free_share(architecture)
    if moves and share > COLLAPSED:
        texts.append(
            f"The search has collapsed: {100 * share:.0f} % of its operations are parameter-free. Guards "
            "against that: preset auxiliary or darts2, reg=beta, stop=skips, disc=perturbation."
        )
    if panel.get("solve_residual", 0.0) > LOOSE:
        texts.append(
            f"The linear solves ended at a mean relative residual of {panel['solve_residual']:.2g}: give hyper more "
            "products, or use curvature=gn."
        )
    if panel.get("negative_curvature"):
        texts.append(f"Negative curvature was met in {panel['negative_curvature']} solves.")
    if solver.parts.share == "layer" and getattr(problem.search_space, "share", "layer") != "layer":
        texts.append(
            f"The preset {solver.preset} was published with a cell for each layer: -p space_options.share=layer."
        )
    texts.append("One run guarantees nothing: differences of half a point are noise. Compare with several seeds.")
    return texts


def baseline(solver: Supernet, problem: ArchitectureProblem, context: RunContext, passes: float) -> dict[str, Any]:
    """Random search at the same budget, where it is asked for and there is time."""
    wanted = solver.beside if solver.beside != "problem" else problem.beside
    if wanted != "random" or context.stopped or context.expired:
        return {}
    from bilevel_core.solvers.sample.methods import Random

    context.report("phase", message="random search at the same budget, for comparison")
    trials = max(1, int(passes // problem.passes(problem.settings.epochs)))
    inner = RunContext(
        time_limit=context.remaining(), seed=context.seed, device=context.device, executor=context.executor
    )
    found = Random(lower_solves=trials).run(problem, inner)
    if not found.has_point:
        return {}
    architecture = problem.architecture(found.x)
    tested = problem.tested(architecture) if problem.final_epochs else {}
    row = {
        "architecture": problem.search_space.text(architecture),
        "trials": found.counts.get("lower_solves", trials),
        "trained_accuracy": None if found.upper_objective is None else 100.0 * (1.0 - found.upper_objective),
        **tested,
        "cost": problem.search_space.cost(architecture),
    }
    return {"random_search": [row]}
