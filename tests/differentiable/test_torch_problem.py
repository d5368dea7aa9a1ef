"""`TorchProblem`: what it refuses and how, dtypes and devices, results and loading them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="differentiable problems need torch")

import bilevel_core as bl  # noqa: E402
from bilevel_core.lower import LowerFailedError, respond  # noqa: E402

from .tools import oracle_of  # noqa: E402

F64 = torch.float64


def ridge(dtype: Any = F64, **more: Any) -> bl.TorchProblem:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, 3, generator=g).to(dtype), torch.randn(8, generator=g).to(dtype)
    return bl.TorchProblem(
        lambda x, y: ((a[:4] @ y - b[:4]) ** 2).mean() + 0.01 * x.sum() ** 2,
        lambda x, y: ((a @ y - b) ** 2).mean() + torch.exp(x).sum() * (y * y).sum(),
        torch.zeros(2, dtype=dtype),
        torch.zeros(3, dtype=dtype),
        **more,
    )


def make(upper: Any = None, lower: Any = None, x0: Any = None, y0: Any = None, **more: Any) -> bl.TorchProblem:
    return bl.TorchProblem(
        upper or (lambda x, y: (y**2).sum() + x.sum()),
        lower or (lambda x, y: ((y - x) ** 2).sum()),
        torch.zeros(2, dtype=F64) if x0 is None else x0,
        torch.zeros(2, dtype=F64) if y0 is None else y0,
        **more,
    )


CONSTRUCTION = {
    "no function": (lambda: make(upper=3.0), "Expected upper as a function"),
    "integers": (lambda: make(x0=torch.tensor([1, 2])), r"x0\['x'\].*floating-point.*int64"),
    "numbers": (lambda: make(y0={"a": torch.zeros(1), "b": 2.0}), r"y0\['b'\].*floating-point.*float"),
    "nothing": (lambda: make(x0={}), "x0 holds no tensor"),
    "frozen module": (lambda: make(y0=torch.nn.Linear(1, 1).requires_grad_(False)), "y0 holds no tensor"),
    "mixed dtypes": (
        lambda: make(y0={"a": torch.zeros(1), "b": torch.zeros(1, dtype=F64)}),
        r"y0\['b'\] is torch.float64.*'a' is torch.float32",
    ),
    "module inside": (lambda: make(y0={"net": torch.nn.Linear(1, 1)}), r"y0\['net'\] is a module inside"),
    "iterator": (lambda: make(lower_data=iter([1, 2])), "lower_data cannot be iterated again"),
    "no iterable": (lambda: make(upper_data=3), "upper_data cannot be iterated again"),
    "crossing": (
        lambda: make(
            x0={"a": torch.zeros(1), "b": torch.zeros(2)},
            x_bounds=({"a": torch.zeros(1), "b": torch.tensor([0.0, 2.0])}, 1.0),
        ),
        r"x_bounds: x\['b'\] has lower 2.0 above upper 1.0",
    ),
    "NaN bound": (lambda: make(y_bounds=(float("nan"), 1.0)), "y_bounds: y has lower nan"),
    "no pair": (lambda: make(y_bounds=1.0), "y_bounds as a pair"),
    "bounds of another shape": (lambda: make(y_bounds=(torch.zeros(3), None)), r"y\['y'\] of shape \(2,\)"),
    "bounds of a module": (
        lambda: make(y0=torch.nn.Linear(1, 1), y_bounds=(torch.zeros(2), None)),
        "number, None or a dictionary",
    ),
}


@pytest.mark.parametrize("case", CONSTRUCTION)
def test_refused_at_construction(case: str) -> None:
    build, words = CONSTRUCTION[case]
    with pytest.raises((bl.ModelError, bl.UsageError), match=words):
        build()


FIRST_USE = {
    "not a scalar": (lambda: make(lower=lambda x, y: (y - x) ** 2), r"lower\(x, y\).*scalar.*shape \(2,\)"),
    "no tensor": (lambda: make(upper=lambda x, y: float(y.detach().sum())), r"upper\(x, y\).*scalar.*float"),
    "detached lower": (lambda: make(lower=lambda x, y: ((y.detach() - x) ** 2).sum()), r"lower\(x, y\).*depend on y"),
    "lower in numpy": (
        lambda: make(lower=lambda x, y: torch.as_tensor(np.square(y.detach().numpy()).sum())),
        r"lower\(x, y\).*depend on y.*NumPy",
    ),
    "lower of x alone": (lambda: make(lower=lambda x, y: (x * x).sum()), r"lower\(x, y\).*depend on y"),
    "detached upper": (lambda: make(upper=lambda x, y: (x + y).sum().detach()), r"upper\(x, y\).*depend on x or y"),
    "no batches": (
        lambda: make(lower=lambda x, y, batch: (y * y).sum(), lower_data=[]),
        "lower_data holds no batch",
    ),
}


@pytest.mark.parametrize("case", FIRST_USE)
@pytest.mark.parametrize("how", ["hypergradient", "solve"])
def test_refused_at_first_use(case: str, how: str) -> None:
    build, words = FIRST_USE[case]
    problem = build()
    with pytest.raises(bl.ModelError, match=words):
        bl.hypergradient(problem, problem.x0, problem.y0) if how == "hypergradient" else bl.solve(
            problem, "hypergradient"
        )


def test_a_leader_who_sees_only_one_of_them_is_fine() -> None:
    for upper, slope in ((lambda x, y: (x * x).sum(), 2.0), (lambda x, y: (y * y).sum(), 2.0)):
        problem = make(upper=upper)
        found = bl.hypergradient(problem, torch.ones(2), torch.ones(2))
        assert found.value.tolist() == pytest.approx([slope, slope])


def test_lower_method() -> None:
    with pytest.raises(bl.UsageError, match=r"no lower-level method 'adamm'.*adam"):
        bl.solve(ridge(), "hypergradient", {"lower_method": "adamm"})
    with pytest.raises(bl.UsageError, match=r"Rprop.*no weight_decay"):
        bl.solve(ridge(), "hypergradient", {"lower_method": "rprop", "weight_decay": 0.1})
    with pytest.raises(bl.UsageError, match=r"Adam.*no momentum"):
        bl.solve(ridge(), "hypergradient", {"lower_method": "adam", "momentum": 0.1})
    with pytest.raises(bl.UsageError, match=r"adam.*takes no bounds"):
        bl.solve(ridge(y_bounds=(0.0, None)), "hypergradient", {"lower_method": "adam"})


def test_leaders_constraints_are_refused_by_name() -> None:
    problem = ridge(upper_inequality=lambda x, y: x.sum() - 1.0)
    with pytest.raises(bl.RefusedError, match=r"leader has constraints besides bounds.*auxiliary"):
        bl.solve(problem, "hypergradient")


def test_constraints_may_have_any_shape() -> None:
    problem = ridge(
        lower_inequality=lambda x, y: torch.stack([y[:2] - 1.0, y[1:] - 2.0]),
        lower_equality=lambda x, y: y.sum() - x[0],
    )
    sizes = problem.sizes()
    assert (sizes.lower_rows, sizes.upper_rows, sizes.lower_variables, sizes.upper_variables) == (5, 0, 3, 2)
    rows = oracle_of(problem).lower_rows(np.zeros(2), problem.y0, jacobian=True)
    assert rows.g.shape == (4,)
    assert rows.h_x.tolist() == [[-1.0, 0.0]]
    assert rows.g_names[3] == "lower_inequality[3]"


# Dtypes and devices.


def test_single_precision_stays() -> None:
    problem = ridge(torch.float32)
    seen: set[Any] = set()
    inner = problem.lower
    problem.lower = lambda x, y: seen.update({x.dtype, y.dtype}) or inner(x, y)
    found = bl.hypergradient(problem, problem.x0, problem.y0)
    assert found.value.dtype == torch.float32
    result = bl.solve(problem, "hypergradient")
    assert seen == {torch.float32}
    assert {v.dtype for v in (*result.x.values(), *result.y.values())} == {np.dtype("float32")}
    exact = bl.solve(ridge(), "hypergradient")
    assert result.upper_objective == pytest.approx(exact.upper_objective, rel=1e-4)


def test_half_precision_evaluates() -> None:
    problem = ridge(torch.bfloat16)
    start = torch.ones(3, dtype=torch.bfloat16)
    found = bl.hypergradient(problem, problem.x0, start, max_iterations=3)
    exact = ridge()
    reference = bl.hypergradient(exact, exact.x0, start.double(), max_iterations=3)
    assert found.value.dtype == torch.bfloat16
    assert torch.allclose(found.value.double(), reference.value, rtol=0.2, atol=0.05)
    x_values, y_values = oracle_of(problem).point(np.zeros(2), problem.y0)
    assert y_values["y"].dtype == np.float32
    assert bl.hypergradient(problem, {"x": problem.x0}, {"y": start}, max_iterations=3).upper == found.upper
    assert x_values["x"].shape == (2,)


def test_levels_of_different_precision() -> None:
    problem = make(
        lower=lambda x, y: ((y - x) ** 2).sum(), x0=torch.zeros(2, dtype=F64), y0=torch.zeros(2, dtype=torch.float32)
    )
    found = bl.hypergradient(problem, torch.ones(2, dtype=F64), torch.ones(2))
    assert found.value.dtype == F64
    assert found.value.tolist() == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize("solver", ["hypergradient", "auxiliary"])
@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "cuda:0"])
def test_a_device_that_is_not_there(device: str, solver: str) -> None:
    if device == "cuda:0" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(bl.UsageError, match=f"Device '{device}'.*device='cpu'"):
        bl.solve(ridge(), solver, device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    g = torch.Generator().manual_seed(0)
    data = [(torch.randn(5, 3, generator=g, dtype=F64), torch.randn(5, 1, generator=g, dtype=F64)) for _ in range(3)]
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1)).double()
    devices: set[str] = set()

    def value(x: Any, y: Any, batch: Any) -> Any:
        devices.update({batch[0].device.type, x.device.type, y["0.weight"].device.type})
        return ((y(batch[0]) - batch[1]) ** 2).mean() + torch.exp(x).sum() * sum((p**2).sum() for p in y.parameters())

    problem = bl.TorchProblem(value, value, torch.tensor([-2.0], dtype=F64), module, upper_data=data, lower_data=data)
    on_cpu = bl.solve(problem, "hypergradient", {"max_iterations": 3}, device="cpu")
    assert devices == {"cpu"}
    devices.clear()
    on_gpu = bl.solve(problem, "hypergradient", {"max_iterations": 3}, device="cuda:0")
    assert devices == {"cuda"}
    assert on_gpu.upper_objective == pytest.approx(on_cpu.upper_objective, rel=1e-6)
    assert isinstance(on_gpu.y["0.weight"], np.ndarray)


# Results.


def test_names_in_results() -> None:
    problem = make(
        upper=lambda x, y: (y["w"][0] ** 2).sum() + x[0] ** 2,
        lower=lambda x, y: ((y["w"][0] - x[0]) ** 2).sum() + y["w"][1] ** 2,
        x0=[torch.ones((), dtype=F64)],
        y0={"w": (torch.ones(2, dtype=F64), torch.ones((), dtype=F64))},
    )
    result = bl.solve(problem, "hypergradient")
    assert set(result.x) == {"0"}
    assert {k: v.shape for k, v in result.y.items()} == {"w.0": (2,), "w.1": ()}


def test_load_needs_a_module() -> None:
    problem = ridge()
    with pytest.raises(bl.ModelError, match="neither x0 nor y0"):
        problem.load(bl.solve(problem, "hypergradient", {"max_iterations": 0}))


def test_load_refuses_the_result_of_another_problem() -> None:
    module = torch.nn.Linear(3, 1).double()
    problem = make(lower=lambda x, y: sum((p**2).sum() for p in y.parameters()), upper=lambda x, y: x @ x, y0=module)
    other = bl.solve(ridge(), "hypergradient", {"max_iterations": 0})
    with pytest.raises(bl.UsageError, match="weight"):
        problem.load(other)


def test_a_module_view_is_like_the_module() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5)).double()
    problem = make(y0=module, lower=lambda x, y: x.sum())
    view = problem.y_layout.unflatten(problem.y0)
    inputs = torch.ones(1, 2, dtype=F64)
    module.eval()
    assert torch.equal(view(inputs), module(inputs))
    module.train()
    assert torch.equal(view.eval()(inputs), module.eval()(inputs))
    module.train()
    assert (view.eval().train()(torch.ones(50, 2, dtype=F64)) == 0.0).any()
    assert module.training
    assert [n for n, _ in view.named_parameters()] == ["0.weight", "0.bias"]
    assert view["0.bias"].shape == (2,)
    assert len(list(view.parameters())) == 2


def test_an_unbounded_follower_is_an_outcome() -> None:
    problem = make(lower=lambda x, y: (y - x).sum())
    result = bl.solve(problem, "hypergradient")
    assert result.termination.value == "lower-unbounded"
    assert "no minimum" in result.message
    assert not result.has_point
    with pytest.raises(LowerFailedError):
        respond(oracle_of(problem), np.zeros(2))
