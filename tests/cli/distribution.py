"""Builds a distribution, and installs its wheel into a new virtual environment that borrows this one's packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Environment:
    """A virtual environment in which one wheel is installed; everything else it finds where this process does."""

    python: Path

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Call its Python."""
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("BILEVEL_", "PYTEST_"))}
        command = [str(self.python), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=cwd, env=outside)

    def json(self, *arguments: str, cwd: Path) -> Any:
        """What a command of `bilevel` prints as JSON."""
        done = self.run("-m", "bilevel_cli", *arguments, "-f", "json", cwd=cwd)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)


def install(source: Path, place: Path) -> Environment:
    """Build the wheel of a distribution and install it; needs no network.

    Args:
        source: the folder with its ``pyproject.toml``; left as it is.
        place: an empty folder for copies, the wheel and the environment.
    """
    pytest.importorskip("hatchling", reason="building a wheel without the network needs hatchling")
    copy = shutil.copytree(source, place / "source")
    _quiet(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place / "dist"), cwd=copy)
    (wheel,) = (place / "dist").glob("*.whl")
    venv = place / "venv"
    _quiet(sys.executable, "-m", "venv", "--without-pip", str(venv), cwd=place)
    python = venv / "bin" / "python"
    packages = Path(
        _quiet(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip()
    )
    _quiet(
        *(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"),
        *("--disable-pip-version-check", str(wheel)),
        cwd=place,
    )
    # Editable installs of this environment are found as well: `site` reads its .pth files.
    borrowed = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (packages / "borrowed.pth").write_text("".join(f"import site; site.addsitedir({p!r})\n" for p in borrowed))
    return Environment(python)


def _quiet(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def run_pytest(environment: Environment, tests: Path, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run tests as their author would, without the configuration of this repository."""
    return environment.run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tests.parent}", str(tests), cwd=cwd
    )
