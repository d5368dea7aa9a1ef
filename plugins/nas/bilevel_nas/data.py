"""Labelled data for architecture search, split into training, validation and test. Nothing is downloaded.

Sources: Fashion-MNIST and MNIST as idx files, scikit-learn's digits, a folder with one folder of images a class, a
``.npz`` file, a torchvision data set that is already on disk. The split is the same for every seed of a search.
"""

from __future__ import annotations

import gzip
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bilevel_core.errors import MissingError, UsageError, unknown
from bilevel_nas.spaces.base import Shape

SPLIT_SEED = 1234
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where the package ``dataset-fashion-mnist`` puts its files."""
IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")

HOW = {
    "fashion": "Install the Debian package dataset-fashion-mnist, or name a folder with its four idx files: "
    "data_dir=FOLDER (or the environment variable BILEVEL_DATA).",
    "mnist": "Name a folder with its four idx files (train-images-idx3-ubyte.gz, ...): data_dir=FOLDER (or the "
    "environment variable BILEVEL_DATA).",
}


@dataclass(frozen=True)
class Part:
    """Examples and their classes.

    Attributes:
        x: float32 (bytes as long as a file is being read), shape (n, ...).
        y: int64, shape (n,).
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Data:
    """A data set, split.

    Attributes:
        name: where it comes from.
        train, validation: what a search may see.
        test: what it may not: used once, for the architectures it ends with.
        classes: number of classes.
    """

    name: str
    train: Part
    validation: Part
    test: Part
    classes: int

    @cached_property
    def shape(self) -> Shape:
        """Of the networks."""
        return Shape(tuple(self.train.x.shape[1:]), self.classes)

    @cached_property
    def search(self) -> Part:
        """Training and validation together: what the final networks are trained on."""
        return Part(
            np.concatenate([self.train.x, self.validation.x]), np.concatenate([self.train.y, self.validation.y])
        )


def load_data(
    source: str, *, data_dir: str = "", train: int = 2000, validation: int = 2000, test: int = 10000, pixels: int = 0
) -> Data:
    """Read a data set and split it.

    Args:
        source: ``fashion``, ``mnist``, ``digits``, ``torchvision:NAME``, a ``.npz`` file (arrays ``x`` and ``y``,
            and if it has them ``x_test`` and ``y_test``), or a folder of images, one folder a class.
        data_dir: folder to look in first, for ``fashion``, ``mnist`` and ``torchvision``.
        train, validation, test: most examples of each part; where the source has no test part, what is left serves.
        pixels: height and width to average images down to, a divisor of theirs; 0 leaves them.

    Raises:
        UsageError: the data is not there (the message says how to get it), or not of the form expected.
        MissingError: a package to read it with is not installed.
    """
    for label, count in (("train", train), ("validation", validation), ("test", test)):
        if count < 1:
            raise UsageError(f"Expected {label} of at least 1, got {count}.")
    known, rest = _read(source, data_dir)
    if train + validation > len(known) - (rest is None):
        raise UsageError(
            f"{source!r} has {len(known)} examples to search with; train + validation = {train + validation}."
        )
    order = np.random.RandomState(SPLIT_SEED).permutation(len(known))
    ends = (train, train + validation)
    parts = [_take(known, order[: ends[0]]), _take(known, order[ends[0] : ends[1]])]
    parts.append(_take(rest, np.arange(min(test, len(rest)))) if rest else _take(known, order[ends[1] :][:test]))
    parts = [_smaller(_unpacked(p), pixels, source) for p in parts]
    classes = int(max(p.y.max() for p in parts)) + 1
    mean, deviation = float(parts[0].x.mean()), float(parts[0].x.std())
    graphs = parts[0].x.ndim == 3  # adjacency matrices are left as they are
    scaled = [p if graphs else Part(((p.x - mean) / (deviation or 1.0)).astype(np.float32), p.y) for p in parts]
    return Data(source, scaled[0], scaled[1], scaled[2], classes)


def _take(part: Part, which: np.ndarray) -> Part:
    return Part(part.x[which], part.y[which])


def _unpacked(part: Part) -> Part:
    """Bytes of images as numbers from 0 to 1: only of those that are used."""
    return Part(part.x.astype(np.float32) / 255.0, part.y) if part.x.dtype == np.uint8 else part


def _read(source: str, folder: str) -> tuple[Part, Part | None]:
    readers: dict[str, Callable[[], tuple[Part, Part | None]]] = {
        "fashion": lambda: _idx("fashion", folder),
        "mnist": lambda: _idx("mnist", folder),
        "digits": lambda: (_digits(), None),
    }
    if source in readers:
        known, rest = readers[source]()
    elif source.startswith("torchvision:"):
        known, rest = _torchvision(source.partition(":")[2], folder)
    elif source.endswith(".npz"):
        known, rest = _npz(Path(source))
    elif Path(source).is_dir():
        known, rest = _images(Path(source)), None
    else:
        raise unknown("data set", source, [*readers, "torchvision:NAME", "FILE.npz", "FOLDER"])
    return known, rest


def _smaller(part: Part, pixels: int, source: str) -> Part:
    """Images averaged down to fewer pixels."""
    if not pixels:
        return part
    if part.x.ndim != 4 or part.x.shape[2] != part.x.shape[3] or part.x.shape[2] % pixels:
        raise UsageError(
            f"pixels={pixels}: expected square images of a multiple of that size in {source!r}, got {part.x.shape[1:]}."
        )
    n, c, size, _ = part.x.shape
    f = size // pixels
    return Part(part.x.reshape(n, c, pixels, f, pixels, f).mean((3, 5)).astype(np.float32), part.y)


def folder_of(name: str, given: str) -> Path | None:
    """The folder that holds a data set's idx files; None where there is none."""
    roots = [Path(p) for p in (given, os.environ.get("BILEVEL_DATA", "")) if p]
    places = [q for p in roots for q in (p, p / name, p / f"{name}-mnist")]
    places += [DEBIAN] if name == "fashion" else []
    return next((p for p in places if all(_file(p, n) is not None for n in IDX)), None)


def _file(folder: Path, name: str) -> Path | None:
    names = (f"{name}.gz", name, name.replace("-idx", ".idx"))
    return next((folder / n for n in names if (folder / n).is_file()), None)


def _idx(name: str, given: str) -> tuple[Part, Part]:
    folder = folder_of(name, given)
    if folder is None:
        raise UsageError(f"The data set {name!r} was not found on this machine. {HOW[name]}")
    arrays = [_idx_array(_file(folder, n)) for n in IDX]
    images = [a[:, None] for a in (arrays[0], arrays[2])]
    for a, b in ((arrays[0], arrays[1]), (arrays[2], arrays[3])):
        if a.ndim != 3 or b.ndim != 1 or len(a) != len(b):
            raise UsageError(f"{folder}: expected images and as many labels, got arrays of {a.shape} and {b.shape}.")
    labels = [a.astype(np.int64) for a in (arrays[1], arrays[3])]
    return Part(images[0], labels[0]), Part(images[1], labels[1])


def _idx_array(path: Path | None) -> np.ndarray:
    assert path is not None
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise UsageError(f"{path} is no idx file of bytes.")
    rank = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * k : 8 + 4 * k], "big") for k in range(rank)]
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape)):
        raise UsageError(f"{path} is cut short: {values.size} bytes where {shape} were announced.")
    return values.reshape(shape)


def _digits() -> Part:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingError("The digits come with scikit-learn. Install it with: pip install 'bilevel[nas]'") from error
    found: Any = load_digits()
    return Part((found.images / 16.0).astype(np.float32)[:, None], found.target.astype(np.int64))


def _npz(path: Path) -> tuple[Part, Part | None]:
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {k: held[k] for k in held.files}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as .npz: {error}.") from error
    if "x" not in arrays or "y" not in arrays:
        raise UsageError(f"{path}: expected arrays x and y, got {', '.join(arrays) or 'none'}.")
    known = _checked(arrays["x"], arrays["y"], str(path))
    rest = _checked(arrays["x_test"], arrays["y_test"], str(path)) if {"x_test", "y_test"} <= set(arrays) else None
    return known, rest


def _checked(x: np.ndarray, y: np.ndarray, where: str) -> Part:
    y = np.asarray(y).reshape(-1)
    if len(x) != len(y) or not len(y):
        raise UsageError(f"{where}: {len(x)} examples and {len(y)} labels.")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise UsageError(f"{where}: labels must be integers from 0 on.")
    x = np.asarray(x, np.float32)
    if not np.isfinite(x).all():
        raise UsageError(f"{where}: x has NaN or infinite entries.")
    # Images without a channel axis get one, unless they are graphs: more columns than rows.
    return Part(x[:, None] if x.ndim == 3 and x.shape[1] == x.shape[2] else x, y.astype(np.int64))


def _images(folder: Path) -> Part:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingError("Image folders are read by Pillow. Install it with: pip install pillow") from error
    classes = sorted(p for p in folder.iterdir() if p.is_dir())
    if len(classes) < 2:
        raise UsageError(f"{folder}: expected one folder of images for each class, at least two.")
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, place in enumerate(classes):
        for file in sorted(p for p in place.iterdir() if p.suffix.lower() in IMAGES):
            try:
                with Image.open(file) as opened:
                    array = _pixels(opened)
            except (OSError, ValueError) as error:
                raise UsageError(f"{file} cannot be read as an image: {error}.") from error
            images.append(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
            labels.append(label)
    shapes = {a.shape for a in images}
    if len(shapes) != 1:
        raise UsageError(f"{folder}: expected images of one size and kind, got {sorted(shapes)[:4] or 'none'}.")
    return _checked(np.stack(images), np.array(labels), str(folder))


def _pixels(image: Any) -> np.ndarray:
    """Values from 0 to 1, one channel for grey and three for colour."""
    if image.mode.startswith("I"):  # 16 bits, which a conversion to 8 would cut off instead of scaling
        return np.asarray(image, np.float32) / 65535.0
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"), np.float32) / 255.0


def _torchvision(name: str, folder: str) -> tuple[Part, Part | None]:
    try:
        sets = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise MissingError("torchvision is not installed. Install it with: pip install torchvision") from error
    kind: Any = getattr(sets, name, None)
    if kind is None:
        raise UsageError(f"torchvision has no data set {name!r}.")
    if not folder:
        raise UsageError(f"torchvision:{name} needs data_dir, the folder where it lies: nothing is downloaded.")
    parts: list[Part] = []
    for training in (True, False):
        try:
            found: Any = kind(folder, train=training, download=False)
        except (RuntimeError, TypeError) as error:
            raise UsageError(f"torchvision's {name} cannot be read from {folder!r}: {error}") from error
        images = np.asarray(found.data, np.float32) / 255.0
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        parts.append(_checked(images, np.asarray(found.targets), name))
    return parts[0], parts[1]
