"""Builds bilevel and a plugin, and installs both wheels into a new virtual environment that borrows only the rest."""

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

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Environment:
    """A virtual environment with wheels of bilevel and a plugin; what they need it finds where this process does."""

    python: Path

    def bilevel(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Call the command that the wheel installed."""
        return self._call(str(self.python.with_name("bilevel")), *arguments, cwd=cwd)

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Call its Python."""
        return self._call(str(self.python), *arguments, cwd=cwd)

    @staticmethod
    def _call(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("BILEVEL_", "PYTEST_", "PYTHONPATH"))}
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=cwd, env=outside)

    def json(self, *arguments: str, cwd: Path) -> Any:
        """What a command of `bilevel` prints as JSON."""
        done = self.bilevel(*arguments, "-f", "json", cwd=cwd)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)


def build(source: Path, dist: Path) -> Path:
    """Build the wheel of a distribution; needs no network."""
    pytest.importorskip("hatchling", reason="building a wheel without the network needs hatchling")
    before = set(dist.glob("*.whl"))
    _quiet(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist), cwd=source)
    (wheel,) = set(dist.glob("*.whl")) - before
    return wheel


def install(source: Path, place: Path) -> Environment:
    """Build the wheels of bilevel and of a plugin and install them; needs no network.

    Args:
        source: the plugin's folder with its ``pyproject.toml``; left as it is.
        place: an empty folder for copies, the wheels and the environment.
    """
    copy = shutil.copytree(source, place / "source")
    wheels = [str(build(ROOT, place / "dist")), str(build(copy, place / "dist"))]
    venv = place / "venv"
    _quiet(sys.executable, "-m", "venv", "--without-pip", str(venv), cwd=place)
    python = venv / "bin" / "python"
    packages = Path(
        _quiet(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip()
    )
    _quiet(
        *(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"),
        *("--disable-pip-version-check", *wheels),
        cwd=place,
    )
    # What stands on the path by name comes after what is installed here, and a `.pth` of theirs is not read: an
    # editable install of bilevel stays out of sight.
    borrowed = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (packages / "borrowed.pth").write_text("".join(f"{p}\n" for p in borrowed))
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
