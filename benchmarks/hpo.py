"""One regulariser for each feature of a ridge regression: hypergradients against samplers at equal CPU time.

See README.md.

python benchmarks/hpo.py [--sizes 50 500 2000] [--seconds 10 20 40] [--only PART ...] [--seed N]
"""

from __future__ import annotations

import argparse
import math
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg
import torch

import bilevel_core as bl
from bilevel_hpo.descents import SHARED_GAIN, STEEP
from bilevel_hpo.hyperparameters import Hyperparameter, index_of
from bilevel_hpo.linear import LinearModel
from bilevel_hpo.problem import TuningProblem, fold_of

GAPS = (1e-1, 1e-2, 1e-3)
PATIENCE = 2.0
"""A method is stopped from outside after so many times its seconds."""
LOW, HIGH = math.log(1e-2), math.log(1e5)


class OverError(Exception):
    """The time of a method is over."""


class Race:
    """Ridge regression without intercept: 4 d training, validation and test rows each, a fifth of the features tell.

    The loss is the mean squared error by the variance of the noise (about). Everybody but us gets it by a Cholesky
    factorisation of the normal equations, made once up to the regularisers.
    """

    def __init__(self, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.size = size
        truth = np.where(rng.random(size) < 0.2, rng.normal(size=size), 0.0)
        scale = math.sqrt(float(truth @ truth))

        def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
            inputs = rng.normal(size=(rows, size)) + 0.5 * rng.normal(size=(rows, 1))
            return inputs, (inputs @ truth + scale * rng.normal(size=rows)) / scale

        self.train, self.validation, self.test = draw(4 * size), draw(4 * size), draw(4 * size)
        self.gram = self.train[0].T @ self.train[0]
        self.right = self.train[0].T @ self.train[1]

    def weights(self, x: np.ndarray) -> np.ndarray:
        """The follower's answer at log-regularisers x."""
        matrix = self.gram.copy()
        matrix[np.diag_indices(self.size)] += np.exp(x)
        return scipy.linalg.cho_solve(scipy.linalg.cho_factor(matrix, overwrite_a=True), self.right)

    def losses(self, x: np.ndarray) -> tuple[float, float]:
        """Of validation and test, at the exact answer."""
        w = self.weights(x)
        return tuple(float(np.mean((a @ w - t) ** 2)) for a, t in (self.validation, self.test))  # type: ignore[return-value]


@dataclass
class Record:
    """Where a method stood.

    Attributes:
        seconds: CPU time that it may take.
        trace: (CPU seconds, lower-level solves, log-regularisers) along its path.
    """

    seconds: float
    start: float = field(default_factory=time.process_time)
    trace: list[tuple[float, int, np.ndarray]] = field(default_factory=list)
    solves: int = 0
    best: float = math.inf

    @property
    def spent(self) -> float:
        return time.process_time() - self.start

    def evaluate(self, race: Race, x: np.ndarray) -> float:
        """The validation loss for a sampler."""
        w = race.weights(x)
        value = float(np.mean((race.validation[0] @ w - race.validation[1]) ** 2))
        self.solves += 1
        if value < self.best:
            self.best = value
            self.trace.append((self.spent, self.solves, x.copy()))
        if self.spent > self.seconds:
            raise OverError
        return value


def ours(solver: str, race: Race, record: Record, seed: int, **given: Any) -> None:
    names = tuple(f"f{k}" for k in range(race.size))
    index, labels = index_of("feature", names, ("target",))
    alpha = Hyperparameter("alpha", math.exp(LOW), math.exp(HIGH), 1.0, index=index, labels=labels)
    model = LinearModel("squared", (alpha,), intercept="none")
    inputs = np.vstack([race.train[0], race.validation[0]])
    targets = np.concatenate([race.train[1], race.validation[1]])
    rows = len(race.train[1])
    fold = fold_of(model, inputs, targets, np.arange(rows), np.arange(rows, len(targets)))
    problem = TuningProblem(model, [fold])
    seen: dict[float, np.ndarray] = {}
    points: set[bytes] = set()

    def upper(x: Any, y: Any) -> Any:
        value = problem.objective(x, y)
        point = x["log_alpha"].detach().numpy().copy()
        points.add(point.tobytes())  # every point at which F is asked for had its lower level solved
        seen[float(value.detach())] = point
        return value

    problem.upper = upper

    def note(event: Any) -> bool:
        objective = event.data.get("objective") if event.kind == "iteration" else None
        if objective is not None and objective in seen:
            record.trace.append((record.spent, len(points), seen[objective]))
        return record.spent > record.seconds

    shared = problem.shared()
    shared_upper = shared.objective

    def first(x: Any, y: Any) -> Any:
        value = STEEP * shared_upper(x, y)
        point = np.repeat(x["log_alpha"].detach().numpy(), race.size)
        points.add(point.tobytes())
        seen[float(value.detach())] = point
        return value

    shared.upper = first
    limit = 20.0 * record.seconds
    values: list[float] = []

    def settled(event: Any) -> bool:  # what bilevel_hpo.tune does, too
        over = note(event)
        if event.kind == "iteration" and event.data.get("objective") is not None:
            values.append(event.data["objective"])
        return over or (len(values) > 1 and 0.0 < values[-2] - values[-1] <= SHARED_GAIN * abs(values[-1]))

    start = bl.solve(shared, solver, given, callbacks=[settled], verify=False, time_limit=limit)
    problem.x0 = torch.full((race.size,), float(start.x["log_alpha"][0]), dtype=torch.float64)
    result = bl.solve(problem, solver, {"tolerance": 1e-5, **given}, callbacks=[note], verify=False, time_limit=limit)
    record.solves = sum(r.counts.get("lower_solves", 0) for r in (start, result))


def random_search(race: Race, record: Record, seed: int) -> None:
    rng = np.random.default_rng(seed)
    while True:
        record.evaluate(race, rng.uniform(LOW, HIGH, race.size))


def one_alpha(race: Race, record: Record, seed: int) -> None:
    """What GridSearchCV and RidgeCV can do: one regulariser, 100 values of it, on the same split."""
    for value in np.linspace(LOW, HIGH, 100):
        record.evaluate(race, np.full(race.size, value))


def optuna_sampler(kind: str, race: Race, record: Record, seed: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    make = {"tpe": optuna.samplers.TPESampler, "cma": optuna.samplers.CmaEsSampler}[kind]
    study = optuna.create_study(sampler=make(seed=seed))
    start = math.log(1.0)
    study.enqueue_trial({f"x{k}": start for k in range(race.size)})  # the same start as ours

    def objective(trial: Any) -> float:
        return record.evaluate(race, np.array([trial.suggest_float(f"x{k}", LOW, HIGH) for k in range(race.size)]))

    study.optimize(objective)


def smac(race: Race, record: Record, seed: int) -> None:
    from ConfigSpace import ConfigurationSpace, Float
    from smac import HyperparameterOptimizationFacade, Scenario

    space = ConfigurationSpace(seed=seed)
    space.add([Float(f"x{k}", (LOW, HIGH), default=0.0) for k in range(race.size)])

    def objective(config: Any, seed: int = 0) -> float:
        return record.evaluate(race, np.array([config[f"x{k}"] for k in range(race.size)]))

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(space, deterministic=True, n_trials=100_000, output_directory=folder, seed=seed)
        optimiser = HyperparameterOptimizationFacade(scenario, objective, overwrite=True, logging_level=False)
        while True:
            info = optimiser.ask()
            cost = objective(info.config)
            from smac.runhistory.dataclasses import TrialValue

            optimiser.tell(info, TrialValue(cost=cost))


METHODS: dict[str, Callable[[Race, Record, int], None]] = {
    "bilevel hypergradient": lambda race, record, seed: ours("hypergradient", race, record, seed),
    "bilevel auxiliary": lambda race, record, seed: ours("auxiliary", race, record, seed),
    "bilevel trust-region, exact": lambda race, record, seed: ours("trust-region", race, record, seed, hessian="exact"),
    "scikit-learn, one alpha": one_alpha,
    "random": random_search,
    "Optuna TPE": lambda race, record, seed: optuna_sampler("tpe", race, record, seed),
    "Optuna CMA-ES": lambda race, record, seed: optuna_sampler("cma", race, record, seed),
    "SMAC3": smac,
}


def run(name: str, race: Race, seconds: float, seed: int) -> tuple[Record, str]:
    """A method's record, and why it has none."""
    record = Record(seconds)
    # Some prepare for longer than they have before they ask for a first value.
    signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE * seconds)
    try:
        METHODS[name](race, record, seed)
    except OverError:
        pass
    except ImportError as error:
        return record, f"not installed: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    return record, ""


def over(number: int, frame: Any) -> None:
    """The signal of the clock."""
    raise OverError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 500, 2000])
    parser.add_argument("--seconds", nargs="+", type=float, default=[10.0, 20.0, 40.0], help="CPU seconds, by size")
    parser.add_argument("--only", nargs="+", default=[], help="methods whose name contains one of these")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ours("hypergradient", Race(5, 0), Record(60.0), 0)  # what is loaded or compiled at first use is nobody's time
    for size, seconds in zip(options.sizes, options.seconds, strict=True):
        race = Race(size, options.seed)
        rows: list[tuple[str, list[tuple[float, int, float, float]], int, str]] = []
        for name in METHODS:
            if options.only and not any(part in name for part in options.only):
                continue
            record, failed = run(name, race, seconds, options.seed)
            count = len(record.trace)
            few = sorted({*range(min(count, 50)), *(round(k) - 1 for k in np.geomspace(1, max(1, count), 30))})
            kept = [record.trace[k] for k in few if k < count]
            rows.append((name, [(t, n, *race.losses(x)) for t, n, x in kept], record.solves, failed))
        best = min((row[2] for _, trace, _, _ in rows for row in trace), default=math.inf)
        print(f"\n{size} hyperparameters, {seconds:g} CPU s each, best validation loss {best:.5f}\n")
        print("| method | validation | test | solves | " + " | ".join(f"solves, s to {gap:g}" for gap in GAPS) + " |")
        print("|---|---|---|---|" + "---|" * len(GAPS))
        for name, trace, solves, failed in rows:
            if failed or not trace:
                print(f"| {name} | {failed or 'no point in time'} | | |" + " |" * len(GAPS))
                continue
            last = min(trace, key=lambda row: row[2])
            near = (next((row for row in trace if row[2] <= best + gap), None) for gap in GAPS)
            cells = ["-" if row is None else f"{row[1]}, {row[0]:.2f}" for row in near]
            print(f"| {name} | {last[2]:.5f} | {last[3]:.5f} | {solves} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
