"""Auxiliary files: which columns and rows of an MPS or LP file are the follower's, and the follower's objective.

Three dialects. Name-based (MibS, BOBILib): keywords that begin with ``@``. Index-based (MibS, older): pairs such as
``LC 3``, columns and constraints counted from 0, the objective row left out. Interdiction (MibS, older): index-based,
with the leader's cost of taking each column away (``IC``) and the budget (``IB``); see `mps_interdiction`.

The formats: the manual of MibS, coin-or.github.io/MibS/input.html, and its sources for what the manual leaves out
(``IC``, ``IB``, other spellings of keywords); BOBILib: bobilib.org/documentation.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bilevel_core.problems.mps_file import LinearFile, Source, as_number, nearest

_KEYS = {
    "@NUMVARS": "variables",
    "@NUMCONSTRS": "constraints",
    "@NUMCONSTR": "constraints",
    "@OBJSENSE": "sense",
    "@OBJESENSE": "sense",
    "@NAME": "name",
    "@MPS": "mps",
    "@LP": "lp",
    "@VARSBEGIN": "columns",
    "@CONSTRSBEGIN": "rows",
    "@CONSTRBEGIN": "rows",
    "@CONSTSBEGIN": "rows",
}
"""Keywords of the name-based dialect, with the spellings that are about, and what each of them states."""
_LISTS = {"columns": ("@VARSEND",), "rows": ("@CONSTRSEND", "@CONSTREND", "@CONSTSEND")}
_ENDS = {end: what for what, ends in _LISTS.items() for end in ends}
_SENSES = {"MIN": False, "MAX": True, "MINIMIZE": False, "MAXIMIZE": True, "1": False, "-1": True}
_INDICATORS = ("N", "M", "LC", "LR", "LO", "OS", "IC", "IB")


@dataclass(frozen=True)
class Item:
    """A column or row as the file writes it, and the line."""

    text: str
    line: int


@dataclass
class Auxiliary:
    """What an auxiliary file says, not yet compared with the file that it belongs to.

    Attributes:
        source: the file.
        by_index: whether columns and rows are numbers.
        columns: the follower's columns.
        costs: the follower's objective, one number a column, in the follower's sense.
        rows: the follower's rows.
        maximise: the follower's sense.
        takes: interdiction: the leader's cost of taking each column away; empty otherwise.
        budget: interdiction: the leader's budget.
        name, mps, lp: names of the instance and of its file; empty where not stated.
    """

    source: Source
    by_index: bool
    columns: list[Item] = field(default_factory=list[Item])
    costs: list[float] = field(default_factory=list[float])
    rows: list[Item] = field(default_factory=list[Item])
    maximise: bool = False
    takes: list[float] = field(default_factory=list[float])
    budget: float | None = None
    name: str = ""
    mps: str = ""
    lp: str = ""

    @property
    def interdiction(self) -> bool:
        """Whether the leader's part is implied."""
        return self.budget is not None


def parse_auxiliary(source: Source) -> Auxiliary:
    """Read an auxiliary file of any dialect.

    Raises:
        UsageError: by file and line: an unknown keyword, a keyword twice or missing, a list without its end, a count
            that differs from what is listed, a coefficient that is missing or no number.
    """
    lines = [(n, s) for n, line in enumerate(source.lines, 1) if (s := line.strip()) and not line.startswith("*")]
    if not lines:
        raise source.fault(0, "the auxiliary file is empty.")
    return _by_name(source, lines) if lines[0][1].startswith("@") else _by_index(source, lines)


def _number(source: Source, line: int, text: str, what: str) -> float:
    value = as_number(text)
    if value is None or math.isinf(value):
        raise source.fault(line, f"expected a finite number for {what}, got {text!r}.")
    return value


def _count(source: Source, line: int, text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise source.fault(line, f"expected a number of {what}, got {text!r}.")
    return int(text)


# The name-based dialect.


def _by_name(source: Source, lines: Sequence[tuple[int, str]]) -> Auxiliary:
    found = Auxiliary(source, by_index=False)
    counts: dict[str, int] = {}
    seen: dict[str, int] = {}
    inside, waiting = "", ("", "")
    for n, text in lines:
        word, *rest = text.split(None, 1)
        key = word.upper()
        if not key.startswith("@"):
            if inside:
                _list_item(found, inside, n, text)
            elif waiting[1]:
                _state(found, counts, waiting[1], n, text)
                waiting = ("", "")
            else:
                raise source.fault(n, f"expected a keyword such as @VARSBEGIN, got {text!r}.")
            continue
        if waiting[1] or (inside and key not in _LISTS[inside]):
            after = f"{waiting[0]} has no value" if waiting[1] else f"{_LISTS[inside][0]} is missing"
            raise source.fault(n, f"{after}: {word} comes before it.")
        if key in _ENDS:
            if not inside:
                raise source.fault(n, f"{word} ends a list that has not begun.")
            inside = ""
            continue
        if key not in _KEYS:
            raise source.fault(n, f"there is no keyword {word}.{nearest(key, [*_KEYS, *_ENDS])}")
        what = _KEYS[key]
        if what in seen:
            raise source.fault(n, f"{word} repeats line {seen[what]}: leave one of them.")
        seen[what] = n
        if what in _LISTS:
            inside = what
        elif rest:
            _state(found, counts, what, n, rest[0].strip())
        else:
            waiting = (word, what)
    if inside or waiting[1]:
        end = _LISTS[inside][0] if inside else f"the value of {waiting[0]}"
        raise source.fault(0, f"the file ends without {end}: it is cut off.")
    if found.mps and found.lp:
        raise source.fault(0, "@MPS and @LP are both given: leave one of them.")
    _check_counts(source, counts, seen, found)
    return found


def _list_item(found: Auxiliary, what: str, n: int, text: str) -> None:
    """A line of a list: a name alone, or a name and its coefficient."""
    if what == "rows":
        found.rows.append(Item(text, n))
        return
    name, *coefficient = text.rsplit(None, 1)
    if not coefficient:
        raise found.source.fault(
            n, f"expected a column and its coefficient, got {text!r}. Write 0 where there is none."
        )
    found.costs.append(_number(found.source, n, coefficient[0], f"the coefficient of {name!r}"))
    found.columns.append(Item(name, n))


def _state(found: Auxiliary, counts: dict[str, int], what: str, n: int, text: str) -> None:
    """A keyword with one value."""
    if what in ("variables", "constraints"):
        counts[what] = _count(found.source, n, text, f"the follower's {what}")
    elif what == "sense":
        if text.upper() not in _SENSES:
            raise found.source.fault(n, f"expected MIN or MAX, got {text!r}.")
        found.maximise = _SENSES[text.upper()]
    else:
        setattr(found, what, text)


def _check_counts(source: Source, counts: Mapping[str, int], seen: Mapping[str, int], found: Auxiliary) -> None:
    listed = {"variables": len(found.columns), "constraints": len(found.rows)}
    keys = {"variables": "@NUMVARS", "constraints": "@NUMCONSTRS"}
    for what, count in listed.items():
        if what not in counts:
            raise source.fault(0, f"{keys[what]} is missing: the number of the follower's {what}.")
        if counts[what] != count:
            raise source.fault(seen[what], f"{keys[what]} says {counts[what]}, and {count} are listed.")


# The index-based dialect.


def _by_index(source: Source, lines: Sequence[tuple[int, str]]) -> Auxiliary:
    found = Auxiliary(source, by_index=True)
    single: dict[str, tuple[int, str]] = {}
    for n, text in lines:
        key, *values = text.split()
        key = key.upper()
        if key not in _INDICATORS:
            close = nearest(key, _INDICATORS) or f" Expected one of {', '.join(_INDICATORS)}."
            raise source.fault(n, f"there is no indicator {text.split()[0]!r}.{close}")
        if len(values) != 1:
            raise source.fault(n, f"expected {key} and one value, got {text!r}.")
        (value,) = values
        if key in ("LC", "LR"):
            (found.columns if key == "LC" else found.rows).append(Item(value, n))
        elif key in ("LO", "IC"):
            (found.costs if key == "LO" else found.takes).append(_number(source, n, value, key))
        elif key in single:
            raise source.fault(n, f"{key} repeats line {single[key][0]}: leave one of them.")
        else:
            single[key] = (n, value)
    for key, meaning in (
        ("N", "the number of the follower's columns"),
        ("M", "the number of the follower's rows"),
        ("OS", "the follower's sense, 1 to minimise or -1 to maximise"),
    ):
        if key not in single:
            raise source.fault(0, f"there is no line {key}: {meaning}.")
    n, text = single["OS"]
    sense = _number(source, n, text, "OS")
    if abs(sense) != 1.0:
        raise source.fault(n, f"expected 1 (minimise) or -1 (maximise) for OS, got {text!r}.")
    found.maximise = sense < 0
    if ("IB" in single) != bool(found.takes):
        missing = "IC, the cost of taking each column" if "IB" in single else "IB, the leader's budget"
        raise source.fault(0, f"an interdiction problem has IC and IB, and there is no line {missing}.")
    if "IB" in single:
        found.budget = _number(source, *single["IB"], "IB")
    of = {
        "N": [("LC", len(found.columns)), ("LO", len(found.costs))],
        "M": [("LR", len(found.rows))],
    }
    if found.takes:
        of["N"].append(("IC", len(found.takes)))
    for key, lists in of.items():
        n, text = single[key]
        count = _count(source, n, text, "columns" if key == "N" else "rows")
        for name, there in lists:
            if there != count:
                raise source.fault(n, f"{key} says {count}, and there are {there} lines {name}.")
    return found


# Comparing with the file that it belongs to.


def resolve(found: Auxiliary, file: LinearFile) -> tuple[list[int], list[int]]:
    """The numbers of the follower's columns and rows in the file.

    Raises:
        UsageError: by file and line: a name or number that the file does not have, or one that is given twice.
    """
    columns = [c.name for c in file.columns]
    return (
        _numbers(found, found.columns, columns, "column", {}, file),
        _numbers(found, found.rows, file.rows, "row", file.dropped, file),
    )


def _numbers(
    found: Auxiliary,
    items: Iterable[Item],
    names: Sequence[str],
    kind: str,
    dropped: Mapping[str, str],
    file: LinearFile,
) -> list[int]:
    position = {name: k for k, name in enumerate(names)}
    find = _by_number_or_name(position, len(names), kind) if found.by_index else position.get
    out: list[int] = []
    lines: dict[int, int] = {}
    for item in items:
        try:
            k = find(item.text)
        except ValueError as error:
            raise found.source.fault(item.line, str(error)) from None
        if k is None:
            if item.text in dropped:
                raise found.source.fault(item.line, f"row {item.text!r} {dropped[item.text]}: it is no constraint.")
            hint = nearest(item.text, names)
            raise found.source.fault(item.line, f"{file.path.name} has no {kind} {item.text!r}.{hint}")
        if k in lines:
            raise found.source.fault(item.line, f"{kind} {item.text!r} repeats line {lines[k]}.")
        lines[k] = item.line
        out.append(k)
    return out


def _by_number_or_name(position: Mapping[str, int], count: int, kind: str) -> Callable[[str], int | None]:
    """A lookup of numbers; names are taken too, as MibS can be told to, unless they look like other numbers."""

    def find(text: str) -> int | None:
        named = position.get(text)
        if not (text.isascii() and text.isdigit()):
            return named
        k = int(text)
        if named is not None and named != k:
            raise ValueError(
                f"{text!r} may be the number of a {kind} or the name of another: use the name-based dialect."
            )
        if k >= count:
            raise ValueError(f"there are {count} {kind}s, counted from 0: number {k} is beyond them.")
        return k

    return find
