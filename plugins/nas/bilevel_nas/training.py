"""Training of stand-alone networks: SGD with momentum on a cosine schedule, all of it a function of the seed."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bilevel_core.errors import UsageError
from bilevel_nas.data import Part


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained.

    Attributes:
        epochs: passes over the data.
        batch: examples a step.
        rate: first learning rate; it falls to a hundredth along half a cosine.
        momentum: Nesterov's.
        weight_decay: of all weights.
        clip: largest norm of a gradient; 0 for no limit.
        precision: ``float32``, or ``bfloat16`` and ``float16`` by torch's autocast.
        channels_last: lay images out with the channels last in memory.
        auxiliary: weight of the loss of an auxiliary head, where a network has one.
        drop_path: probability at the end of training that a path of a cell is left out, where a network has such.
    """

    epochs: int = 5
    batch: int = 128
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 5.0
    precision: str = "float32"
    channels_last: bool = False
    auxiliary: float = 0.4
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise UsageError(f"Expected precision float32, bfloat16 or float16, got {self.precision!r}.")
        if self.epochs < 1 or self.batch < 1 or not self.rate > 0.0 or not 0.0 <= self.drop_path < 1.0:
            raise UsageError("Expected epochs and batch of at least 1, a positive rate, and drop_path in [0, 1).")


@dataclass
class Tensors:
    """A part of the data on its device."""

    x: torch.Tensor
    y: torch.Tensor

    def __len__(self) -> int:
        return len(self.y)


def on_device(part: Part, device: torch.device, channels_last: bool = False) -> Tensors:
    """A part as tensors."""
    x = torch.from_numpy(np.ascontiguousarray(part.x)).to(device)
    if channels_last and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    return Tensors(x, torch.from_numpy(np.ascontiguousarray(part.y)).to(device))


def find_device(name: str) -> torch.device:
    """A torch device that works.

    Raises:
        UsageError: it cannot be used.
    """
    try:
        device = torch.device("cpu" if name == "auto" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"Device {name!r} cannot be used: {why}. Pass device='cpu' or leave it out.") from error
    return device


def autocast(device: torch.device, precision: str) -> Any:
    """Mixed precision, or nothing."""
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return torch.autocast(device.type, dtype=kinds.get(precision), enabled=precision in kinds)


def train(
    make: Callable[[], nn.Module], data: Tensors, settings: TrainSettings, seed: int, start: Any = None
) -> tuple[nn.Module, float]:
    """Train a network from random weights, or from a state of its own.

    Args:
        make: the network; called under the seed.
        data: to train on.
        settings: how.
        seed: for the first weights and the order of the examples.
        start: a state dictionary to begin with, instead of random weights.

    Returns:
        The network in evaluation mode, and the mean loss of its last epoch. That is NaN where training diverged.
    """
    device = data.x.device
    # The generators of torch are left as they were for whoever calls.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = make().to(device)
        if settings.channels_last:
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if start is not None:
            model.load_state_dict(start)
        loss = _fit(model, data, settings, seed)
    return model.eval(), loss


def _fit(model: nn.Module, data: Tensors, settings: TrainSettings, seed: int) -> float:
    optimiser = torch.optim.SGD(
        model.parameters(), settings.rate, settings.momentum, weight_decay=settings.weight_decay, nesterov=True
    )
    scaler = torch.amp.GradScaler(data.x.device.type, enabled=settings.precision == "float16")
    size = min(settings.batch, len(data))
    steps = settings.epochs * (len(data) // size)
    order = torch.Generator().manual_seed(seed)
    done, mean = 0, math.nan
    for _ in range(settings.epochs):
        losses: list[torch.Tensor] = []
        for which in batches(len(data), size, order):
            for group in optimiser.param_groups:
                group["lr"] = cosine(done / steps, settings.rate, 0.01 * settings.rate)
            set_drop_path(model, settings.drop_path * done / steps)
            optimiser.zero_grad()
            with autocast(data.x.device, settings.precision):
                loss = loss_of(model, data.x[which], data.y[which], settings.auxiliary)
            scaler.scale(loss).backward()
            if settings.clip:
                scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            scaler.step(optimiser)
            scaler.update()
            losses.append(loss.detach())
            done += 1
        mean = float(torch.stack(losses).float().mean())
    set_drop_path(model, 0.0)
    return mean


def set_drop_path(model: nn.Module, probability: float) -> None:
    """Tell the networks that can leave out paths how often to."""
    if hasattr(model, "drop_path"):
        model.drop_path = probability  # pyright: ignore[reportArgumentType]


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor, auxiliary: float) -> torch.Tensor:
    """Cross-entropy; with that of the auxiliary head where the network gives two outputs in training."""
    outputs: Any = model(x)
    if isinstance(outputs, tuple):
        main, side = outputs
        return functional.cross_entropy(main, y) + auxiliary * functional.cross_entropy(side, y)
    return functional.cross_entropy(outputs, y)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """One epoch's batches of whole size in a random order."""
    order = torch.randperm(count, generator=generator)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def cosine(progress: float, high: float, low: float) -> float:
    """From high to low along half a cosine."""
    return low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


@torch.no_grad()
def evaluate(model: Callable[[torch.Tensor], Any], data: Tensors, batch: int = 1000) -> tuple[float, float]:
    """Accuracy in percent, and mean cross-entropy."""
    hits, total = 0, 0.0
    for start in range(0, len(data), batch):
        scores = model(data.x[start : start + batch])
        labels = data.y[start : start + batch]
        hits += int((scores.argmax(1) == labels).sum())
        total += float(functional.cross_entropy(scores.float(), labels, reduction="sum"))
    return 100.0 * hits / len(data), total / len(data)


def peak_memory(device: torch.device) -> float:
    """The most memory that was held so far, in MiB: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
