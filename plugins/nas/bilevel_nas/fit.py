"""Whether a configuration of parts has an effect on a search space. What would have none is refused before a search."""

from __future__ import annotations

from torch import nn

from bilevel_core.errors import UsageError
from bilevel_nas.parts import Parts
from bilevel_nas.spaces import SearchSpace


def refuse_idle(parts: Parts, space: SearchSpace, net: nn.Module) -> None:
    """Refuse parts that would do nothing on a space.

    Args:
        parts: the configuration.
        space: what is searched.
        net: its supernet.

    Raises:
        UsageError: there is one; it is named, with the remedy.
    """
    decisions, name = space.decisions, space.name
    if parts.part("disc").kind in ("top2", "threshold") and any(not d.node or d.zero is None for d in decisions):
        raise UsageError(f"disc=top2 and threshold leave out edges, which the space {name!r} has none of: use argmax.")
    if all(d.skip is None for d in decisions):
        for label, kind in (("stop", parts.part("stop").kind), ("disc", parts.part("disc").kind)):
            if kind == "skips":
                raise UsageError(f"{label}=skips counts skips, which the space {name!r} has none of: leave it out.")
        if "skip-dropout" in parts.regularisers:
            raise UsageError(f"reg=skip-dropout drops skips, which the space {name!r} has none of: leave it out.")
    if "cost" in parts.regularisers and not any(any(d.cost) for d in decisions):
        raise UsageError(f"reg=cost needs costs, and the space {name!r} has none.")
    mask = parts.part("mask")
    most = max(len(d.choices) for d in decisions)
    if mask.kind == "prune" and mask.count >= most:
        raise UsageError(
            f"mask=prune:{mask.count} takes nothing away: no decision of {name!r} has more than {most} choices."
        )
    if parts.part("lower").kind == "freeze":
        kinds = {kind for m in net.modules() for kind in (nn.Conv2d, nn.BatchNorm2d) if isinstance(m, kind)}
        if len(kinds) < 2:
            raise UsageError(
                "lower=freeze leaves convolutions at random weights and trains their normalisations, and the supernet "
                f"of {name!r} does not have both: use lower=sgd."
            )
