"""Peak memory of one hypergradient of a network's weights, ours and other packages': see README.md.

python benchmarks/memory.py [--size 670k 1M] [--steps K ...] [--only PART ...] [--peers DIR | --install-peers [DIR]]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIDTHS = {"670k": 512, "1M": 680}
"""Width of the two hidden layers of the network with 784 inputs and 10 outputs: 669,706 and 1,003,690 weights."""
METHODS = {
    "bilevel": ("cg", "unroll"),
    "torchopt": ("cg", "unroll"),
    "betty": ("cg",),
    "higher": ("unroll",),
    "boat": ("cg", "unroll"),
}
RATE = 0.05


class Task:
    """A perceptron with one log weight decay a layer's weights and biases as the leader's 6 variables; float32.

    The weights are random: what is measured is memory, not an answer.
    """

    def __init__(self, width: int) -> None:
        import torch

        torch.manual_seed(0)
        linear, relu = torch.nn.Linear, torch.nn.ReLU
        layers = linear(784, width), relu(), linear(width, width), relu(), linear(width, 10)
        self.network = torch.nn.Sequential(*layers)
        self.x = torch.full((6,), -4.0)
        self.train, self.held_out = (
            (torch.randn(512, 784), torch.randint(0, 10, (512,))),
            (torch.randn(512, 784), torch.randint(0, 10, (512,))),
        )
        self.loss: Any = torch.nn.functional.cross_entropy

    def lower(self, x: Any, network: Any) -> Any:
        """The follower's objective, of x and anything that is called like the network and has its parameters."""
        return self.lower_at(x, network(self.train[0]), list(network.parameters()))

    def lower_at(self, x: Any, scores: Any, weights: list[Any]) -> Any:
        """The same of the network's outputs."""
        decay = sum(factor * (w * w).sum() for factor, w in zip(x.exp(), weights, strict=True))
        return self.loss(scores, self.train[1]) + 0.5 * decay

    def upper(self, _x: Any, network: Any) -> Any:
        """The leader's objective."""
        return self.loss(network(self.held_out[0]), self.held_out[1])


def bilevel(task: Task, method: str, k: int) -> int:
    import bilevel_core as bl

    problem = bl.TorchProblem(task.upper, task.lower, task.x, task.network)
    options = {"max_iterations": k, "tolerance": 0.0} if method == "cg" else {"steps": k, "step": RATE}
    found = bl.hypergradient(problem, task.x, dict(task.network.named_parameters()), mode=method, **options)
    return int(found.counts.get("hessian_products", 0))


def torchopt(task: Task, method: str, k: int) -> int:
    import torch
    import torchopt as lib
    from torch.func import functional_call

    x = task.x.clone().requires_grad_(True)
    if method == "unroll":
        optimiser = lib.MetaSGD(task.network, lr=RATE)
        for _ in range(k):
            optimiser.step(task.lower(x, task.network))
        torch.autograd.grad(task.upper(x, task.network), x)
        return 0
    names = [name for name, _ in task.network.named_parameters()]
    start = tuple(w.detach() for w in task.network.parameters())

    def lower(ys: Any, x: Any) -> Any:
        scores = functional_call(task.network, dict(zip(names, ys, strict=True)), (task.train[0],))
        return task.lower_at(x, scores, list(ys))

    solve = lib.linear_solve.solve_cg(maxiter=k, atol=0.0, rtol=0.0)

    @lib.diff.implicit.custom_root(torch.func.grad(lower, argnums=0), argnums=1, solve=solve)
    def answer(ys: Any, _x: Any) -> Any:
        return tuple(y.clone().requires_grad_(True) for y in ys)

    ys = answer(start, x)
    scores = functional_call(task.network, dict(zip(names, ys, strict=True)), (task.held_out[0],))
    torch.autograd.grad(task.loss(scores, task.held_out[1]), x)
    return k


def betty(task: Task, _method: str, k: int) -> int:
    import torch
    from betty.hypergradient import jvp_fn_mapping

    x, ys = task.x.clone().requires_grad_(True), list(task.network.parameters())
    config = types.SimpleNamespace(cg_iterations=k, cg_alpha=1.0, darts_alpha=0.01, darts_multitask=False)
    # The kernels read a few attributes of a problem only; this stands for its Problem objects.
    lower = types.SimpleNamespace(
        paths=[],
        config=config,
        cur_batch=None,
        _strategy="default",
        trainable_parameters=lambda: ys,
        parameters=lambda: ys,
        meta_trainable_parameters=lambda: ys,
        training_step_exec=lambda _batch: task.lower(x, task.network),
    )
    upper = types.SimpleNamespace(trainable_parameters=lambda: [x])
    slopes = torch.autograd.grad(task.upper(x, task.network), ys)
    jvp_fn_mapping["cg"]([s.clone() for s in slopes], lower, upper, False)
    return k


def higher(task: Task, _method: str, k: int) -> int:
    import higher as lib
    import torch

    x = task.x.clone().requires_grad_(True)
    optimiser = torch.optim.SGD(task.network.parameters(), lr=RATE)
    with lib.innerloop_ctx(task.network, optimiser) as (inner, stepper):
        for _ in range(k):
            stepper.step(task.lower(x, inner))
        torch.autograd.grad(task.upper(x, inner), x)
    return 0


def boat(task: Task, method: str, k: int) -> int:
    import boat_torch
    import torch
    from torch.func import functional_call

    class Leader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = torch.nn.Parameter(task.x.clone())

        def forward(self) -> Any:
            return self.x

    names = [name for name, _ in task.network.named_parameters()]

    def parts(kw: dict[str, Any], lm: Any, inputs: Any) -> tuple[Any, list[Any]]:
        ys = list(kw.get("params") or lm.parameters())
        return functional_call(task.network, dict(zip(names, ys, strict=True)), (inputs,)), ys

    losses: Any = types.ModuleType("boat_losses")
    losses.lower = lambda _data, um, lm, weights=0.0, **kw: task.lower_at(um.x, *parts(kw, lm, task.train[0]))
    losses.upper = lambda _data, um, lm, weights=0.0, **kw: task.loss(
        parts(kw, lm, task.held_out[0])[0], task.held_out[1]
    )
    sys.modules["boat_losses"] = losses
    # It rewrites a log of its losses at every step, in the working directory.
    os.chdir(tempfile.mkdtemp(prefix="boat-"))
    upper, implicit = Leader(), method == "cg"
    config = {
        "fo_op": None,
        "gm_op": ["NGD"],
        "na_op": ["CG" if implicit else "RAD"],
        "return_grad": True,
        "lower_iters": 1 if implicit else k,
        "device": "cpu",
        "accumulate_grad": False,
        "copy_last_param": False,
        "fo_ol_batch_input": False,
        "loss_log_path": "boat_log.json",
        "DI": {"lr": 0.1},
        "GDA": {"alpha_init": 0.0, "alpha_decay": 0.9},
        "DM": {"auxiliary_v_lr": 0.1, "tau": 0.01, "p": 100, "mu0": 0.9, "eta0": 0.5, "strategy": "s1"},
        "RGT": {"truncate_iter": 0},
        "CG": {"k": k, "tolerance": 0.0},
        "FD": {"r": 1e-2},
        "lower_level_model": task.network,
        "upper_level_model": upper,
        "lower_level_opt": torch.optim.SGD(task.network.parameters(), lr=RATE),
        "upper_level_opt": torch.optim.SGD(upper.parameters(), lr=1.0),
        "lower_level_var": list(task.network.parameters()),
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
    problem.run_iter({}, {}, 0)
    return k if implicit else 0


RUNS: dict[str, Callable[[Task, str, int], int]] = {
    "bilevel": bilevel,
    "torchopt": torchopt,
    "betty": betty,
    "higher": higher,
    "boat": boat,
}


def peak() -> float:
    """The most memory that this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage there: it hands a child its parent's figure.
        line = next(part for part in status.read_text().splitlines() if part.startswith("VmHWM"))
        return int(line.split()[1]) / 1024.0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2.0**20 if sys.platform == "darwin" else 2.0**10)


def one(package: str, method: str, size: str, k: int) -> None:
    """Measure in this process; print a row as JSON."""
    import torch

    torch.set_num_threads(1)
    task = Task(WIDTHS[size])
    __import__({"bilevel": "bilevel_core", "betty": "betty.hypergradient", "boat": "boat_torch"}.get(package, package))
    # One gradient first: it brings in what every method needs.
    torch.autograd.grad(task.lower(task.x, task.network), list(task.network.parameters()))
    base, start = peak(), time.process_time()
    products = RUNS[package](task, method, k)
    row = {"base": base, "peak": peak(), "seconds": time.process_time() - start, "products": products}
    print("ROW " + json.dumps(row))


def row(python: Path, package: str, method: str, size: str, k: int) -> str:
    """One line of the table, measured in a process of its own."""
    from hypergradient import last_line

    command = [str(python), str(HERE / "memory.py"), "--one", package, method, size, str(k)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    found = [json.loads(part[4:]) for part in done.stdout.splitlines() if part.startswith("ROW ")]
    head = f"| {package} | {method} | {size} | {k} |"
    if not found:
        return f"{head} {last_line(done.stderr)} | | | |"
    f = found[0]
    return f"{head} {f['base']:.0f} | {f['peak']:.0f} | {f['seconds']:.1f} | {f['products'] or '-'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 50, 100], metavar="K")
    parser.add_argument("--only", nargs="+", default=[], help="packages or methods whose name contains one of these")
    parser.add_argument("--peers", type=Path, help="folder with one virtual environment a peer, named like it")
    parser.add_argument("--install-peers", nargs="?", type=Path, const=Path(), help="make them first")
    parser.add_argument("--one", nargs=4, metavar=("PACKAGE", "METHOD", "SIZE", "K"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        package, method, size, k = options.one
        one(package, method, size, int(k))
        return
    from hypergradient import install, python_of

    folder: Path | None = options.peers
    reasons: dict[str, str] = {}
    packages = [p for p in METHODS if p != "bilevel"]
    if options.install_peers is not None:
        folder = Path(tempfile.mkdtemp(prefix="peers-")) if options.install_peers == Path() else options.install_peers
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        reasons = {name: install(folder, name) for name in packages}
    print("| package | method | weights | K | MiB before | MiB at most | CPU s | products |")
    print("|---|---|---|---|---|---|---|---|")
    for size in options.size:
        for package, methods in METHODS.items():
            python = Path(sys.executable)
            if package != "bilevel":
                if folder is None:
                    continue
                python = python_of(folder / package)
                if reasons.get(package) or not python.exists():
                    why = reasons.get(package) or f"no environment {package} in the folder of peers"
                    print(f"| {package} | skipped | {size} | | {why} | | | |")
                    continue
            for method in methods:
                if options.only and not any(part in f"{package} {method}" for part in options.only):
                    continue
                for k in options.steps:
                    print(row(python, package, method, size, k), flush=True)


if __name__ == "__main__":
    main()
