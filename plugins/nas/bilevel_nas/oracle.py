"""The relaxed problem as an oracle of the core: architecture parameters x, weights of a supernet y, a batch a level.

Everything that second-order methods need (gradients, Hessian and Gauss-Newton products, mixed derivatives) is that of
`TorchOracle`; here is what the two objectives are, which batches they see, and what the work costs.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bilevel_core.errors import UsageError
from bilevel_core.lower import Response
from bilevel_core.oracles.base import TOLD, some_of
from bilevel_core.oracles.torch import TorchOracle
from bilevel_core.problems.torch import TorchProblem
from bilevel_nas.fit import refuse_idle
from bilevel_nas.parts import Parts
from bilevel_nas.problem import FORWARD, UNIT, ArchitectureProblem
from bilevel_nas.relax import make_relaxation
from bilevel_nas.spaces import Architecture, Choice, one_hot
from bilevel_nas.training import Tensors, autocast, evaluate, find_device

START = 1e-3
"""Size of the random architecture parameters to start from."""
PROBE = 512
"""Images that a supernet is looked at with when there is no step."""
HESSIAN, GAUSS_NEWTON, MIXED_X, MIXED_Y = 1.8, 1.5, 1.6, 3.8
"""Costs of products, in passes forward and backward."""

Alive = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class View:
    """Which data, draw and progress both objectives are taken at.

    Attributes:
        lower, upper: (inputs, labels) of each level.
        seed: of what relaxations draw.
        progress: of the search, from 0 to 1.
    """

    lower: tuple[torch.Tensor, torch.Tensor]
    upper: tuple[torch.Tensor, torch.Tensor]
    seed: int = 0
    progress: float = 1.0


class SupernetOracle(TorchOracle):
    """See the module.

    Args:
        problem: what is searched.
        parts: the configuration.
        activation: of the supernet.
        weight_decay: of its weights.
        seed: of its first weights, the architecture parameters, and all draws.
        device: where to compute.
        dtype: of weights, architecture parameters and inputs.

    Attributes:
        view: what the objectives see; set by the search before each step.
        alive: the choices that there still are, for each decision.
        passes: work so far, in pass-equivalents.
        summary: what a search leaves behind with its last point; part of `memory`.
    """

    def __init__(
        self,
        problem: ArchitectureProblem,
        parts: Parts,
        *,
        activation: str = "silu",
        weight_decay: float = 5e-4,
        seed: int = 0,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.architectures = problem
        self.parts = parts
        self.search_space = problem.search_space
        self.decisions = problem.search_space.decisions
        self.relaxation = make_relaxation(parts.part("relax").kind, parts.part("mask").kind)
        self.partial = parts.part("mask").count if parts.part("mask").kind == "partial" else 1
        self.regularisers = parts.regularisers
        self.weight_decay = weight_decay
        self.alive: Alive = tuple(tuple(range(len(d.choices))) for d in self.decisions)
        self.passes = 0.0
        self.summary: dict[str, Any] | None = None
        self.seed_of_search = seed
        self._total = sum(len(d.candidates) for d in self.decisions)
        sizes = [len(d.choices) for d in self.decisions]
        self._sizes = [*sizes, *([len(sizes)] if parts.edges else [])]
        self._nodes = _nodes([d.node for d in self.decisions]) if parts.edges else []
        place = find_device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = self.search_space.supernet(problem.data.shape, activation, self.partial)
            x0 = START * torch.randn(sum(self._sizes), dtype=dtype)
        refuse_idle(parts, self.search_space, net)
        if parts.part("lower").kind == "freeze":
            freeze_convolutions(net)
        self.net = net.to(place, dtype)
        super().__init__(
            TorchProblem(self._upper, self._lower, x0.to(place), self.net, outputs=self._outputs, name=problem.name),
            seed=seed,
            device="auto" if place.type == "cpu" else device,
        )
        parts_ = (problem.tensors(part, place) for part in ("train", "validation"))
        self._train, self._validation = (Tensors(t.x.to(dtype), t.y) for t in parts_)
        probe = slice(0, PROBE)
        self.probe = View(
            (self._train.x[probe], self._train.y[probe]), (self._validation.x[probe], self._validation.y[probe])
        )
        self.view = self.probe

    # The objectives.

    def _outputs(self, x: torch.Tensor, y: Any) -> torch.Tensor:
        images, _ = self.view.lower
        with autocast(self.device, self.architectures.settings.precision):
            scores = y(images, self.choices(x, lower=True))
        return scores.to(self.dtype)

    def _lower(self, x: torch.Tensor, y: Any, scores: torch.Tensor) -> torch.Tensor:
        weights = sum((p * p).sum() for p in y.parameters())
        return functional.cross_entropy(scores, self.view.lower[1]) + 0.5 * self.weight_decay * weights

    def _upper(self, x: torch.Tensor, y: Any) -> torch.Tensor:
        images, labels = self.view.upper
        with autocast(self.device, self.architectures.settings.precision):
            scores = y(images, self.choices(x))
        return functional.cross_entropy(scores.to(self.dtype), labels) + self.penalty(x)

    def penalty(self, x: torch.Tensor) -> torch.Tensor:
        """What the regularisers add to the upper objective; their weights grow with the progress of the search."""
        total = x.new_zeros(())
        reg, progress = self.regularisers, self.view.progress
        alphas = self.split(x)
        if "beta" in reg:
            total = total + reg["beta"] * progress * torch.stack([torch.logsumexp(a, 0) for a in alphas]).mean()
        if "zero-one" in reg:
            total = total - reg["zero-one"] * torch.cat([(torch.sigmoid(a) - 0.5) ** 2 for a in alphas]).mean()
        if "entropy" in reg:
            total = total + reg["entropy"] * progress * self.entropy(x)
        if "cost" in reg:
            total = total + reg["cost"] * self.expected_cost(x)
        return total

    def split(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The architecture parameters of each decision."""
        return list(torch.split(x, self._sizes))[: len(self.decisions)]

    def probabilities(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What the relaxation holds of each choice, edges into a node weighed too where the configuration has it."""
        found = [self.relaxation.probabilities(a, k) for a, k in zip(self.split(x), self.alive, strict=True)]
        return [e * p for e, p in zip(self._edges(x), found, strict=True)] if self.parts.edges else found

    def _edges(self, x: torch.Tensor) -> list[torch.Tensor]:
        beta = torch.split(x, self._sizes)[-1]
        weights = torch.zeros_like(beta)
        for node in self._nodes:
            weights = weights.index_put((torch.tensor(node, device=x.device),), functional.softmax(beta[node], 0))
        return list(weights)

    def told(self, x: np.ndarray) -> dict[str, float]:
        """See `Oracle.told`: the weight of each choice, for as many decisions as there is room for."""
        with torch.no_grad():
            found = self.probabilities(self.x_tensor(x))
        room = max(1, TOLD // max(len(d.choices) for d in self.decisions))
        shown = some_of(range(len(self.decisions)), room)
        return {
            f"{self.decisions[k].name}={choice}": float(p)
            for k in shown
            for choice, p in zip(self.decisions[k].choices, found[k].tolist(), strict=True)
        }

    def entropy(self, x: torch.Tensor) -> torch.Tensor:
        """Mean entropy of the decisions, 1 for even ones."""
        told: list[torch.Tensor] = []
        for p, alive in zip(self.probabilities(x), self.alive, strict=True):
            if len(alive) < 2:
                told.append(p.new_zeros(()))
                continue
            q = p[list(alive)]
            q = q / q.sum().clamp_min(1e-12)
            told.append(-(q * q.clamp_min(1e-12).log()).sum() / np.log(len(alive)))
        return torch.stack(told).mean()

    def expected_cost(self, x: torch.Tensor) -> torch.Tensor:
        """Expected cost relative to the dearest architecture; beyond the cost cap where there is one."""
        dearest = sum(max(d.cost) for d in self.decisions if d.cost)
        total = x.new_zeros(())
        for d, p in zip(self.decisions, self.probabilities(x), strict=True):
            if d.cost:
                total = total + (p / p.sum().clamp_min(1e-12)) @ p.new_tensor(d.cost)
        cap = self.architectures.cost_cap
        return (functional.relu(total - cap) if np.isfinite(cap) else total) / dearest

    def choices(self, x: torch.Tensor, *, lower: bool = False) -> list[Choice]:
        """The weights of one forward pass."""
        draw = torch.Generator().manual_seed((self.seed_of_search * 1_000_003 + 2 * self.view.seed + lower) % 2**63)
        found: list[Choice] = []
        edges = self._edges(x) if self.parts.edges else None
        noise = self.regularisers.get("perturbation", 0.0) * self.view.progress if lower else 0.0
        drop = self.regularisers.get("skip-dropout", 0.0) * (1.0 - self.view.progress) if lower else 0.0
        for k, (d, a, alive) in enumerate(zip(self.decisions, self.split(x), self.alive, strict=True)):
            drawn = self.relaxation.weigh(a, alive, self.view.progress, draw)
            weights, active = drawn.weights, drawn.active
            if noise:
                weights = weights + noise * (2.0 * torch.rand(len(a), generator=draw) - 1.0).to(weights)
            if drop and d.skip is not None and float(torch.rand((), generator=draw)) < drop:
                active = tuple(c for c in active if c != d.skip) or active
            found.append(Choice(weights if edges is None else edges[k] * weights, active))
        return found

    # Work.

    @property
    def share(self) -> float:
        """How much of the supernet a pass evaluates: candidates among all. Partial connections count as whole ones: at
        small widths a convolution of a quarter of the channels takes nearly as long (measured: 0.72 of a pass).
        """
        if self.parts.part("mask").kind == "sample1":
            return len(self.decisions) / self._total
        if self.parts.part("relax").kind == "gates":
            return 2.0 * len(self.decisions) / self._total
        candidates = sum(len(set(a) & set(d.candidates)) for a, d in zip(self.alive, self.decisions, strict=True))
        return candidates / self._total

    @contextmanager
    def charged(self, batch: int, *, upper: int | None = None, gauss_newton: bool = False) -> Generator[None]:
        """Add up what the work inside costs, each evaluation being one on so many examples, those of the upper level on
        ``upper`` where it is given.
        """
        before = self.counts.copy()
        yield
        done = {k: n - before[k] for k, n in self.counts.items()}
        plain = {
            level: done.get(f"{level}_gradients", 0) + FORWARD * done.get(f"{level}_values", 0)
            for level in ("upper", "lower")
        }
        units = (
            plain["lower"]
            + (GAUSS_NEWTON if gauss_newton else HESSIAN) * done.get("hessian_products", 0)
            + MIXED_X * done.get("mixed_products", 0)
        )
        self.passes += (units * batch + plain["upper"] * (batch if upper is None else upper)) / UNIT * self.share

    # Batches, drawn by number: nothing has to be remembered.

    def batch(self, level: str, size: int, number: int, rank: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """A random batch of a level's data: the same for the same number."""
        data = self._train if level == "lower" else self._validation
        rng = np.random.default_rng([self.seed_of_search % 2**64, number, level == "lower", rank])
        which = torch.from_numpy(rng.integers(len(data), size=min(size, len(data)))).to(self.device)
        return data.x[which], data.y[which]

    def response(self, y: torch.Tensor) -> Response:
        """The weights as they are, taken for the lower level's answer: how far they are from one is not looked at."""
        none = np.zeros(0)
        return Response(y, np.nan, none, none, residual=np.nan)

    # Looking at a supernet.

    def accuracy(self, x: np.ndarray, y: torch.Tensor, architecture: Architecture | None = None) -> float:
        """Validation accuracy, in percent, of the supernet, or of one architecture with its weights."""
        flat = self.x_tensor(x)
        with torch.no_grad():
            choices = self.choices(flat) if architecture is None else one_hot(self.search_space, architecture, flat)
            _, tree = self.terms.trees(flat, y)
            return evaluate(lambda images: tree(images, choices), self._validation)[0]

    @torch.no_grad()
    def loss(self, y: torch.Tensor, choices: Sequence[Choice], batch: tuple[torch.Tensor, torch.Tensor]) -> float:
        """Cross-entropy of the supernet with given weights of the choices, counted as one upper value."""
        self.counts["upper_values"] += 1
        _, tree = self.terms.trees(self.x_tensor(np.zeros(self.nx)), y)
        return float(functional.cross_entropy(tree(batch[0], list(choices)).float(), batch[1]))

    # What a checkpoint must keep.

    def memory(self) -> dict[str, Any]:
        """See `Oracle.memory`."""
        return {**super().memory(), "passes": self.passes, "alive": self.alive, "summary": self.summary}

    def restore(self, memory: Any) -> None:
        """See `Oracle.restore`."""
        super().restore(memory)
        self.passes, self.summary = memory["passes"], memory["summary"]
        self.alive = tuple(tuple(a) for a in memory["alive"])
        self.view = self.probe


def _nodes(names: Sequence[str]) -> list[list[int]]:
    """Positions of the decisions that meet in one node."""
    if not all(names):
        raise UsageError("edges=true weighs the edges into each node, and the decisions of this space are no edges.")
    return [[k for k, name in enumerate(names) if name == node] for node in dict.fromkeys(names)]


def freeze_convolutions(net: nn.Module) -> None:
    """Leave convolutions at their random weights, and give the normalisations scales to train."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.requires_grad_(False)
        elif isinstance(module, nn.BatchNorm2d) and not module.affine:
            module.affine = True
            module.weight = nn.Parameter(torch.ones(module.num_features))
            module.bias = nn.Parameter(torch.zeros(module.num_features))
