"""The networks of `transformer`. The supernet with all weight on one choice of each is a stand-alone network with the
first rows and columns of its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from bilevel_core.errors import UsageError
from bilevel_nas.spaces.base import Choice, Shape
from bilevel_nas.spaces.entangled import at_least, prefix_mask
from bilevel_nas.spaces.operations import accepted, activation

if TYPE_CHECKING:
    from bilevel_nas.spaces.transformer import Transformer

EPSILON = 1e-5


def masked_norm(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Layer normalisation without parameters, over the entries that a mask leaves (weighted by it)."""
    if mask is None:
        mask = x.new_ones(x.shape[-1])
    total = mask.sum().clamp_min(EPSILON)
    centred = x - (x * mask).sum(-1, keepdim=True) / total
    variance = (centred**2 * mask).sum(-1, keepdim=True) / total
    return mask * centred * (variance + EPSILON).rsqrt()


class Attention(nn.Module):
    """Self-attention with heads of a fixed width; a mask leaves out heads."""

    def __init__(self, embedding: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.queries = nn.Linear(embedding, 3 * heads * width)
        self.out = nn.Linear(heads * width, embedding)

    def forward(self, x: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
        """See the class; ``kept`` has one weight a head."""
        b, n, _ = x.shape
        q, k, v = self.queries(x).view(b, n, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        # Written out: the fused kernels have no second derivative.
        weights = torch.softmax(q @ k.transpose(-1, -2) / self.width**0.5, -1)
        y = weights @ v
        if kept is not None:
            y = y * kept[None, :, None, None]
        return self.out(y.transpose(1, 2).reshape(b, n, self.heads * self.width))

    def products(self, x: torch.Tensor, kept: torch.Tensor | None = None) -> int:
        """Multiply-adds of the two products of matrices, for one example."""
        n = int(x.shape[1])
        return 2 * n * n * self.heads * self.width


class Block(nn.Module):
    """Attention and feed-forward layer, each with a residual connection."""

    def __init__(self, embedding: int, heads: int, hidden: int, width: int, act: str) -> None:
        super().__init__()
        self.attention = Attention(embedding, heads, width)
        self.up, self.down = nn.Linear(embedding, hidden), nn.Linear(hidden, embedding)
        self.act = activation(act)

    def forward(
        self,
        x: torch.Tensor,
        features: torch.Tensor | None = None,
        heads: torch.Tensor | None = None,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See the class; masks over features, heads and hidden units."""
        y = self.attention(masked_norm(x, features), heads)
        x = x + (y if features is None else features * y)
        y = self.act(self.up(masked_norm(x, features)))
        y = self.down(y if hidden is None else hidden * y)
        return x + (y if features is None else features * y)


def tokens(space: Transformer, shape: Shape) -> int:
    """Number of patches of an image.

    Raises:
        UsageError: the patch does not divide the image.
    """
    accepted(shape, 3, space.name)
    _, height, width = shape.inputs
    if height % space.patch or width % space.patch:
        raise UsageError(f"Expected images whose sides patch={space.patch} divides, got {height} x {width}.")
    return (height // space.patch) * (width // space.patch)


class VisionTransformer(nn.Module):
    """A stand-alone network."""

    def __init__(
        self, space: Transformer, shape: Shape, embedding: int, layers: Sequence[tuple[int, int]], act: str
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(shape.inputs[0], embedding, space.patch, space.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens(space, shape), embedding))
        self.blocks = nn.ModuleList(Block(embedding, h, hidden, space.head_width, act) for h, hidden in layers)
        self.classifier = nn.Linear(embedding, shape.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, shape (batch, classes)."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return cast("torch.Tensor", self.classifier(masked_norm(x, None).mean(1)))


class TransformerSupernet(nn.Module):
    """The largest network, with masks."""

    def __init__(self, space: Transformer, shape: Shape, act: str) -> None:
        super().__init__()
        self.space = space
        e = space.embeddings[-1]
        self.patches = nn.Conv2d(shape.inputs[0], e, space.patch, space.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens(space, shape), e))
        self.hidden = tuple(r * e for r in space.ratios)
        self.blocks = nn.ModuleList(
            Block(e, space.heads[-1], self.hidden[-1], space.head_width, act) for _ in range(space.depths[-1])
        )
        self.classifier = nn.Linear(e, shape.classes)

    def forward(self, x: torch.Tensor, choices: Sequence[Choice]) -> torch.Tensor:
        """Class scores, shape (batch, classes)."""
        space = self.space
        features = prefix_mask(choices[0], space.embeddings, space.embeddings[-1])
        x = features * (self.patches(x).flatten(2).transpose(1, 2) + self.positions)
        for k, block in enumerate(self.blocks):
            heads = prefix_mask(choices[2 + 2 * k], space.heads, space.heads[-1])
            hidden = prefix_mask(choices[3 + 2 * k], self.hidden, self.hidden[-1])
            y = block(x, features, heads, hidden)
            # Depths with this layer are those greater than its number.
            first = next(i for i, d in enumerate(space.depths) if d > k)
            x = y if first == 0 else x + at_least(choices[1], first) * (y - x)
        return cast("torch.Tensor", self.classifier(masked_norm(x, features).mean(1)))
