"""The user's functions of a `TorchProblem` as plain functions of flat tensors: batches, random state, buffers.

What is random in them (dropout) is drawn from a state that is the same for every evaluation until `Terms.advance` is
called, so that a hypergradient or a line search sees one function. Buffers of modules are held here: evaluations work
on copies, and `Terms.refresh` brings running statistics up to date.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from typing import Any

import torch

from bilevel_core.errors import ModelError, UsageError
from bilevel_core.problems.torch import TorchProblem, buffers_of

Term = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Terms:
    """Both levels' objectives and constraints over flat tensors.

    Args:
        problem: the problem.
        seed: seeds what is random, and the order of minibatches.
        device: where everything is computed; batches and buffers are moved there.
        note: called with sentences for the result's message.
    """

    def __init__(self, problem: TorchProblem, seed: int, device: torch.device, note: Callable[[str], None]) -> None:
        self.problem = problem
        self.seed = seed
        self.device = device
        self.note = note
        self.draw = 0
        self.batches_seen = 0
        self.x_buffers: dict[str, torch.Tensor] = _to(buffers_of(problem.x_layout), device)
        self.y_buffers: dict[str, torch.Tensor] = _to(buffers_of(problem.y_layout), device)
        self._random: dict[str, bool] = {}
        self._sizes: dict[str, float] = {}

    def of(self, level: str, only: Any = None) -> Generator[tuple[float, Term]]:
        """One level's objective as (weight, term) pairs, one a batch; weights sum to 1.

        Args:
            level: ``upper`` or ``lower``.
            only: a batch to take instead of all.
        """
        if only is not None:
            yield 1.0, self._term(level, (only,))
        else:
            for weight, batch in self.weighted_batches(level):
                yield weight, self._term(level, batch)

    def weighted_batches(self, level: str = "lower") -> Generator[tuple[float, tuple[Any, ...]]]:
        """(weight, what the function gets besides x and y) of each batch of a level's data; one pair without data."""
        data = self.problem.upper_data if level == "upper" else self.problem.lower_data
        if data is None:
            yield 1.0, ()
            return
        total = self._size(level, data)
        for batch in self._iterate(data):
            yield _length(batch) / total, (batch,)

    def _size(self, level: str, data: Iterable[Any]) -> float:
        if level not in self._sizes:
            self._sizes[level] = float(sum(_length(batch) for batch in self._iterate(data)))
        if self._sizes[level] == 0.0:
            raise ModelError(f"{level}_data holds no batch.")
        return self._sizes[level]

    def _count(self, level: str, data: Iterable[Any]) -> int:
        """Number of batches of a level's data."""
        if isinstance(data, Sized):
            return len(data)
        key = f"{level} batches"
        if key not in self._sizes:
            self._sizes[key] = float(sum(1 for _ in self._iterate(data)))
        return int(self._sizes[key])

    def _iterate(self, data: Iterable[Any]) -> Generator[Any]:
        # A loader that shuffles or augments draws from the global state: the same draw each time.
        return self._drawn(data, None)

    def _drawn(self, data: Iterable[Any], draw: int | None) -> Generator[Any]:
        """The batches of one pass, drawn under the frozen random state. The global one is back in its place whenever a
        batch is out: whoever gives the pass up halfway, by an error say, leaves nothing behind.
        """
        if isinstance(data, (list, tuple)):
            for batch in data:
                yield _to(batch, self.device)
            return
        batches: Iterator[Any] | None = None
        state = torch.empty(0)
        while True:
            with self.seeded(draw):
                if batches is None:
                    batches = iter(data)
                else:
                    torch.random.set_rng_state(state)
                try:
                    batch: Any = next(batches)
                except StopIteration:
                    return
                state = torch.random.get_rng_state()
            yield _to(batch, self.device)

    def _term(self, level: str, batch: tuple[Any, ...]) -> Term:
        problem = self.problem

        def value(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x_tree, y_tree = self.trees(x, y)
            if level == "upper":
                result: Any = problem.upper(x_tree, y_tree, *batch)
            elif problem.outputs is None:
                result = problem.lower(x_tree, y_tree, *batch)
            else:
                result = problem.lower(x_tree, y_tree, problem.outputs(x_tree, y_tree, *batch), *batch)
            return _scalar(result, level)

        return self.guarded(value, level)

    def trees(self, x: torch.Tensor, y: torch.Tensor, *, keep: bool = False) -> tuple[Any, Any]:
        """The structures that the user's functions get. Buffers are copies, unless ``keep``."""
        x_buffers = self.x_buffers if keep else {k: b.clone() for k, b in self.x_buffers.items()}
        y_buffers = self.y_buffers if keep else {k: b.clone() for k, b in self.y_buffers.items()}
        return self.problem.x_layout.unflatten(x, x_buffers), self.problem.y_layout.unflatten(y, y_buffers)

    def guarded(self, function: Term, level: str) -> Term:
        """The same function under the frozen random state, its errors put in words."""

        def call(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            try:
                if not self.is_random(level):
                    return function(x, y)
                with self.seeded():
                    return function(x, y)
            except RuntimeError as error:
                if "same device" in str(error):
                    raise UsageError(
                        f"{level}(x, y) mixes devices ({str(error).splitlines()[0]}). Tensors that the function brings "
                        f"itself must be on {self.device}; or pass them as a data loader, which is moved there."
                    ) from error
                raise

        return call

    def is_random(self, level: str) -> bool:
        """Whether a level's function draws from torch's random state; found out by looking at it, once. (Values may
        hide it: dropout of zeros is zero.)
        """
        if level not in self._random:
            self._random[level] = False
            x, y = self.problem.x0.to(self.device), self.problem.y0.to(self.device)
            with torch.no_grad(), contextlib.closing(self.of(level)) as terms:
                _, term = next(terms)
                with self.seeded(1):
                    before = self._random_state()
                    term(x, y)
                    self._random[level] = not torch.equal(before, self._random_state())
            if self._random[level]:
                self.note(
                    f"The {level} objective draws random numbers (dropout, say): they are frozen until a method of "
                    "fixed steps (outer=adam or sgd, optimisers on minibatches) draws anew, and figures hold for one "
                    "draw."
                )
        return self._random[level]

    def _random_state(self) -> torch.Tensor:
        state = torch.random.get_rng_state()
        return torch.cat([state, torch.cuda.get_rng_state(self.device)]) if self.device.type == "cuda" else state

    @contextlib.contextmanager
    def seeded(self, draw: int | None = None) -> Generator[None]:
        """The frozen random state; the global one is put back afterwards."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed((self.seed * 1_000_003 + 7919 * (self.draw if draw is None else draw)) % 2**63)
            yield

    def advance(self) -> None:
        """Draw anew what is random."""
        self.draw += 1

    def refresh(self, x_flat: torch.Tensor, y: torch.Tensor) -> None:
        """Bring the buffers of modules up to date by one pass of the lower level at a point.

        Running statistics of batch normalisation are the averages over that pass, whatever they were before: so they
        depend on the point only, not on the way there.
        """
        if not self.y_buffers and not self.x_buffers:
            return
        before = {k: b.clone() for k, b in self.y_buffers.items()}
        problem = self.problem
        batches: list[tuple[Any, ...]] = [()]
        if problem.lower_data is not None:
            batches = [(b,) for b in self._iterate(problem.lower_data)]
        averaged = contextlib.ExitStack()
        averaged.enter_context(_averages(problem.x_layout.module, self.x_buffers))
        averaged.enter_context(_averages(problem.y_layout.module, self.y_buffers))
        with torch.no_grad(), self.seeded(), averaged:
            for batch in batches:
                x_tree, y_tree = self.trees(x_flat, y, keep=True)
                outputs = () if problem.outputs is None else (problem.outputs(x_tree, y_tree, *batch),)
                problem.lower(x_tree, y_tree, *outputs, *batch)
        changed = [k for k, b in self.y_buffers.items() if not torch.equal(b, before[k])]
        if changed:
            self.note(
                f"Buffers ({', '.join(changed[:4])}{', ...' if len(changed) > 4 else ''}) are brought up to date after "
                "each lower-level solve, and held fixed within derivatives."
            )

    def batches(self, level: str = "lower") -> Generator[Any]:
        """Batches of a level's data without end, going on where the last caller stopped.

        A loader that shuffles does so anew each epoch, from the seed and the epoch's number.
        """
        data = self.problem.lower_data if level == "lower" else self.problem.upper_data
        if data is None:
            raise UsageError(f"The problem has no {level}_data to take batches from.")
        count = self._count(level, data)
        while True:
            epoch, position = divmod(self.batches_seen, count)
            for k, batch in enumerate(self._drawn(data, 1_000_000 + epoch)):
                if k >= position:
                    self.batches_seen += 1
                    yield batch

    def row_values(self, level: str, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values of a level's inequality and equality constraints, flat."""
        problem = self.problem
        functions = (
            (problem.upper_inequality, problem.upper_equality)
            if level == "upper"
            else (problem.lower_inequality, problem.lower_equality)
        )
        x_tree, y_tree = self.trees(x, y)
        empty = torch.zeros(0, dtype=y.dtype, device=self.device)
        return tuple(empty if f is None else f(x_tree, y_tree).reshape(-1) for f in functions)  # type: ignore[return-value]

    @contextlib.contextmanager
    def refreshed(self, x_flat: torch.Tensor, y: torch.Tensor) -> Generator[None]:
        """Within, the buffers are those of a point; afterwards those from before."""
        kept = self.x_buffers, self.y_buffers
        self.x_buffers, self.y_buffers = ({k: b.clone() for k, b in buffers.items()} for buffers in kept)
        try:
            self.refresh(x_flat, y)
            yield
        finally:
            self.x_buffers, self.y_buffers = kept

    def take_buffers(self, x: Any, y: Any) -> None:
        """Buffers of modules from the values of a result, where they stand among them."""
        for buffers, values in ((self.x_buffers, x), (self.y_buffers, y)):
            for name, tensor in buffers.items():
                if isinstance(values, Mapping) and name in values:
                    buffers[name] = torch.as_tensor(values[name]).to(tensor)

    def memory(self) -> dict[str, Any]:
        """What is carried from one evaluation to the next."""
        return {
            "draw": self.draw,
            "batches_seen": self.batches_seen,
            "x_buffers": {k: b.clone() for k, b in self.x_buffers.items()},
            "y_buffers": {k: b.clone() for k, b in self.y_buffers.items()},
        }

    def restore(self, memory: Any) -> None:
        """Take back what `memory` gave."""
        self.draw, self.batches_seen = memory["draw"], memory["batches_seen"]
        # Copies both ways: passes that gather statistics write into the buffers.
        self.x_buffers = {k: _to(b, self.device).clone() for k, b in memory["x_buffers"].items()}
        self.y_buffers = {k: _to(b, self.device).clone() for k, b in memory["y_buffers"].items()}


@contextlib.contextmanager
def _averages(module: torch.nn.Module | None, buffers: dict[str, torch.Tensor]) -> Generator[None]:
    """Within, running statistics of batch normalisation are gathered as plain averages from nothing; layers that
    gather none keep theirs. Source: Wu and Johnson (2021), "Rethinking batch in BatchNorm", precise statistics.
    """
    found: list[tuple[Any, float | None, dict[str, torch.Tensor]]] = []
    for path, layer in () if module is None else module.named_modules():
        names = [f"{path}.{n}" if path else n for n in ("running_mean", "running_var", "num_batches_tracked")]
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and all(n in buffers for n in names):  # pyright: ignore[reportPrivateUsage]
            found.append((layer, layer.momentum, {n: buffers[n] for n in names}))
            buffers.update({n: torch.zeros_like(buffers[n]) for n in names})
            layer.momentum = None
    try:
        yield
    finally:
        for layer, momentum, before in found:
            layer.momentum = momentum
            *_, count = before
            if not bool(buffers[count]):
                buffers.update(before)


def _scalar(value: Any, level: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise ModelError(f"{level}(x, y): expected a scalar tensor, got {got}. End it with .mean() or .sum().")
    return value.reshape(())


def _length(batch: Any) -> int:
    """How many examples a batch holds: the length of its first tensor."""
    if isinstance(batch, torch.Tensor):
        return int(batch.shape[0]) if batch.dim() else 1
    if isinstance(batch, dict):
        batch = list(batch.values())  # pyright: ignore[reportUnknownVariableType]
    if isinstance(batch, (list, tuple)) and batch:
        return _length(batch[0])
    return 1


def _to(thing: Any, device: torch.device) -> Any:
    if isinstance(thing, torch.Tensor):
        return thing.to(device)
    if isinstance(thing, dict):
        return {k: _to(v, device) for k, v in thing.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(thing, (list, tuple)):
        parts = [_to(v, device) for v in thing]  # pyright: ignore[reportUnknownVariableType]
        make: Any = type(thing)
        return make(*parts) if hasattr(make, "_fields") else make(parts)
    return thing
