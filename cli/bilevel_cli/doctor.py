"""`bilevel doctor`: is everything here that is needed, and does it work?"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from bilevel_cli.exits import Exit
from bilevel_cli.lists import backend_rows, plugin_rows
from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_core.plugins.registry import get_registry

PACKAGES = ("bilevel", "numpy", "scipy", "pyomo", "highspy", "pyscipopt", "casadi", "cvxpy", "torch", "matplotlib")


def examine(*, as_json: bool) -> Exit:
    """Print the state of the installation. 0 when a backend works and no plugin is broken, else 6."""
    backends = backend_rows()
    plugins = plugin_rows()
    data: dict[str, Any] = {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch_devices": _devices(),
        "writable": {
            "working directory": _writable(Path.cwd()),
            "temporary files": _writable(Path(tempfile.gettempdir())),
        },
        "backends": backends,
        "plugins": plugins,
        "checks": _plugin_checks(),
    }
    healthy = (
        all(b["works"] for b in backends)
        and not any(p["status"] == "broken" for p in plugins)
        and all(c["well"] for c in data["checks"])
    )
    data["healthy"] = healthy
    if as_json:
        echo_json(data)
    else:
        _print(data)
    echo_warnings()
    return Exit.OK if healthy else Exit.MISSING


def _print(data: dict[str, Any]) -> None:
    from bilevel_core.report import aligned, table

    facts = [
        ("python", data["python"]),
        ("cores", str(data["cores"])),
        ("OMP_NUM_THREADS", data["threads"] or "not set"),
    ]
    facts += [(name, version or "not installed") for name, version in data["packages"].items()]
    facts.append(("torch devices", ", ".join(data["torch_devices"]) or "none, torch is not installed"))
    facts += [(f"can write {name}", "yes" if well else "NO") for name, well in data["writable"].items()]
    lines = [
        *aligned(facts, indent=""),
        "",
        "backends",
        *table(data["backends"]),
        "",
        "plugins",
        *table(data["plugins"]),
    ]
    if data["checks"]:
        lines += ["", "checks by plugins", *table(data["checks"])]
    lines += ["", "all is well" if data["healthy"] else "SOMETHING IS BROKEN: see above"]
    echo("\n".join(lines))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    if _version("torch") is None:
        return []
    torch: Any = importlib.import_module("torch")
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _plugin_checks() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for spec in get_registry().doctors.values():
        try:
            well, text = spec.load()()
        except Exception as error:  # noqa: BLE001 - a plugin's failure is what a doctor is for
            well, text = False, f"{type(error).__name__}: {error}"
        rows.append({"name": spec.name, "well": bool(well), "about": str(text)})
    return rows
