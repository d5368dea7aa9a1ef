"""The parts that a search is composed of, as texts: ``hyper=cg:10`` is the part ``hyper``, kind ``cg``, argument 10.

| part | kinds |
|---|---|
| relax | softmax, sigmoid, gumbel, gates, dirichlet |
| mask | full, partial:K, sample1, prune:N |
| hyper | first, fd, unroll:K, neumann:K, cg:K, aux:K, reinforce, none |
| lower | sgd, freeze |
| reg | beta, zero-one, entropy, cost, decay, perturbation, skip-dropout; several joined by + |
| stop | epochs, skips:N, stable:N, eigenvalue:FACTOR |
| disc | argmax, top2, threshold:T, skips:N, perturbation, strength, budgeted, evolution:N |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from bilevel_core.errors import UsageError, unknown

# Kind -> its default argument; None for kinds that take none.
KINDS: Mapping[str, Mapping[str, float | None]] = {
    "relax": dict.fromkeys(("softmax", "sigmoid", "gumbel", "gates", "dirichlet")),
    "mask": {"full": None, "partial": 4.0, "sample1": None, "prune": 2.0},
    "hyper": {
        "first": None,
        "fd": None,
        "unroll": 2.0,
        "neumann": 5.0,
        # Five products point where ten do, with less noise (benchmarks/README.md, nas.py).
        "cg": 5.0,
        "aux": 5.0,
        "reinforce": None,
        "none": None,
    },
    "lower": dict.fromkeys(("sgd", "freeze")),
    "reg": {
        "beta": 5.0,
        "zero-one": 1.0,
        "entropy": 0.1,
        "cost": 0.1,
        "decay": 3.0,
        "perturbation": 0.03,
        "skip-dropout": 0.3,
    },
    "stop": {"epochs": None, "skips": 2.0, "stable": 10.0, "eigenvalue": 1.3},
    "disc": {
        "argmax": None,
        "top2": None,
        "threshold": 0.85,
        "skips": 2.0,
        "perturbation": None,
        "strength": None,
        "budgeted": None,
        "evolution": 50.0,
    },
}
COUNTS = ("partial", "prune", "unroll", "neumann", "cg", "aux", "skips", "stable", "evolution")
"""Kinds whose argument is a number of something."""
SECOND_ORDER = ("fd", "unroll", "neumann", "cg", "aux")
"""Kinds of ``hyper`` that need second derivatives of the supernet, and so a smooth activation."""
IMPLICIT = ("neumann", "cg", "aux")
"""Kinds that solve a system in the lower Hessian."""


@dataclass(frozen=True)
class Part:
    """One part as read.

    Attributes:
        kind: which.
        value: its argument, or the kind's default; 0 for kinds without.
    """

    kind: str
    value: float = 0.0

    @property
    def count(self) -> int:
        """The argument as an integer."""
        return int(self.value)


def read_part(label: str, text: str) -> Part:
    """A part from its text.

    Args:
        label: ``relax``, ``mask``, ...
        text: ``kind`` or ``kind:argument``.

    Raises:
        UsageError: an unknown kind, or an argument that is none.
    """
    kind, colon, argument = text.strip().partition(":")
    kinds = KINDS[label]
    if kind not in kinds:
        raise unknown(f"kind of {label}", kind, kinds)
    default = kinds[kind]
    if not colon:
        return Part(kind, default or 0.0)
    if default is None:
        raise UsageError(f"{label}={kind} takes no argument, got {argument!r}.")
    try:
        value = float(argument)
    except ValueError:
        raise UsageError(f"{label}={text!r}: expected a number after the colon.") from None
    if not 0.0 < value < 1e6:
        raise UsageError(f"{label}={text!r}: expected a positive number after the colon.")
    if kind in COUNTS and value != int(value):
        raise UsageError(f"{label}={text!r}: expected an integer after the colon.")
    return Part(kind, value)


@dataclass(frozen=True)
class Parts:
    """A configuration, as texts.

    Attributes:
        relax, mask, hyper, lower, reg, stop, disc: see the module; ``reg`` may be empty.
        edges: weigh the edges into each node as well (PC-DARTS's edge normalisation).
        share: which cells of the network are one; told to the user, since it is a parameter of the problem's space.
    """

    relax: str = "softmax"
    mask: str = "full"
    hyper: str = "first"
    lower: str = "sgd"
    reg: str = ""
    stop: str = "epochs"
    disc: str = "argmax"
    edges: bool = False
    share: str = ""

    def __post_init__(self) -> None:
        for label in KINDS:
            if label != "reg":
                self.part(label)
        regularisers = self.regularisers
        mask, hyper, relax = self.part("mask"), self.part("hyper"), self.part("relax")
        if hyper.kind in ("reinforce", "none") and mask.kind != "sample1":
            raise UsageError(
                f"hyper={hyper.kind} trains shared weights by sampled architectures: it needs mask=sample1."
            )
        if mask.kind == "sample1" and hyper.kind in SECOND_ORDER:
            raise UsageError(
                f"hyper={hyper.kind} differentiates the training twice, and mask=sample1 trains another architecture "
                "each step: use hyper=first, reinforce or none."
            )
        if mask.kind == "sample1" and hyper.kind == "first" and relax.kind != "gumbel":
            raise UsageError(
                f"mask=sample1 with relax={relax.kind} gives no derivative: use relax=gumbel or hyper=reinforce."
            )
        if mask.kind == "partial" and mask.count < 2:
            raise UsageError(f"mask=partial:{mask.count}: expected 2 or more.")
        if self.part("stop").kind == "skips" and self.part("disc").kind == "evolution":
            raise UsageError("disc=evolution knows no limit on skips: use stop=epochs with it.")
        if "zero-one" in regularisers and relax.kind != "sigmoid":
            raise UsageError("reg=zero-one pushes independent weights to 0 or 1: it needs relax=sigmoid.")

    def part(self, label: str) -> Part:
        """One part as read."""
        return read_part(label, getattr(self, label))

    @property
    def regularisers(self) -> dict[str, float]:
        """Kinds of ``reg`` with their arguments."""
        texts = [t for t in self.reg.split("+") if t.strip()]
        found = [read_part("reg", t) for t in texts]
        if len({p.kind for p in found}) != len(found):
            raise UsageError(f"reg={self.reg!r}: one of them is given twice.")
        return {p.kind: p.value for p in found}

    @property
    def text(self) -> str:
        """What differs from the defaults, as options of the command line."""
        changed = [f.name for f in fields(self) if f.name != "share" and getattr(self, f.name) != f.default]
        return " ".join(f"{name}={str(getattr(self, name)).lower()}" for name in changed)
