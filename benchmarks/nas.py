"""Architecture search: methods beside each other on Fashion-MNIST, and samplers on the table of NAS-Bench-201.

    python benchmarks/nas.py search --space cell201-12 --seeds 5 --out runs.jsonl    # --data FOLDER, --only darts1 ...
    python benchmarks/nas.py search --space cell201-6 --cost-cap 20 --seeds 5 --out capped.jsonl
    python benchmarks/nas.py print runs.jsonl
    python benchmarks/nas.py table --file nb201_e12_e200.csv.gz --seeds 300
    python benchmarks/nas.py signal --draws 6                                        # --data FOLDER

A search gets 1,500 pass-equivalents whatever the method. The architecture it ends with is trained anew, twice, on the
4,000 training and validation images, and tested on 10,000 that no search has seen. Finished runs in the file given by
``--out`` are not run again, so that a table can be made in several sittings.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from bilevel_core.api import solve
from bilevel_nas.library import fashion
from bilevel_nas.table import nas_bench

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "darts1": ("supernet", {"preset": "darts1"}),
    "auxiliary": ("supernet", {"preset": "auxiliary"}),
    "beta-darts": ("supernet", {"preset": "beta-darts"}),
    "random": ("sample.random", {}),
    "darts2": ("supernet", {"preset": "darts2"}),
    "darts-pt": ("supernet", {"preset": "darts-pt"}),
    "evolution": ("sample.evolution", {"population": 10}),
    "implicit": ("supernet", {"preset": "implicit"}),
    "darts-plus": ("supernet", {"preset": "darts-plus"}),
    "pc-darts": ("supernet", {"preset": "pc-darts"}),
    "robust-darts": ("supernet", {"preset": "robust-darts"}),
    "gdas": ("supernet", {"preset": "gdas"}),
    "drnas": ("supernet", {"preset": "drnas"}),
    "fair-darts": ("supernet", {"preset": "fair-darts"}),
    "smooth-darts": ("supernet", {"preset": "smooth-darts"}),
    "once-for-all": ("supernet", {"preset": "once-for-all"}),
    "enas": ("supernet", {"preset": "enas"}),
}


def search(arguments: argparse.Namespace) -> None:
    out = Path(arguments.out)
    done = {(r["method"], r["seed"]) for r in read(out)}
    problem: Any = fashion(
        data_dir=arguments.data,
        space=arguments.space,
        retrains=2,
        cost_cap=arguments.cost_cap,
        fixed=False,
        beside="none",
        budget=arguments.budget,
    )
    if problem.data.name != "fashion":
        raise SystemExit("Fashion-MNIST was not found: pass --data FOLDER.")
    with out.open("a") as file:

        def write(row: dict[str, Any]) -> None:
            print(
                json.dumps({"space": arguments.space, "cost_cap": str(arguments.cost_cap), **row}),
                file=file,
                flush=True,
            )

        if not arguments.no_fixed:
            for name, architecture in problem.fixed_architectures.items():
                if (name, 0) not in done:
                    write(row_of(name, 0, problem, architecture, {}))
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for name in arguments.only or METHODS:
                if (name, seed) in done:
                    continue
                solver, options = METHODS[name]
                if solver == "supernet" and math.isfinite(arguments.cost_cap):
                    # DARTS cuts no edge; under a cap one that costs nothing is worth having, as it is to samplers.
                    options = {**options, "allow_none": True}
                start = time.process_time()
                result = problem_run(problem, solver, options, seed)
                write(row_of(name, seed, problem, problem.architecture(result.x), figures(result, start)))


def problem_run(problem: Any, solver: str, options: dict[str, Any], seed: int) -> Any:
    epochs, problem.final_epochs = problem.final_epochs, 0  # the final training is timed and counted apart
    try:
        return solve(problem, solver, options, seed=seed, verify=False)
    finally:
        problem.final_epochs = epochs


def figures(result: Any, start: float) -> dict[str, Any]:
    kept = ("supernet_accuracy", "discretised_accuracy", "entropy", "architecture_eigenvalue", "solve_residual")
    return {
        "cpu_s": time.process_time() - start,
        "passes": result.counts.get("pass_equivalents"),
        "validation_error": result.upper_objective,
        **{k: result.details[k] for k in (*kept, "joint_steps_accepted", "stopped_because") if k in result.details},
    }


def row_of(name: str, seed: int, problem: Any, architecture: Any, more: dict[str, Any]) -> dict[str, Any]:
    found = problem.retrained(architecture)
    space = problem.search_space
    return {
        "method": name,
        "seed": seed,
        "test": list(found.accuracies),
        "architecture": space.text(architecture),
        "cost": space.cost(architecture),
        "free": space.free_share(architecture),
        **more,
    }


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def show(arguments: argparse.Namespace) -> None:
    rows = [r for p in arguments.files for r in read(Path(p))]
    print("| space | cap | method | test accuracy | seeds | parameter-free | passes | CPU s a search |")
    print("|---|---|---|---|---|---|---|---|")
    for key in dict.fromkeys((r["space"], r["cost_cap"], r["method"]) for r in rows):
        mine = [r for r in rows if (r["space"], r["cost_cap"], r["method"]) == key]
        means = [statistics.fmean(r["test"]) for r in mine]
        spread = f" sd {statistics.stdev(means):.2f}" if len(means) > 1 else ""
        passes = [r["passes"] for r in mine if r.get("passes")]
        cpu = [r["cpu_s"] for r in mine if "cpu_s" in r]
        print(
            f"| {' | '.join(key)} | {statistics.fmean(means):.2f}{spread} | {len(mine)} | "
            f"{statistics.fmean(r['free'] for r in mine):.2f} | {mean_of(passes)} | {mean_of(cpu)} |"
        )


def mean_of(values: list[float]) -> str:
    return f"{statistics.fmean(values):.0f}" if values else "-"


SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("Random", {}),
    "regularised evolution": ("Evolution", {"scheme": "ageing", "population": 10, "tournament": 5}),
    "local search": ("Local", {}),
    "REINFORCE": ("Reinforce", {}),
}
TESTS = ("c10_test_e200", "c100_test_e200", "in16_test_e200")


def table(arguments: argparse.Namespace) -> None:
    """Each data set is searched on its own validation accuracy after 12 epochs, and tested after 200."""
    from bilevel_core.run import RunContext
    from bilevel_core.solvers.sample import methods as sample_methods

    problems = {d: nas_bench(arguments.file, d) for d in ("cifar10", "cifar100", "imagenet16")}
    print("| evaluations | method | cifar10 | cifar100 | imagenet16 |")
    print("|---|---|---|---|---|")
    for count in arguments.evaluations:
        for name, (kind, options) in SAMPLERS.items():
            cells: list[str] = []
            for problem in problems.values():
                found: list[float] = []
                for seed in range(arguments.seeds):
                    solver = getattr(sample_methods, kind)(lower_solves=count, **options)
                    result = solver.run(problem, RunContext(seed=seed))
                    found.append(problem.details(result.x, result.y)["reported_accuracy"])
                cells.append(f"{np.mean(found):.2f} sd {np.std(found, ddof=1):.2f}")
            print(f"| {count} | {name} | {' | '.join(cells)} |", flush=True)


def signal(arguments: argparse.Namespace) -> None:
    """How much of a search's architecture gradients is not the batches' noise: validation data only."""
    from bilevel_core.hypergradients import reduced_gradient
    from bilevel_nas.oracle import SupernetOracle, View
    from bilevel_nas.solver import Supernet
    from bilevel_nas.steps import SearchState, settings, train_weights

    problem: Any = fashion(data_dir=arguments.data, space=arguments.space, fixed=False, final_epochs=0)
    solver = Supernet()
    oracle = SupernetOracle(problem, solver.parts, seed=0)
    state = SearchState(x=oracle.x_start, y=oracle.y_start(), alive=oracle.alive)
    state.momentum = state.y * 0.0
    for k in range(arguments.warm):
        train_weights(solver, oracle, state, k / problem.budget)
    print("| images | hyper | signal share | root mean square | passes | CPU s |")
    print("|---|---|---|---|---|---|")
    for size in (64, 256):
        for hyper in ("first", "cg:2", "cg:5", "cg:10"):
            configured = Supernet(preset="darts1", hyper=hyper)
            oracle.parts = configured.parts
            start, oracle.passes = time.process_time(), 0.0
            found: list[np.ndarray] = []
            for k in range(arguments.draws):
                upper = arguments.validation if configured.implicit and arguments.validation else size
                oracle.view = View(oracle.batch("lower", size, k), oracle.batch("upper", upper, k), seed=k)
                with oracle.charged(size, upper=upper, gauss_newton=configured.gauss_newton):
                    how = settings(configured, oracle, 0.0)
                    found.append(reduced_gradient(oracle, state.x, oracle.response(state.y), how).value)
            inner = np.array(found) @ np.array(found).T
            n, power = len(found), float(np.trace(inner)) / len(found)
            share = (float(inner.sum()) - n * power) / (n * (n - 1)) / power
            seconds = (time.process_time() - start) / n
            cells = (
                size,
                hyper,
                f"{share:.2f}",
                f"{math.sqrt(power):.3f}",
                f"{oracle.passes / n:.0f}",
                f"{seconds:.1f}",
            )
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("search")
    one.add_argument("--space", default="cell201-12")
    one.add_argument("--data", default="")
    one.add_argument("--seeds", type=int, default=5)
    one.add_argument("--first-seed", type=int, default=0)
    one.add_argument("--budget", type=float, default=1500.0)
    one.add_argument("--cost-cap", type=float, default=math.inf)
    one.add_argument("--only", nargs="*", choices=METHODS)
    one.add_argument("--no-fixed", action="store_true")
    one.add_argument("--out", required=True)
    one.set_defaults(run=search)
    two = commands.add_parser("print")
    two.add_argument("files", nargs="+")
    two.set_defaults(run=show)
    three = commands.add_parser("table")
    three.add_argument("--file", required=True)
    three.add_argument("--seeds", type=int, default=300)
    three.add_argument("--evaluations", type=int, nargs="+", default=[100, 400])
    three.set_defaults(run=table)
    four = commands.add_parser("signal")
    four.add_argument("--space", default="cell201-12")
    four.add_argument("--data", default="")
    four.add_argument("--draws", type=int, default=6)
    four.add_argument("--validation", type=int, default=0, help="validation images of the implicit ones")
    four.add_argument("--warm", type=int, default=225)
    four.set_defaults(run=signal)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
