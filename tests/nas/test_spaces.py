"""Every search space: sizes, strings, networks, and a supernet that agrees with them where it has to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="architecture search needs torch")

from bilevel_core.errors import UsageError  # noqa: E402
from bilevel_nas.spaces import SPACES, Choice, SearchSpace, Shape, find_space, one_hot  # noqa: E402

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"depth": 3, "widths": (2, 4)},
    "cell201-6": {"channels": 4},
    "cell201-12": {"channels": 4},
    "cell201": {"nodes": 3, "channels": 4, "cells": 2, "share": "layer"},
    "macro": {"layers": 4, "channels": 4},
    "darts": {"channels": 2, "cells": 3, "nodes": 2},
    "mobile": {"channels": 4, "stages": 2, "depth": 2},
    "transformer": {"patch": 4, "embeddings": (8, 16), "heads": (1, 2), "depths": (1, 2)},
    "graph": {"layers": 2, "width": 6},
}
IMAGES = Shape((1, 8, 8), 3)
GRAPHS = Shape((6, 3 + 6), 2)


def shape_of(name: str) -> Shape:
    return GRAPHS if name == "graph" else IMAGES


def inputs(shape: Shape, count: int = 4) -> Any:
    x = torch.randn(count, *shape.inputs, generator=torch.Generator().manual_seed(0))
    if len(shape.inputs) == 2:
        nodes = shape.inputs[0]
        x[:, :, -nodes:] = (x[:, :, -nodes:] + x[:, :, -nodes:].transpose(1, 2) > 0).float()
    return x


@pytest.fixture(params=list(SPACES))
def named(request: pytest.FixtureRequest) -> tuple[str, SearchSpace]:
    return request.param, find_space(request.param, SMALL[request.param])


def test_every_space_is_tested() -> None:
    assert set(SMALL) == set(SPACES)


def test_strings_points_and_encodings_go_both_ways(named: tuple[str, SearchSpace]) -> None:
    _, space = named
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = space.sample(rng)
        assert space.read(space.text(a)) == a
        assert space.of_point(space.point(a)) == a
        assert space.encode(a).sum() == sum(c >= 0 for c in a)
        b = space.mutate(a, rng)
        assert a != b
        assert space.canonical(b) == b


def test_enumeration_lists_each_once(named: tuple[str, SearchSpace]) -> None:
    _, space = named
    if space.size > 5000:
        pytest.skip("too large to enumerate in a test")
    found = list(space.enumerate())
    assert len(found) == len(set(found)) == len({space.text(a) for a in found})
    assert len(found) == space.size or space.space.conditional


def test_networks_have_the_right_outputs_and_figures(named: tuple[str, SearchSpace]) -> None:
    name, space = named
    shape = shape_of(name)
    rng = np.random.default_rng(1)
    for a in [*space.fixed().values(), *(space.sample(rng) for _ in range(4))]:
        net = space.build(a, shape).eval()
        assert net(inputs(shape)).shape == (4, shape.classes)
        assert space.parameters(a, shape) == sum(p.numel() for p in net.parameters())
        assert space.flops(a, shape) > 0
        assert space.cost(a) >= 0.0
        assert 0.0 <= space.free_share(a) <= 1.0


def test_the_supernet_mixes_and_passes_gradients(named: tuple[str, SearchSpace]) -> None:
    name, space = named
    shape = shape_of(name)
    net = space.supernet(shape, "softplus")
    alphas = [torch.zeros(len(d.choices), requires_grad=True) for d in space.decisions]
    mixed = [Choice(torch.softmax(a, 0), tuple(range(len(a)))) for a in alphas]
    out = net(inputs(shape), mixed)
    assert out.shape == (4, shape.classes)
    grads = torch.autograd.grad((out**2).sum(), alphas)
    assert all(bool(torch.isfinite(g).all()) for g in grads)
    assert sum(float(g.abs().sum()) > 0 for g in grads) >= len(grads) - 1
    # One choice alone is one architecture: two that differ give different outputs.
    rng = np.random.default_rng(2)
    a = space.sample(rng)
    b = space.mutate(a, rng)
    with torch.no_grad():
        first, second = (net(inputs(shape), one_hot(space, c, out)) for c in (a, b))
    assert torch.isfinite(first).all()
    assert first.shape == second.shape


def test_half_and_half_is_between_the_two(named: tuple[str, SearchSpace]) -> None:
    """The supernet's output is continuous in the weights: it moves from one architecture to the other."""
    name, space = named
    shape = shape_of(name)
    net = space.supernet(shape, "softplus").eval()
    rng = np.random.default_rng(3)
    a = space.sample(rng)
    b = space.mutate(a, rng)
    x = inputs(shape)
    like = torch.zeros(())
    with torch.no_grad():
        ends = [one_hot(space, c, like) for c in (a, b)]

        def at(t: float) -> Any:
            both = [
                Choice((1 - t) * p.weights + t * q.weights, tuple(sorted({*p.active, *q.active})))
                for p, q in zip(*ends, strict=True)
            ]
            return net(x, both)

        assert torch.allclose(at(0.0), net(x, ends[0]), atol=1e-5)
        assert torch.allclose(at(1.0), net(x, ends[1]), atol=1e-5)
        assert float((at(1e-4) - at(0.0)).abs().max()) < 0.1


def test_the_cell_of_nas_bench_201() -> None:
    space = find_space("cell201-6")
    assert space.size == 15625
    assert space.draw((3, 3, 3, 1, 3, 3)) == ["cell: |conv3x3~0|+|conv3x3~0|conv3x3~1|+|skip~0|conv3x3~1|conv3x3~2|"]
    assert space.cost((3,) * 6) == 54.0
    assert space.read("333133") == (3, 3, 3, 1, 3, 3) == space.read("cell201-6:3-3-3-1-3-3")
    assert space.free_share((0,) * 6) == 1.0
    assert space.fixed()["ResNet-like"] == (3, 0, 3, 1, 0, 1)


def test_the_largest_perceptron_is_the_supernet() -> None:
    space = find_space("mlp", {"depth": 2, "widths": (2, 4)})
    net = space.supernet(IMAGES)
    largest = space.fixed()["largest"]
    alone = space.build(largest, IMAGES)
    source = dict(net.named_parameters())
    with torch.no_grad():
        for (_, p), name in zip(
            alone.named_parameters(),
            (
                "layers.0.weight",
                "layers.0.bias",
                "layers.1.weight",
                "layers.1.bias",
                "classifier.weight",
                "classifier.bias",
            ),
            strict=True,
        ):
            p.copy_(source[name])
        x = inputs(IMAGES)
        assert torch.allclose(alone(x), net(x, one_hot(space, largest, x)), atol=1e-6)


def test_multiply_adds_by_hand() -> None:
    # 64 inputs, 2 hidden, 3 classes: 64 * 2 + 2 * 3.
    space = find_space("mlp", {"depth": 1, "widths": (2, 4)})
    assert space.flops((0, 0), IMAGES) == 134
    assert space.parameters((0, 0), IMAGES) == 134 + 5
    assert space.cost((0, 1)) == 4.0


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("cell201", {"nodes": 1}, "nodes"),
        ("cell201", {"shares": "cell"}, "share"),
        ("mlp", {"widths": (4, 2)}, "ascending"),
        ("macro", {"strides": (1, 3)}, "strides"),
        ("cells", {}, "search space"),
    ],
)
def test_wrong_parameters_are_named(name: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_space(name, parameters)


@pytest.mark.parametrize("text", ["33313", "cell201-12:3-3-3-1-3-3", "3-3-3-1-3-9", "abcdef"])
def test_wrong_strings_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        find_space("cell201-6").read(text)


def test_a_space_refuses_data_of_another_form() -> None:
    with pytest.raises(UsageError, match="images"):
        find_space("cell201-6").build((3,) * 6, Shape((5,), 2))
