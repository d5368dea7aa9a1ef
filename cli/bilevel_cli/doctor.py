"""`bilevel doctor`: is everything here that is needed, and does it work? What does not comes with what to do."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from bilevel_cli.exits import Exit
from bilevel_cli.lists import backend_rows, plugin_rows
from bilevel_cli.output import echo, echo_json, echo_warnings
from bilevel_core.errors import BilevelError
from bilevel_core.plugins.registry import get_registry

SCHEMA = "bilevel.doctor/1"
NEEDED = (
    "bilevel",
    "numpy",
    "scipy",
    "pluggy",
    "typer",
    "pyomo",
    "highspy",
    "pyscipopt",
    "cvxpy",
    "casadi",
    "safetensors",
)
OPTIONAL = {
    "torch": "problems in PyTorch: pip install 'bilevel[torch]'",
    "matplotlib": "pictures: pip install 'bilevel[plot]'",
    "optuna": "sample.bayes: pip install 'bilevel[sampling]'",
    "cma": "sample.cma: pip install 'bilevel[sampling]'",
    "pymoo": "sample.nsga2: pip install 'bilevel[sampling]'",
    "distributed": "--executor dask: pip install 'bilevel[dask]'",
    "ray": "--executor ray: pip install ray",
    "scikit-learn": "hyperparameters of scikit-learn's models: pip install scikit-learn",
}
"""What else may be there, and what for."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PROBE = "classic/bard-511"
"""A library problem of two variables: solved from end to end, check included."""


def examine(*, as_json: bool) -> Exit:
    """Print the state of the installation. 0 when all of it works, else 6."""
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "cores": _cores(),
        "threads": {name: os.environ.get(name, "") for name in THREADS},
        "packages": {name: _version(name) for name in NEEDED},
        "optional": {name: _version(name) for name in OPTIONAL},
        "backends": backend_rows(),
        "torch": _torch(),
        "solve": _solve(),
        "writable": {
            "working directory": _writable(Path.cwd()),
            "temporary files": _writable(Path(tempfile.gettempdir())),
        },
        "plugins": plugin_rows(),
        "checks": _plugin_checks(),
    }
    data["troubles"] = _troubles(data)
    data["healthy"] = not data["troubles"]
    if as_json:
        echo_json(data)
    else:
        _print(data)
    echo_warnings()
    return Exit.OK if data["healthy"] else Exit.MISSING


def _troubles(data: dict[str, Any]) -> list[str]:
    """What is wrong, each with what to do."""
    found = [f"{name} is not installed: pip install --upgrade bilevel" for name, v in data["packages"].items() if not v]
    found += [f"backend {b['name']} does not work: {b['about']}" for b in data["backends"] if not b["works"]]
    found += [f"torch on {d['device']} does not work: {d['about']}" for d in data["torch"] if not d["works"]]
    if not data["solve"]["works"]:
        found.append(f"{PROBE} could not be solved: {data['solve']['about']}")
    found += [
        f"files cannot be written in the {name}: choose another with --out, or set TMPDIR"
        for name, well in data["writable"].items()
        if not well
    ]
    found += [
        f"plugin {p['name']} of {p['distribution']} is broken: {p['error']}; update it, or set "
        f"BILEVEL_DISABLE_PLUGINS={p['name']}"
        for p in data["plugins"]
        if p["status"] == "broken"
    ]
    return found + [f"{c['name']}: {c['about']}" for c in data["checks"] if not c["well"]]


def _print(data: dict[str, Any]) -> None:
    from bilevel_core.report import aligned, table

    facts = [("python", data["python"]), ("cores", str(data["cores"]))]
    facts += [(name, value) for name, value in data["threads"].items()]
    facts += [(name, version or "NOT INSTALLED") for name, version in data["packages"].items()]
    facts += [(name, version or f"not installed ({OPTIONAL[name]})") for name, version in data["optional"].items()]
    facts += [(f"torch on {d['device']}", f"works, {d['about']}" if d["works"] else d["about"]) for d in data["torch"]]
    facts.append(("a whole solve", f"{'works' if data['solve']['works'] else 'FAILS'}: {data['solve']['about']}"))
    facts += [(f"can write {name}", "yes" if well else "NO") for name, well in data["writable"].items()]
    lines = [*aligned(facts, indent=""), "", "backends", *table(data["backends"]), "", "plugins"]
    lines += table(data["plugins"])
    if data["checks"]:
        lines += ["", "checks by plugins", *table(data["checks"])]
    lines += ["", *([f"TROUBLE: {t}" for t in data["troubles"]] or ["all is well"])]
    echo("\n".join(lines))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cores() -> int | None:
    """Those that this process may use, which in a container are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _torch() -> list[dict[str, Any]]:
    """A tiny derivative on each device of torch; empty without torch."""
    if _version("torch") is None:
        return []
    try:
        torch: Any = importlib.import_module("torch")
        names = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            names.append("mps")
    except Exception as error:  # noqa: BLE001 - a broken installation is what a doctor is for
        return [{"device": "any", "works": False, "about": f"{type(error).__name__}: {error}"}]
    rows: list[dict[str, Any]] = []
    for name in names:
        try:
            x = torch.tensor([3.0], device=name, requires_grad=True)
            (slope,) = torch.autograd.grad((x @ x).sum(), x)
            works = float(slope) == 6.0
            about = (
                torch.cuda.get_device_name(name) if name.startswith("cuda") else f"{torch.get_num_threads()} thread(s)"
            )
            rows.append({"device": name, "works": works, "about": about if works else "a derivative is wrong"})
        except Exception as error:  # noqa: BLE001 - the same
            rows.append({"device": name, "works": False, "about": f"{type(error).__name__}: {error}"})
    return rows


def _solve() -> dict[str, Any]:
    """A library problem from end to end, and its answer."""
    from bilevel_core.api import solve

    start = time.monotonic()
    try:
        spec: Any = get_registry().find("problems", PROBE)
        result = solve(spec.load()(), time_limit=30.0)
    except BilevelError as error:
        return {"works": False, "about": str(error)}
    except Exception as error:  # noqa: BLE001 - the same
        return {"works": False, "about": f"{type(error).__name__}: {error}"}
    known = spec.known.upper_objective
    works = result.status == "optimal" and abs(float(result.upper_objective or 0.0) - known) < 1e-6 * max(
        1.0, abs(known)
    )
    told = f"{PROBE} by {result.solver}, {result.status.value}, {time.monotonic() - start:.1f} s"
    return {"works": works, "about": told if works else f"{told}: {result.upper_objective} in place of {known}"}


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
