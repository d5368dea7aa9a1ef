"""Which solver takes a problem, and why the others do not."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bilevel_core.errors import MissingError, RefusedError, UsageError
from bilevel_core.plugins.registry import Registry, get_registry
from bilevel_core.plugins.specs import load
from bilevel_core.problems.base import Problem
from bilevel_core.result import Claim
from bilevel_core.run.options import describe, read
from bilevel_core.solvers.base import Accepted, Refused, Solver
from bilevel_core.traits import Traits, derive_traits


@dataclass(frozen=True)
class Classification:
    """What class a problem is of, and what every registered solver says of it.

    Attributes:
        traits: sizes and properties.
        verdicts: by solver name: `Accepted` with what it would do, or `Refused` with the reason.
        chosen: the solver that ``auto`` takes; None when no solver takes the problem.
    """

    traits: Traits
    verdicts: Mapping[str, Accepted | Refused]
    chosen: str | None

    def __str__(self) -> str:
        t = self.traits
        lines = [
            f"class     {t.label}",
            f"leader    {t.upper_variables} variable(s), {t.upper_integers} integer; {t.upper_rows} constraint(s)"
            + (", some contain followers' variables" if t.coupled else ""),
            f"followers {len(t.followers)} with {t.lower_variables} variable(s), {t.lower_integers} integer; "
            f"{sum(f.rows for f in t.followers)} constraint(s)",
            f"solver    {self.chosen or 'none takes this problem'}",
        ]
        for name, verdict in self.verdicts.items():
            if isinstance(verdict, Accepted):
                passed = f"; not chosen by itself: {verdict.slow}" if verdict.slow else ""
                lines.append(f"  + {name}: {verdict.how}; claims at most {verdict.claim}{passed}")
            else:
                instead = f" Instead: {verdict.instead}." if verdict.instead else ""
                lines.append(f"  - {name}: {verdict.reason}.{instead}")
        return "\n".join(lines)


def classification(problem: Problem, registry: Registry | None = None, options: Collection[str] = ()) -> Classification:
    """Ask every registered solver, with its default options. A solver that cannot be loaded counts as refusing.

    Args:
        problem: the problem.
        registry: where solvers are looked up.
        options: names of options that the choice is made for: of solvers that take the problem those that have them all
            come first.
    """
    registry = registry or get_registry()
    traits = derive_traits(problem)
    verdicts: dict[str, Accepted | Refused] = {}
    for name, spec in sorted(registry.solvers.items(), key=lambda item: (-item[1].priority, item[0])):
        if spec.structure and spec.structure not in traits.structure:
            verdicts[name] = Refused(f"it takes {spec.structure} problems only", "a solver for its class")
            continue
        try:
            verdicts[name] = verdict_of(spec.load()(), problem, traits)
        except MissingError as error:
            verdicts[name] = Refused(f"it cannot be loaded: {error}", spec.install)
    return Classification(traits, verdicts, _chosen(verdicts, registry, options))


def _chosen(
    verdicts: Mapping[str, Accepted | Refused], registry: Registry, options: Collection[str] = ()
) -> str | None:
    """Of those whose priority is not negative, and that have the options if any has: the first that proves what it
    finds and may be expected to end; else the first that may be expected to end; else the first that takes the problem.
    """
    if options:
        fit = {k: v for k, v in verdicts.items() if isinstance(v, Accepted) and _has(registry, k, options)}
        found = _chosen(fit, registry)
        if found is not None:
            return found
    takes = {k: v for k, v in verdicts.items() if isinstance(v, Accepted) and registry.solvers[k].priority >= 0}
    quick = [name for name, v in takes.items() if not v.slow]
    proving = [name for name in quick if takes[name].claim == Claim.GLOBAL]
    return next(iter([*proving, *quick, *takes]), None)


def _has(registry: Registry, name: str, options: Collection[str]) -> bool:
    return set(options) <= {info.name for info in describe(registry.find("solvers", name).load())}


def find_solver(given: Any, registry: Registry | None = None) -> tuple[str, type[Solver]]:
    """The name and the class of a solver.

    Args:
        given: a registered name, ``module:Class``, a class, or an instance. Classes that are registered go by their
            registered name, others by ``module:Class``.
        registry: where solvers are looked up.

    Raises:
        UsageError: there is no such solver, or what is there is none.
        MissingError: its code cannot be imported.
    """
    registry = registry or get_registry()
    if isinstance(given, str):
        if given in registry.solvers or ":" not in given:
            return given, registry.find("solvers", given).load()
        found = load(given) if _module_exists(given.partition(":")[0]) else None
        if found is None:
            raise UsageError(f"There is no module here or on the Python path to take the solver {given!r} from.")
        if not (isinstance(found, type) and issubclass(found, Solver)):
            raise UsageError(f"{given!r} is no solver: expected a subclass of bilevel_core.Solver, got {found!r}.")
        return given, found
    factory: Any = given if isinstance(given, type) else type(given)
    if not issubclass(factory, Solver):
        raise UsageError(
            f"Expected a solver's name, an instance or a class derived from bilevel_core.Solver, got {given!r}."
        )
    place = f"{factory.__module__}:{factory.__qualname__}"
    names = [name for name, spec in registry.solvers.items() if spec.factory == place]
    return (names or [place])[0], factory


def _module_exists(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a package above it does not exist, or the name is none
        return False


def options_with(given: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run: those in which an instance differs from the defaults, and those given beside it, which
    count for more.
    """
    if not isinstance(given, Solver):
        return dict(options)
    said = {name.replace("-", "_") for name in options}
    own = {o.name: (o.default, getattr(given, o.name)) for o in describe(type(given))}
    return {**{k: value for k, (usual, value) in own.items() if k not in said and value != usual}, **options}


def build_solver(
    problem: Problem, given: Any, options: Mapping[str, Any], registry: Registry | None = None
) -> tuple[str, Solver, Accepted]:
    """The solver to use, made with its options.

    Args:
        problem: what is to be solved.
        given: ``auto``, or as for `find_solver`.
        options: its options.
        registry: where solvers are looked up.

    Raises:
        UsageError: no solver has that name, or an option is wrong.
        RefusedError: it does not take the problem (or, for ``auto``, none does); the message gives the reasons.
        MissingError: its code cannot be imported.
    """
    registry = registry or get_registry()
    traits = derive_traits(problem)
    if isinstance(given, str) and given == "auto":
        found = classification(problem, registry, options)
        if found.chosen is None:
            reasons = "; ".join(f"{k}: {v.reason}" for k, v in found.verdicts.items() if isinstance(v, Refused))
            # What one solver recommends instead is no help where it is a solver that refuses as well.
            advice = [v.instead for v in found.verdicts.values() if isinstance(v, Refused) and v.instead]
            needs = next((a for a in advice if not any(name in a for name in found.verdicts)), "")
            asked = [k for k, v in found.verdicts.items() if isinstance(v, Accepted)]
            raise RefusedError(
                f"No installed solver takes this problem ({traits.label}): {reasons}."
                + (f" It needs {needs}." if needs else "")
                + (
                    f" Only when asked for by name, and proving nothing, these try: {', '.join(asked)}."
                    if asked
                    else ""
                )
            )
        given = found.chosen
    name, factory = find_solver(given, registry)
    options = options_with(given, options)
    solver = factory(**read(factory, options, kind="option", owner=f"solver {name!r}"))
    verdict = verdict_of(solver, problem, traits)
    if isinstance(verdict, Refused):
        others = [k for k, v in classification(problem, registry).verdicts.items() if isinstance(v, Accepted)]
        hint = f" With its default options {name} takes it." if name in others else ""
        others = [k for k in others if k != name]
        hint += f" These take it: {', '.join(others)}." if others else ""
        instead = f" What could solve it: {verdict.instead}." if verdict.instead else ""
        raise RefusedError(f"Solver {name!r} does not take this problem: {verdict.reason}.{instead}{hint}")
    solver.check_options(traits.form)
    return name, solver, verdict


def verdict_of(solver: Solver, problem: Problem, traits: Traits) -> Accepted | Refused:
    """What a solver says of the traits, and where it accepts those, of the problem itself."""
    if traits.duals and not solver.takes_duals:
        return Refused("the leader uses followers' multipliers, which are no variables here", "kkt")
    verdict = solver.accepts(traits)
    return verdict if isinstance(verdict, Refused) else solver.refuses(problem) or verdict
