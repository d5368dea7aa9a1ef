"""Finding, loading and calling plugins, one by one: what one of them does wrong costs only that one.

What the plugins offer, by name, lives in `bilevel_core.plugins.registry`.

Environment, read when a manager is made (``0``, ``false``, ``no``, ``off`` and the empty text mean off):

- ``BILEVEL_NO_PLUGINS=1``: only the plugins of the distribution ``bilevel`` itself are loaded, as nothing would work
  without them; all others are listed as disabled, and their code is not imported.
- ``BILEVEL_DISABLE_PLUGINS=a,b``: these plugins are not loaded, whoever they belong to. Both ``name`` and
  ``name@distribution`` are understood.
- ``BILEVEL_STRICT_PLUGINS=1``: the first failure is raised instead of recorded, for plugin authors and their tests.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import pluggy

from bilevel_core.errors import MissingError
from bilevel_core.hooks import HOOK_API, PROJECT
from bilevel_core.plugins import hookspecs

OWN = "bilevel"
"""Name of our own distribution. Its plugins load first, and names that they take stay theirs."""

GIVEN = "(given)"
"""Stands for the distribution of plugins that are handed over instead of found."""

Status = Literal["active", "broken", "disabled"]


class PluginError(MissingError):
    """A plugin breaks the rules of the host: wrong hook, wrong return, name that is taken."""


@dataclass
class PluginInfo:
    """One plugin that was found.

    Attributes:
        name: its entry-point name; ``name@distribution`` where several distributions use the same.
        dist: the distribution that it belongs to.
        version: that distribution's version; "" when its metadata has none.
        status: ``active``, ``broken`` (see `error`; nothing of it is used) or ``disabled`` (never imported).
        hooks: names of the hooks that it implements, sorted.
        error: what is wrong with it, one line; "" when nothing is.
        load_ms: milliseconds that importing and registering it took.
        trace: the traceback of the failure, for authors; "" when there is none.
    """

    name: str
    dist: str
    version: str = ""
    status: Status = "active"
    hooks: list[str] = field(default_factory=list[str])
    error: str = ""
    load_ms: float = 0.0
    trace: str = field(default="", repr=False)

    @property
    def origin(self) -> str:
        """Name, distribution and version, as messages call it."""
        version = f" {self.version}" if self.version else ""
        return f"{self.name!r} of {self.dist}{version}"


@dataclass(frozen=True)
class _Found:
    """A plugin before it is imported. ``value`` is the text of its entry point."""

    name: str
    dist: str
    version: str
    value: str
    load: Callable[[], Any]


class Manager:
    """The plugins of this process.

    Args:
        extra: pairs of a name and a plugin (module or object), treated like installed plugins of a stranger.

    Attributes:
        infos: every plugin that was found, by its unique name; our own first, then by distribution.
        warnings: what went wrong, in sentences for people.
    """

    def __init__(self, extra: Iterable[tuple[str, Any]] = ()) -> None:
        self.infos: dict[str, PluginInfo] = {}
        self.warnings: list[str] = []
        self.strict = _switch("BILEVEL_STRICT_PLUGINS")
        self._host = pluggy.PluginManager(PROJECT)
        self._host.add_hookspecs(hookspecs)
        given = [_Found(n, GIVEN, "", "", lambda p=plugin: p) for n, plugin in extra]
        self._load_all([*self._find(), *given])

    def collect(self, hook: str, info: PluginInfo) -> list[Any]:
        """What one plugin's registration hook returns; empty when it has none, is off, or fails (which is recorded).

        Raises:
            ValueError: if ``hook`` is not a registration hook.
        """
        self._check_arguments(hook, {})
        found: list[Any] = []
        for implementation in self._implementations(hook):
            if implementation.plugin_name == info.name and info.status == "active":
                try:
                    found.extend(_items(hook, implementation.function()))
                except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's failure must cost only itself
                    self.fail(info, error, f"its hook {hook} failed")
                    return []
        return found

    def emit(self, hook: str, **arguments: Any) -> list[Any]:
        """Call an observer hook of every active plugin, one at a time; returns their answers other than None.

        A plugin that raises is switched off for the rest of the process and reported once; the others go on.

        Raises:
            ValueError: if ``hook`` is not an observer hook or takes other arguments.
        """
        if not arguments:
            raise ValueError(f"{hook!r} without arguments: registration hooks are read through the registry.")
        self._check_arguments(hook, arguments)
        answers: list[Any] = []
        # pluggy keeps the implementation that is to be called first at the end.
        for implementation in reversed(self._implementations(hook)):
            info = self.infos[implementation.plugin_name]
            try:
                answer: Any = implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's failure must cost only itself
                self.fail(info, error, f"its hook {hook} failed")
                continue
            if answer is not None:
                answers.append(answer)
        return answers

    def fail(self, info: PluginInfo, error: BaseException, what: str) -> None:
        """Record a plugin as broken and take all of it out of use. Raises instead in strict mode."""
        if self.strict:
            _raise(error, f"Plugin {info.origin}: {what}")
        reason = _one_line(error)
        info.status = "broken"
        info.error = reason if isinstance(error, PluginError) else f"{what}: {reason}"
        info.trace = "".join(traceback.format_exception(error))
        if self._host.has_plugin(info.name):
            self._host.unregister(name=info.name)
        self.warn(f"Plugin {info.origin} is switched off: {info.error}")

    def warn(self, text: str) -> None:
        """Keep a sentence for people."""
        self.warnings.append(text)

    def conflict(self, text: str) -> None:
        """Keep a sentence on two plugins that contradict each other. Raises in strict mode.

        Raises:
            PluginError: in strict mode.
        """
        if self.strict:
            raise PluginError(text)
        self.warn(text)

    def _find(self) -> list[_Found]:
        """All entry points of our group; of one distribution found twice on the path, the first counts."""
        own: list[_Found] = []
        others: list[_Found] = []
        seen: set[str] = set()
        for dist in distributions():
            try:
                points = [p for p in dist.entry_points if p.group == PROJECT]
                if not points:
                    continue
                name, version = _identity(dist)
            except Exception as error:  # noqa: BLE001 - one damaged installation must not hide the others
                self.warn(f"The metadata of {_place(dist)} cannot be read and is passed over: {_one_line(error)}")
                continue
            if _normal(name) in seen:
                continue
            seen.add(_normal(name))
            (own if _normal(name) == OWN else others).extend(_found(p, name, version) for p in points)
        if not own:
            self.warn(
                "The distribution 'bilevel' is not installed, so only the core's own parts are loaded. "
                "Install it with: pip install bilevel (or pip install -e . in its source folder)"
            )
            core = EntryPoint("builtin", "bilevel_core.plugins.builtin", PROJECT)
            own.append(_found(core, OWN, ""))
        return own + sorted(others, key=lambda f: (_normal(f.dist), f.name))

    def _load_all(self, found: list[_Found]) -> None:
        only_own = _switch("BILEVEL_NO_PLUGINS")
        off = {n.strip() for n in os.environ.get("BILEVEL_DISABLE_PLUGINS", "").split(",") if n.strip()}
        unused = set(off)
        for plugin, key in zip(found, self._keys(found), strict=True):
            info = self.infos[key] = PluginInfo(key, plugin.dist, plugin.version)
            hit = off & {key, plugin.name, f"{plugin.name}@{plugin.dist}"}
            unused -= hit
            if hit or (only_own and plugin.dist != OWN):
                info.status = "disabled"
                continue
            start = time.perf_counter()
            self._load(plugin, info)
            info.load_ms = round((time.perf_counter() - start) * 1e3, 1)
        for name in sorted(unused):
            close = difflib.get_close_matches(name, list(self.infos), n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}?" if close else f" Installed: {', '.join(self.infos)}."
            self.warn(f"BILEVEL_DISABLE_PLUGINS names {name!r}, which is no installed plugin.{hint}")

    def _keys(self, found: list[_Found]) -> list[str]:
        """A unique name for each. Ours keep theirs; strangers that use one that is taken get ``name@distribution``."""
        sharing: dict[str, list[_Found]] = {}
        for plugin in found:
            sharing.setdefault(plugin.name, []).append(plugin)
        for name, plugins in sharing.items():
            if len(plugins) > 1:
                several = len({p.dist for p in plugins}) > 1
                who = " and ".join(p.dist if several else f"{p.value} ({p.dist})" for p in plugins)
                keeps = f" That of {OWN} keeps the name." if plugins[0].dist == OWN else ""
                self.conflict(
                    f"Several plugins are named {name!r}: those of {who}.{keeps} All are loaded, strangers under "
                    "name@distribution. Their authors should choose other entry-point names."
                )
        keys: list[str] = []
        for plugin in found:
            alone = len(sharing[plugin.name]) == 1
            key = plugin.name if alone or plugin.dist == OWN else f"{plugin.name}@{plugin.dist}"
            count = 1
            unique = key
            while unique in keys:
                count += 1
                unique = f"{key}#{count}"
            keys.append(unique)
        return keys

    def _load(self, found: _Found, info: PluginInfo) -> None:
        try:
            plugin = found.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's failure must cost only itself
            self.fail(info, error, "it cannot be imported")
            return
        try:
            _check_api(plugin, info)
            info.hooks = sorted(self._hooks(plugin))
            self._host.register(plugin, name=info.name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - looking at a plugin's attributes may run its code
            self.fail(info, error, "it cannot be registered")
            return
        for name in _unmarked(plugin, info.hooks):
            self.warn(f"Plugin {info.origin} defines {name} without @hookimpl, so it is never called.")

    def _hooks(self, plugin: Any) -> Iterator[str]:
        """Names of the plugin's hooks, each checked against our specification."""
        for attribute in dir(plugin):
            options = self._host.parse_hookimpl_opts(plugin, attribute)
            if options is None:
                continue
            name = options.get("specname") or attribute
            if name not in HOOKS:
                if options.get("optionalhook"):
                    continue
                close = difflib.get_close_matches(name, list(HOOKS), n=1, cutoff=0.5)
                hint = f"did you mean {close[0]!r}?" if close else "`bilevel plugins hooks` lists them."
                raise PluginError(f"{name!r} is marked as a hook, and there is no such hook; {hint}")
            if options.get("hookwrapper") or options.get("wrapper"):
                raise PluginError(f"{name} is a hook wrapper; plugins are called apart, so there is nothing to wrap.")
            given = [p.name for p in inspect.signature(getattr(plugin, attribute)).parameters.values()]
            wrong = [p for p in given if p not in HOOKS[name]]
            if wrong:
                takes = f"Expected some of ({', '.join(HOOKS[name])})" if HOOKS[name] else "Expected no arguments"
                raise PluginError(f"{name} has a wrong signature. {takes}, got ({', '.join(given)}).")
            yield name

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        return list(cast("pluggy.HookCaller", getattr(self._host.hook, hook)).get_hookimpls())

    def _check_arguments(self, hook: str, arguments: dict[str, Any]) -> None:
        if hook not in HOOKS or set(HOOKS[hook]) != set(arguments):
            takes = ", ".join(HOOKS[hook]) if hook in HOOKS else "nothing: there is no such hook"
            raise ValueError(f"{hook!r} takes {takes}. Got: {', '.join(arguments) or 'nothing'}.")


def _hook_arguments() -> dict[str, tuple[str, ...]]:
    functions = inspect.getmembers(hookspecs, inspect.isfunction)
    return {n: tuple(inspect.signature(f).parameters) for n, f in functions if n.startswith(f"{PROJECT}_")}


HOOKS: dict[str, tuple[str, ...]] = _hook_arguments()
"""Every hook and the names of its arguments."""


def _switch(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")


def _normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _found(point: EntryPoint, dist: str, version: str) -> _Found:
    return _Found(point.name, OWN if _normal(dist) == OWN else dist, version, point.value, point.load)


def _identity(dist: Distribution) -> tuple[str, str]:
    """Name and version. Where the metadata has no name, the folder's name stands in."""
    # Damaged metadata gives None here, whatever the type stubs promise.
    metadata = cast("Any", dist.metadata)
    name: Any = metadata["Name"] if metadata is not None and "Name" in metadata else None
    version: Any = metadata["Version"] if metadata is not None and "Version" in metadata else None
    return str(name or _place(dist).name.partition("-")[0]), str(version or "")


def _place(dist: Distribution) -> Path:
    """The folder that holds the distribution's metadata."""
    return Path(str(getattr(dist, "_path", "an unknown distribution")))


def _one_line(error: BaseException) -> str:
    """Type and first line of an exception; our own errors speak for themselves."""
    lines = str(error).strip().splitlines()
    if isinstance(error, MissingError) and lines:
        return lines[0]
    if isinstance(error, SystemExit):
        return f"it tried to end the program (SystemExit: {error.code})"
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _raise(error: BaseException, what: str) -> NoReturn:
    """Raise on. A SystemExit would end the caller's process, perhaps with success, so it is wrapped."""
    if isinstance(error, SystemExit):
        raise PluginError(f"{what}: {_one_line(error)}") from error
    error.add_note(what)
    raise error


def _items(hook: str, answer: Any) -> list[Any]:
    """The items of what a registration hook returned; None counts as nothing."""
    if answer is None:
        return []
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Iterable):
        raise PluginError(f"{hook} returned a wrong thing. Expected a list of specs, got {type(answer).__name__}.")
    return list(cast("Iterable[Any]", answer))


def _check_api(plugin: Any, info: PluginInfo) -> None:
    if plugin is None:
        raise PluginError("its entry point names None. Expected a module or an object with hooks.")
    needs: Any = getattr(plugin, "BILEVEL_HOOK_API", HOOK_API)
    if needs != HOOK_API:
        remedy = f"update {info.dist}" if not isinstance(needs, int) or needs < HOOK_API else "update bilevel"
        raise PluginError(f"it is written for hook API {needs!r}, this bilevel has {HOOK_API}; {remedy}.")


def _unmarked(plugin: Any, hooks: Iterable[str]) -> list[str]:
    """Functions with the name of a hook, defined in the plugin's own module, that lack the marker."""
    if not inspect.ismodule(plugin):
        return []
    found = {n: f for n, f in vars(plugin).items() if n in HOOKS and n not in set(hooks)}
    return [n for n, f in found.items() if inspect.isfunction(f) and f.__module__ == plugin.__name__]
