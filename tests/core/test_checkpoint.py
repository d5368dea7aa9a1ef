"""The file that a run goes on from: what is put in comes out, bit by bit; damage is an error that names the file."""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bilevel_core.errors import UsageError
from bilevel_core.result import Claim, Result, Termination
from bilevel_core.run import checkpoint
from bilevel_core.run.checkpoint import dumps, load, loads, save
from bilevel_core.run.record import LateRecord, RunRecord, as_given, read_options

ENDS = (Termination.TIME_LIMIT, Termination.CONVERGED)


@dataclass(frozen=True)
class Inner:
    value: Any

    def __post_init__(self) -> None:
        if isinstance(self.value, str) and self.value == "forbidden":
            raise ValueError("never called when a checkpoint is read")


@dataclass
class Outer:
    inner: Inner
    table: dict[str, Any] = field(default_factory=dict)


def same(a: Any, b: Any) -> bool:
    """Equality with types, NaN bits, signs of zero, dtypes and order of entries."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, np.ndarray | np.generic):
        a, b = np.asarray(a), np.asarray(b)
        layout = a.flags.f_contiguous == b.flags.f_contiguous
        return layout and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, Inner | Outer):
        return same(vars(a), vars(b))
    return bool(a == b)


arrays = hnp.arrays(
    dtype=st.one_of(
        hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.complex_number_dtypes(), st.just("<U3")
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.text(st.characters(codec=None)),
    st.sampled_from([*Claim, *Termination]),
    arrays,
    arrays.map(np.asfortranarray),
    st.floats().map(np.float64),
)
keys = st.one_of(st.text(), st.integers(), st.tuples(st.integers(), st.text()))
data = st.recursive(
    leaves,
    lambda more: st.one_of(
        st.lists(more, max_size=3),
        st.lists(more, max_size=3).map(tuple),
        st.dictionaries(keys, more, max_size=3),
        st.builds(Inner, more),
        st.builds(Outer, st.builds(Inner, more), st.dictionaries(st.text(), more, max_size=2)),
    ),
    max_leaves=8,
)


@given(data)
@settings(max_examples=150, deadline=None)
def test_round_trip(value: Any) -> None:
    assert same(loads(dumps(value, (Inner, Outer))).data((Inner, Outer)), value)


def test_numbers_and_texts_that_are_easily_lost(tmp_path: Path) -> None:
    value = [-0.0, math.nan, -math.nan, math.inf, -math.inf, 5e-324, 10**5000, -(2**63), 2**63, True, "", "\ud800"]
    save(tmp_path / "c", {"v": value, "a": [value]})
    assert same(load(tmp_path / "c"), {"v": value, "a": [value]})


def test_post_init_is_not_called(tmp_path: Path) -> None:
    value = Inner(0)
    object.__setattr__(value, "value", "forbidden")
    save(tmp_path / "c", value, (Inner,))
    assert load(tmp_path / "c", (Inner,)).value == "forbidden"


def test_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    kinds = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int8, torch.int64, torch.bool]
    kinds += [torch.uint8, torch.complex64, torch.complex128]
    values = [torch.tensor([[0, 1, -2], [3, 4, 5]]).to(kind) for kind in kinds]
    values += [torch.zeros(0, 3), torch.tensor(math.nan), torch.arange(6.0).reshape(2, 3).t(), torch.arange(6)[::2]]
    values += [torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.complex64).conj()]
    save(tmp_path / "c", values)
    for before, after in zip(values, load(tmp_path / "c"), strict=True):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        bits = [t.detach().resolve_conj().contiguous().reshape(-1) for t in (before, after)]
        assert torch.equal(*(b.view(torch.uint8) for b in bits)) if bits[0].numel() else True
    dense = torch.arange(6.0).reshape(2, 3).t()
    save(tmp_path / "c", dense)
    assert load(tmp_path / "c").stride() == dense.stride()
    with pytest.raises(TypeError, match="sparse"):
        save(tmp_path / "d", dense.to_sparse())


def test_without_torch(tmp_path: Path) -> None:
    """Arrays need no torch, and a file with tensors says what is missing."""
    torch = pytest.importorskip("torch")
    save(tmp_path / "tensor", torch.ones(2))
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from pathlib import Path
from bilevel_core.errors import MissingError
from bilevel_core.run.checkpoint import load, save
save(Path("array"), {"a": np.arange(3.0)})
assert load(Path("array"))["a"].tolist() == [0, 1, 2]
try:
    load(Path("tensor"))
except MissingError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bilevel[torch]" in done.stdout


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [1, object()]}, r"object at \['a'\]\[1\]"),
        (Outer(Inner({1, 2})), "set at inner.value"),
        (np.array([None]), "array of object"),
        (os.environ, "at the top"),
        (ENDS[0].__class__, "at the top"),
    ],
)
def test_what_cannot_be_stored_is_named(value: Any, where: str) -> None:
    with pytest.raises(TypeError, match=where):
        dumps(value, (Inner, Outer))


def test_only_registered_dataclasses() -> None:
    with pytest.raises(TypeError, match="Inner"):
        dumps(Inner(1))
    with pytest.raises(UsageError, match=r"Inner"):
        loads(dumps(Inner(1), (Inner,))).data()


def test_other_fields_are_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Changed:
        new: int = 0

    Changed.__module__, Changed.__qualname__ = Inner.__module__, Inner.__qualname__
    with pytest.raises(UsageError, match="another version"):
        loads(dumps(Inner(1), (Inner,))).data((Changed,))


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    save(path, {"a": np.arange(100.0), "b": [1, 2]})
    whole = path.read_bytes()
    for cut in (0, 4, 8, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UsageError, match="mine"):
            load(path)
    from safetensors.numpy import save as pack

    for meta in (None, {"schema": "bilevel.checkpoint/99", "structure": "1"}, {"schema": checkpoint.SCHEMA}):
        path.write_bytes(pack({"w": np.ones(2)}, meta))
        with pytest.raises(UsageError, match="mine"):
            load(path)
    for structure in ({"a": "7", "shape": [1], "dtype": "<f8"}, {"e": "Claim", "v": "x"}, {"z": 1}, {"i": 5}):
        path.write_bytes(pack({"w": np.ones(2)}, {"schema": checkpoint.SCHEMA, "structure": json.dumps(structure)}))
        with pytest.raises(UsageError, match="mine"):
            load(path)
    with pytest.raises(UsageError, match="absent"):
        load(tmp_path / "absent")


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_flipped_bytes_never_crash(draw: Any) -> None:
    content = bytearray(dumps({"a": np.arange(5.0), "b": Inner((1.5, "x")), "c": Claim.LOCAL}, (Inner,)))
    position = draw.draw(st.integers(0, len(content) - 1))
    content[position] ^= draw.draw(st.integers(1, 255))
    # Whatever a flipped byte may read as, it is data or the one error that users meet.
    with contextlib.suppress(UsageError):
        loads(bytes(content)).data((Inner,))


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_one(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    save(path, "old")

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), crash)
        with pytest.raises(KeyboardInterrupt):
            save(path, "new")
    assert load(path) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_process_killed_while_writing_leaves_the_old_one(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from bilevel_core.run.checkpoint import save
save(Path("c"), "old")
os.fsync = lambda f: os.kill(os.getpid(), signal.SIGKILL)
save(Path("c"), "new" * 1000)
"""
    (tmp_path / "run.json").write_text("{}")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert load(tmp_path / "c") == "old"
    (tmp_path / ".checkpoint.123").write_text("half")
    (tmp_path / "events.jsonl").write_text('{"event": "start"}\n{"event": "iter')
    RunRecord(tmp_path).reopen()
    assert not (tmp_path / ".checkpoint.123").exists()
    assert (tmp_path / "events.jsonl").read_text() == '{"event": "start"}\n'


def test_entry(tmp_path: Path) -> None:
    save(tmp_path / "c", {"x": Inner(1), "elapsed": 2.5}, (Inner,))
    assert checkpoint.read(tmp_path / "c").entry("elapsed") == 2.5
    with pytest.raises(UsageError, match="lacks 'y'"):
        checkpoint.read(tmp_path / "c").entry("y")


# Records.


def test_options_read_back() -> None:
    options = {"a": math.inf, "b": Path("p"), "c": (1, 2), "d": Claim.LOCAL, "e": np.float64(0.5), "f": {"g": None}}
    kept = json.loads(json.dumps(as_given(options), allow_nan=False))
    assert kept == {"a": "inf", "b": "p", "c": [1, 2], "d": "local", "e": 0.5, "f": {"g": None}}
    with pytest.raises(UsageError, match=r"'h'.*cannot be resumed"):
        read_options({"options": as_given({"h": len})}, Path("run"))


@pytest.mark.parametrize("content", [b"", b"state"])
def test_a_late_record_is_made_when_cut_short(content: bytes, tmp_path: Path) -> None:
    late = LateRecord(tmp_path, {"problem": "p"})
    late.start({"solver": "s"})
    if content:
        late.checkpoint(content)
    late.finish(Result(Termination.CONVERGED, upper_objective=1.0))
    assert not late.written
    late.finish(Result(Termination.STOPPED_BY_USER))
    assert late.written is bool(content)
    if content:
        assert {p.name for p in late.folder.iterdir()} == {"run.json", "checkpoint", "result.json"}
        assert (late.folder / "checkpoint").read_bytes() == content
        assert json.loads((late.folder / "run.json").read_text())["solver"] == "s"
