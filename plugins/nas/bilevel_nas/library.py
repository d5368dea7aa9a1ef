"""The registered problems ``nas/*``: images to search on, and tables in the place of training."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

from bilevel_core.errors import UsageError
from bilevel_core.problems.base import Problem
from bilevel_nas.data import folder_of, load_data
from bilevel_nas.problem import ArchitectureProblem
from bilevel_nas.spaces import find_space
from bilevel_nas.training import TrainSettings

log = logging.getLogger("bilevel")

SATURATED = (
    "Fashion-MNIST was not found on this machine: searching on scikit-learn's digits instead. They are saturated (a "
    "random cell reaches 98.8 to 99.7 %), so nothing can be learned about methods from them. To get the real data, "
    "install the Debian package dataset-fashion-mnist, or pass -p data_dir=FOLDER."
)


def fashion(
    data_dir: str = "",
    space: str = "cell201-12",
    space_options: dict[str, Any] | None = None,
    train: int = 2000,
    validation: int = 2000,
    test: int = 10000,
    pixels: int = 14,
    epochs: int = 5,
    final_epochs: int = 12,
    retrains: int = 1,
    budget: float = 1500.0,
    cost_cap: float = math.inf,
    objectives: tuple[str, ...] = ("error",),
    train_seed: int = 0,
    fixed: bool = True,
    beside: Literal["random", "none"] = "random",
    picture: str = "",
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    channels_last: bool = False,
) -> Problem:
    """Cells for Fashion-MNIST; scikit-learn's digits, with a warning, where it is not on this machine.

    Args:
        data_dir: folder with the four idx files of Fashion-MNIST.
        space: search space, see `bilevel nas spaces`.
        space_options: parameters of the search space.
        train: training images of the search.
        validation: validation images of the search.
        test: test images, seen by final networks only.
        pixels: images are averaged down to so many pixels a side (7, 14 or 28).
        epochs: training of one architecture during a search that samples.
        final_epochs: final training on training and validation images; 0 leaves test accuracies out.
        retrains: final trainings from different weights.
        budget: pass-equivalents of a search: passes of the supernet, forward and backward, for 64 images.
        cost_cap: most that an architecture may cost (conv3x3 = 9, conv1x1 = 1).
        objectives: error, parameters, flops, cost; several for a Pareto set.
        train_seed: of the weights and orders that architectures are trained with.
        fixed: retrain the hand-made cells too, for comparison.
        beside: random search at equal budget beside that on a supernet, or none.
        picture: file (.png, .svg, .pdf) to draw the final architecture into.
        precision: float32, bfloat16 or float16 (autocast).
        channels_last: lay images out with the channels last in memory.
    """
    source: dict[str, Any] = {"train": train, "validation": validation, "test": test}
    batch = 128
    if folder_of("fashion", data_dir) is not None:
        data = load_data("fashion", data_dir=data_dir, pixels=pixels, **source)
    elif data_dir:
        raise UsageError(f"There are no idx files of Fashion-MNIST in {data_dir!r}.")
    else:
        log.warning(SATURATED)
        data = load_data("digits", train=min(train, 600), validation=min(validation, 600), test=min(test, 597))
        batch = 32  # of 600 images, so that five epochs are steps enough to learn from
        # Their 8 pixels leave nothing to throw away.
        space_options = {"stem_stride": 1, **(space_options or {})} if space.startswith("cell201") else space_options
    return ArchitectureProblem(
        find_space(space, space_options),
        data,
        TrainSettings(epochs=epochs, batch=batch, precision=precision, channels_last=channels_last),
        final_epochs=final_epochs,
        retrains=retrains,
        budget=budget,
        cost_cap=cost_cap,
        objectives=objectives,
        train_seed=train_seed,
        fixed=fixed,
        beside=beside,
        picture=picture,
        name="nas/fashion",
    )


def images(
    data: str,
    data_dir: str = "",
    space: str = "cell201-12",
    space_options: dict[str, Any] | None = None,
    train: int = 600,
    validation: int = 600,
    test: int = 10000,
    pixels: int = 0,
    epochs: int = 5,
    batch: int = 128,
    rate: float = 0.1,
    drop_path: float = 0.0,
    final_epochs: int = 12,
    retrains: int = 1,
    budget: float = 1500.0,
    cost_cap: float = math.inf,
    objectives: tuple[str, ...] = ("error",),
    train_seed: int = 0,
    fixed: bool = True,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    channels_last: bool = False,
) -> Problem:
    """Any labelled data and any search space.

    Args:
        data: fashion, mnist, digits, torchvision:NAME, a .npz file with x and y, or a folder with one folder of images
            a class.
        data_dir: folder to look in for fashion, mnist and torchvision.
        space: search space, see `bilevel nas spaces`; module:attribute for your own.
        space_options: parameters of the search space.
        train: training examples of the search.
        validation: validation examples of the search.
        test: test examples, seen by final networks only.
        pixels: images are averaged down to so many pixels a side; 0 leaves them.
        epochs: training of one architecture during a search that samples.
        batch: examples a training step.
        rate: first learning rate of the training.
        drop_path: probability of leaving out paths at the end of training (space darts).
        final_epochs: final training on training and validation examples; 0 leaves test accuracies out.
        retrains: final trainings from different weights.
        budget: pass-equivalents of a search: passes of the supernet, forward and backward, for 64 examples.
        cost_cap: most that an architecture may cost, in the space's units.
        objectives: error, parameters, flops, cost; several for a Pareto set.
        train_seed: of the weights and orders that architectures are trained with.
        fixed: retrain the space's hand-made architectures too, for comparison.
        precision: float32, bfloat16 or float16 (autocast).
        channels_last: lay images out with the channels last in memory.
    """
    found = load_data(data, data_dir=data_dir, train=train, validation=validation, test=test, pixels=pixels)
    return ArchitectureProblem(
        find_space(space, space_options),
        found,
        TrainSettings(
            epochs=epochs, batch=batch, rate=rate, drop_path=drop_path, precision=precision, channels_last=channels_last
        ),
        final_epochs=final_epochs,
        retrains=retrains,
        budget=budget,
        cost_cap=cost_cap,
        objectives=objectives,
        train_seed=train_seed,
        fixed=fixed,
        name="nas/images",
    )
