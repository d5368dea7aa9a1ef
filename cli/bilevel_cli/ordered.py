"""A command that knows in which order its options were given."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

ORDER = "bilevel.order"
"""Where `OrderedCommand` leaves what it saw: pairs of a parameter's name and one value."""


class OrderedCommand(TyperCommand):
    """A command whose options may be read in the order in which they were given, from ``ctx.meta[ORDER]``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as always, but keep the order: a parser on its own tells it, one entry for each use."""
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        left = {name: list(v) for name, v in values.items() if isinstance(v, list)}
        ctx.meta[ORDER] = [(p.name, left[p.name].pop(0)) for p in order if left.get(str(p.name))]
        return super().parse_args(ctx, args)
