"""Between what users write (tensors, nested dictionaries and lists of tensors, modules) and one flat tensor.

A `Layout` is made once from the starting point. Splitting the flat tensor is one operation, so that its derivative is
one concatenation however many leaves there are.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from bilevel_core.errors import ModelError, UsageError
from bilevel_core.result import Values


class ModuleView:
    """A module whose parameters are parts of the flat vector: what ``upper`` and ``lower`` get for a module.

    Call it like the module. ``view["layer.weight"]`` is a parameter, `parameters` and `named_parameters` list them,
    and `eval` and `train` give a view that runs in that mode, whatever mode the module is in.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        parameters: Mapping[str, torch.Tensor],
        buffers: dict[str, torch.Tensor],
        training: bool | None = None,
    ) -> None:
        self._module = module
        self._parameters = dict(parameters)
        self._buffers = buffers
        self._training = training

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward with these parameters."""
        with _mode(self._module, self._training):
            return torch.func.functional_call(self._module, {**self._parameters, **self._buffers}, args, kwargs)

    def __getitem__(self, name: str) -> torch.Tensor:
        """One parameter by its name in the module."""
        return self._parameters[name]

    def parameters(self) -> Iterator[torch.Tensor]:
        """All parameters."""
        return iter(self._parameters.values())

    def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All parameters with their names."""
        return iter(self._parameters.items())

    def eval(self) -> ModuleView:
        """The same, run in evaluation mode."""
        return ModuleView(self._module, self._parameters, self._buffers, False)

    def train(self) -> ModuleView:
        """The same, run in training mode."""
        return ModuleView(self._module, self._parameters, self._buffers, True)


@contextmanager
def _mode(module: torch.nn.Module, training: bool | None) -> Generator[None]:
    if training is None:
        yield
        return
    before = [(m, m.training) for m in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for m, was in before:
            m.training = was


@dataclass(frozen=True)
class Leaf:
    """One tensor of a structure: its name in results, its shape and its place in the flat vector."""

    name: str
    shape: tuple[int, ...]
    size: int


class Layout:
    """How a structure of tensors lies in a flat vector.

    Args:
        start: a tensor, a dictionary, list or tuple of such (nested as you like), or a module.
        label: ``x`` or ``y``: the name of a plain tensor, and how messages call the structure.

    Raises:
        ModelError: a leaf is no floating-point tensor, there is none, or dtypes or devices differ.
    """

    def __init__(self, start: Any, label: str) -> None:
        self.label = label
        self.start = start
        self.module = start if isinstance(start, torch.nn.Module) else None
        named = list(self._walk(start, ""))
        if not named:
            raise ModelError(
                f"{label}0 holds no tensor. Expected a tensor, a dictionary or list of tensors, or a module."
            )
        for name, leaf in named:
            if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
                got = f"dtype {leaf.dtype}" if isinstance(leaf, torch.Tensor) else type(leaf).__name__
                raise ModelError(f"{label}0[{name!r}]: expected a floating-point tensor, got {got}.")
        first = named[0][1]
        for name, leaf in named:
            if leaf.dtype != first.dtype or leaf.device != first.device:
                raise ModelError(
                    f"{label}0[{name!r}] is {leaf.dtype} on {leaf.device}, {named[0][0]!r} is {first.dtype} on "
                    f"{first.device}: all tensors of one level must share dtype and device."
                )
        self.dtype = first.dtype
        self.device = first.device
        self.leaves = tuple(Leaf(name, tuple(leaf.shape), leaf.numel()) for name, leaf in named)
        self.sizes = [leaf.size for leaf in self.leaves]
        self.size = sum(self.sizes)

    def _walk(self, tree: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(tree, torch.nn.Module):
            if path:
                raise ModelError(f"{self.label}0[{path!r}] is a module inside a structure; pass the module itself.")
            yield from ((name, p) for name, p in tree.named_parameters() if p.requires_grad)
        elif isinstance(tree, Mapping):
            for key, value in cast("Mapping[Any, Any]", tree).items():
                yield from self._walk(value, f"{path}.{key}" if path else str(key))
        elif isinstance(tree, (list, tuple)):
            for key, value in enumerate(cast("list[Any]", tree)):
                yield from self._walk(value, f"{path}.{key}" if path else str(key))
        else:
            yield path or self.label, tree

    def flatten(self, tree: Any) -> torch.Tensor:
        """A structure of the same form as one flat tensor, detached.

        Raises:
            UsageError: the structure has other leaves or shapes.
        """
        named = list(self._walk(tree, ""))
        if len(named) != len(self.leaves):
            names = ", ".join(leaf.name for leaf in self.leaves)
            raise UsageError(f"Expected {self.label} with {len(self.leaves)} tensor(s) ({names}), got {len(named)}.")
        parts: list[torch.Tensor] = []
        for leaf, (name, value) in zip(self.leaves, named, strict=True):
            tensor = torch.as_tensor(value, dtype=self.dtype, device=self.device).detach()
            if not _fits(tuple(tensor.shape), leaf) or name != leaf.name:
                got = f"{name!r} of {tuple(tensor.shape)}"
                raise UsageError(f"Expected {self.label}[{leaf.name!r}] of shape {leaf.shape}, got {got}.")
            parts.append(tensor.reshape(-1))
        return torch.cat(parts)

    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The leaves by name, as parts of the flat tensor."""
        pieces = torch.split(flat, self.sizes)
        return {leaf.name: p.view(leaf.shape) for leaf, p in zip(self.leaves, pieces, strict=True)}

    def unflatten(self, flat: torch.Tensor, buffers: dict[str, torch.Tensor] | None = None) -> Any:
        """The structure that the user's functions get; for a module, a `ModuleView`."""
        named = self.split(flat)
        if self.module is not None:
            return ModuleView(self.module, named, buffers or {})
        return self._rebuild(self.start, iter(named.values()))

    def _rebuild(self, tree: Any, values: Iterator[torch.Tensor]) -> Any:
        if isinstance(tree, Mapping):
            return {key: self._rebuild(value, values) for key, value in cast("Mapping[Any, Any]", tree).items()}
        if isinstance(tree, (list, tuple)):
            parts = [self._rebuild(value, values) for value in cast("list[Any]", tree)]
            if isinstance(tree, list):
                return parts
            make: Any = type(tree)
            return make(*parts) if hasattr(make, "_fields") else make(parts)
        return next(values)

    def values(self, flat: torch.Tensor) -> Values:
        """The leaves as NumPy arrays by name."""
        # NumPy has no bfloat16.
        host = flat.detach().cpu()
        host = host.float() if host.dtype == torch.bfloat16 else host
        return Values({name: part.numpy().copy() for name, part in self.split(host).items()})

    def from_values(self, given: Mapping[str, Any]) -> torch.Tensor:
        """The reverse of `values`. Entries that are no leaves (buffers of a module) are left aside.

        Raises:
            UsageError: a leaf is missing or has the wrong number of values.
        """
        parts: list[np.ndarray] = []
        for leaf in self.leaves:
            if leaf.name not in given:
                raise UsageError(f"{self.label} needs a value for {leaf.name!r}. Got: {', '.join(given) or 'none'}.")
            value = given[leaf.name]
            try:
                # NumPy takes no tensor that requires gradients, lies on a GPU or is of bfloat16.
                host = value.detach().double().cpu().numpy() if isinstance(value, torch.Tensor) else value
                array = np.asarray(host, dtype=float)
            except (TypeError, ValueError) as error:
                raise UsageError(f"{self.label}[{leaf.name!r}] holds no array of numbers ({error}).") from error
            if not _fits(array.shape, leaf):
                raise UsageError(
                    f"Expected {self.label}[{leaf.name!r}] of shape {leaf.shape}, got values of shape {array.shape}."
                )
            parts.append(array.reshape(-1))
        return torch.as_tensor(np.concatenate(parts)).to(dtype=self.dtype, device=self.device)

    def read(self, thing: Any) -> torch.Tensor:
        """A structure, a dictionary of arrays by leaf name, or numbers for a plain tensor, as one flat tensor.

        Raises:
            UsageError: it has another form.
        """
        if isinstance(thing, Mapping) and not isinstance(self.start, Mapping):
            return self.from_values(cast("Mapping[str, Any]", thing))
        if isinstance(self.start, torch.Tensor) and not isinstance(thing, torch.Tensor):
            return self.from_values({self.label: thing})
        if isinstance(thing, Mapping) and set(cast("Mapping[str, Any]", thing)) >= {leaf.name for leaf in self.leaves}:
            return self.from_values(cast("Mapping[str, Any]", thing))
        return self.flatten(thing)

    def locate(self, index: int) -> str:
        """The name of the leaf that an entry of the flat vector belongs to, as messages write it."""
        leaf, _ = self.place(index)
        return self.label if leaf.name == self.label else f"{self.label}[{leaf.name!r}]"

    def entry(self, index: int) -> str:
        """What an entry of the flat vector is called: as its leaf, with its place in it where there are several."""
        leaf, within = self.place(index)
        return self.locate(index) if leaf.size == 1 else f"{self.locate(index)}[{within}]"

    def place(self, index: int) -> tuple[Leaf, int]:
        """The leaf that an entry of the flat vector belongs to, and its place in that leaf, flat.

        Raises:
            IndexError: there is no such entry.
        """
        within = index
        for leaf in self.leaves:
            if within < leaf.size:
                return leaf, within
            within -= leaf.size
        raise IndexError(f"{self.label} has {self.size} entries, and none with the number {index}.")


def _fits(shape: tuple[int, ...], leaf: Leaf) -> bool:
    """A transposed matrix has as many entries and means something else; of a single number the shape says nothing."""
    return shape == leaf.shape or (math.prod(shape) == 1 and leaf.size == 1)
