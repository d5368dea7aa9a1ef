"""Sampling: lower-level work of `bleaq` on SMD1 to SMD12, samplers beside the libraries used directly, batched solves.

    python benchmarks/sampling.py smd --dims 5 10
    python benchmarks/sampling.py peers
    python benchmarks/sampling.py batched

Evaluations of the lower level are those of Ipopt (objective values; it has derivatives besides). Methods do not get the
problem's own starting point, which on several SMD problems is the optimum.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import bilevel_core as bl
from bilevel_core.plugins.registry import get_registry

SIZES: dict[int, dict[str, Any]] = {5: {}, 10: {"p": 3, "q": 3, "r": 2}}
SMD6 = {"p": 3, "q": 1, "r": 2, "s": 2}
OPTIMA = {10: {5: 4.0, 10: None}, 12: {5: 3.0, 10: None}, 11: {5: -1.0, 10: -1.0}}
"""Those that are not 0; None where the library knows none for the size: then the best of all runs is taken."""
GLOBAL = (3, 4)
"""Their followers have many local optima: each lower-level solve is a global one by SCIP, without a count."""
LEVELS = (1e-2, 1e-3)
NO_ANSWER = 1e6
"""What libraries used directly are told where the follower has no answer."""


def smd(number: int, dims: int) -> Any:
    return get_registry().problems[f"smd/smd{number}"].load()(**(SMD6 if (number, dims) == (6, 10) else SIZES[dims]))


def run_smd(number: int, dims: int, seed: int, limit: int, seconds: float, options: dict[str, Any]) -> list[Any]:
    """Incumbents as (objective, lower solves, lower evaluations); what a last, global solve says of the point."""
    path: list[Any] = []
    total = {"evaluations": 0}
    target = OPTIMA.get(number, {5: 0.0, 10: 0.0})[dims]
    more = {"lower": "global"} if number in GLOBAL and options.get("lower") is None else {}
    begin = time.process_time()

    def watch(event: bl.Event) -> bool:
        if event.kind == "incumbent":
            path.append((event.data["objective"], event.data["lower_solves"]))
        return time.process_time() - begin > seconds

    given = {"lower_solves": limit, "from_start": False, "patience": 0, **more, **options}
    if target is not None:
        given["target"] = target + LEVELS[-1]
    result = bl.solve(smd(number, dims), "bleaq", given, callbacks=[watch], seed=seed, verify=False)
    total["evaluations"] = result.counts.get("lower_evaluations", 0)
    return [path, result, total["evaluations"], time.process_time() - begin]


def table_smd(arguments: argparse.Namespace) -> None:
    print("| problem | dims | solves to 1e-2 | solves to 1e-3 | evaluations in all | error | runs | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for dims in arguments.dims:
        for number in arguments.only or range(1, 13):
            if number in (9,):
                continue  # integer variables at both levels: not a problem for models of continuous ones
            rows: list[Any] = []
            for seed in range(arguments.seeds):
                rows.append(run_smd(number, dims, seed, arguments.limit, arguments.seconds, {}))
            ends = [r[1].upper_objective for r in rows if r[1].upper_objective is not None]
            optimum = OPTIMA.get(number, {5: 0.0, 10: 0.0})[dims]
            optimum = min(ends) if optimum is None and ends else optimum or 0.0
            cells: list[str] = []
            for level in LEVELS:
                # A point below the optimum is one whose follower was not at its own: it does not count.
                hits = [
                    next((s for v, s in path if abs(v - optimum) <= level), None)
                    for path, result, *_ in rows
                    if result.upper_objective is not None and abs(result.upper_objective - optimum) <= level
                ]
                reached = [h for h in hits if h is not None]
                cells.append(f"{statistics.median(reached):.0f} ({len(reached)})" if reached else "-")
            work = statistics.median(r[2] for r in rows)
            error = statistics.median(abs(e - optimum) for e in ends) if ends else float("nan")
            seconds = statistics.median(r[3] for r in rows)
            counted = "SCIP" if number in GLOBAL else f"{work:.0f}"
            cells += [counted, f"{error:.1e}", str(len(rows)), f"{seconds:.1f}"]
            print(f"| smd{number} | {dims} | {' | '.join(cells)} |", flush=True)


def reduced(problem: Any) -> Callable[[np.ndarray], float]:
    """The leader's value with the follower's answer, as a plain function, for the libraries used directly."""
    from bilevel_core.lower import LowerFailedError, respond
    from bilevel_core.oracles import make_oracle
    from bilevel_core.solvers.sample.task import EvaluationSettings, make_evaluation

    oracle = make_oracle(problem)

    def value(x: np.ndarray) -> float:
        try:
            return float(oracle.upper(x, respond(oracle, x).y))
        except LowerFailedError:
            return NO_ANSWER

    # The same box: what the rows leave of the leader's bounds.
    variables: Any = make_evaluation(problem, EvaluationSettings(), 0).space.variables
    value.low, value.high = (np.array([getattr(v, end) for v in variables]) for end in ("lower", "upper"))  # type: ignore[attr-defined]
    return value


def by_optuna(f: Any, limit: int, seed: int, kind: str) -> float:
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    tpe = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    study = optuna.create_study(sampler=tpe if kind == "tpe" else optuna.samplers.GPSampler(seed=seed))
    ends = list(zip(f.low, f.high, strict=True))
    study.optimize(lambda t: f(np.array([t.suggest_float(str(k), *end) for k, end in enumerate(ends)])), n_trials=limit)
    return float(study.best_value)


def by_cma(f: Any, limit: int, seed: int) -> float:
    import cma

    width = f.high - f.low
    if len(width) == 1:  # cma fails on one variable
        return np.inf
    options = {"bounds": [0, 1], "maxfevals": limit, "verbose": -9, "seed": seed + 1}
    _, es = cma.fmin2(lambda u: f(f.low + width * np.asarray(u)), np.full(len(width), 0.5), 0.25, options)
    return float(es.result.fbest)


def by_pymoo(f: Any, limit: int, seed: int) -> float:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.optimize import minimize

    class Nested(ElementwiseProblem):
        def __init__(self) -> None:
            super().__init__(n_var=len(f.low), n_obj=1, xl=f.low, xu=f.high)

        def _evaluate(self, x: Any, out: Any, *args: Any, **kwargs: Any) -> None:
            out["F"] = f(x)

    return float(minimize(Nested(), NSGA2(pop_size=20), ("n_evals", limit), seed=seed, verbose=False).F[0])


PAIRS: tuple[tuple[str, dict[str, Any], str, Any], ...] = (
    ("sample.bayes", {"model": "tpe"}, "optuna TPE", lambda f, n, s: by_optuna(f, n, s, "tpe")),
    ("sample.bayes", {"model": "gp"}, "optuna GP", lambda f, n, s: by_optuna(f, n, s, "gp")),
    ("sample.cma", {}, "cma", by_cma),
    ("sample.nsga2", {"population": 20}, "pymoo NSGA-II", by_pymoo),
)
ALONE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sample.random", {}),
    ("sample.sobol", {}),
    ("sample.local", {"from_start": False}),
    ("sample.evolution", {"from_start": False}),
    ("sample.reinforce", {"from_start": False}),
    ("bleaq", {"from_start": False, "patience": 0}),
    ("bleaq", {"from_start": False, "patience": 0, "model": "kriging"}),
)


def table_peers(arguments: argparse.Namespace) -> None:
    print("| problem | method | budget | error, median of seeds | used directly | error | CPU s, ours and theirs |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.problems:
        spec = get_registry().problems[name]
        problem, optimum = spec.load()(), spec.known.upper_objective if spec.known else 0.0
        for solver, options, label, direct in (*PAIRS, *((s, o, "", None) for s, o in ALONE)):
            kind = f"{solver} {options.get('model', '')}".strip()
            if arguments.methods and not any(m in kind for m in arguments.methods):
                continue
            limit = arguments.limit
            ours: list[float] = []
            theirs: list[float] = []
            spent = [0.0, 0.0]
            for seed in range(arguments.seeds):
                begin = time.process_time()
                more = {} if solver in ("sample.random", "sample.sobol") else {"from_start": False}
                result = bl.solve(problem, solver, {**more, **options, "lower_solves": limit}, seed=seed, verify=False)
                ours.append(np.inf if result.upper_objective is None else abs(result.upper_objective - optimum))
                spent[0] += time.process_time() - begin
                if direct is not None:
                    begin = time.process_time()
                    theirs.append(abs(direct(reduced(problem), limit, seed) - optimum))
                    spent[1] += time.process_time() - begin
            error = f"{statistics.median(theirs):.1e}" if theirs else ""
            print(
                f"| {name} | {kind} | {limit} | {statistics.median(ours):.1e} | {label} | {error} | "
                f"{spent[0]:.1f} {f'{spent[1]:.1f}' if theirs else ''} |",
                flush=True,
            )


def table_batched(arguments: argparse.Namespace) -> None:
    import torch

    from bilevel_core.lower import LowerSettings, respond
    from bilevel_core.lower.batched import respond_many
    from bilevel_core.oracles import make_oracle

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(200, 10, generator=generator), torch.randn(200, generator=generator)

    def loss(y: Any, rows: slice) -> Any:
        return ((torch.tanh(inputs[rows] @ y["a"]) @ y["b"] - targets[rows]) ** 2).mean()

    start = {"a": 0.3 * torch.randn(10, 16, generator=generator), "b": 0.3 * torch.randn(16, generator=generator)}
    problem = bl.TorchProblem(
        lambda x, y: loss(y, slice(100, 200)),
        lambda x, y: loss(y, slice(0, 100)) + x.exp().sum() * sum((v**2).sum() for v in y.values()),
        torch.zeros(2),
        start,
        x_bounds=(-8.0, 0.0),
    )
    oracle: Any = make_oracle(problem, device=arguments.device)
    settings = LowerSettings(method="adam", max_iterations=100, learning_rate=0.02, tolerance=1e-12)
    points = np.random.default_rng(0).uniform(-8.0, 0.0, (128, 2))
    clock = time.process_time if arguments.device == "cpu" else time.perf_counter
    respond_many(oracle, points[:2], torch.stack([oracle.y_start()] * 2), settings)
    begin = clock()
    alone = [respond(oracle, x, None, settings) for x in points[:4]]
    each = (clock() - begin) / 4
    print("| candidates | s one by one | s together | ratio | largest difference of weights |")
    print("|---|---|---|---|---|")
    for count in (4, 16, 64, 128):
        begin = clock()
        found: Any = respond_many(oracle, points[:count], torch.stack([oracle.y_start()] * count), settings)
        spent = clock() - begin
        differs = max(float((a.y - b.y).abs().max()) for a, b in zip(alone, found, strict=False))
        print(
            f"| {count} | {each * count:.2f} | {spent:.2f} | {each * count / spent:.1f} | {differs:.1e} |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("smd", "peers", "batched"))
    parser.add_argument("--dims", nargs="*", type=int, default=[5, 10])
    parser.add_argument("--only", nargs="*", type=int, default=[])
    parser.add_argument("--problems", nargs="*", default=["smd/smd1", "smd/smd7", "classic/bard-511"], help="of peers")
    parser.add_argument("--methods", nargs="*", default=[], help="of peers: parts of the names of those to run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=200, help="lower-level solves of each run")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds of each run of smd")
    parser.add_argument("--device", default="cpu", help="of batched")
    arguments = parser.parse_args()
    {"smd": table_smd, "peers": table_peers, "batched": table_batched}[arguments.table](arguments)


if __name__ == "__main__":
    main()
