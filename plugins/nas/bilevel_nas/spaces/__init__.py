"""Search spaces by name. ``module:attribute`` names one of your own: a subclass of `SearchSpace`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bilevel_core.errors import UsageError, unknown
from bilevel_core.plugins.specs import load
from bilevel_core.run.options import read
from bilevel_nas.spaces.base import Architecture, Choice, Decision, Named, SearchSpace, Shape, one_hot

__all__ = ["SPACES", "Architecture", "Choice", "Decision", "SearchSpace", "Shape", "find_space", "one_hot"]

SPACES: dict[str, Named] = {
    "mlp": Named("bilevel_nas.spaces.mlp:Mlp", {}, "depth and widths of a perceptron; small enough for a grid"),
    "cell201-6": Named("bilevel_nas.spaces.cell201:Cell201", {}, "the cell of NAS-Bench-201: 6 edges, five operations"),
    "cell201-12": Named(
        "bilevel_nas.spaces.cell201:Cell201", {"share": "stage"}, "the same with a cell of its own for each stage"
    ),
    "cell201": Named("bilevel_nas.spaces.cell201:Cell201", {}, "the same with any number of nodes, stages and cells"),
    "macro": Named("bilevel_nas.spaces.macro:Macro", {}, "a chain of identities and inverted bottlenecks"),
    "darts": Named("bilevel_nas.spaces.darts:Darts", {}, "normal and reduction cells with eight operations"),
    "mobile": Named("bilevel_nas.spaces.mobile:Mobile", {}, "kernels, expansions and depths of mobile networks"),
    "transformer": Named(
        "bilevel_nas.spaces.transformer:Transformer", {}, "embedding, depth, heads and widths of vision transformers"
    ),
    "graph": Named("bilevel_nas.spaces.graph:Graph", {}, "message passing for the classification of graphs"),
}


def find_space(name: str, parameters: Mapping[str, Any] | None = None) -> SearchSpace:
    """The space of a name, made with its parameters.

    Raises:
        UsageError: there is none, or a parameter is unknown or wrong.
    """
    if name in SPACES:
        named = SPACES[name]
    elif ":" in name:
        named = Named(name)
    else:
        raise unknown("search space", name, SPACES)
    factory = load(named.factory)
    given = {**named.parameters, **read(factory, parameters or {}, kind="parameter", owner=f"search space {name!r}")}
    made: Any = factory(**given)
    if not isinstance(made, SearchSpace):
        raise UsageError(f"{name!r} makes a {type(made).__name__}; expected a bilevel_nas SearchSpace.")
    return made
