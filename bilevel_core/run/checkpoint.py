"""Nested data of numbers, arrays and tensors as one file that runs no code when it is read.

A checkpoint is a safetensors file: the arrays are its tensors, and the structure around them is JSON in its metadata.
Every value comes back as it was, bit by bit: NaN with its payload, -0.0, integers of any size. Which dataclasses may
stand in it is said by the caller; knows nothing of solvers.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from bilevel_core.errors import MissingError, UsageError
from bilevel_core.result import Claim, Termination

SCHEMA = "bilevel.checkpoint/1"
ENUMS: dict[str, type[enum.Enum]] = {"Claim": Claim, "Termination": Termination}

_STORED = frozenset("?bBhHiIlLqQefd")
"""Kinds of arrays that the format has a type for; others, such as complex numbers, are stored as their bytes."""


def save(path: Path, data: Any, types: Sequence[type] = ()) -> None:
    """Write data into a file, which is replaced whole: after a crash it is the old one or the new one.

    Args:
        path: the file.
        data: numbers, texts, booleans, None, NumPy arrays, tensors, lists, tuples and dictionaries of these, members
            of `Claim` and `Termination`, and dataclasses among ``types``.
        types: dataclasses that may stand in the data.

    Raises:
        TypeError: something in the data can't be stored; the message says where it is.
        OSError: the file cannot be written.
    """
    write(path, dumps(data, types))


def load(path: Path, types: Sequence[type] = (), device: Any = None) -> Any:
    """Read what `save` wrote.

    Args:
        path: the file.
        types: dataclasses that may stand in the data.
        device: where tensors go that were on another device than the CPU; by default all come to the CPU.

    Raises:
        UsageError: the file cannot be read, is damaged, or is no checkpoint of this version.
        MissingError: it holds tensors, and torch is not installed.
    """
    return read(path).data(types, device)


def dumps(data: Any, types: Sequence[type] = ()) -> bytes:
    """The content of the file that `save` writes.

    Raises:
        TypeError: something in the data can't be stored; the message says where it is.
    """
    from safetensors.numpy import save as pack

    writer = _Writer({_name(t): t for t in types})
    structure = writer.encode(data, "")
    text = json.dumps(structure, allow_nan=False, separators=(",", ":"))
    return pack(writer.arrays, {"schema": SCHEMA, "structure": text})


def write(path: Path, content: bytes) -> None:
    """Replace a file whole, and have it on the disk before this returns.

    Raises:
        OSError: it cannot be written; the old file is left.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@dataclass(frozen=True)
class Stored:
    """A checkpoint that has been read, and not yet decoded.

    Attributes:
        structure: the JSON data.
        arrays: the arrays in it, by name.
        place: what to call it in messages.
    """

    structure: Any
    arrays: Mapping[str, np.ndarray]
    place: str

    def data(self, types: Sequence[type] = (), device: Any = None) -> Any:
        """The data; see `load`."""
        reader = _Reader(self.arrays, {_name(t): t for t in types}, device)
        try:
            return reader.decode(self.structure)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError, struct.error) as error:
            raise UsageError(
                f"{self.place} is damaged, or was written by another version: {type(error).__name__} at {error}."
            ) from error

    def entry(self, name: str) -> Any:
        """One entry of data that is a dictionary; nothing else is decoded.

        Raises:
            UsageError: there is none.
        """
        try:
            found = next(value for key, value in self.structure["d"] if key == name)
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise UsageError(f"{self.place} is damaged, or of another version: it lacks {name!r}.") from error
        return dataclasses.replace(self, structure=found).data()


def read(path: Path) -> Stored:
    """Read a file that `save` wrote; see `load`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The checkpoint {path} cannot be read: {error.strerror}.") from error
    return loads(content, str(path))


def loads(content: bytes, place: str = "The checkpoint") -> Stored:
    """The same from the content of a file; ``place`` is what messages call it.

    Raises:
        UsageError: it is damaged, or no checkpoint of this version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    try:
        arrays = unpack(content)
        header: Any = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        meta = header.get("__metadata__") or {}
        schema = meta.get("schema")
        structure: Any = json.loads(meta["structure"]) if schema == SCHEMA else None
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{place} is no checkpoint, or is damaged: {error}.") from error
    if schema != SCHEMA:
        raise UsageError(f"{place} is no checkpoint of this version. Expected schema {SCHEMA!r}, got {schema!r}.")
    return Stored(structure, arrays, place)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _torch() -> Any:
    """The torch package where something has imported it: without it there are no tensors to store."""
    return sys.modules.get("torch")


class _Writer:
    """Turns data into JSON, and collects the arrays."""

    def __init__(self, types: Mapping[str, type]) -> None:
        self.types = types
        self.arrays: dict[str, np.ndarray] = {}

    def encode(self, value: Any, where: str) -> Any:
        kind = cast("type[Any]", type(value))
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            # Python refuses to read decimal integers of thousands of digits.
            return value if abs(value) < 2**63 else {"i": hex(value)}
        if kind is float:
            return value if np.isfinite(value) else {"f": struct.pack(">d", value).hex()}
        if kind is list:
            return [self.encode(v, f"{where}[{k}]") for k, v in enumerate(value)]
        if kind is tuple:
            return {"t": [self.encode(v, f"{where}[{k}]") for k, v in enumerate(value)]}
        if kind is dict:
            return {
                "d": [[self.encode(k, f"{where} key"), self.encode(v, f"{where}[{k!r}]")] for k, v in value.items()]
            }
        if isinstance(value, enum.Enum) and ENUMS.get(kind.__name__) is kind:
            return {"e": kind.__name__, "v": value.value}
        if isinstance(value, np.generic):
            scalar: np.ndarray = np.asarray(cast("Any", value))
            return {**self._array(scalar, where), "g": True}
        if kind is np.ndarray:
            return self._array(cast("np.ndarray", value), where)
        if self.types.get(_name(kind)) is kind and dataclasses.is_dataclass(kind):
            fields = {
                f.name: self.encode(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(kind)
            }
            return {"c": _name(kind), "v": fields}
        torch = _torch()
        if torch is not None and isinstance(value, torch.Tensor):
            return self._tensor(value, where, torch)
        raise TypeError(
            f"A checkpoint cannot hold the {kind.__name__} at {where.lstrip('.') or 'the top'}. Expected numbers, "
            "texts, arrays, tensors, lists, tuples, dictionaries, or a dataclass named in state_types."
        )

    def _array(self, value: np.ndarray, where: str) -> dict[str, Any]:
        if value.dtype.hasobject or value.dtype.names is not None:
            raise TypeError(f"A checkpoint cannot hold the array of {value.dtype} at {where.lstrip('.')}.")
        flat = np.ascontiguousarray(value).reshape(-1)
        # The order in memory decides how libraries sum, and so the last bits of what is computed next.
        columns = {"columns": True} if value.flags.f_contiguous and not value.flags.c_contiguous else {}
        return {"a": self._keep(flat), "shape": list(value.shape), "dtype": value.dtype.str, **columns}

    def _tensor(self, value: Any, where: str, torch: Any) -> dict[str, Any]:
        if value.layout is not torch.strided or value.is_quantized:
            raise TypeError(f"A checkpoint cannot hold the sparse or quantized tensor at {where.lstrip('.')}.")
        plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        # By bytes: NumPy lacks some of torch's types, bfloat16 among them.
        flat = plain.view(torch.uint8).numpy() if plain.numel() else np.zeros(0, dtype=np.uint8)
        node: dict[str, Any] = {"T": self._keep(flat), "shape": list(value.shape)}
        node["dtype"] = str(value.dtype).removeprefix("torch.")
        if value.device.type != "cpu":
            node["moved"] = True
        if not value.is_contiguous() and torch.empty_like(value).stride() == value.stride():
            node["stride"] = list(value.stride())
        return node

    def _keep(self, flat: np.ndarray) -> str:
        """Put an array among the tensors; "" for an empty one, which needs no place."""
        if not flat.size:
            return ""
        if flat.dtype.char not in _STORED or not flat.dtype.isnative:
            flat = np.frombuffer(flat.tobytes(), dtype=np.uint8)
        name = str(len(self.arrays))
        self.arrays[name] = flat
        return name


class _Reader:
    """The reverse of `_Writer`. Raises whatever damaged data make it raise."""

    def __init__(self, arrays: Mapping[str, np.ndarray], types: Mapping[str, type], device: Any) -> None:
        self.arrays = arrays
        self.types = types
        self.device = device

    def decode(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.decode(v) for v in cast("list[Any]", node)]
        if not isinstance(node, dict):
            return node
        node = cast("dict[str, Any]", node)
        if "i" in node:
            return int(node["i"], 16)
        if "f" in node:
            return struct.unpack(">d", bytes.fromhex(node["f"]))[0]
        if "t" in node:
            return tuple(self.decode(v) for v in node["t"])
        if "d" in node:
            return {self.decode(k): self.decode(v) for k, v in node["d"]}
        if "e" in node:
            return ENUMS[node["e"]](node["v"])
        if "a" in node:
            return self._array(node)
        if "T" in node:
            return self._tensor(node)
        return self._dataclass(node)

    def _array(self, node: dict[str, Any]) -> Any:
        dtype = np.dtype(node["dtype"])
        raw = self.arrays[node["a"]].tobytes() if node["a"] else b""
        value = np.frombuffer(bytearray(raw), dtype=dtype).reshape(node["shape"])
        if node.get("columns"):
            value = np.asfortranarray(value)
        return value[()] if node.get("g") else value

    def _tensor(self, node: dict[str, Any]) -> Any:
        try:
            import torch
        except ImportError as error:
            raise MissingError(
                "The checkpoint holds tensors, and torch is not installed. "
                "Install it with: pip install 'bilevel[torch]'"
            ) from error
        dtype = getattr(torch, node["dtype"])
        if not node["T"]:
            value = torch.empty(node["shape"], dtype=dtype)
        else:
            raw = torch.frombuffer(bytearray(self.arrays[node["T"]].tobytes()), dtype=torch.uint8)
            # A copy: a view of bytes need not lie where the type has to.
            value = raw.view(dtype).clone().reshape(node["shape"])
        if "stride" in node:
            value = torch.empty_strided(node["shape"], node["stride"], dtype=dtype).copy_(value)
        return value.to(self.device) if node.get("moved") and self.device is not None else value

    def _dataclass(self, node: dict[str, Any]) -> Any:
        kind = self.types[node["c"]]
        names = [f.name for f in dataclasses.fields(cast("Any", kind))]
        if set(names) != set(node["v"]):
            raise ValueError(f"{kind.__name__}, whose fields are other ones")
        value = object.__new__(kind)
        for name in names:
            # As it was, and so past __post_init__ and frozen dataclasses' own __setattr__.
            object.__setattr__(value, name, self.decode(node["v"][name]))
        return value
