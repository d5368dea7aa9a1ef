"""Data parallelism by `torch.distributed`, where a process group was set up: every rank draws its own batches, and
gradients are means over the ranks. What is not drawn from a batch is computed alike, so that all ranks hold the same
weights and architecture parameters, bit by bit, and end with the same architecture.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import distributed


def _active() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """This process's number; 0 without a process group."""
    return distributed.get_rank() if _active() else 0


def ranks() -> int:
    """How many processes search together; 1 without a process group."""
    return distributed.get_world_size() if _active() else 1


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the ranks."""
    if not _active():
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def mean_array(values: np.ndarray) -> np.ndarray:
    """The mean of an array over the ranks."""
    if not _active():
        return values
    place = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    return mean(torch.from_numpy(np.asarray(values, dtype=np.float64)).to(place)).cpu().numpy()


def mean_number(value: float) -> float:
    """The mean of a number over the ranks."""
    return float(mean_array(np.array([value]))[0]) if _active() else value


def of_first_rank(codes: tuple[int, ...]) -> tuple[int, ...]:
    """Integers as rank 0 has them. Ranks agree by construction, but kernels of a GPU may round differently twice."""
    if not _active():
        return codes
    place = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    told = torch.tensor(codes, dtype=torch.int64, device=place)
    distributed.broadcast(told, 0)
    return tuple(map(int, told.tolist()))
