"""One peer's rows of the outer race; run by outer.py with the peer's own Python.

    python outer_peer.py PEER RACE SECONDS [METHOD ...]

Prints one JSON object a method: method, trace (seconds, true F), solves, products; or method, failed. The recipes are
plain ones: T lower steps of 1 / L from the last answer, a hypergradient, one step of Adam at the upper level, clipped
to the bounds.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from digits import Race, Record, run

Method = tuple[str, int | None, Callable[[Record], None]]
"""Name, Hessian products of one upper step (None: not counted in products), and the run itself."""


class Weights(torch.nn.Module):
    """A vector as a module."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(values.clone())

    def forward(self) -> Any:
        return self.w


def leader(race: Race) -> tuple[Any, Any]:
    """The upper variables, and the Adam that moves them."""
    x = race.x.clone().requires_grad_(True)
    return x, torch.optim.Adam([x], lr=race.outer_rate)


def move(race: Race, x: Any, adam: Any, slope: Any = None) -> None:
    """One step at the upper level."""
    if slope is not None:
        x.grad = slope
    adam.step()
    adam.zero_grad()
    x.data.clamp_(*race.bounds)


def torchopt_methods(race: Race) -> Iterator[Method]:
    import torchopt
    from torchopt.diff.implicit import custom_root

    slope: Any = torch.func.grad(lambda y, x: race.lower(x, y), argnums=0)

    def implicit(record: Record, solve: Any) -> None:
        x, adam = leader(race)
        last = race.zero

        @custom_root(slope, argnums=1, solve=solve)
        def answer(start: Any, x: Any) -> Any:
            y = start.detach()
            for _ in range(50):
                y = (y - race.rate * slope(y, x.detach())).detach()
            return y.requires_grad_(True)

        while True:
            y = answer(last, x)
            last = y.detach()
            record(x)
            race.upper(x, y).backward()
            move(race, x, adam)

    def unrolled(record: Record, steps: int) -> None:
        x, adam = leader(race)
        module = Weights(race.zero)
        while True:
            optimiser = torchopt.MetaSGD(module, lr=race.rate)
            for _ in range(steps):
                optimiser.step(race.lower(x, module.w))
            record(x)
            race.upper(x, module.w).backward()
            torchopt.stop_gradient(module)
            move(race, x, adam)

    cg = torchopt.linear_solve.solve_cg(maxiter=20, atol=0.0, rtol=1e-10)
    yield "implicit, T=50, 20 of cg", 20, lambda record: implicit(record, cg)
    yield "MetaSGD, T=50", None, lambda record: unrolled(record, 50)


def betty_methods(race: Race) -> Iterator[Method]:
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    logging.disable(logging.CRITICAL)

    def engine(record: Record, kind: str, **options: Any) -> None:
        class Outer(ImplicitProblem):
            def training_step(self, _batch: Any) -> Any:
                record(self.module.w.data.clamp_(*race.bounds))
                return race.upper(self.module.w, self.inner.module.w)

        class Inner(ImplicitProblem):
            def training_step(self, _batch: Any) -> Any:
                return race.lower(self.outer.module.w, self.module.w)

        x, y, data = Weights(race.x), Weights(race.zero), [torch.zeros(1)]
        outer = Outer(
            name="outer",
            module=x,
            optimizer=torch.optim.Adam(x.parameters(), lr=race.outer_rate),
            train_data_loader=data,
            config=Config(retain_graph=False),
        )
        inner = Inner(
            name="inner",
            module=y,
            optimizer=torch.optim.SGD(y.parameters(), lr=race.rate),
            train_data_loader=data,
            config=Config(type=kind, unroll_steps=50, **options),
        )
        Engine(
            config=EngineConfig(train_iters=10**9, valid_step=10**9, strategy="cpu"),
            problems=[outer, inner],
            dependencies={"u2l": {outer: [inner]}, "l2u": {inner: [outer]}},
        ).run()

    yield "darts, T=50", None, lambda record: engine(record, "darts")
    yield (
        "neumann, T=50, 50 terms",
        50,
        lambda record: engine(record, "neumann", neumann_iterations=50, neumann_alpha=race.rate),
    )
    yield "cg, T=50, 20 steps", 20, lambda record: engine(record, "cg", cg_iterations=20)


def higher_methods(race: Race) -> Iterator[Method]:
    import higher

    def unrolled(record: Record, steps: int) -> None:
        x, adam = leader(race)
        module = Weights(race.zero)
        optimiser = torch.optim.SGD(module.parameters(), lr=race.rate)
        while True:
            with higher.innerloop_ctx(module, optimiser, copy_initial_weights=False) as (inner, stepper):
                for _ in range(steps):
                    stepper.step(race.lower(x, inner.w))
                record(x)
                (slope,) = torch.autograd.grad(race.upper(x, inner.w), x)
                module.w.data.copy_(inner.w.data)
            move(race, x, adam, slope)

    yield "unrolled, T=20", None, lambda record: unrolled(record, 20)
    yield "unrolled, T=100", None, lambda record: unrolled(record, 100)


def hypertorch_methods(race: Race) -> Iterator[Method]:
    import hypergrad as lib

    def implicit(record: Record, function: Any, terms: int) -> None:
        step = lib.GradientDescent(lambda ys, xs: race.lower(xs[0], ys[0]), race.rate)
        x, adam = leader(race)
        y = race.zero
        while True:
            for _ in range(50):
                y = step([y.detach().requires_grad_(True)], [x], create_graph=False)[0].detach()
            record(x)
            function([y.requires_grad_(True)], [x], terms, step, lambda ys, xs: race.upper(xs[0], ys[0]))
            move(race, x, adam)

    yield "CG, T=50, 20 steps", 20, lambda record: implicit(record, lib.CG, 20)
    yield "fixed_point, T=50, 50 steps", 50, lambda record: implicit(record, lib.fixed_point, 50)


def boat_methods(race: Race) -> Iterator[Method]:
    import boat_torch

    def module_of(kw: dict[str, Any], lm: Any) -> Any:
        return kw["params"][0] if "params" in kw else next(iter(lm.parameters()))

    losses: Any = types.ModuleType("boat_losses")
    losses.lower = lambda _data, um, lm, weights=0.0, **kw: race.lower(um.w, module_of(kw, lm))
    losses.upper = lambda _data, um, lm, weights=0.0, **kw: race.upper(um.w, module_of(kw, lm))
    sys.modules["boat_losses"] = losses
    # It rewrites a log of its losses at every step, in the working directory.
    os.chdir(tempfile.mkdtemp(prefix="boat-"))

    def go(record: Record, gradient: list[str] | None, numeric: list[str] | None, first: str | None, k: int) -> None:
        lower, upper, rate = Weights(race.zero), Weights(race.x), race.rate
        config = {
            "fo_op": first,
            "gm_op": gradient,
            "na_op": numeric,
            "return_grad": False,
            "lower_iters": 50,
            "device": "cpu",
            "accumulate_grad": False,
            "copy_last_param": True,
            "fo_ol_batch_input": False,
            "loss_log_path": "boat_log.json",
            "DI": {"lr": 0.1},
            "GDA": {"alpha_init": 0.0, "alpha_decay": 0.9},
            "DM": {"auxiliary_v_lr": rate, "tau": 0.01, "p": 100, "mu0": 0.9, "eta0": 0.5, "strategy": "s1"},
            "RGT": {"truncate_iter": 0},
            "CG": {"k": k, "tolerance": 1e-12},
            "FD": {"r": 1e-2},
            "VSO": {
                "z_loop": 5,
                "z_lr": rate,
                "ll_l2_reg": 0.1,
                "ul_l2_reg": 0.01,
                "ul_ln_reg": 10.0,
                "reg_decay": True,
            },
            "PGDO": {
                "y_hat_lr": rate,
                "gamma_init": 1.0,
                "gamma_max": 100.0,
                "gamma_argmax_step": 500,
                "update_y_ahead": False,
                "penalty": "difference",
            },
            "VFO": {"eta": 0.5, "u1": 0.1, "y_hat_lr": rate},
            "MESO": {"eta": 0.001, "gamma_1": 0.01, "c0": 0.2, "y_hat_lr": rate},
            "lower_level_model": lower,
            "upper_level_model": upper,
            "lower_level_opt": torch.optim.SGD(lower.parameters(), lr=rate),
            "upper_level_opt": torch.optim.Adam(upper.parameters(), lr=race.outer_rate),
            "lower_level_var": list(lower.parameters()),
            "upper_level_var": list(upper.parameters()),
        }
        problem = boat_torch.Problem(
            config,
            {
                "lower_level_loss": {"function": "boat_losses.lower", "params": {}},
                "upper_level_loss": {"function": "boat_losses.upper", "params": {}},
            },
        )
        problem.build_ll_solver()
        problem.build_ul_solver()
        iteration = 0
        while True:
            record(upper.w.data.clamp_(*race.bounds))
            problem.run_iter({}, {}, iteration)
            iteration += 1

    for name, terms, products in (("CG", 20, 20), ("NS", 50, 50), ("RAD", 20, None), ("FD", 20, None)):
        yield f"NGD + {name}, T=50", products, partial(go, gradient=["NGD"], numeric=[name], first=None, k=terms)
    # MESO takes one lower step for each upper one, whatever T is.
    for name in ("VFO", "PGDO", "VSO", "MESO"):
        label = name if name == "MESO" else f"{name}, T=50"
        yield label, None, partial(go, gradient=None, numeric=None, first=name, k=20)


PEERS: dict[str, Callable[[Race], Iterator[Method]]] = {
    "torchopt": torchopt_methods,
    "betty": betty_methods,
    "higher": higher_methods,
    "hypertorch": hypertorch_methods,
    "boat": boat_methods,
}


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    name, race, seconds, only = sys.argv[1], Race(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    for method, products, call in PEERS[name](race):
        if only and not any(part in f"{name} {method}" for part in only):
            continue
        row: dict[str, Any] = {"method": method}
        try:
            run(race, call, 0.3)  # what is loaded or compiled at first use is nobody's time
            record = run(race, call, seconds)
            row["trace"] = record.judged(race)
            row["solves"] = len(record.history)
            row["products"] = None if products is None else products * len(record.history)
        except Exception as error:  # noqa: BLE001 - a peer may raise anything; the table says what
            row["failed"] = f"{type(error).__name__}: {error}"
        print("ROW " + json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
