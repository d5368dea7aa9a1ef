"""One file for an architecture: what it is, how good, why the search stopped, and how to find it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bilevel_core.errors import UsageError
from bilevel_core.plugins.specs import load as load_attribute
from bilevel_core.result import Result
from bilevel_nas.spaces import Architecture, SearchSpace, Shape

if TYPE_CHECKING:
    from torch import nn

SCHEMA = "bilevel.architecture/1"
SCORES = (
    "supernet_accuracy",
    "discretised_accuracy",
    "trained_accuracy",
    "test_accuracy",
    "reported_accuracy",
    "cost",
    "parameters",
    "multiply_adds",
    "parameter_free_share",
    "pass_equivalents",
)


@dataclass(frozen=True)
class ArchitectureFile:
    """What such a file holds.

    Attributes:
        space: the search space.
        architecture: the architecture.
        shape: of the data that it was found on; None of a table's.
        scores: accuracies in percent, and sizes.
        document: the whole file.
    """

    space: SearchSpace
    architecture: Architecture
    shape: Shape | None
    scores: Mapping[str, float]
    document: Mapping[str, Any]

    def build(self, shape: Shape | None = None) -> nn.Module:
        """The stand-alone network, untrained.

        Args:
            shape: of the data, if it is another than the search's.

        Raises:
            UsageError: the file names no shape and none is given.
        """
        shape = shape or self.shape
        if shape is None:
            raise UsageError("The architecture is a table's: give the shape of your data to build its network.")
        return self.space.build(self.architecture, shape)


def describe(space: SearchSpace, shape: Shape | None = None) -> str:
    """A space and the shape of its data as one text, for a result's details."""
    kind = type(space)
    data: dict[str, Any] = {"factory": f"{kind.__module__}:{kind.__qualname__}", "parameters": asdict(space)}
    if shape is not None:
        data |= {"inputs": list(shape.inputs), "classes": shape.classes}
    return json.dumps(data)


def save(result: Result, path: Path) -> None:
    """Write the architecture of a result into a file.

    Raises:
        UsageError: the result holds no architecture, or the file cannot be written.
    """
    details = result.details
    if "architecture" not in details or "network" not in details:
        raise UsageError("The result holds no architecture: expected one of a problem nas/*.")
    document = {
        "schema": SCHEMA,
        "architecture": details["architecture"],
        "space": json.loads(details["network"]),
        "scores": {k: details[k] for k in SCORES if isinstance(details.get(k), int | float)},
        "stopped_because": details.get("stopped_because", result.message),
        "problem": result.problem,
        "solver": result.solver,
        "preset": details.get("preset"),
        "options": dict(result.options),
        "seed": result.seed,
        "upper_objective": result.upper_objective,
        "counts": dict(result.counts),
        "versions": dict(result.versions),
    }
    try:
        path.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


def load(path: Path) -> ArchitectureFile:
    """Read what `save` wrote.

    Raises:
        UsageError: the file cannot be read, is no such file, or its space has changed since.
    """
    try:
        document: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as an architecture: {error}") from error
    if not isinstance(document, dict) or cast("dict[str, Any]", document).get("schema") != SCHEMA:
        raise UsageError(f"{path} is no file of the schema {SCHEMA!r}.")
    told = cast("dict[str, Any]", document)
    missing = [k for k in ("architecture", "space", "scores") if k not in told]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)}.")
    where = told["space"]
    try:
        space = space_of(where)
        shape = Shape(tuple(where["inputs"]), int(where["classes"])) if "inputs" in where else None
    except (KeyError, AttributeError, ValueError) as error:
        raise UsageError(f"{path}: its space cannot be read, {type(error).__name__}: {error}.") from error
    return ArchitectureFile(space, space.read(told["architecture"]), shape, told["scores"], told)


def space_of(where: Mapping[str, Any]) -> SearchSpace:
    """The space that `describe` wrote down.

    Raises:
        UsageError: it names no search space, or one that has changed since.
        MissingError: its module cannot be imported.
    """
    factory = load_attribute(where["factory"])
    if not (isinstance(factory, type) and issubclass(factory, SearchSpace)):
        raise UsageError(f"{where['factory']} is no search space.")
    parameters = {k: tuple(v) if isinstance(v, list) else v for k, v in where["parameters"].items()}
    try:
        made: Any = factory(**parameters)
    except TypeError as error:
        raise UsageError(f"The space {where['factory']} has changed since: {error}") from error
    return made
