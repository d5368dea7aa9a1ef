"""One peer's rows of the hypergradient benchmark; run by hypergradient.py with the peer's own Python.

    python hypergradient_peer.py PEER CONDITION K [K ...]

Prints one JSON object a row: method, K, error, ms; or method, K, failed. K is the number of Hessian products, or of
unrolled steps. Implicit methods get the exact answer y; unrolling starts from zero with steps of 1 / L.
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ridge import Ridge, measure

Row = tuple[str, int, Callable[[], Any]]


def torchopt_rows(p: Ridge, steps: list[int]) -> Iterator[Row]:
    import torchopt
    from torchopt.diff.implicit import custom_root

    stationarity = torch.func.grad(lambda y, x: p.lower(x, y), argnums=0)

    def implicit(solve: Any) -> Any:
        @custom_root(stationarity, argnums=1, solve=solve)
        def answer(_start: Any, _x: Any) -> Any:
            return p.y.clone()

        x = p.x.clone().requires_grad_(True)
        return torch.autograd.grad(p.upper(x, answer(p.zero.clone().requires_grad_(True), x)), x)[0]

    def unrolled(k: int) -> Any:
        module, x = Weights(p.zero), p.x.clone().requires_grad_(True)
        optimiser = torchopt.MetaSGD(module, lr=1.0 / p.lipschitz)
        for _ in range(k):
            optimiser.step(p.lower(x, module.w))
        return torch.autograd.grad(p.upper(x, module.w), x)[0]

    lib = torchopt.linear_solve
    for k in steps:
        yield "implicit, solve_cg", k, lambda k=k: implicit(lib.solve_cg(maxiter=k, atol=0.0, rtol=1e-14))
        yield "implicit, solve_normal_cg", k, lambda k=k: implicit(lib.solve_normal_cg(maxiter=k, atol=0.0, rtol=1e-14))
        yield (
            "implicit, Neumann",
            k,
            lambda k=k: implicit(lib.solve_inv(ns=True, maxiter=k, alpha=1.0 / p.lipschitz)),
        )
        yield "MetaSGD, unrolled from zero", k, lambda k=k: unrolled(k)


def betty_rows(p: Ridge, steps: list[int]) -> Iterator[Row]:
    import betty.hypergradient as kernels

    # The kernels read a few attributes of a problem only; this stands for its Problem objects.
    def kernel(kind: str, **options: Any) -> Any:
        y, x = p.y.clone().requires_grad_(True), p.x.clone().requires_grad_(True)
        config: dict[str, Any] = {"darts_alpha": 0.01, "darts_multitask": False, **options}
        lower = types.SimpleNamespace(
            paths=[],
            config=types.SimpleNamespace(**config),
            cur_batch=None,
            _strategy="default",
            trainable_parameters=lambda: [y],
            parameters=lambda: [y],
            meta_trainable_parameters=lambda: [y],
            training_step_exec=lambda _batch: p.lower(x, y),
        )
        upper = types.SimpleNamespace(trainable_parameters=lambda: [x])
        slope = torch.autograd.grad(p.upper(x, y), [y])
        return kernels.jvp_fn_mapping[kind]([s.clone() for s in slope], lower, upper, False)[0]

    for k in steps:
        yield "cg", k, lambda k=k: kernel("cg", cg_iterations=k, cg_alpha=1.0)
        yield (
            "neumann",
            k,
            lambda k=k: kernel("neumann", neumann_iterations=k, neumann_alpha=1.0 / p.lipschitz),
        )
    yield "darts", 1, lambda: kernel("darts")


def higher_rows(p: Ridge, steps: list[int]) -> Iterator[Row]:
    import higher

    def unrolled(k: int) -> Any:
        module, x = Weights(p.zero), p.x.clone().requires_grad_(True)
        optimiser = torch.optim.SGD(module.parameters(), lr=1.0 / p.lipschitz)
        with higher.innerloop_ctx(module, optimiser, copy_initial_weights=False) as (inner, steps):
            for _ in range(k):
                steps.step(p.lower(x, inner.w))
            return torch.autograd.grad(p.upper(x, inner.w), x)[0]

    for k in steps:
        yield "unrolled from zero", k, lambda k=k: unrolled(k)


def hypergrad_rows(p: Ridge, steps: list[int]) -> Iterator[Row]:
    import hypergrad.approx_hypergrad as lib

    levels = (lambda y, x: p.lower(x[0], y[0])), (lambda y, x: p.upper(x[0], y[0]))

    def nystrom(k: int) -> Any:
        torch.manual_seed(0)
        return lib.nystrom(*levels, (p.y,), (p.x,), k, 0.01)[0]

    for k in steps:
        yield "conjugate_gradient", k, lambda k=k: lib.conjugate_gradient(*levels, (p.y,), (p.x,), k, 1.0)[0]
        yield "neumann", k, lambda k=k: lib.neumann(*levels, (p.y,), (p.x,), k, 1.0 / p.lipschitz)[0]
        if k <= len(p.y):
            yield "nystrom, rho 0.01", k, lambda k=k: nystrom(k)


def hypertorch_rows(p: Ridge, steps: list[int]) -> Iterator[Row]:
    import hypergrad as lib

    def lower(ys: Any, xs: Any) -> Any:
        return p.lower(xs[0], ys[0])

    def upper(ys: Any, xs: Any) -> Any:
        return p.upper(xs[0], ys[0])

    step = lib.GradientDescent(lower, 1.0 / p.lipschitz)

    def implicit(function: Any, k: int) -> Any:
        x = p.x.clone().requires_grad_(True)
        y = p.y.clone().requires_grad_(True)
        return function([y], [x], k, step, upper, tol=1e-14, set_grad=False)[0]

    for k in steps:
        for name in ("CG", "CG_normaleq", "fixed_point"):
            yield name, k, lambda k=k, name=name: implicit(getattr(lib, name), k)


def boat_rows(p: Ridge, steps: list[int]) -> Iterator[Row]:
    import os

    import boat_torch

    def module_of(kw: dict[str, Any], lm: Any) -> Any:
        return kw["params"][0] if "params" in kw else next(iter(lm.parameters()))

    losses: Any = types.ModuleType("boat_losses")
    losses.lower = lambda _data, um, lm, weights=0.0, **kw: p.lower(um.w, module_of(kw, lm))
    losses.upper = lambda _data, um, lm, weights=0.0, **kw: p.upper(um.w, module_of(kw, lm))
    sys.modules["boat_losses"] = losses
    # It rewrites a log of its losses at every call, in the working directory.
    os.chdir(tempfile.mkdtemp(prefix="boat-"))

    def run(numeric: str, iterations: int, start: Any, k: int) -> Any:
        lower, upper = Weights(start), Weights(p.x)
        config = {
            "fo_op": None,
            "gm_op": ["NGD"],
            "na_op": [numeric],
            "return_grad": True,
            "lower_iters": iterations,
            "device": "cpu",
            "accumulate_grad": False,
            "copy_last_param": False,
            "fo_ol_batch_input": False,
            "loss_log_path": "boat_log.json",
            "DI": {"lr": 0.1},
            "GDA": {"alpha_init": 0.0, "alpha_decay": 0.9},
            "DM": {"auxiliary_v_lr": 0.1, "tau": 0.01, "p": 100, "mu0": 0.9, "eta0": 0.5, "strategy": "s1"},
            "RGT": {"truncate_iter": 0},
            "CG": {"k": k, "tolerance": 1e-14},
            "FD": {"r": 1e-2},
            "lower_level_model": lower,
            "upper_level_model": upper,
            "lower_level_opt": torch.optim.SGD(lower.parameters(), lr=1.0 / p.lipschitz),
            "upper_level_opt": torch.optim.SGD(upper.parameters(), lr=1.0),
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
        return problem.run_iter({}, {}, 0)[0][0].clone()

    for k in steps:
        yield "one step, CG", k, lambda k=k: run("CG", 1, p.y, k)
        yield "one step, Neumann (NS)", k, lambda k=k: run("NS", 1, p.y, k)
        yield "unrolled from zero (RAD)", k, lambda k=k: run("RAD", k, p.zero, k)
    yield "one step, finite difference (FD)", 1, lambda: run("FD", 1, p.y, 1)


class Weights(torch.nn.Module):
    """A vector as a module."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(values.clone())

    def forward(self) -> Any:
        return self.w


PEERS: dict[str, Callable[[Ridge, list[int]], Iterator[Row]]] = {
    "torchopt": torchopt_rows,
    "betty": betty_rows,
    "higher": higher_rows,
    "hypergrad": hypergrad_rows,
    "hypertorch": hypertorch_rows,
    "boat": boat_rows,
}


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    name, condition, steps = sys.argv[1], sys.argv[2], [int(k) for k in sys.argv[3:]]
    problem = Ridge(condition)
    for method, k, call in PEERS[name](problem, steps):
        row: dict[str, Any] = {"method": method, "K": k}
        try:
            row["error"], row["ms"] = measure(problem, call, repeats=3)
        except Exception as error:  # noqa: BLE001 - a peer may raise anything; the table says what
            row["failed"] = f"{type(error).__name__}: {error}"
        print("ROW " + json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
