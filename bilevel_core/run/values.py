"""One value from text, or from Python, to an annotated type. Knows nothing of options or who they belong to."""

from __future__ import annotations

import collections.abc
import difflib
import enum
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, cast

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")
NONE = ("none", "null", "")


class WrongValue(ValueError):
    """The value does not fit the type; the message says what was expected and what came."""


def coerce(annotation: Any, value: Any) -> Any:
    """Convert one value to an annotated type.

    Text is parsed; a Python value must have the type already, except that an integer does for a float and a sequence
    for a tuple, list or set. NumPy scalars count as Python numbers. Without an annotation (``Any``), text that reads
    as an integer, a number or ``true``/``false`` becomes that, and every other value stays as it is.

    Raises:
        WrongValue: it does not fit.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or annotation is object:
        return _guess(value)
    if origin in (typing.Union, types.UnionType):
        return _union(annotation, args, value)
    if origin is Literal:
        return _literal(args, value)
    base: Any = origin or annotation
    if base in _SEQUENCES:
        return _sequence(annotation, _SEQUENCES[base], args, value)
    if base in _TABLES:
        return _table(annotation, args, value)
    if base in _PLAIN:
        return _PLAIN[base](value)
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return _member(base, value)
    if isinstance(base, type) and isinstance(value, base):
        return value
    if base is collections.abc.Callable and callable(value):
        return value
    if isinstance(value, str):
        raise WrongValue(f"Expected {type_text(annotation)}, which cannot be given as text, got {value!r}.")
    raise _wrong(type_text(annotation), value)


def is_table(annotation: Any) -> bool:
    """Whether the type is a dictionary (or None), whose entries can be set one by one."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(is_table(a) for a in typing.get_args(annotation))
    return (typing.get_origin(annotation) or annotation) in _TABLES


def type_text(annotation: Any) -> str:
    """A type in words of the command line: ``float``, ``sos1|bigm``, ``int,int,...``, ``KEY=float``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or annotation is object:
        return "value"
    if annotation is type(None) or annotation is None:
        return "none"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(a) for a in args)
    if origin is Literal:
        return "|".join(_text(a) for a in args)
    base: Any = origin or annotation
    if base in _SEQUENCES:
        if base is tuple and args and args[-1] is not Ellipsis:
            return ",".join(type_text(a) for a in args)
        item = type_text(args[0] if args else Any)
        return f"{item},{item},..."
    if base in _TABLES:
        return f"KEY={type_text(args[1] if args else Any)}"
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return "|".join(str(m.value) for m in base)
    if base is Path or base is os.PathLike:
        return "path"
    return "text" if base is str else str(getattr(base, "__name__", base))


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _wrong(expected: str, value: Any) -> WrongValue:
    return WrongValue(f"Expected {expected}, got {value!r:.80}" + ("." if isinstance(value, str) else _of(value)))


def _of(value: Any) -> str:
    return f" ({type(value).__name__})."


def _guess(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # Only these two words are truth values here: "1" is a number, and "on" may be a name.
    if value.strip().lower() in ("true", "false"):
        return _truth(value)
    for parse in (_integer, _number):
        try:
            return parse(value)
        except WrongValue:
            continue
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise _wrong("an integer", value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
        try:
            number = float(value)
        except ValueError:
            raise _wrong("an integer", value) from None
        # "1e6" is a usual way to write a limit. Beyond 2**53 a float no longer says which integer is meant.
        if number.is_integer() and abs(number) <= 2**53:
            return int(number)
    raise _wrong("an integer", value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (Real, str)):
        raise _wrong("a number", value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise _wrong("a number", value) from None
    # NaN compares false with everything, so it would slip through every later check of a range.
    if math.isnan(number):
        raise _wrong("a number", value)
    return number


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in TRUE:
        return True
    if isinstance(value, str) and value.strip().lower() in FALSE:
        return False
    raise _wrong("true or false", value)


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _wrong("a text", value)


def _path(value: Any) -> Path:
    if isinstance(value, (str, os.PathLike)):
        text: Any = os.fspath(cast("Any", value))
        if isinstance(text, str) and text:
            return Path(text).expanduser()
    raise _wrong("a path", value)


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in NONE)


def _nothing(value: Any) -> None:
    if not _is_none(value):
        raise _wrong("none", value)


_PLAIN: dict[Any, Callable[[Any], Any]] = {
    int: _integer,
    float: _number,
    bool: _truth,
    str: _string,
    Path: _path,
    os.PathLike: _path,
    type(None): _nothing,
    None: _nothing,
}

_SEQUENCES: dict[Any, Callable[[Iterable[Any]], Any]] = {
    tuple: tuple,
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: tuple,
    collections.abc.Collection: tuple,
    collections.abc.Iterable: tuple,
    collections.abc.Set: frozenset,
}

_TABLES = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})


def _union(annotation: Any, args: tuple[Any, ...], value: Any) -> Any:
    """The first alternative that fits; one that the value already has goes first, and text fits `str` only at last."""
    for alternative in args:
        if isinstance(alternative, type) and type(value) is alternative and not isinstance(value, str):
            return value
    others = [a for a in args if a is not type(None)]
    if len(others) == 1 and not _is_none(value):
        return coerce(others[0], value)
    for alternative in sorted(args, key=lambda a: (a is str, a is not type(None))):
        try:
            return coerce(alternative, value)
        except WrongValue:
            continue
    raise _wrong(type_text(annotation), value)


def _literal(members: tuple[Any, ...], value: Any) -> Any:
    for member in members:
        same_kind = isinstance(value, type(member)) and isinstance(value, bool) == isinstance(member, bool)
        if same_kind and member == value:
            return member
    if isinstance(value, str):
        for member in members:
            if not isinstance(member, str) and _text(member) == value.strip().lower():
                return member
    return _none_of([_text(m) for m in members], value)


def _member(kind: type[enum.Enum], value: Any) -> enum.Enum:
    if isinstance(value, kind):
        return value
    for member in kind:
        if value == member.value or (isinstance(value, str) and value in (str(member.value), member.name)):
            return member
    return _none_of([str(m.value) for m in kind], value)


def _none_of(names: list[str], value: Any) -> typing.NoReturn:
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise WrongValue(f"Expected one of {', '.join(names)}, got {value!r}.{hint}")


def _sequence(annotation: Any, make: Callable[[Iterable[Any]], Any], args: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, str):
        items: list[Any] = [part.strip() for part in value.split(",")] if value.strip() else []
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)):
        items = list(cast("Iterable[Any]", value))
    else:
        raise _wrong(f"{type_text(annotation)} (a sequence)", value)
    if make is tuple and typing.get_origin(annotation) is tuple and args[-1:] != (Ellipsis,):
        if len(items) != len(args):
            raise WrongValue(f"Expected {len(args)} values ({type_text(annotation)}), got {len(items)}: {value!r}.")
        kinds = list(args)
    else:
        kinds = [args[0] if args else Any] * len(items)
    done: list[Any] = []
    for number, (kind, item) in enumerate(zip(kinds, items, strict=True), 1):
        try:
            done.append(coerce(kind, item))
        except WrongValue as error:
            raise WrongValue(f"value {number} of {len(items)}: {error}") from error
    return make(done)


def _table(annotation: Any, args: tuple[Any, ...], value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        expected = f"entries one by one, as NAME.{type_text(annotation)}" if isinstance(value, str) else "a dictionary"
        raise _wrong(expected, value)
    keys, values = args if args else (Any, Any)
    done: dict[Any, Any] = {}
    for key, item in cast("Mapping[Any, Any]", value).items():
        try:
            done[coerce(keys, key)] = coerce(values, item)
        except WrongValue as error:
            raise WrongValue(f"entry {key!r}: {error}") from error
    return done
