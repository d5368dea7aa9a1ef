"""What a search space is: decisions, each with a few choices, and the networks that they stand for.

An architecture is a tuple of integers, one a decision: the position of its choice, or `INACTIVE` where the decision has
no effect (a layer beyond the depth chosen). Sampling, mutating and enumerating come from `bilevel_core.sampling`; a new
space is one file that says its decisions, and builds the stand-alone network and the supernet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.sampling.space import Categorical, Condition, Space

if TYPE_CHECKING:
    from torch import nn

Architecture = tuple[int, ...]
INACTIVE = -1


@dataclass(frozen=True)
class Decision:
    """One choice to be made.

    Attributes:
        name: what it is called in results, ``e01`` for the edge from node 0 to node 1, say.
        choices: what there is to choose from; texts or numbers.
        cost: what each choice adds to the cost of an architecture, in units of the space.
        free: positions of choices without parameters (``skip``, pooling): too many of them are a collapse.
        zero: position of the choice that cuts the connection; None where there is none.
        skip: position of the identity; None where there is none.
        node: decisions that end in the same node, and compete there, have the same text; empty for none.
        when: the decision exists only where an earlier one has one of these choices.
    """

    name: str
    choices: tuple[Any, ...]
    cost: tuple[float, ...] = ()
    free: frozenset[int] = frozenset()
    zero: int | None = None
    skip: int | None = None
    node: str = ""
    when: Condition | None = None

    @property
    def candidates(self) -> tuple[int, ...]:
        """Positions of the choices that compute something: all but the zero operation."""
        return tuple(k for k in range(len(self.choices)) if k != self.zero)


@dataclass(frozen=True)
class Shape:
    """What goes into a network, and how many classes come out.

    Attributes:
        inputs: shape of one example: (channels, height, width), (features,), or (nodes, features + nodes) for a graph
            whose adjacency matrix stands beside its features.
        classes: number of classes.
    """

    inputs: tuple[int, ...]
    classes: int


@dataclass(frozen=True)
class SearchSpace(ABC):
    """Base of the search spaces. Subclasses are frozen dataclasses; their fields are the space's parameters.

    Raises:
        UsageError: a parameter is out of its range.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What the space is called, with the parameters that change its decisions."""

    @abstractmethod
    def make_decisions(self) -> tuple[Decision, ...]:
        """The decisions in order."""

    @abstractmethod
    def build(self, architecture: Architecture, shape: Shape) -> nn.Module:
        """The stand-alone network of an architecture, untrained. Its forward takes a batch of inputs."""

    @abstractmethod
    def supernet(self, shape: Shape, activation: str = "silu", partial: int = 1) -> nn.Module:
        """The network that holds every architecture; its forward takes a batch and one `Choice` a decision.

        Args:
            shape: of the data.
            activation: ``silu``, ``softplus``, ``relu``, ...; second-order methods need a smooth one.
            partial: mix operations on one channel in so many only (PC-DARTS); refused by spaces without channels.
        """

    def fixed(self) -> dict[str, Architecture]:
        """Architectures that anyone would try by hand, to compare a search with."""
        return {}

    def draw(self, architecture: Architecture) -> list[str]:
        """An architecture as lines of text for people."""
        return [f"{d.name}: {d.choices[c]}" for d, c in zip(self.decisions, architecture, strict=True) if c >= 0]

    # What follows from the decisions.

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions in order."""
        return self.make_decisions()

    @cached_property
    def space(self) -> Space:
        """The same as variables of a sampling solver."""
        return Space(tuple(Categorical(d.name, d.choices, d.when) for d in self.decisions))

    @property
    def size(self) -> float:
        """Number of architectures; an upper bound where decisions depend on others."""
        return self.space.size

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random architecture, decision by decision."""
        return self.of_point(self.space.random(rng))

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """A neighbour: one decision changed."""
        return self.of_point(self.space.mutate(self.point(architecture), rng))

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once."""
        return (self.of_point(p) for p in self.space.enumerate(1))

    def encode(self, architecture: Architecture) -> np.ndarray:
        """One-hot, all decisions in a row; zeros for inactive ones."""
        self.check(architecture)
        blocks = [
            np.eye(len(d.choices))[c] if c >= 0 else np.zeros(len(d.choices)) for d, c in self._pairs(architecture)
        ]
        return np.concatenate(blocks)

    def point(self, architecture: Architecture) -> np.ndarray:
        """An architecture as a point of `space`."""
        self.check(architecture)
        return self.space.canonical(np.array([float("nan") if c < 0 else float(c) for c in architecture]))

    def of_point(self, point: np.ndarray) -> Architecture:
        """The reverse of `point`."""
        return tuple(INACTIVE if np.isnan(v) else int(v) for v in point)

    def of_values(self, values: Mapping[str, Any]) -> Architecture:
        """The architecture of the values that a sampling solver hands out, choices by name."""
        return self.of_point(self.space.point(values))

    def canonical(self, architecture: Sequence[int]) -> Architecture:
        """The same architecture with decisions that have no effect marked as inactive."""
        return self.of_point(self.space.canonical(np.array([np.nan if c < 0 else float(c) for c in architecture])))

    def text(self, architecture: Architecture) -> str:
        """The canonical string: the space's name, and the positions of the choices in order."""
        self.check(architecture)
        return f"{self.name}:" + "-".join("." if c < 0 else str(c) for c in self.canonical(architecture))

    def read(self, text: str) -> Architecture:
        """The reverse of `text`; the space's name may be left out.

        Raises:
            UsageError: it is of another space, or not of this form.
        """
        name, colon, codes = text.rpartition(":")
        if colon and name != self.name:
            raise UsageError(f"The architecture {text!r} is of the space {name!r}; expected one of {self.name!r}.")
        parts = codes.split("-") if "-" in codes or len(self.decisions) == 1 else list(codes)
        try:
            found = tuple(INACTIVE if c == "." else int(c) for c in parts)
        except ValueError:
            raise UsageError(f"Expected integers joined by dashes in the architecture {text!r}.") from None
        self.check(found)
        return self.canonical(found)

    def check(self, architecture: Architecture) -> None:
        """Raise `UsageError` unless there is one valid choice for each decision."""
        if len(architecture) != len(self.decisions):
            raise UsageError(
                f"Expected {len(self.decisions)} choices for the space {self.name!r}, got {len(architecture)}: "
                f"{architecture!r}."
            )
        for d, c in self._pairs(architecture):
            if not INACTIVE <= c < len(d.choices):
                raise UsageError(f"{d.name!r}: expected a choice from 0 to {len(d.choices) - 1}, got {c}.")

    def _pairs(self, architecture: Architecture) -> Iterator[tuple[Decision, int]]:
        return zip(self.decisions, architecture, strict=True)

    # Measures.

    def cost(self, architecture: Architecture) -> float:
        """The sum of the choices' costs; 0 for spaces without."""
        self.check(architecture)
        return float(sum(d.cost[c] for d, c in self._pairs(architecture) if d.cost and c >= 0))

    def free_share(self, architecture: Architecture) -> float:
        """The share of operations without parameters among those that compute something; 1 where nothing does."""
        weigh = [(d, c) for d, c in self._pairs(architecture) if c >= 0 and (d.free or d.zero is not None)]
        used = [(d, c) for d, c in weigh if c != d.zero]
        return sum(c in d.free for d, c in used) / len(used) if used else float(bool(weigh))

    def parameters(self, architecture: Architecture, shape: Shape) -> int:
        """Number of trainable weights of the stand-alone network."""
        return sum(p.numel() for p in self.build(architecture, shape).parameters() if p.requires_grad)

    def flops(self, architecture: Architecture, shape: Shape) -> int:
        """Multiply-adds of convolutions, linear layers and matrix products for one example."""
        from bilevel_nas.spaces.operations import multiply_adds

        return multiply_adds(self.build(architecture, shape), shape)

    @cached_property
    def single(self) -> float:
        """What a pass of one architecture costs, in passes of the supernet: one candidate in so many is evaluated."""
        total = sum(len(d.candidates) for d in self.decisions)
        return len(self.decisions) / total


@dataclass(frozen=True)
class Choice:
    """The weights that a relaxation gives to a decision's choices in one forward pass.

    Attributes:
        weights: a vector, one entry a choice.
        active: positions of the choices that are evaluated; the others count as zero.
    """

    weights: Any
    active: tuple[int, ...]


def one_hot(space: SearchSpace, architecture: Architecture, like: Any) -> list[Choice]:
    """An architecture as what the supernet's forward takes: all weight on the choice made."""
    found: list[Choice] = []
    for d, c in zip(space.decisions, architecture, strict=True):
        weights = like.new_zeros(len(d.choices))
        position = max(c, 0)
        weights[position] = 1.0
        found.append(Choice(weights, (position,)))
    return found


@dataclass(frozen=True)
class Named:
    """How `find_space` makes a space.

    Attributes:
        factory: "module:attribute" of the class.
        parameters: those that are not the class's defaults.
        summary: one line.
    """

    factory: str
    parameters: Mapping[str, Any] = field(default_factory=cast("Any", dict))
    summary: str = ""
