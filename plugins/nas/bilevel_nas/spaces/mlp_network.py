"""The supernet of `mlp`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from bilevel_nas.spaces.base import Choice
from bilevel_nas.spaces.entangled import at_least, prefix_mask
from bilevel_nas.spaces.operations import activation


class MlpSupernet(nn.Module):
    """Layers of the largest width; a choice of width masks the rest, one of depth passes the last layers by."""

    def __init__(self, depth: int, widths: Sequence[int], inputs: int, classes: int, act: str) -> None:
        super().__init__()
        self.widths = tuple(widths)
        top = widths[-1]
        self.layers = nn.ModuleList(nn.Linear(inputs if k == 0 else top, top) for k in range(depth))
        self.act = activation(act)
        self.classifier = nn.Linear(top, classes)

    def forward(self, x: torch.Tensor, choices: Sequence[Choice]) -> torch.Tensor:
        """Class scores, shape (batch, classes)."""
        x = x.flatten(1)
        depth = choices[0]
        for k, layer in enumerate(self.layers):
            mask = prefix_mask(choices[1 + k], self.widths, self.widths[-1])
            y = mask * self.act(layer(x))
            if k == 0:
                x = y
            else:
                kept = at_least(depth, k)
                x = x + kept * (y - x)
        return cast("torch.Tensor", self.classifier(x))
