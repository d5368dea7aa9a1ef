"""What PROBLEM may be on the command line: a registered name, ``module:attribute``, or a file."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, cast

from bilevel_core.errors import BilevelError, UsageError
from bilevel_core.plugins.registry import get_registry
from bilevel_core.plugins.specs import load as load_attribute
from bilevel_core.problems.base import Problem, as_problem
from bilevel_core.run.options import read

CANDIDATES = ("problem", "model", "build")


def find_problem(reference: str, parameters: Mapping[str, str]) -> Problem:
    """The problem that a reference names, made with its parameters; one without a name is called by the reference.

    Raises: see `_find`.
    """
    problem = _find(reference, parameters)
    if problem.name == "problem":
        problem.name = reference
    problem.reference = (f"{__name__}:find_problem", (_from_anywhere(reference), dict(parameters)))
    return problem


def _from_anywhere(reference: str) -> str:
    """The reference for a process with another working directory: a file by its whole path."""
    whole = Path(reference)
    if whole.is_file():
        return str(whole.resolve())
    path, colon, attribute = reference.partition(":")
    return f"{Path(path).resolve()}{colon}{attribute}" if Path(path).is_file() else reference


def _find(reference: str, parameters: Mapping[str, str]) -> Problem:
    """The problem that a reference names.

    Raises:
        UsageError: nothing of that name (with the nearest), a file that cannot be used, or a bad parameter.
        MissingError: the code of a registered problem needs a package that is not installed.
    """
    registry = get_registry()
    if reference in registry.problems:
        spec = registry.problems[reference]
        return _make(spec.load(), parameters, f"problem {reference!r}")
    path_text, _, attribute = reference.partition(":")
    path = Path(path_text)
    if path.suffix == ".py":
        return _from_module(_import_file(path), attribute, parameters, str(path))
    for spec in registry.loaders.values():
        if any(reference.lower().endswith(s) for s in spec.suffixes):
            return _load_file(spec.load(), Path(reference), parameters, spec.name)
    if attribute and path.suffix == "" and "/" not in path_text:
        modules_here()
        if not _module_exists(path_text):
            raise UsageError(
                f"There is no module {path_text!r} here or on the Python path, to take {reference!r} from."
            )
        return _as_problem(load_attribute(reference), parameters, reference)
    if path.exists():
        known = sorted({".py", *(s for spec in registry.loaders.values() for s in spec.suffixes)})
        raise UsageError(f"No loader takes {reference!r}. Files that can be read end with {', '.join(known)}.")
    names = list(registry.problems)
    close = difflib.get_close_matches(reference, names, n=3, cutoff=0.4)
    close = close or [n for n in names if reference.lower() in n][:3]
    close = close or difflib.get_close_matches(reference, names, n=1, cutoff=0.0)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    raise UsageError(f"There is no problem and no file named {reference!r}.{hint} `bilevel problems` lists them.")


def modules_here(reference: str = ":") -> None:
    """Let ``module:attribute`` name modules of the working directory, as `python -m` does; other names need nothing."""
    if ":" in reference and "" not in sys.path:
        sys.path.insert(0, "")


def _make(factory: Callable[..., Any], parameters: Mapping[str, Any], owner: str, path: Path | None = None) -> Problem:
    """Call the function; a fault in a user's own file is theirs, and is named with its line."""
    given = read(factory, parameters, kind="parameter", owner=owner)
    if path is None:
        return as_problem(factory(**given))
    with _faults_named(path):
        made: Any = factory(**given)
    return as_problem(made)


def _module_exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a package above it does not exist
        return False


def _no_file(path: Path) -> UsageError:
    if path.is_dir():
        return UsageError(f"{str(path)!r} is a folder, not a file.")
    others = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, others, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(str(path.parent / c)) for c in close)}?" if close else ""
    return UsageError(f"There is no file {str(path)!r}.{hint}")


def _load_file(factory: Callable[..., Any], path: Path, parameters: Mapping[str, str], name: str) -> Problem:
    if not path.is_file():
        raise _no_file(path)
    given = read(factory, parameters, kind="parameter", owner=f"loader {name!r}", skip=("path",))
    return as_problem(factory(path, **given))


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise _no_file(path)
    name = f"bilevel_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    with _faults_named(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _faults_named(path: Path) -> Generator[None]:
    """Whatever the user's code raises becomes an error with file and line; also an attempt to end the program."""
    try:
        yield
    except BilevelError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{_where(error, path)}: {type(error).__name__}: {error}") from error


def _where(error: BaseException, path: Path) -> str:
    """file:line of the deepest frame in the user's own file."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.absolute()]
    return f"{path}:{frames[-1].lineno}" if frames else str(path)


def _from_module(module: ModuleType, attribute: str, parameters: Mapping[str, str], owner: str) -> Problem:
    path = Path(owner)
    if attribute:
        if not hasattr(module, attribute):
            raise UsageError(f"{owner} defines no {attribute!r}.")
        return _as_problem(getattr(module, attribute), parameters, f"{owner}:{attribute}", path)
    for name in CANDIDATES:
        thing: Any = getattr(module, name, None)
        if isinstance(thing, Problem | FunctionType) or _is_bilevel_model(thing):
            return _as_problem(thing, parameters, f"{owner}:{name}", path)
    found = {n: v for n, v in vars(module).items() if isinstance(v, Problem) or _is_bilevel_model(v)}
    if len(found) == 1:
        ((name, thing),) = found.items()
        return _as_problem(thing, parameters, f"{owner}:{name}", path)
    several = f" It defines several ({', '.join(found)}): choose one with {owner}:NAME." if found else ""
    raise UsageError(
        f"{owner} defines no problem: expected a variable `problem` or `model`, or a function of that name or `build` "
        f"that returns one.{several}"
    )


def _is_bilevel_model(value: Any) -> bool:
    kind = type(value)
    if not kind.__module__.startswith("pyomo.") or kind.__name__ != "ConcreteModel":
        return False
    from bilevel_core.problems.pyomo import Follower

    return any(True for _ in value.component_data_objects(cast("Any", Follower)))


def _as_problem(thing: Any, parameters: Mapping[str, str], owner: str, path: Path | None = None) -> Problem:
    is_problem = isinstance(thing, Problem) or hasattr(thing, "component_objects")
    if callable(thing) and not is_problem:
        return _make(cast("Callable[..., Any]", thing), parameters, owner, path)
    if parameters:
        raise UsageError(f"{owner} is no function, so it takes no parameters (-p {', '.join(parameters)}).")
    return as_problem(thing)
