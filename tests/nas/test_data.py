"""Data sources: idx files, arrays, folders of images, and what is said where they are missing."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from bilevel_core.errors import MissingError, UsageError
from bilevel_nas import data as module
from bilevel_nas.data import IDX, load_data


def idx(path: Path, values: np.ndarray) -> None:
    head = b"\0\0\x08" + bytes([values.ndim]) + b"".join(struct.pack(">I", n) for n in values.shape)
    path.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of the form of Fashion-MNIST: 40 and 10 images of 4 x 4 pixels."""
    rng = np.random.default_rng(0)
    for name, shape in zip(IDX, [(40, 4, 4), (40,), (10, 4, 4), (10,)], strict=True):
        idx(tmp_path / f"{name}.gz", rng.integers(0, 256 if len(shape) > 1 else 3, shape))
    return tmp_path


def test_idx_files_are_split_and_scaled(folder: Path) -> None:
    found = load_data("fashion", data_dir=str(folder), train=20, validation=15, test=10)
    assert found.shape.inputs == (1, 4, 4)
    assert [len(p) for p in (found.train, found.validation, found.test, found.search)] == [20, 15, 10, 35]
    assert abs(float(found.train.x.mean())) < 1e-5
    assert abs(float(found.train.x.std()) - 1.0) < 1e-5
    rows = {p.tobytes() for p in found.train.x} & {p.tobytes() for p in found.validation.x}
    assert not rows
    again = load_data("fashion", data_dir=str(folder), train=20, validation=15, test=10)
    assert np.array_equal(found.train.x, again.train.x)


def test_the_environment_names_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVEL_DATA", str(folder))
    assert len(load_data("mnist", train=5, validation=5, test=5).test) == 5


def test_images_are_averaged_down(folder: Path) -> None:
    whole = load_data("fashion", data_dir=str(folder), train=20, validation=15, test=10)
    small = load_data("fashion", data_dir=str(folder), train=20, validation=15, test=10, pixels=2)
    means = whole.train.x.reshape(20, 1, 2, 2, 2, 2).mean((3, 5))
    assert small.train.x.shape == (20, 1, 2, 2)
    assert np.corrcoef(means.ravel(), small.train.x.ravel())[0, 1] == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(UsageError, match="pixels=3"):
        load_data("fashion", data_dir=str(folder), train=20, validation=15, pixels=3)


def test_what_is_missing_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.delenv("BILEVEL_DATA", raising=False)
    with pytest.raises(UsageError, match="dataset-fashion-mnist"):
        load_data("fashion")
    with pytest.raises(UsageError, match="data_dir=FOLDER"):
        load_data("mnist")
    with pytest.raises(UsageError, match="data set"):
        load_data("fasion")


def test_damaged_files_are_named(folder: Path) -> None:
    (folder / f"{IDX[0]}.gz").write_bytes(b"no gzip")
    with pytest.raises(UsageError, match="cannot be read"):
        load_data("fashion", data_dir=str(folder))
    (folder / f"{IDX[0]}.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">III", 40, 4, 4) + b"short"))
    with pytest.raises(UsageError, match="cut short"):
        load_data("fashion", data_dir=str(folder))


def test_images_without_as_many_labels_are_refused(folder: Path) -> None:
    idx(folder / f"{IDX[1]}.gz", np.zeros(39))
    with pytest.raises(UsageError, match="as many labels"):
        load_data("fashion", data_dir=str(folder), train=5, validation=5)


def test_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.npz"
    np.savez(path, x=rng.normal(size=(30, 5)), y=np.arange(30) % 2)
    found = load_data(str(path), train=10, validation=10, test=100)
    assert len(found.test) == 10
    assert found.classes == 2
    np.savez(
        path, x=rng.normal(size=(30, 8, 8)), y=np.arange(30) % 2, x_test=rng.normal(size=(4, 8, 8)), y_test=[0, 1, 0, 1]
    )
    found = load_data(str(path), train=10, validation=20)
    assert found.shape.inputs == (1, 8, 8)
    assert len(found.test) == 4
    np.savez(path, x=rng.normal(size=(30, 4, 7)), y=np.arange(30) % 2)
    assert load_data(str(path), train=10, validation=10).shape.inputs == (4, 7)  # graphs keep their form


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((4, 2))}, "arrays x and y"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(3, int)}, "4 examples and 3 labels"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(4)}, "integers"),
        ({"x": np.full((4, 2), np.nan), "y": np.zeros(4, int)}, "NaN"),
    ],
)
def test_arrays_that_are_no_data(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=said):
        load_data(str(tmp_path / "a.npz"), train=1, validation=1)


def test_more_examples_than_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.zeros(4, int))
    with pytest.raises(UsageError, match="has 4 examples"):
        load_data(str(tmp_path / "a.npz"), train=2, validation=2)
    with pytest.raises(UsageError, match="train"):
        load_data(str(tmp_path / "a.npz"), train=0)


def test_a_folder_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="image folders need Pillow")
    for label in ("cats", "dogs"):
        (tmp_path / label).mkdir()
        for k in range(4):
            image.new("L", (6, 6), 40 * k).save(tmp_path / label / f"{k}.png")
    found = load_data(str(tmp_path), train=3, validation=3, test=2)
    assert found.shape.inputs == (1, 6, 6)
    assert found.classes == 2
    image.new("L", (5, 5)).save(tmp_path / "cats" / "odd.png")
    with pytest.raises(UsageError, match="one size"):
        load_data(str(tmp_path), train=3, validation=3)
    (tmp_path / "cats" / "odd.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"odd\.png cannot be read as an image"):
        load_data(str(tmp_path), train=3, validation=3)


def test_images_of_16_bits_are_scaled_like_those_of_8(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="image folders need Pillow")
    found = []
    for bits in (8, 16):
        for label in ("cats", "dogs"):
            folder = tmp_path / str(bits) / label
            folder.mkdir(parents=True)
            for k in range(4):
                grey = np.arange(36).reshape(6, 6) + 10 * k + 100 * (label == "dogs")
                image.fromarray((grey * (257 if bits == 16 else 1)).astype(f"uint{bits}")).save(folder / f"{k}.png")
        found.append(load_data(str(tmp_path / str(bits)), train=3, validation=3))
    assert np.allclose(found[0].train.x, found[1].train.x, atol=1e-5)


def test_digits() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    found = load_data("digits", train=100, validation=100, test=50)
    assert found.shape.inputs == (1, 8, 8)
    assert found.classes == 10


def test_torchvision_is_not_downloaded_from(tmp_path: Path) -> None:
    with pytest.raises((UsageError, MissingError)):
        load_data("torchvision:CIFAR10", data_dir=str(tmp_path))
