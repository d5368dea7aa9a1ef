"""Relaxations: from architecture parameters to the weights of the choices in one forward pass.

Each is a function of the parameters of all decisions, of the progress of the search, and of random numbers drawn from a
seed: within one step of a search every evaluation sees the same draw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

DEAD = -1e9
"""Parameter of a choice that has been taken away."""


@dataclass(frozen=True)
class Drawn:
    """Weights of one decision.

    Attributes:
        weights: one a choice.
        active: choices that may have a weight other than zero.
    """

    weights: torch.Tensor
    active: tuple[int, ...]


class Relaxation(ABC):
    """Base of the relaxations.

    Attributes:
        random: whether it draws.
    """

    random: ClassVar[bool] = False

    @abstractmethod
    def weigh(self, alpha: torch.Tensor, alive: tuple[int, ...], progress: float, draw: torch.Generator) -> Drawn:
        """The weights of one decision.

        Args:
            alpha: its parameters, shape (choices,).
            alive: the choices that there still are.
            progress: of the search, from 0 to 1.
            draw: random numbers, on the CPU.
        """

    def probabilities(self, alpha: torch.Tensor, alive: tuple[int, ...]) -> torch.Tensor:
        """How likely each choice is taken to be: what discretisation, entropy and cost see."""
        return functional.softmax(kept(alpha, alive), 0)


def kept(alpha: torch.Tensor, alive: tuple[int, ...]) -> torch.Tensor:
    """The parameters with those of choices that are gone moved out of the way."""
    if len(alive) == len(alpha):
        return alpha
    mask = torch.full_like(alpha, DEAD)
    mask[list(alive)] = 0.0
    return alpha + mask


class Softmax(Relaxation):
    """All choices, weights that add up to 1 (Liu, Simonyan and Yang 2019, DARTS)."""

    def weigh(self, alpha: torch.Tensor, alive: tuple[int, ...], progress: float, draw: torch.Generator) -> Drawn:
        """See `Relaxation.weigh`."""
        return Drawn(self.probabilities(alpha, alive), alive)


class Sigmoid(Relaxation):
    """All choices, each with a weight of its own (Chu et al. 2020, Fair DARTS)."""

    def weigh(self, alpha: torch.Tensor, alive: tuple[int, ...], progress: float, draw: torch.Generator) -> Drawn:
        """See `Relaxation.weigh`."""
        return Drawn(torch.sigmoid(kept(alpha, alive)), alive)

    def probabilities(self, alpha: torch.Tensor, alive: tuple[int, ...]) -> torch.Tensor:
        """The weights themselves: they need not add up to 1."""
        return torch.sigmoid(kept(alpha, alive))


@dataclass(frozen=True)
class Gumbel(Relaxation):
    """Softmax of the parameters with Gumbel noise, the temperature falling (Wu et al. 2019, FBNet).

    Attributes:
        hard: one choice in the forward pass, the soft weights' derivative in the backward one (Dong and Yang 2019,
            GDAS); then only that choice is evaluated.
        first, last: temperatures.
    """

    hard: bool = False
    first: float = 10.0
    last: float = 0.1
    random: ClassVar[bool] = True

    def weigh(self, alpha: torch.Tensor, alive: tuple[int, ...], progress: float, draw: torch.Generator) -> Drawn:
        """See `Relaxation.weigh`."""
        uniform = torch.rand(len(alpha), generator=draw).clamp_(1e-9, 1.0 - 1e-7)
        noise = -torch.log(-torch.log(uniform)).to(alpha)
        temperature = self.first + (self.last - self.first) * progress
        soft = functional.softmax((functional.log_softmax(kept(alpha, alive), 0) + noise) / temperature, 0)
        if not self.hard:
            return Drawn(soft, alive)
        return straight_through(soft, int(soft.argmax()))


def straight_through(soft: torch.Tensor, taken: int) -> Drawn:
    """One choice forward, the derivative of the soft weights backward."""
    hard = functional.one_hot(torch.tensor(taken), len(soft)).to(soft)
    return Drawn(hard + soft - soft.detach(), (taken,))


class Gates(Relaxation):
    """Two paths drawn by their probabilities, and of these one evaluated with weight 1 (Cai, Zhu and Han 2019,
    ProxylessNAS): the gradient is that of the softmax over the two.
    """

    random: ClassVar[bool] = True

    def weigh(self, alpha: torch.Tensor, alive: tuple[int, ...], progress: float, draw: torch.Generator) -> Drawn:
        """See `Relaxation.weigh`."""
        p = self.probabilities(alpha, alive)
        chances = p.detach().cpu() + 1e-6 * functional.one_hot(torch.tensor(alive), len(p)).sum(0)
        pair = torch.multinomial(chances, min(2, len(alive)), generator=draw).tolist()
        two = p[pair] / p[pair].sum()
        first = bool(torch.rand((), generator=draw) < two.detach()[0].cpu())
        weights = torch.zeros_like(p)
        hard = torch.zeros_like(two)
        hard[0 if first or len(pair) == 1 else 1] = 1.0
        weights[pair] = hard + two - two.detach()
        return Drawn(weights, tuple(sorted(pair)))


class Dirichlet(Relaxation):
    """Weights drawn from a Dirichlet distribution, with pathwise derivatives (Chen et al. 2021, DrNAS)."""

    random: ClassVar[bool] = True

    def weigh(self, alpha: torch.Tensor, alive: tuple[int, ...], progress: float, draw: torch.Generator) -> Drawn:
        """See `Relaxation.weigh`."""
        concentration = self._concentration(alpha, alive)
        seed = int(torch.randint(2**62, (), generator=draw))
        # torch.distributions draws from the global generator.
        devices = [alpha.device] if alpha.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            drawn = torch.distributions.Dirichlet(concentration).rsample()
        weights = torch.zeros_like(alpha)
        weights[list(alive)] = drawn
        return Drawn(weights, alive)

    def probabilities(self, alpha: torch.Tensor, alive: tuple[int, ...]) -> torch.Tensor:
        """The distribution's mean."""
        concentration = self._concentration(alpha, alive)
        weights = torch.zeros_like(alpha)
        weights[list(alive)] = concentration / concentration.sum()
        return weights

    @staticmethod
    def _concentration(alpha: torch.Tensor, alive: Sequence[int]) -> torch.Tensor:
        return functional.elu(alpha[list(alive)]) + 1.0 + 1e-4


class OneSample(Relaxation):
    """One choice drawn by the softmax's probabilities, without a derivative: for controllers that are taught by
    REINFORCE, and for training shared weights (Pham et al. 2018, ENAS).
    """

    random: ClassVar[bool] = True

    def weigh(self, alpha: torch.Tensor, alive: tuple[int, ...], progress: float, draw: torch.Generator) -> Drawn:
        """See `Relaxation.weigh`."""
        p = self.probabilities(alpha, alive).detach().cpu()
        taken = int(torch.multinomial(p, 1, generator=draw))
        return Drawn(functional.one_hot(torch.tensor(taken), len(p)).to(alpha), (taken,))


def make_relaxation(name: str, mask: str) -> Relaxation:
    """The relaxation of a configuration: ``relax``, with ``mask=sample1`` in its form of one evaluated choice."""
    if mask == "sample1":
        return Gumbel(hard=True) if name == "gumbel" else OneSample()
    kinds: dict[str, Relaxation] = {
        "softmax": Softmax(),
        "sigmoid": Sigmoid(),
        "gumbel": Gumbel(),
        "gates": Gates(),
        "dirichlet": Dirichlet(),
    }
    return kinds[name]
