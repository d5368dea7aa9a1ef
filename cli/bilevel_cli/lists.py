"""`bilevel problems`, `solvers`, `backends`, `plugins list` and `plugins hooks`."""

from __future__ import annotations

import inspect
from typing import Any

from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_cli.reference import modules_here
from bilevel_core.errors import BilevelError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import ProblemSpec
from bilevel_core.run.options import REQUIRED, OptionInfo, describe


def show_problems(name: str | None, *, as_json: bool) -> None:
    """The library, or one problem."""
    echo_warnings()
    registry = get_registry()
    if name is not None:
        spec = registry.find("problems", name)
        assert isinstance(spec, ProblemSpec)
        _one_problem(spec, as_json=as_json)
        return
    rows = [
        {
            "name": s.name,
            "class": sorted(s.tags),
            "optimum": _optimum(s),
            "needs": s.needs,
            "summary": s.summary,
        }
        for s in sorted(registry.problems.values(), key=lambda s: s.name)
    ]
    _show(rows, as_json=as_json)
    if not as_json and any(r["needs"] for r in rows):
        echo("\nneeds: the kind of solver that settles the problem; optimality conditions (kkt) do not.")


def _optimum(spec: ProblemSpec) -> float | str | None:
    """The known optimal value; for a problem without a solution, how a correct run ends."""
    if spec.known is None:
        return None
    return spec.known.termination if spec.known.upper_objective is None else spec.known.upper_objective


def _one_problem(spec: ProblemSpec, *, as_json: bool) -> None:
    options = [_option(o) for o in describe(spec.load())]
    known = spec.known
    data: dict[str, Any] = {
        "name": spec.name,
        "summary": spec.summary,
        "tags": sorted(spec.tags),
        "needs": spec.needs,
        "optimum": None if known is None else known.upper_objective,
        "termination": None if known is None else known.termination,
        "source": "" if known is None else known.source,
        "parameters": options,
    }
    if as_json:
        echo_json(data)
        return
    from bilevel_core.report import aligned, number, table

    optimum = "" if known is None else known.termination if known.upper_objective is None else ""
    if known is not None and known.upper_objective is not None:
        optimum = number(known.upper_objective)
    facts = [("optimum", optimum), ("source", data["source"]), ("tags", ", ".join(data["tags"])), ("needs", spec.needs)]
    echo("\n".join([f"{spec.name}: {spec.summary}", *aligned(facts)]))
    if options:
        echo("\n".join(["", "parameters (-p name=value)", *table(options)]))


def show_solvers(name: str | None, *, as_json: bool) -> None:
    """All solvers, or one with its options."""
    echo_warnings()
    registry = get_registry()
    if name is None:
        specs = sorted(registry.solvers.values(), key=lambda s: (-s.priority, s.name))
        _show([{"name": s.name, "summary": s.summary} for s in specs], as_json=as_json)
        return
    from bilevel_core.choose import find_solver

    modules_here(name)
    name, factory = find_solver(name, registry)
    summary = registry.solvers[name].summary if name in registry.solvers else ""
    options = [_option(o) for o in describe(factory)]
    about = inspect.getdoc(factory) or summary
    if as_json:
        echo_json({"name": name, "summary": summary, "about": about, "options": options})
        return
    from bilevel_core.report import table

    echo("\n".join([f"{name}: {summary}" if summary else name, "", about]))
    if options:
        echo("\n".join(["", "options (-o name=value)", *table(options)]))


def show_backends(*, as_json: bool) -> None:
    """All backends, each after a smoke solve."""
    echo_warnings()
    _show(backend_rows(), as_json=as_json)


def backend_rows() -> list[dict[str, Any]]:
    """Name, version, whether it works, and what it is for or why it does not."""
    rows: list[dict[str, Any]] = []
    for spec in get_registry().backends.values():
        try:
            state = spec.load()().available()
        except BilevelError as error:
            rows.append({"name": spec.name, "works": False, "version": "", "about": str(error)})
            continue
        except Exception as error:  # noqa: BLE001 - a plugin's backend that breaks must not hide the others
            about = f"{type(error).__name__}: {error}"
            rows.append({"name": spec.name, "works": False, "version": "", "about": about})
            continue
        about = spec.summary if state.available else state.reason
        rows.append({"name": spec.name, "works": state.available, "version": state.version, "about": about})
    return rows


def show_plugins(*, as_json: bool) -> None:
    """All plugins that were found, whatever their state."""
    _show(plugin_rows(), as_json=as_json)
    echo_warnings()


def plugin_rows() -> list[dict[str, Any]]:
    """Name, distribution, version, status, hooks, error."""
    return [
        {
            "name": i.name,
            "distribution": i.dist,
            "version": i.version,
            "status": i.status,
            "hooks": [h.removeprefix("bilevel_") for h in i.hooks],
            "error": i.error,
        }
        for i in get_registry().infos.values()
    ]


def show_hooks(*, as_json: bool) -> None:
    """All hooks with their arguments and the first line of what they are for."""
    from bilevel_core.plugins import hookspecs
    from bilevel_core.plugins.manager import HOOKS

    rows = [
        {
            "hook": f"{name}({', '.join(arguments)})",
            "about": (inspect.getdoc(getattr(hookspecs, name)) or "").splitlines()[0],
        }
        for name, arguments in HOOKS.items()
    ]
    _show(rows, as_json=as_json)


def _option(info: OptionInfo) -> dict[str, Any]:
    default = "required" if info.default is REQUIRED else info.default
    if isinstance(default, dict) and not default:
        default = None
    return {"name": info.name, "type": info.type_text, "default": default, "help": info.help}


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        from bilevel_core.result import plain

        echo_json(plain(rows))
        return
    from bilevel_core.report import table

    echo("\n".join(table(rows, indent="", limit=len(rows))))
