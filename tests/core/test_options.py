"""Options and parameters: conversion, checks, messages, listings."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from bilevel_core.errors import UsageError
from bilevel_core.run.options import REQUIRED, OptionInfo, describe, read


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@dataclass(frozen=True)
class Options:
    """Options to try.

    Attributes:
        count: from the
            docstring.
    """

    mode: Literal["sos1", "bigm"] = field(default="sos1", metadata={"help": "how pairs are expressed"})
    max_nodes: int | None = None
    gap: float = 1e-6
    warm: bool = False
    label: str = ""
    path: Path = Path("here")
    count: Annotated[int, "one"] = 1
    sizes: tuple[int, ...] = ()
    box: tuple[float, float] = (0.0, 1.0)
    names: list[str] = field(default_factory=list)
    tags: frozenset[str] = frozenset()
    points: Sequence[float] = ()
    bound: float | Literal["auto"] = "auto"
    level: Literal[1, 2, None] = 1
    colour: Colour = Colour.RED
    limits: dict[str, float] = field(default_factory=dict)
    backend_options: Mapping[str, Any] | None = None
    hook: Callable[[], None] | None = None
    derived: int = field(default=0, init=False)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("mode", "bigm", "bigm"),
        ("max_nodes", "12", 12),
        ("max_nodes", "1e6", 1_000_000),
        ("max_nodes", "none", None),
        ("gap", "1e-3", 1e-3),
        ("gap", "inf", math.inf),
        ("warm", "yes", True),
        ("warm", "OFF", False),
        ("label", "12", "12"),
        ("label", "none", "none"),
        ("path", "a/b.txt", Path("a/b.txt")),
        ("path", "~/b.txt", Path.home() / "b.txt"),
        ("count", "-3", -3),
        ("sizes", "1, 2,3", (1, 2, 3)),
        ("sizes", "", ()),
        ("box", "0,2.5", (0.0, 2.5)),
        ("names", "a,b", ["a", "b"]),
        ("tags", "a,b,a", frozenset({"a", "b"})),
        ("points", "1,2", (1.0, 2.0)),
        ("bound", "auto", "auto"),
        ("bound", "3", 3.0),
        ("level", "2", 2),
        ("level", "none", None),
        ("colour", "dark-blue", Colour.DARK_BLUE),
        ("colour", "RED", Colour.RED),
        ("backend_options", "none", None),
    ],
)
def test_text_becomes_the_annotated_type(name: str, text: str, value: Any) -> None:
    found = read(Options, {name: text})
    assert found == {name: value}
    assert type(found[name]) is type(value)
    assert getattr(Options(**found), name) == value


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("gap", 1, 1.0),
        ("gap", np.float64(0.5), 0.5),
        ("count", np.int64(3), 3),
        ("warm", np.True_, True),
        ("max_nodes", None, None),
        ("sizes", [1, 2], (1, 2)),
        ("points", np.array([1.0, 2.0]), (1.0, 2.0)),
        ("limits", {"a": 1}, {"a": 1.0}),
        ("colour", Colour.RED, Colour.RED),
        ("bound", 2, 2.0),
        ("path", Path("x"), Path("x")),
        ("hook", print, print),
    ],
)
def test_python_values_are_checked(name: str, given: Any, value: Any) -> None:
    found = read(Options, {name: given})
    assert found == {name: value}
    assert type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("mode", "bigM", "Expected one of sos1, bigm, got 'bigM'. Did you mean 'bigm'?"),
        ("mode", 1, "Expected one of sos1, bigm, got 1."),
        ("max_nodes", "ten", "Expected an integer, got 'ten'."),
        ("max_nodes", "1.5", "Expected an integer, got '1.5'."),
        ("max_nodes", "1e300", "Expected an integer, got '1e300'."),
        ("max_nodes", 2.0, "Expected an integer, got 2.0 (float)."),
        ("max_nodes", True, "Expected an integer, got True (bool)."),
        ("gap", "small", "Expected a number, got 'small'."),
        ("gap", "nan", "Expected a number, got 'nan'."),
        ("gap", math.nan, "Expected a number, got nan (float)."),
        ("gap", True, "Expected a number, got True (bool)."),
        ("gap", None, "Expected a number, got None (NoneType)."),
        ("gap", 10**400, "Expected a number"),
        ("warm", "maybe", "Expected true or false, got 'maybe'."),
        ("warm", 1, "Expected true or false, got 1 (int)."),
        ("label", 3, "Expected a text, got 3 (int)."),
        ("path", "", "Expected a path, got ''."),
        ("sizes", "1,x", "value 2 of 2: Expected an integer, got 'x'."),
        ("sizes", 3, "Expected int,int,... (a sequence), got 3 (int)."),
        ("sizes", {"a": 1}, "(a sequence)"),
        ("box", "1,2,3", "Expected 2 values (float,float), got 3: '1,2,3'."),
        ("bound", "never", "Expected float or auto, got 'never'."),
        ("level", True, "Expected one of 1, 2, none, got True."),
        ("colour", "blue", "Expected one of red, dark-blue, got 'blue'."),
        ("limits", "3", "Expected entries one by one, as NAME.KEY=float, got '3'."),
        ("limits", 3, "Expected a dictionary, got 3 (int)."),
        ("limits.a", "x", "entry 'a': Expected a number, got 'x'."),
        ("limits.", "x", "Expected limits.KEY=VALUE."),
        ("gap.a", "1", "'gap' has no entries. Expected gap=VALUE, got gap.a=1."),
        ("hook", "print", "cannot be given as text"),
        ("hook", 3, "Expected Callable, got 3 (int)."),
    ],
)
def test_wrong_values_say_what_was_expected(name: str, given: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(Options, {name: given}, owner="solver 'kkt'")
    assert str(caught.value).startswith(f"Option {name!r} of solver 'kkt': ")
    assert message in str(caught.value)


def test_entries_of_a_table() -> None:
    given = {"limits.a": "1", "limits.b.c": 2, "backend_options.limits/gap": "0.5"}
    assert read(Options, given) == {"limits": {"a": 1.0, "b.c": 2.0}, "backend_options": {"limits/gap": 0.5}}
    assert read(Options, {"limits": {"a": 1.0}, "limits.b": "2"}) == {"limits": {"a": 1.0, "b": 2.0}}
    for twice in ({"limits": {"a": 1.0}, "limits.a": "2"}, {"limits.a": "2", "limits": {"a": 1.0}}):
        with pytest.raises(UsageError, match="given twice"):
            read(Options, twice)
    with pytest.raises(UsageError, match="given twice"):
        read(Options, {"backend_options": None, "backend_options.a": "2"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0.5", 0.5),
        ("true", True),
        ("FALSE", False),
        ("on", "on"),
        ("nan", "nan"),
        ("word", "word"),
        (None, None),
    ],
)
def test_values_without_a_type(text: Any, value: Any) -> None:
    found = read(Options, {"backend_options.a": text})["backend_options"]["a"]
    assert found == value
    assert type(found) is type(value)


def test_a_dash_is_an_underscore() -> None:
    assert read(Options, {"max-nodes": "3"}) == {"max_nodes": 3}
    with pytest.raises(UsageError, match="given twice"):
        read(Options, {"max-nodes": "3", "max_nodes": "4"})


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"no option named 'max_node'\. Did you mean 'max_nodes'.*\? Solver 'kkt' takes: mode,"
    ):
        read(Options, {"max_node": "3"}, owner="solver 'kkt'")
    with pytest.raises(UsageError, match="no option named 'derived'"):
        read(Options, {"derived": "3"})

    def few(alpha: int = 1) -> None: ...

    with pytest.raises(UsageError) as caught:
        read(few, {"zzz": "3"}, kind="parameter", owner="problem 'a/b'")
    assert str(caught.value) == "There is no parameter named 'zzz'. Problem 'a/b' takes: alpha."

    def none() -> None: ...

    with pytest.raises(UsageError, match=r"^Problem 'a/b' takes no parameters\. Got 'zzz'"):
        read(none, {"zzz": "3"}, kind="parameter", owner="problem 'a/b'")


def test_functions() -> None:
    def build(path: Path, pairs: int, /, *, scale: float, seed: int = 0, free=None) -> None:
        """Build it.

        Args:
            scale: how large,
                in units.
            seed, free (int): of the generator.

        Returns:
            nothing: at all.
        """

    assert read(build, {"scale": "2", "free": "7"}) == {"scale": 2.0, "free": 7}
    with pytest.raises(UsageError, match=r"^Problem 'p' needs the parameter scale \(float\)\.$"):
        read(build, {}, kind="parameter", owner="problem 'p'")
    assert describe(build) == [
        OptionInfo("scale", "float", REQUIRED, "how large, in units."),
        OptionInfo("seed", "int", 0, "of the generator."),
        OptionInfo("free", "value", None, "of the generator."),
    ]


def test_what_the_caller_passes_itself_is_no_option() -> None:
    def load(path: Path, trips: Path, factor: float = 1.0, **more: int) -> None: ...

    assert [o.name for o in describe(load, skip=("path",))] == ["trips", "factor"]
    found = read(load, {"trips": "t", "zones": "3"}, skip=("path",))
    assert found == {"trips": Path("t"), "zones": 3}
    with pytest.raises(UsageError, match="'zones': Expected an integer"):
        read(load, {"trips": "t", "zones": "x"}, skip=("path",))
    with pytest.raises(UsageError, match="no option named 'path'"):
        read(load, {"trips": "t", "path": "x"}, skip=("path",))
    with pytest.raises(UsageError, match=r"needs the options path \(path\), trips \(path\)"):
        read(load, {})


def test_listing() -> None:
    found = {o.name: o for o in describe(Options)}
    assert "derived" not in found
    assert found["mode"] == OptionInfo("mode", "sos1|bigm", "sos1", "how pairs are expressed")
    assert found["count"].help == "from the docstring."
    assert found["names"].default == []
    texts = {name: o.type_text for name, o in found.items()}
    assert texts == {
        "mode": "sos1|bigm",
        "max_nodes": "int or none",
        "gap": "float",
        "warm": "bool",
        "label": "text",
        "path": "path",
        "count": "int",
        "sizes": "int,int,...",
        "box": "float,float",
        "names": "text,text,...",
        "tags": "text,text,...",
        "points": "float,float,...",
        "bound": "float or auto",
        "level": "1|2|none",
        "colour": "red|dark-blue",
        "limits": "KEY=float",
        "backend_options": "KEY=value or none",
        "hook": "Callable or none",
    }


def test_targets_that_declare_nothing() -> None:
    class Plain: ...

    with pytest.raises(UsageError, match="Expected a dataclass or a function"):
        read(Plain, {})

    def unreadable(x: NotImported) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UsageError, match=r"unreadable cannot be read: name 'NotImported' is not defined"):
        read(unreadable, {})


def test_the_options_of_every_own_solver_are_described() -> None:
    from bilevel_core.plugins.registry import get_registry

    registry = get_registry()
    own = [s for n, s in registry.solvers.items() if registry.owners["solvers", n].dist == "bilevel"]
    assert own
    for spec in own:
        for option in describe(spec.load()):
            assert option.help, f"{spec.name}: {option.name}"
            assert option.default is not REQUIRED
