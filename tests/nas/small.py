"""Small data and problems for the tests of architecture search."""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel_nas.data import Data, Part
from bilevel_nas.problem import ArchitectureProblem
from bilevel_nas.spaces import find_space
from bilevel_nas.training import TrainSettings


def images(size: int = 8, classes: int = 3, counts: tuple[int, int, int] = (48, 48, 48)) -> Data:
    """Stripes of three kinds in noise: learnt within seconds."""
    rng = np.random.default_rng(0)
    parts: list[Part] = []
    for n in counts:
        y = np.arange(n) % classes
        grid = np.indices((size, size)).sum(0) if classes > 2 else np.indices((size, size))[0]
        bands = [np.indices((size, size))[0] % 2, np.indices((size, size))[1] % 2, grid % 2]
        x = np.stack([bands[k] for k in y]).astype(np.float32) + 0.3 * rng.normal(size=(n, size, size))
        parts.append(Part(x[:, None].astype(np.float32), y.astype(np.int64)))
    return Data("stripes", *parts, classes)


def graphs(nodes: int = 6, features: int = 3, counts: tuple[int, int, int] = (40, 40, 40)) -> Data:
    """Rings and stars with noisy features: the class is the kind of graph."""
    rng = np.random.default_rng(1)
    ring = np.eye(nodes, k=1) + np.eye(nodes, k=-1)
    ring[0, -1] = ring[-1, 0] = 1.0
    star = np.zeros((nodes, nodes))
    star[0, 1:] = star[1:, 0] = 1.0
    parts: list[Part] = []
    for n in counts:
        y = np.arange(n) % 2
        x = np.stack([np.hstack([rng.normal(size=(nodes, features)), star if k else ring]) for k in y])
        parts.append(Part(x.astype(np.float32), y.astype(np.int64)))
    return Data("graphs", *parts, 2)


def problem(space: str = "cell201-6", options: dict[str, Any] | None = None, **more: Any) -> ArchitectureProblem:
    """A problem that a search of a second makes sense on."""
    small = {"channels": 4, "stem_stride": 1} if space.startswith("cell201") else {}
    settings = {"final_epochs": 1, "budget": 40.0, "fixed": False, "name": "small", **more}
    data = settings.pop("data", None) or images()
    return ArchitectureProblem(
        find_space(space, {**small, **(options or {})}), data, TrainSettings(epochs=1, batch=16), **settings
    )
