"""Options and parameters: from text or Python values to what a dataclass or a function declares, checked.

The declaration is the annotated fields or keyword parameters themselves; there is no second list of options. How each
type is read lives in `bilevel_core.run.values`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bilevel_core.errors import UsageError, unknown
from bilevel_core.run.values import WrongValue, coerce, is_table, type_text


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()
"""Stands where an option has no default."""

Target = type[Any] | Callable[..., Any]


@dataclass(frozen=True)
class OptionInfo:
    """One option, for listings.

    Attributes:
        name: its name.
        type_text: its type in words of the command line: ``float``, ``sos1|bigm``, ``int,int,...``.
        default: its default; `REQUIRED` when it has none.
        help: one sentence: a dataclass field's ``metadata["help"]``, or the entry of the docstring.
    """

    name: str
    type_text: str
    default: Any
    help: str


@dataclass(frozen=True)
class _Option:
    name: str
    annotation: Any
    default: Any
    help: str


def read(
    target: Target,
    given: Mapping[str, Any],
    *,
    kind: str = "option",
    owner: str = "",
    skip: Collection[str] = (),
) -> dict[str, Any]:
    """Check and convert options for a dataclass type or a function with annotated keyword parameters.

    Text is converted to the annotated type, other values must have it. ``table.KEY`` sets one entry of an option that
    is a dictionary. A dash in a name counts as an underscore.

    Args:
        target: what the options are for.
        given: options by name: text as from ``KEY=VALUE``, or Python values.
        kind: what messages call them: ``option``, ``parameter``.
        owner: what messages say they belong to, such as ``solver 'kkt'``.
        skip: names that the caller passes itself, such as the path of a loader; they are not options.

    Returns:
        The options given, converted; those left out keep the defaults of the target.

    Raises:
        UsageError: unknown name (with the nearest one), wrong type, not among the allowed values, given twice, or
            missing without a default. Also if the target's annotations cannot be read.
    """
    options, rest = _declared(target, skip)
    of = f" of {owner}" if owner else ""
    found: dict[str, Any] = {}
    for raw, value in given.items():
        name, dot, entry = raw.partition(".")
        name = name if name in options else name.replace("-", "_")
        option = options.get(name)
        if option is None and rest is not None and not dot and name not in skip:
            option = _Option(name, rest, REQUIRED, "")
        if option is None:
            raise _unknown(name, options, kind, owner)
        label = f"{kind.capitalize()} {raw!r}{of}"
        if dot:
            if not is_table(option.annotation):
                raise UsageError(f"{label}: {name!r} has no entries. Expected {name}=VALUE, got {raw}={value}.")
            if not entry:
                raise UsageError(f"{label}: the entry has no name. Expected {name}.KEY=VALUE.")
            value = {entry: value}
        try:
            converted = coerce(option.annotation, value)
        except WrongValue as error:
            raise UsageError(f"{label}: {error}") from error
        if name in found:
            before, now = found[name], converted
            # Entries of a table come one by one; anything else comes once, whichever way its name is written.
            if not isinstance(before, dict) or not isinstance(now, dict) or set(before) & set(now):
                raise UsageError(f"{label} is given twice. Leave one of them out.")
            converted = {**before, **now}
        found[name] = converted
    missing = [o for o in options.values() if o.default is REQUIRED and o.name not in found]
    if missing:
        names = ", ".join(f"{o.name} ({type_text(o.annotation)})" for o in missing)
        raise UsageError(f"{_subject(owner)} needs the {kind}{'s' * (len(missing) > 1)} {names}.")
    return found


def describe(target: Target, *, skip: Collection[str] = ()) -> list[OptionInfo]:
    """The options of a dataclass type or a function, in the order in which they are declared.

    Raises:
        UsageError: if the target's annotations cannot be read.
    """
    options, _ = _declared(target, skip)
    return [OptionInfo(o.name, type_text(o.annotation), o.default, o.help) for o in options.values()]


def _unknown(name: str, options: Mapping[str, _Option], kind: str, owner: str) -> UsageError:
    if not options:
        return UsageError(f"{_subject(owner)} takes no {kind}s. Got {name!r}; leave it out.")
    see = f"{_subject(owner)} takes: {', '.join(options)}." if owner else ""
    error = unknown(kind, name, options)
    if not see:
        return error
    # With few options the message has listed them already.
    before, known, _ = str(error).partition(" Known:")
    return UsageError(f"{before if known else error} {see}")


def _subject(owner: str) -> str:
    return owner[:1].upper() + owner[1:] if owner else "This"


def _declared(target: Target, skip: Collection[str]) -> tuple[dict[str, _Option], Any]:
    """The options by name, and the annotation of further keyword parameters (None when there may be none)."""
    name = getattr(target, "__qualname__", repr(target))
    try:
        hints = typing.get_type_hints(target)
    except (NameError, TypeError) as error:
        raise UsageError(
            f"The annotations of {name} cannot be read: {error}. "
            "Names in them must be imported at run time, not only for type checkers."
        ) from error
    texts = documented(target)
    if dataclasses.is_dataclass(target):
        return {
            f.name: _Option(f.name, hints[f.name], _default(f), str(f.metadata.get("help") or texts.get(f.name, "")))
            for f in dataclasses.fields(target)
            if f.init and f.name not in skip
        }, None
    if isinstance(target, type):
        raise UsageError(f"{name} declares no options. Expected a dataclass or a function, got another class.")
    options: dict[str, _Option] = {}
    rest: Any = None
    for p in inspect.signature(target).parameters.values():
        if p.kind is p.VAR_KEYWORD:
            rest = hints.get(p.name, Any)
        elif p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in skip:
            default = REQUIRED if p.default is p.empty else p.default
            options[p.name] = _Option(p.name, hints.get(p.name, Any), default, texts.get(p.name, ""))
    return options, rest


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default is not dataclasses.MISSING:
        return f.default
    return REQUIRED if f.default_factory is dataclasses.MISSING else f.default_factory()


def documented(target: Target) -> dict[str, str]:
    """Texts by name from the ``Args:`` or ``Attributes:`` section of a docstring."""
    section = re.search(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)+)", inspect.getdoc(target) or "", re.MULTILINE)
    found: dict[str, str] = {}
    if section is None:
        return found
    lines = section.group(1).splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    names: list[str] = []
    for line in lines:
        depth = len(line) - len(line.lstrip())
        entry = re.match(r"([\w, ]+?)(?: \([^)]*\))?:\s*(.*)", line.strip()) if depth == indent else None
        if entry:
            names = [n.strip() for n in entry.group(1).split(",")]
            found.update(dict.fromkeys(names, entry.group(2)))
        elif line.strip():
            found.update({n: f"{found[n]} {line.strip()}" for n in names})
    return found
