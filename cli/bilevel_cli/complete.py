"""What the shell's tab key offers: names from the registry, which imports nothing heavy, and files."""

from __future__ import annotations

from pathlib import Path


def problem(incomplete: str) -> list[str]:
    """Registered problems, and files here that may hold one."""
    from bilevel_core.plugins.registry import get_registry

    registry = get_registry()
    endings = {".py", *(s for spec in registry.loaders.values() for s in spec.suffixes)}
    return [n for n in registry.problems if n.startswith(incomplete)] + _paths(incomplete, tuple(endings))


def registered_problem(incomplete: str) -> list[str]:
    """Registered problems."""
    return _names("problems", incomplete)


def solver(incomplete: str) -> list[str]:
    """Solvers, and ``auto``."""
    return [n for n in ("auto", *_names("solvers", "")) if n.startswith(incomplete)]


def registered_solver(incomplete: str) -> list[str]:
    """Solvers."""
    return _names("solvers", incomplete)


def figure(incomplete: str) -> list[str]:
    """Figures of runs."""
    return _names("figures", incomplete)


def form(incomplete: str) -> list[str]:
    """Output formats, those of plugins among them."""
    return [n for n in ("text", "json", "jsonl", *_names("reporters", "")) if n.startswith(incomplete)]


def executor(incomplete: str) -> list[str]:
    """Executors."""
    return _names("executors", incomplete)


def plugin(incomplete: str) -> list[str]:
    """Installed plugins."""
    from bilevel_core.plugins.registry import get_registry

    return [n for n in get_registry().infos if n.startswith(incomplete)]


def run(incomplete: str) -> list[str]:
    """Folders of recorded runs, here, under ``runs/`` and where the word leads."""
    base = Path(incomplete).parent if incomplete else Path()
    places = [*base.glob("*/run.json"), *base.glob("*/*/run.json")]
    return [p for p in sorted(str(path.parent) for path in places) if p.startswith(incomplete)]


def _names(table: str, incomplete: str) -> list[str]:
    from bilevel_core.plugins.registry import get_registry

    return [n for n in getattr(get_registry(), table) if n.startswith(incomplete)]


def _paths(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Files with these endings, and folders, that the word may go on to."""
    base = Path(incomplete).parent if incomplete else Path()
    if not base.is_dir():
        return []
    names = [f"{p}/" if p.is_dir() else str(p) for p in sorted(base.iterdir()) if not p.name.startswith(".")]
    return [n for n in names if n.startswith(incomplete) and (n.endswith("/") or n.endswith(endings))]
