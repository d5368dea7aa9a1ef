"""`ArchitectureProblem`: the leader picks an architecture, the follower trains its weights.

Upper level: the validation error of the trained network (and, for several objectives, its parameters and cost). Lower
level: training on the training part, a deterministic procedure: the same architecture always gets the same weights on
one machine, so that a point can be checked by training again. The test part is never seen by a search: only `details`,
asked once for the architecture that a run ends with, retrains on training and validation data and looks at it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bilevel_core.errors import UsageError, unknown
from bilevel_core.problems.nested import Answer, Call, NestedProblem
from bilevel_core.result import Values
from bilevel_nas.architecture_file import describe
from bilevel_nas.cells import tables
from bilevel_nas.data import Data
from bilevel_nas.exact import least_cost
from bilevel_nas.spaces import Architecture, SearchSpace
from bilevel_nas.training import Tensors, TrainSettings, evaluate, find_device, on_device, peak_memory, train

STRUCTURE = "architecture"
FORWARD = 0.35
"""What a forward pass costs, in passes forward and backward."""
UNIT = 64
"""A pass-equivalent is one pass of the supernet, forward and backward, for so many examples."""
OBJECTIVES = ("error", "parameters", "flops", "cost")
BESIDE = ("none", "random")
RETRAIN_SEED = 900


@dataclass(frozen=True)
class Retrained:
    """What retraining from scratch gave.

    Attributes:
        accuracies: test accuracy in percent, one a retraining.
    """

    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean test accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def deviation(self) -> float | None:
        """Standard deviation; None for one retraining."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None


class ArchitectureProblem(NestedProblem):
    """See the module.

    Args:
        search_space: what there is to choose from.
        data: what the networks are trained, validated and tested on.
        settings: training of one architecture during a search.
        final_epochs: of the final training on training and validation data; 0 leaves test accuracies out.
        retrains: how many final trainings, from different weights.
        budget: pass-equivalents of a whole search.
        cost_cap: most that an architecture may cost; infinity for no limit.
        objectives: of ``error``, ``parameters``, ``flops``, ``cost``; the first is what single-objective solvers see.
        train_seed: of the first weights and the order of examples, together with the architecture.
        fixed: whether to retrain the space's hand-made architectures too, for comparison.
        picture: file to draw the final architecture into; empty for none.
        beside: ``random`` for a random search at equal budget beside that on a supernet; else ``none``.
        name: what to call the problem.

    Raises:
        UsageError: a parameter is out of its range, the cost cap leaves nothing, or the picture cannot be drawn.
        MissingError: a picture is asked for, and matplotlib is not installed.
    """

    structure = frozenset({STRUCTURE})
    compared = ("test_accuracy", "pass_equivalents")

    def __init__(
        self,
        search_space: SearchSpace,
        data: Data,
        settings: TrainSettings | None = None,
        *,
        final_epochs: int = 12,
        retrains: int = 1,
        budget: float = 1500.0,
        cost_cap: float = math.inf,
        objectives: tuple[str, ...] = ("error",),
        train_seed: int = 0,
        fixed: bool = True,
        beside: str = "none",
        picture: str = "",
        name: str = "problem",
    ) -> None:
        for objective in objectives:
            if objective not in OBJECTIVES:
                raise unknown("objective", objective, OBJECTIVES)
        if final_epochs < 0 or retrains < 1 or not budget > 0.0:
            raise UsageError("Expected final_epochs of at least 0, retrains of at least 1 and a positive budget.")
        if beside not in BESIDE:
            raise unknown("kind of beside", beside, BESIDE)
        if picture:
            from bilevel_nas.picture import refuse

            refuse(Path(picture))
        least = least_cost(search_space)
        if not cost_cap >= least:
            raise UsageError(
                f"cost_cap={cost_cap:g}: no architecture of {search_space.name!r} costs less than {least:g}."
            )
        super().__init__(search_space.space, self._answer, objectives=objectives, name=name)
        self.search_space = search_space
        self.data = data
        self.settings = settings or TrainSettings()
        self.final_epochs, self.retrains, self.fixed = final_epochs, retrains, fixed
        self.budget, self.cost_cap, self.train_seed = budget, cost_cap, train_seed
        self.beside, self.picture = beside, picture
        self.device = "auto"
        self._tensors: dict[tuple[str, str], Tensors] = {}
        self._retrained: dict[tuple[Architecture, str], Retrained] = {}

    # Accounting.

    def passes(self, epochs: float) -> float:
        """Pass-equivalents of training and validating one architecture."""
        seen = epochs * len(self.data.train) + FORWARD * len(self.data.validation)
        return self.search_space.single * seen / UNIT

    @property
    def usual_solves(self) -> int:
        """How many trainings the budget is enough for: what sampling solvers take when they are not told."""
        return max(1, int(self.budget // self.passes(self.settings.epochs)))

    # Both levels.

    def architecture(self, x: Mapping[str, Any]) -> Architecture:
        """The architecture of a result's ``x``."""
        return self.search_space.of_point(self.point(x))

    def tensors(self, part: str, device: torch.device) -> Tensors:
        """A part of the data (``train``, ``validation``, ``test``, ``search``) on a device; moved there once."""
        key = part, str(device)
        if key not in self._tensors:
            self._tensors[key] = on_device(getattr(self.data, part), device, self.settings.channels_last)
        return self._tensors[key]

    def violation(self, architecture: Architecture) -> float:
        """How far an architecture is over the cost cap, relative to it."""
        over = self.search_space.cost(architecture) - self.cost_cap
        return max(0.0, over) / max(1.0, abs(self.cost_cap)) if math.isfinite(self.cost_cap) else 0.0

    def seed_of(self, architecture: Architecture) -> int:
        """The seed that an architecture is trained with."""
        text = f"{self.train_seed} {self.search_space.text(architecture)}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

    def solve_lower(self, architecture: Architecture, budget: float = 1.0, device: str = "auto") -> Answer:
        """Train an architecture on the training part, and validate it.

        The answer's ``weights`` are those of the network's state dictionary in a row, running statistics included.
        """
        self.device = device
        place = find_device(device)
        epochs = max(1, round(budget * self.settings.epochs))
        settings = replace(self.settings, epochs=epochs)
        training = self.tensors("train", place)
        model, _ = train(
            lambda: self.search_space.build(architecture, self.data.shape),
            training,
            settings,
            self.seed_of(architecture),
        )
        accuracy, _ = evaluate(model, self.tensors("validation", place))
        _, lower = evaluate(model, training)
        weights = sum(float((p.detach() ** 2).sum()) for p in model.parameters())
        state = [v.reshape(-1) for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")]
        return Answer(
            {"weights": torch.cat(state).detach().float().cpu().numpy()},
            tuple(self._objective(name, architecture, accuracy) for name in self.objectives),
            lower + 0.5 * self.settings.weight_decay * weights,
            self.violation(architecture),
            counts={"pass_equivalents": math.ceil(self.passes(epochs))},
        )

    def _objective(self, name: str, architecture: Architecture, accuracy: float) -> float:
        if name == "error":
            return 1.0 - accuracy / 100.0
        if name == "cost":
            return self.search_space.cost(architecture)
        measure = self.search_space.parameters if name == "parameters" else self.search_space.flops
        return float(measure(architecture, self.data.shape))

    def _answer(self, x: dict[str, Any], call: Call) -> Answer:
        architecture = self.search_space.of_values(x)
        if self.violation(architecture) > 0.0:
            # Nothing is trained that may not be chosen. What it would reach is not known: as bad as can be.
            worst = tuple(
                1.0 if name == "error" else self._objective(name, architecture, 0.0) for name in self.objectives
            )
            return Answer({}, worst, 0.0, self.violation(architecture), solved=False)
        return self.solve_lower(architecture, call.budget, call.device)

    # The final networks.

    def retrained(self, architecture: Architecture, device: str = "auto") -> Retrained:
        """Test accuracies after training from scratch on training and validation data; the same for every search."""
        key = architecture, device
        if key not in self._retrained:
            place = find_device(device)
            settings = replace(self.settings, epochs=self.final_epochs)
            accuracies: list[float] = []
            for k in range(self.retrains):
                model, _ = train(
                    lambda: self.search_space.build(architecture, self.data.shape),
                    self.tensors("search", place),
                    settings,
                    RETRAIN_SEED + k,
                )
                accuracies.append(evaluate(model, self.tensors("test", place))[0])
            self._retrained[key] = Retrained(tuple(accuracies))
        return self._retrained[key]

    @cached_property
    def fixed_architectures(self) -> dict[str, Architecture]:
        """The hand-made architectures that the cost cap allows."""
        return {k: a for k, a in self.search_space.fixed().items() if self.violation(a) == 0.0}

    def details(self, x: Values, y: Values) -> dict[str, Any]:
        """The architecture in words and numbers, its test accuracy, and those of the fixed architectures beside it."""
        told = self.brief_details(x, y)
        if self.final_epochs and self.fixed:
            told["fixed_architectures"] = [
                {"name": label, **self.tested(a), "cost": self.search_space.cost(a)}
                for label, a in self.fixed_architectures.items()
            ]
        return told

    def brief_details(self, x: Values, y: Values) -> dict[str, Any]:
        """The same without the fixed architectures, each of which is trained."""
        space, architecture = self.search_space, self.architecture(x)
        told: dict[str, Any] = {"architecture": space.text(architecture)}
        for k, line in enumerate(space.draw(architecture)):
            told[f"drawn_{k}"] = line
        told |= tables(space, architecture)
        told["network"] = describe(space, self.data.shape)
        told["cost"] = space.cost(architecture)
        told["parameters"] = space.parameters(architecture, self.data.shape)
        told["multiply_adds"] = space.flops(architecture, self.data.shape)
        told["parameter_free_share"] = space.free_share(architecture)
        if self.picture:
            from bilevel_nas.picture import draw_architecture

            draw_architecture(space, architecture, Path(self.picture))
        if self.final_epochs:
            told |= self.tested(architecture)
        told["peak_memory_mib"] = peak_memory(find_device(self.device))
        return told

    def tested(self, architecture: Architecture) -> dict[str, Any]:
        """The test accuracy of an architecture as figures for a table."""
        found = self.retrained(architecture, self.device)
        spread = {} if found.deviation is None else {"retraining_deviation": found.deviation}
        return {"test_accuracy": found.mean, **spread}
