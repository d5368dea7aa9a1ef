"""Choices of size that share weights: the smaller one is a part of the larger one (Chen et al. 2021, AutoFormer; Cai et
al. 2020, Once-for-all). A mixture of choices is then one operation with mixed masks, not several operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bilevel_nas.spaces.base import Choice


def prefix_mask(choice: Choice, sizes: Sequence[int], total: int) -> torch.Tensor:
    """A vector of ``total`` entries: sum over the choices of weight times "one of the first so many entries"."""
    mask = choice.weights.new_zeros(len(sizes), total)
    for k in choice.active:
        mask[k, : sizes[k]] = 1.0
    return choice.weights @ mask


def centre_mask(choice: Choice, kernels: Sequence[int], largest: int) -> torch.Tensor:
    """The same for square kernels, centred in the largest; shape (largest, largest)."""
    mask = choice.weights.new_zeros(len(kernels), largest, largest)
    for k in choice.active:
        edge = (largest - kernels[k]) // 2
        mask[k, edge : largest - edge, edge : largest - edge] = 1.0
    return torch.tensordot(choice.weights, mask, dims=1)


def at_least(choice: Choice, position: int) -> torch.Tensor:
    """The weight of the choices at a position or beyond it: how much of a layer that only they have is there."""
    kept = [k for k in choice.active if k >= position]
    return choice.weights[kept].sum() if kept else choice.weights.new_zeros(())
