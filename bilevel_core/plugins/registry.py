"""What all plugins offer, by name. Built once a process, from descriptions only: nothing heavy is imported.

A plugin counts as a whole: if one of its registration hooks raises or returns a wrong thing, all of it is off. A name
that our own distribution uses cannot be taken; of two strangers that offer one name neither gets it, so that what a
name means never depends on the order of installation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from bilevel_core.errors import MissingError, unknown
from bilevel_core.plugins.manager import OWN, Manager, PluginError, PluginInfo
from bilevel_core.plugins.specs import (
    BackendSpec,
    CheckSpec,
    CommandSpec,
    DoctorSpec,
    ExecutorSpec,
    ExporterSpec,
    FigureSpec,
    LoaderSpec,
    ProblemSpec,
    ReformulationSpec,
    ReporterSpec,
    SolverSpec,
    Spec,
)

_KINDS: dict[str, tuple[str, type[Spec], str]] = {
    "problems": ("bilevel_problems", ProblemSpec, "problem"),
    "solvers": ("bilevel_solvers", SolverSpec, "solver"),
    "reformulations": ("bilevel_reformulations", ReformulationSpec, "reformulation"),
    "backends": ("bilevel_backends", BackendSpec, "backend"),
    "loaders": ("bilevel_loaders", LoaderSpec, "loader"),
    "exporters": ("bilevel_exporters", ExporterSpec, "exporter"),
    "reporters": ("bilevel_reporters", ReporterSpec, "reporter"),
    "figures": ("bilevel_figures", FigureSpec, "figure"),
    "checks": ("bilevel_checks", CheckSpec, "check"),
    "executors": ("bilevel_executors", ExecutorSpec, "executor"),
    "commands": ("bilevel_commands", CommandSpec, "command"),
    "doctors": ("bilevel_doctor", DoctorSpec, "doctor line"),
}
"""Field of `Registry` -> hook, the type that it returns, and what one of them is called."""


@dataclass
class Registry:
    """Everything on offer in this process, each table by name.

    Attributes:
        problems, solvers, reformulations, backends, loaders, exporters, reporters, figures, checks, executors,
            commands, doctors: the descriptions.
        owners: for each table's name and each name in it, the plugin that offers it.
    """

    manager: Manager
    problems: dict[str, ProblemSpec] = field(default_factory=dict[str, ProblemSpec])
    solvers: dict[str, SolverSpec] = field(default_factory=dict[str, SolverSpec])
    reformulations: dict[str, ReformulationSpec] = field(default_factory=dict[str, ReformulationSpec])
    backends: dict[str, BackendSpec] = field(default_factory=dict[str, BackendSpec])
    loaders: dict[str, LoaderSpec] = field(default_factory=dict[str, LoaderSpec])
    exporters: dict[str, ExporterSpec] = field(default_factory=dict[str, ExporterSpec])
    reporters: dict[str, ReporterSpec] = field(default_factory=dict[str, ReporterSpec])
    figures: dict[str, FigureSpec] = field(default_factory=dict[str, FigureSpec])
    checks: dict[str, CheckSpec] = field(default_factory=dict[str, CheckSpec])
    executors: dict[str, ExecutorSpec] = field(default_factory=dict[str, ExecutorSpec])
    commands: dict[str, CommandSpec] = field(default_factory=dict[str, CommandSpec])
    doctors: dict[str, DoctorSpec] = field(default_factory=dict[str, DoctorSpec])
    owners: dict[tuple[str, str], PluginInfo] = field(default_factory=dict[tuple[str, str], PluginInfo])
    _contested: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    _shown: int = 0

    @property
    def infos(self) -> dict[str, PluginInfo]:
        """Every plugin that was found, also those that are broken or disabled, by name."""
        return self.manager.infos

    @property
    def warnings(self) -> list[str]:
        """Everything that went wrong with plugins so far, in sentences for people, oldest first."""
        return self.manager.warnings

    def new_warnings(self) -> list[str]:
        """The warnings added since the last call, so that each is shown once."""
        new = self.warnings[self._shown :]
        self._shown = len(self.warnings)
        return new

    def emit(self, hook: str, **arguments: Any) -> list[Any]:
        """Call an observer hook of every active plugin, one at a time; returns their answers other than None.

        A plugin that raises is switched off for the rest of the process and reported once; the others go on.

        Raises:
            ValueError: if ``hook`` is not an observer hook or takes other arguments.
        """
        return self.manager.emit(hook, **arguments)

    def find(self, table: str, name: str) -> Spec:
        """The description with this name in one of the tables.

        Raises:
            UsageError: there is none; the message gives the nearest names.
            MissingError: several plugins offer the name, so none of them gets it.
        """
        specs = cast("dict[str, Spec]", getattr(self, table))
        if name in specs:
            return specs[name]
        if (table, name) in self._contested:
            raise MissingError(self._contested[table, name])
        raise unknown(_KINDS[table][2], name, specs)

    def _add(self, table: str, name: str, offers: list[tuple[PluginInfo, Spec]]) -> None:
        """Give a name to its only offer, or to ours, or to nobody."""
        word = _KINDS[table][2]
        ours = [offer for offer in offers if offer[0].dist == OWN]
        if len(offers) > 1:
            who = " and ".join(f"plugin {info.origin}" for info, _ in offers)
            if len(ours) == 1:
                text = f"The {word} name {name!r} is offered by {who}; the one of bilevel is used."
            else:
                text = f"The {word} name {name!r} is offered by {who}; none of them is used. Disable one of them: "
                text += f"BILEVEL_DISABLE_PLUGINS={offers[0][0].name}"
                self._contested[table, name] = text
            self.manager.conflict(text)
        chosen = ours if len(ours) == 1 else offers
        if len(chosen) == 1:
            info, spec = chosen[0]
            cast("dict[str, Spec]", getattr(self, table))[name] = spec
            self.owners[table, name] = info


def get_registry(fresh: bool = False, extra: Iterable[tuple[str, Any]] = ()) -> Registry:
    """The registry of this process, built on the first call.

    Args:
        fresh: build it anew: look for plugins again and read the environment again.
        extra: pairs of a name and a plugin (module or object), registered as if they were installed. For tests.
            Giving any builds the registry anew.

    The registry built last is what later calls get; after a test with ``extra``, call ``get_registry(fresh=True)``.

    Raises:
        Exception: whatever a plugin raises, where ``BILEVEL_STRICT_PLUGINS`` is set.
    """
    global _current
    given = tuple(extra)
    if _current is None or fresh or given:
        _current = _build(given)
    return _current


_current: Registry | None = None


def _build(extra: Iterable[tuple[str, Any]]) -> Registry:
    manager = Manager(extra)
    registry = Registry(manager)
    offers: dict[tuple[str, str], list[tuple[PluginInfo, Spec]]] = {}
    for info in manager.infos.values():
        for table, name, spec in _offered(manager, info):
            offers.setdefault((table, name), []).append((info, spec))
    for (table, name), got in offers.items():
        registry._add(table, name, got)  # pyright: ignore[reportPrivateUsage] - the builder of the class
    return registry


def _offered(manager: Manager, info: PluginInfo) -> list[tuple[str, str, Spec]]:
    """All that one plugin offers, or nothing if any of it is wrong."""
    found: list[tuple[str, str, Spec]] = []
    for table, (hook, kind, word) in _KINDS.items():
        for spec in manager.collect(hook, info):
            wrong = _fault(spec, hook, kind)
            if not wrong and (table, spec.name) in {(t, n) for t, n, _ in found}:
                wrong = f"{hook} offers the {word} name {spec.name!r} twice."
            if wrong:
                manager.fail(info, PluginError(wrong), "it returned a wrong thing")
                return []
            found.append((table, spec.name, spec))
    return found if info.status == "active" else []


def _fault(spec: Any, hook: str, kind: type[Spec]) -> str:
    """What is wrong with one item that a hook returned; "" when nothing is."""
    if not isinstance(spec, kind):
        return f"{hook} returned a wrong thing. Expected {kind.__name__}, got {type(spec).__name__}: {spec!r:.80}."
    for name in ("name", "factory"):
        value: Any = getattr(spec, name)
        if not isinstance(value, str) or not value:
            return f"{hook} returned a {kind.__name__} whose {name} is {value!r}. Expected a text."
    module, _, attribute = spec.factory.partition(":")
    if not module or not attribute:
        return f"{hook}, {spec.name!r}: factory is {spec.factory!r}. Expected 'module:attribute'."
    return ""
