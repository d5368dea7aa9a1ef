"""A million lower variables: memory stays a small multiple of the vector, whatever the number of products."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="differentiable problems need torch")

PROGRAM = """
import resource, sys
import torch
import bilevel_core as bl

torch.manual_seed(0)
torch.set_num_threads(1)
module = torch.nn.Sequential(torch.nn.Linear(1000, 1000), torch.nn.Tanh(), torch.nn.Linear(1000, 2))
inputs, targets = torch.randn(16, 1000), torch.randn(16, 2)

def lower(x, y):
    return ((y(inputs) - targets) ** 2).mean() + torch.exp(x).sum() * sum((p**2).sum() for p in y.parameters())

def upper(x, y):
    return ((y(inputs[:4]) - targets[:4]) ** 2).mean()

problem = bl.TorchProblem(upper, lower, torch.tensor([-2.0, -3.0]), module)
assert problem.y_layout.size > 1_000_000
x, y = problem.x0, problem.y_layout.values(problem.y0)
# The machinery's own memory comes first: the same on a small problem.
small = bl.TorchProblem(lambda x, y: (y**2).sum(), lambda x, y: ((y - x) ** 2).sum(), x, torch.zeros(2))
bl.hypergradient(small, x, torch.zeros(2))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before = peak()
found = bl.hypergradient(problem, x, y, mode="cg", max_iterations=int(sys.argv[1]), tolerance=0.0)
assert torch.isfinite(found.value).all() and bool(found.value.any())
print(peak() - before, found.counts["hessian_products"])
"""


def run(iterations: int) -> tuple[float, int]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(iterations)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    peak, products = done.stdout.split()
    return float(peak), int(products)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units there")
def test_a_million_variables() -> None:
    pytest.importorskip("resource")
    few, few_products = run(3)
    many, many_products = run(60)
    assert many_products >= few_products + 50
    # A vector takes 4 MiB: one kept for each product would be 200 MiB more.
    assert many < 250.0, f"{many:.0f} MiB over the model's own"
    assert many - few < 60.0, f"{few:.0f} MiB with {few_products} products, {many:.0f} MiB with {many_products}"
