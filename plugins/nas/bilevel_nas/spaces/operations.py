"""Operations that the spaces build their networks from, their mixtures, and the count of multiply-adds.

In a supernet normalisation has no parameters and keeps no statistics: a scale could undo what an architecture weight
says, and running averages would mix architectures.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from bilevel_core.errors import UsageError, unknown
from bilevel_nas.spaces.base import Choice, Shape

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "relu": nn.ReLU,
}
SMOOTH = ("silu", "softplus", "gelu", "tanh")
"""Activations with a continuous second derivative: with others second-order products of the supernet mean nothing."""


def activation(name: str) -> nn.Module:
    """The activation of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def norm2d(channels: int, search: bool) -> nn.BatchNorm2d:
    """Batch normalisation: without parameters and statistics in a supernet."""
    return nn.BatchNorm2d(channels, affine=not search, track_running_stats=not search)


class Zero(nn.Module):
    """The operation that gives nothing; of the right shape where it is not left out altogether."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zeros."""
        return torch.zeros_like(x[..., :: self.stride, :: self.stride] if self.stride > 1 else x)


class ConvNorm(nn.Sequential):
    """Activation, convolution, normalisation."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        act: str,
        search: bool,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        pointwise: bool = False,
    ) -> None:
        padding = dilation * (kernel // 2)
        wide = c_in if pointwise else c_out
        layers: list[nn.Module] = [
            activation(act),
            nn.Conv2d(c_in, wide, kernel, stride, padding, dilation, groups, bias=False),
        ]
        if pointwise:
            layers.append(nn.Conv2d(c_in, c_out, 1, bias=False))
        super().__init__(*layers, norm2d(c_out, search))


class Pool(nn.Module):
    """Average or maximum over 3 x 3; in a supernet normalised, as DARTS does, where ``norm`` says so."""

    def __init__(self, kind: str, channels: int, stride: int, search: bool, norm: bool) -> None:
        super().__init__()
        self.pool: nn.Module = (
            nn.AvgPool2d(3, stride, 1, count_include_pad=False) if kind == "avg" else nn.MaxPool2d(3, stride, 1)
        )
        self.norm: nn.Module = norm2d(channels, search) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.norm(self.pool(x))


class Mixed(nn.Module):
    """Several operations on one input, added up with the weights of a `Choice`.

    Args:
        operations: one a choice; `Zero` ones are left out of the sum.
        partial: only one channel in so many goes through the operations, the others pass by, and channels are then
            shuffled (Xu et al. 2020, PC-DARTS).
    """

    def __init__(self, operations: Sequence[nn.Module], partial: int = 1) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)
        self.partial = partial

    def forward(self, x: torch.Tensor, choice: Choice) -> torch.Tensor | None:
        """The weighted sum; None where every active choice is the zero operation."""
        inside = x[:, : x.shape[1] // self.partial] if self.partial > 1 else x
        total: torch.Tensor | None = None
        for k in choice.active:
            operation = self.operations[k]
            if isinstance(operation, Zero):
                continue
            term = choice.weights[k] * operation(inside)
            total = term if total is None else total + term
        if total is None or self.partial == 1:
            return total
        beside = x[:, x.shape[1] // self.partial :]
        if beside.shape[2:] != total.shape[2:]:
            beside = functional.max_pool2d(beside, 2, 2)
        joined = torch.cat([total, beside], 1)
        b, c, h, w = joined.shape
        return joined.view(b, self.partial, c // self.partial, h, w).transpose(1, 2).reshape(b, c, h, w)


def width_of(channels: int, partial: int, space: str) -> int:
    """Channels that operations see with partial connections.

    Raises:
        UsageError: they do not divide.
    """
    if channels % partial:
        raise UsageError(f"mask=partial:{partial} needs channels of {space!r} that it divides, got {channels}.")
    return channels // partial


def accepted(shape: Shape, rank: int, space: str) -> None:
    """See that the data is of the form that a space is for.

    Raises:
        UsageError: it is not.
    """
    if len(shape.inputs) != rank:
        form = {1: "vectors", 2: "graphs (nodes x (features + nodes))", 3: "images (channels, height, width)"}[rank]
        raise UsageError(f"The space {space!r} is for {form}; the data has examples of shape {shape.inputs}.")


def multiply_adds(model: nn.Module, shape: Shape) -> int:
    """Multiply-adds of a forward pass for one example, of convolutions and linear layers, and of the matrix products
    that modules count themselves (a method ``products(*inputs)``).
    """
    total = 0
    handles: list[Any] = []

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            taps = module.kernel_size[0] * module.kernel_size[1] * module.in_channels // module.groups
            total += int(output[0].numel()) * taps
        elif isinstance(module, nn.Linear):
            total += int(output[0].numel()) * module.in_features
        else:
            total += int(module.products(*inputs))  # type: ignore[operator]

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) or inspect.ismethod(getattr(module, "products", None)):
            handles.append(module.register_forward_hook(count))
    before = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape.inputs))
    finally:
        model.train(before)
        for handle in handles:
            handle.remove()
    return total
