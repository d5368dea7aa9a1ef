"""The checks as pytest classes: subclass one, name what is to be checked, and run pytest.

Every test says by `since` in which version of the kit it came in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from bilevel_core.errors import RefusedError
from bilevel_core.plugins.specs import ProblemSpec
from bilevel_core.problems.base import Problem
from bilevel_core.result import Result
from bilevel_core.solvers.base import Solver
from bilevel_core.testing import plugin_checks, problem_checks, solver_checks
from bilevel_core.testing.check import NotApplicable, later, since, version_of
from bilevel_core.testing.enumeration import KINDS, Kind, draw
from bilevel_core.testing.problems import LIBRARY, OTHER_FORMS, UNBOUNDED
from bilevel_core.testing.runner import Case, Runner, case_of


class _Conformance:
    """What all three share: the version, and checks that do not apply are skipped with their reason."""

    up_to: ClassVar[str] = ""
    """The version of the kit whose checks are run; later ones are skipped. "" runs all."""

    @classmethod
    def checks(cls) -> dict[str, str]:
        """Every check and the version that it came in."""
        found = [name for name in dir(cls) if name.startswith("test_")]
        return {name: version_of(getattr(cls, name)) for name in found}

    @pytest.fixture(autouse=True)
    def _introduced(self, request: pytest.FixtureRequest) -> None:
        version = getattr(request.function, "since", "")
        if version and later(version, self.up_to):
            pytest.skip(f"this check came in with {version}, and the tests ask for those up to {self.up_to}")


def _skip_what_does_not_apply(check: Callable[..., None], *arguments: Any) -> None:
    try:
        check(*arguments)
    except NotApplicable as reason:
        pytest.skip(str(reason))


class SolverConformance(_Conformance):
    """The checks of a solver. Subclasses give ``factory`` and what else differs.

    Attributes:
        factory: the solver's class.
        options: options that it is run with.
        problems: what it is run on: registered names, or descriptions of problems of your own.
        tolerance: of the leader's value, relative to max(1, |optimum|).
        misses: problems whose optimum it is known to miss, with the reason; each must go on being missed.
        enumerated: how many random problems of each kind its claims are compared with enumeration on.
        time_limit: seconds for each run: more than it needs on these small problems.
    """

    factory: ClassVar[type[Solver]]
    options: ClassVar[Mapping[str, Any]] = {}
    problems: ClassVar[tuple[str | ProblemSpec | Case, ...]] = LIBRARY
    tolerance: ClassVar[float] = 1e-4
    misses: ClassVar[Mapping[str, str]] = {}
    enumerated: ClassVar[int] = 5
    time_limit: ClassVar[float] = 10.0

    @classmethod
    def runner(cls) -> Runner:
        """The solver with its options."""
        return Runner(cls.factory, dict(cls.options), cls.time_limit)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """The problems to run on, and those of the kit."""
        return _cases(cls)

    @classmethod
    def result(cls, case: Case) -> tuple[Problem, Result, str]:
        """The problem, one run on it, and the strongest claim promised; made once.

        Raises:
            NotApplicable: the solver refuses the problem.
        """
        return _run_once(cls, case.name)

    @classmethod
    def first(cls) -> Case:
        """The first problem with an optimum that the solver takes.

        Raises:
            NotApplicable: it takes none.
        """
        return _first(cls)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give a test each problem that it is about (pytest calls this hook of the class)."""
        cls = type(self)
        if "solvable" in metafunc.fixturenames:
            cases = [c for c in cls.cases() if c.known is None or c.known.upper_objective is not None]
            strict = metafunc.function.__name__ == "test_known_optimum"
            found = [pytest.param(c, id=c.name, marks=_missed(cls, c) if strict else ()) for c in cases]
            metafunc.parametrize("solvable", found)
        if "any_form" in metafunc.fixturenames:
            cases = [c for c in cls.cases() if c.known is None or c.known.upper_objective is not None]
            metafunc.parametrize("any_form", [pytest.param(c, id=c.name) for c in _with_other_forms(cases)])
        if "unsolvable" in metafunc.fixturenames:
            cases = [c for c in cls.cases() if c.known is not None and c.known.upper_objective is None]
            metafunc.parametrize("unsolvable", [pytest.param(c, id=c.name) for c in cases])
        if "drawn" in metafunc.fixturenames:
            pairs = [(kind, seed) for kind in KINDS for seed in range(cls.enumerated)]
            metafunc.parametrize("drawn", pairs, ids=[f"{kind}-{seed}" for kind, seed in pairs])

    @since("0.1")
    def test_takes_a_problem(self) -> None:
        """At least one of the problems is accepted: else all other checks say nothing."""
        try:
            self.first()
        except NotApplicable as reason:
            pytest.fail(f"{reason}. Give `problems` that it takes.")

    @since("0.1")
    def test_known_optimum(self, solvable: Case) -> None:
        """The optimum is found."""
        _, result, _ = _of(self, solvable)
        check = solver_checks.known_optimum
        _skip_what_does_not_apply(check, self.runner().name, result, solvable, self.tolerance)

    @since("0.1")
    def test_not_better_than_the_optimum(self, any_form: Case) -> None:
        """No point is better than the optimum."""
        problem, result, _ = _of(self, any_form)
        check = solver_checks.not_better_than_optimum
        _skip_what_does_not_apply(check, self.runner().name, result, any_form, problem)

    @since("0.1")
    def test_objective_is_that_of_the_point(self, any_form: Case) -> None:
        """What is reported is what the user's expressions, tensors or functions say at the point."""
        problem, result, _ = _of(self, any_form)
        _skip_what_does_not_apply(solver_checks.objective_of_point, self.runner().name, result, problem)

    @since("0.1")
    def test_lower_level_is_optimal(self, any_form: Case) -> None:
        """The follower, solved again at the x returned, does no better."""
        problem, result, _ = _of(self, any_form)
        _skip_what_does_not_apply(solver_checks.lower_level_optimal, self.runner().name, result, problem)

    @since("0.1")
    def test_claim_is_as_promised(self, any_form: Case) -> None:
        """The claim is no stronger than `accepts` said."""
        _, result, promised = _of(self, any_form)
        solver_checks.claim_as_promised(self.runner().name, result, promised)

    @since("0.1")
    def test_result_pickles_and_round_trips(self, any_form: Case) -> None:
        """Pickle and JSON give the same result back."""
        _, result, _ = _of(self, any_form)
        solver_checks.result_travels(self.runner().name, result)

    @since("0.1")
    def test_no_solution_is_said_as_such(self, unsolvable: Case) -> None:
        """Infeasible and unbounded problems are called what they are, or nothing is claimed."""
        problem, result, _ = _of(self, unsolvable)
        solver_checks.no_solution_said(self.runner().name, result, unsolvable, problem)

    @since("0.1")
    def test_seed_reproduces(self) -> None:
        """One seed, one point."""
        _skip_what_does_not_apply(solver_checks.seed_reproduces, self.runner(), _first_of(self))

    @since("0.1")
    def test_zero_time_claims_little(self) -> None:
        """With no time: time-limit, and at most a feasible point."""
        _skip_what_does_not_apply(solver_checks.zero_time_claims_little, self.runner(), _first_of(self))

    @since("0.1")
    def test_unknown_option_is_refused(self) -> None:
        """Options are declared and documented; others are refused."""
        solver_checks.unknown_option_refused(self.runner())

    @since("0.1")
    def test_stop_is_honoured(self) -> None:
        """A request to stop ends the run."""
        _skip_what_does_not_apply(solver_checks.stop_honoured, self.runner(), _first_of(self))

    @since("0.1")
    def test_input_is_unchanged(self) -> None:
        """The user's model is left as it was."""
        _skip_what_does_not_apply(solver_checks.input_unchanged, self.runner(), _first_of(self))

    @since("0.1")
    def test_resume_equals_uninterrupted(self) -> None:
        """A resumed run ends like one that was never interrupted."""
        _skip_what_does_not_apply(solver_checks.resume_equals_uninterrupted, self.runner(), _first_of(self))

    @since("0.1")
    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_dtype_and_device_are_kept(self, dtype: str, device: str) -> None:
        """Functions of tensors get tensors like those of the start."""
        _skip_what_does_not_apply(solver_checks.dtype_and_device_kept, self.runner(), dtype, device)

    @since("0.1")
    def test_claims_agree_with_enumeration(self, drawn: tuple[Kind, int]) -> None:
        """What is claimed of small random problems is what trying all candidates finds."""
        _skip_what_does_not_apply(solver_checks.agrees_with_enumeration, self.runner(), draw(*drawn))


class ProblemConformance(_Conformance):
    """The checks of a problem. Subclasses give ``problem``.

    Attributes:
        problem: a registered name, or a description.
        point: the declared optimum: values of x and of y by variable name; left out, only its value is checked.
        parameters: of the problem; the optimum declared is that at the defaults, so leave them out to have it checked.
        tolerance: of derivatives, relative to the size of the term, beside central differences.
        solve: whether to solve it with ``solver="auto"`` to compare the optimum; not for what takes long.
        time_limit: seconds for that.
    """

    problem: ClassVar[str | ProblemSpec]
    point: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]] | None] = None
    parameters: ClassVar[Mapping[str, Any]] = {}
    tolerance: ClassVar[float] = 1e-5
    solve: ClassVar[bool] = True
    time_limit: ClassVar[float] = 60.0

    @classmethod
    def subject(cls) -> problem_checks.Subject:
        """The problem and what is declared of it."""
        return problem_checks.Subject(cls.problem, dict(cls.parameters), cls.point)

    @since("0.1")
    def test_is_documented(self) -> None:
        """It has a summary, and each parameter a text."""
        problem_checks.documented(self.subject())

    @since("0.1")
    def test_source_is_cited(self) -> None:
        """Whoever declares an optimum says where it comes from."""
        _skip_what_does_not_apply(problem_checks.source_cited, self.subject())

    @since("0.1")
    def test_bounds_are_sound(self) -> None:
        """No lower bound above its upper one, and none that is NaN."""
        _skip_what_does_not_apply(problem_checks.bounds_sound, self.subject())

    @since("0.1")
    def test_shapes_are_kept(self) -> None:
        """A point becomes arrays by name and back, without loss."""
        _skip_what_does_not_apply(problem_checks.shapes_kept, self.subject())

    @since("0.1")
    def test_is_deterministic(self) -> None:
        """Made twice, it is the same problem."""
        problem_checks.deterministic(self.subject())

    @since("0.1")
    def test_gradients_agree_with_differences(self) -> None:
        """First derivatives are those that central differences give."""
        _skip_what_does_not_apply(problem_checks.gradients_agree, self.subject(), self.tolerance)

    @since("0.1")
    def test_declared_point_is_the_optimum(self) -> None:
        """The declared point is feasible, lower-level optimal, and has the declared value."""
        _skip_what_does_not_apply(problem_checks.declared_point_holds, self.subject())

    @since("0.1")
    def test_declared_optimum_is_found(self) -> None:
        """What ``auto`` finds and proves is the declared optimum, or the declared end."""
        if not self.solve:
            pytest.skip("the class says solve = False")
        _skip_what_does_not_apply(problem_checks.declared_optimum_found, self.subject(), self.time_limit)


class PluginConformance(_Conformance):
    """The checks of a whole plugin. Subclasses give ``plugin``.

    Attributes:
        plugin: its entry-point name.
        allow: packages that its module may import when plugins are listed.
    """

    plugin: ClassVar[str]
    allow: ClassVar[tuple[str, ...]] = ()

    @since("0.1")
    def test_is_active(self) -> None:
        """It is installed, loads, and its hooks have the signatures of the specification."""
        plugin_checks.active(self.plugin)

    @since("0.1")
    def test_states_the_hook_api(self) -> None:
        """It says for which version of the hooks it is written."""
        plugin_checks.states_hook_api(self.plugin)

    @since("0.1")
    def test_import_is_light(self) -> None:
        """Listing plugins imports nothing heavy."""
        plugin_checks.light_import(self.plugin, self.allow)

    @since("0.1")
    def test_no_name_clashes(self) -> None:
        """No name that it offers is taken."""
        plugin_checks.no_name_clash(self.plugin)

    @since("0.1")
    def test_is_documented(self) -> None:
        """Everything that it offers has a summary, and every option a help text."""
        plugin_checks.documented(self.plugin)

    @since("0.1")
    def test_code_can_be_imported(self) -> None:
        """Every "module:attribute" leads to what the specification asks for."""
        plugin_checks.importable(self.plugin)


def _of(test: SolverConformance, case: Case) -> tuple[Problem, Result, str]:
    try:
        return test.result(case)
    except NotApplicable as reason:
        pytest.skip(str(reason))


def _first_of(test: SolverConformance) -> Case:
    try:
        return test.first()
    except NotApplicable as reason:
        pytest.skip(str(reason))


def _missed(cls: type[SolverConformance], case: Case) -> Any:
    why = cls.misses.get(case.name)
    return [pytest.mark.xfail(reason=why, strict=True, raises=AssertionError)] if why else ()


@functools.cache
def _cases(cls: type[SolverConformance]) -> tuple[Case, ...]:
    return (*map(case_of, cls.problems), UNBOUNDED)


def _with_other_forms(cases: Sequence[Case]) -> list[Case]:
    return [*cases, *(c for c in OTHER_FORMS if c.name not in {mine.name for mine in cases})]


@functools.cache
def _outcome(cls: type[SolverConformance], name: str) -> tuple[Problem, Result, str] | NotApplicable:
    (case,) = [c for c in _with_other_forms(cls.cases()) if c.name == name]
    runner = cls.runner()
    try:
        problem = case.make()
        promised = runner.takes(problem).claim
        return problem, runner.run(problem), promised
    except NotApplicable as reason:
        return reason
    except RefusedError as error:  # numbers that its traits do not show
        return NotApplicable(f"{runner.name} refuses it: {error}")


def _run_once(cls: type[SolverConformance], name: str) -> tuple[Problem, Result, str]:
    found = _outcome(cls, name)
    if isinstance(found, NotApplicable):
        raise found
    return found


@functools.cache
def _first(cls: type[SolverConformance]) -> Case:
    for case in cls.cases():
        if case.known is None or case.known.upper_objective is not None:
            try:
                cls.runner().takes(case.make())
            except NotApplicable:
                continue
            return case
    raise NotApplicable(f"{cls.factory.__name__} takes none of the problems with an optimum")
