"""The checks of solvers: each a function of a `Runner` and what it is run on, which raises `Failed`."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np

from bilevel_core.errors import UsageError
from bilevel_core.problems.base import Problem
from bilevel_core.result import Claim, Result, Termination, Verdict
from bilevel_core.run.context import Event
from bilevel_core.run.options import describe
from bilevel_core.solvers.base import Refused
from bilevel_core.testing.check import Failed, NotApplicable, expect
from bilevel_core.testing.enumeration import RandomLinear
from bilevel_core.testing.objectives import objectives_at
from bilevel_core.testing.runner import Case, Keeper, Runner, maximises, text_of

SLACK = 1e-5
"""What tolerances on constraints may buy, relative to the size of the optimum."""
EMPTY = (Termination.INFEASIBLE, Termination.LOWER_INFEASIBLE, Termination.LOWER_UNBOUNDED)
CUT_SHORT = (Termination.TIME_LIMIT, Termination.ITERATION_LIMIT, Termination.STOPPED_BY_USER)


def known_optimum(name: str, result: Result, case: Case, tolerance: float) -> None:
    """The leader's value is the optimum of the problem, within the solver's tolerance."""
    known = _value(case)
    expect(
        result.has_point,
        f"{name} found no point of {case.name}, whose optimum is {known:g} ({_source(case)}). It ended "
        f"{result.termination.value}: {result.message or 'without a message'}",
    )
    got = result.upper_objective
    error = math.inf if got is None else abs(got - known)
    expect(
        error <= tolerance * max(1.0, abs(known)),
        f"{name} gives {case.name} the leader's value {got}. Expected {known:g} within {tolerance:g} "
        f"({_source(case)}). A solver that is known to miss it lists it in `misses`, with the reason.",
    )


def not_better_than_optimum(name: str, result: Result, case: Case, problem: Problem) -> None:
    """No point is better than the optimum: one that is satisfies less than both levels."""
    if not result.has_point or result.upper_objective is None:
        raise NotApplicable("there is no point")
    known = _value(case)
    gain = (known - result.upper_objective) * (-1.0 if maximises(problem) else 1.0)
    expect(
        gain <= SLACK * max(1.0, abs(known)),
        f"{name} says that {case.name} has a point with the leader's value {result.upper_objective:g}, which is better "
        f"than the optimum {known:g} ({_source(case)}). Either the follower's answer is not optimal there, or a "
        "constraint is violated, or the value is not that of the point.",
    )


def objective_of_point(name: str, result: Result, problem: Problem) -> None:
    """The objectives reported are those of the user's own statement at the point, in the user's sense."""
    if not result.has_point:
        raise NotApplicable("there is no point")
    found = objectives_at(problem, result.x, result.y)
    told = result.lower_objective if isinstance(result.lower_objective, tuple) else (result.lower_objective,)
    expect(
        len(told) == len(found.lower),
        f"{name} reports {len(told)} lower objectives, and the problem has {len(found.lower)} followers.",
    )
    levels = [("the leader", result.upper_objective, found.upper)]
    levels += [(f"follower {k}", *pair) for k, pair in enumerate(zip(told, found.lower, strict=True))]
    for whose, got, value in levels:
        expect(
            _close(got, value, found.tolerance),
            f"{name} reports {got} as the objective of {whose}, and the model has {value:g} at the point it returns."
            f"{_sense(got, value)}",
        )


def lower_level_optimal(name: str, result: Result, problem: Problem) -> None:
    """The independent check, which re-solves the follower at the x returned, does not refute the point."""
    from bilevel_core.api import verify

    if not result.has_point:
        raise NotApplicable("there is no point")
    certificate = verify(problem, result)
    expect(
        certificate.verdict is not Verdict.REFUTED,
        f"The point that {name} returns fails the independent check: {certificate.reason} (violations: leader "
        f"{certificate.upper_violation:.2g}, follower {certificate.lower_violation:.2g}; the follower could do better "
        f"by {certificate.lower_gap:.2g}).",
    )


def claim_as_promised(name: str, result: Result, promised: str) -> None:
    """The claim is no stronger than `accepts` promised, and there is none without a point."""
    expect(
        result.claim <= Claim(promised),
        f"{name} claims {result.claim.value}, and its `accepts` promised {promised} at most.",
    )
    expect(result.has_point or result.claim is Claim.NONE, f"{name} claims {result.claim.value} and returns no point.")


def seed_reproduces(runner: Runner, case: Case) -> None:
    """Two runs with one seed give the same point, bit by bit."""
    first, second = (runner.run(case.make(), seed=7) for _ in range(2))
    expect(
        _points(first) == _points(second) and first.upper_objective == second.upper_objective,
        f"Two runs of {runner.name} on {case.name} with seed 7 differ: {first.upper_objective} and "
        f"{second.upper_objective}, or other points with that value. Draw from "
        "numpy.random.default_rng(context.seed), never from a global generator.",
    )


def zero_time_claims_little(runner: Runner, case: Case) -> None:
    """With no time a solver returns at once, says so, and claims no more than a feasible point."""
    result = runner.run(case.make(), time_limit=0.0)
    expect(
        result.claim <= Claim.FEASIBLE,
        f"{runner.name} claims {result.claim.value} on {case.name} with a time limit of 0 seconds. Ask "
        "`context.expired` before each piece of work, and claim at most feasible when it is true.",
    )
    expect(
        result.termination is Termination.TIME_LIMIT,
        f"{runner.name} ends {result.termination.value} on {case.name} with a time limit of 0 seconds. Expected "
        "time-limit.",
    )


def unknown_option_refused(runner: Runner) -> None:
    """Options are declared fields with a help text, and one that is not declared is refused by name."""
    if not dataclasses.is_dataclass(runner.factory):
        raise Failed(f"{runner.name} is no dataclass. Expected a frozen dataclass whose fields are its options.")
    frozen = bool(getattr(runner.factory, "__dataclass_params__").frozen)  # noqa: B009 - private to dataclasses
    expect(frozen, f"{runner.name} is a dataclass that can be changed. Expected @dataclass(frozen=True).")
    try:
        runner.make(no_such_option="1")
    except UsageError as error:
        expect("no_such_option" in str(error), f"{runner.name} refuses an unknown option without naming it: {error}")
    else:
        raise Failed(f"{runner.name} accepts the option no_such_option, which it does not have.")
    factory: Any = runner.factory
    try:
        factory(no_such_option=1)
    except (TypeError, UsageError):
        pass
    else:
        raise Failed(
            f"{runner.name}(no_such_option=1) is accepted, and so would be any misspelt option. Let the dataclass make "
            "__init__; one with **kwargs swallows what it does not know."
        )
    silent = [o.name for o in describe(runner.factory) if not o.help]
    expect(
        not silent,
        f"{runner.name} has options without a help text: {', '.join(silent)}. Give them metadata={{'help': ...}}.",
    )


def result_travels(name: str, result: Result) -> None:
    """The result pickles, and reads back from its JSON as the same."""
    again: Result = pickle.loads(pickle.dumps(result))
    expect(again == result, f"The result of {name} is another one after pickling.")
    text = result.to_json()
    expect(Result.from_json(text).to_json() == text, f"The result of {name} is another one after a trip through JSON.")


def no_solution_said(name: str, result: Result, case: Case, problem: Problem) -> None:
    """On a problem without a solution nothing is claimed, and what is said to be the reason is the reason."""
    assert case.known is not None
    expected = Termination(case.known.termination)
    expect(
        result.claim <= Claim.FEASIBLE,
        f"{name} claims {result.claim.value} on {case.name}, which has no solution: it is {expected.value} "
        f"({_source(case)}).",
    )
    if result.has_point:
        # A leader without a floor has points, and a local method may stop at one.
        expect(
            expected is Termination.UNBOUNDED,
            f"{name} returns a point of {case.name}, which has none: it is {expected.value} ({_source(case)}).",
        )
        return
    proofs = {*EMPTY, Termination.UNBOUNDED}
    same = result.termination is expected or (result.termination in EMPTY and expected in EMPTY)
    expect(
        result.termination not in proofs or same,
        f"{name} says of {case.name} that it is {result.termination.value}, and it is {expected.value} "
        f"({_source(case)}).",
    )
    expect(bool(result.message), f"{name} returns no point of {case.name} and no message why.")


def stop_honoured(runner: Runner, case: Case) -> None:
    """A request to stop ends the run at the next chance, with what there is."""
    before = runner.run(case.make(), stopped=True)
    expect(
        before.termination is Termination.STOPPED_BY_USER,
        f"{runner.name} was asked to stop before it began on {case.name}, and ended {before.termination.value}. "
        "Expected stopped-by-user: ask `context.stopped` before each piece of work.",
    )
    expect(
        before.claim <= Claim.FEASIBLE,
        f"{runner.name} was asked to stop before it began on {case.name}, and claims {before.claim.value}.",
    )
    asked: list[Event] = []

    def stop(event: Event) -> bool:
        asked.append(event)
        return True

    result = runner.run(case.make(), callbacks=[stop])
    extra = sum(event.kind in ("iteration", "incumbent") for event in asked[1:])
    expect(
        extra <= 3,
        f"{runner.name} was asked to stop at its first event on {case.name}, and went on for {extra} more steps.",
    )
    proofs = {*EMPTY, Termination.UNBOUNDED, Termination.CONVERGED, Termination.STOPPED_BY_USER}
    expect(
        not asked or result.termination in proofs,
        f"{runner.name} was asked to stop at its first event on {case.name}, and ended {result.termination.value}. "
        "Expected stopped-by-user.",
    )


def input_unchanged(runner: Runner, case: Case) -> None:
    """The user's model is after a run what it was before: values, bounds, what is fixed and active."""
    problem = case.make()
    before = text_of(problem)
    runner.run(problem)
    after = text_of(problem)
    if before == after:
        return
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    old, new = next(((a, b) for a, b in pairs if a != b), ("", "lines were added or removed"))
    raise Failed(
        f"{runner.name} changes the problem that it is given ({case.name}): {old.strip()!r} became {new.strip()!r}. "
        "Work on problem.program(), or on a copy."
    )


def resume_equals_uninterrupted(runner: Runner, case: Case) -> None:
    """A run that is stopped and goes on from its checkpoint ends as one that was never stopped, bit by bit."""
    from bilevel_core.run.checkpoint import loads

    if not runner.factory.resumable:
        raise NotApplicable(f"{runner.name} keeps no checkpoints to go on from")
    often: dict[str, Any] = {}
    if any(o.name == "checkpoint_every" for o in describe(runner.factory)):
        often = {"checkpoint_every": 0.0}
    whole = runner.run(case.make(), keeper=Keeper(), **often)
    steps = 0

    def stop(event: Event) -> bool:
        nonlocal steps
        steps += event.kind in ("iteration", "incumbent")
        return steps >= 2

    keeper = Keeper()
    part = runner.run(case.make(), keeper=keeper, callbacks=[stop], **often)
    if part.termination is not Termination.STOPPED_BY_USER:
        raise NotApplicable(f"the run ends before it can be stopped: {part.termination.value}")
    expect(bool(keeper.content), f"{runner.name} was stopped and left no checkpoint.")
    resumed = runner.run(case.make(), keeper=keeper, restored=loads(keeper.content), **often)
    expect(
        _points(whole) == _points(resumed) and whole.claim is resumed.claim,
        f"{runner.name} on {case.name}: a run that was stopped and resumed ends with {resumed.upper_objective} "
        f"({resumed.termination.value}), and one that was never stopped with {whole.upper_objective} "
        f"({whole.termination.value}), or at another point. Whatever a step needs belongs into the state.",
    )


def dtype_and_device_kept(runner: Runner, dtype: str, device: str) -> None:
    """Functions of tensors are called with tensors of the dtype and on the device of the starting points."""
    try:
        import torch
    except ImportError as error:
        raise NotApplicable("torch is not installed") from error
    from bilevel_core.testing.problems import tensors, tensors_optimum

    if device != "cpu" and not (runner.factory.uses_device and torch.cuda.is_available()):
        raise NotApplicable(f"{runner.name} computes on the CPU only, or torch has no {device} here")
    kind: Any = getattr(torch, dtype)
    default = torch.get_default_dtype()
    seen: list[Any] = []
    problem = tensors(kind, device, seen)
    runner.takes(problem)
    seen.clear()
    result = runner.run(problem, seed=1)
    wrong = sorted({str(s) for s in seen if s != (kind, torch.device(device).type)})
    expect(
        not wrong,
        f"{runner.name} calls the user's functions with tensors of {', '.join(wrong)}. Expected ({kind}, {device}), as "
        "the starting points are.",
    )
    now = torch.get_default_dtype()
    expect(now is default, f"{runner.name} leaves torch's default dtype at {now}; it was {default}.")
    best = tensors_optimum()
    if result.has_point and result.upper_objective is not None:
        expect(
            result.upper_objective >= best - 1e-3 * best,
            f"{runner.name} gives a problem of {dtype} the value {result.upper_objective:g}, and its optimum is "
            f"{best:g}.",
        )


def agrees_with_enumeration(runner: Runner, random: RandomLinear) -> None:
    """On a small random problem: a global claim is the optimum found by enumeration, a bound does not exclude it."""
    problem = random.problem()
    if isinstance(verdict := runner.verdict(problem), Refused):
        raise NotApplicable(f"{runner.name} refuses it: {verdict.reason}")
    best = random.optimum()
    result = runner.run(problem, seed=random.seed)
    slack = 1e-5 * max(1.0, abs(best)) if math.isfinite(best) else 0.0
    where = f"{random.name}: the optimum by enumeration is {best:g}"
    told = result.termination.value
    got = result.upper_objective
    if result.termination in EMPTY:
        expect(not math.isfinite(best), f"{where}, and {runner.name} says that it is {told}.")
    expect(result.termination is not Termination.UNBOUNDED, f"{where}, and {runner.name} says that it is unbounded.")
    if result.has_point and got is not None:
        expect(got >= best - slack, f"{where}, and {runner.name} returns a point with {got:g}, which is better.")
        if result.claim is Claim.GLOBAL:
            wide = max(slack, runner_gap(result))
            expect(got <= best + wide, f"{where}, and {runner.name} claims that {got:g} is globally optimal.")
    if result.bound is not None and math.isfinite(best):
        expect(result.bound <= best + slack, f"{where}, and {runner.name} gives {result.bound:g} as a proven bound.")


def runner_gap(result: Result) -> float:
    """What a global claim leaves open: the distance of its proven bound."""
    if result.bound is None or result.upper_objective is None:
        return 0.0
    return 1.001 * abs(result.upper_objective - result.bound)


def _value(case: Case) -> float:
    if case.known is None or case.known.upper_objective is None:
        raise NotApplicable(f"the optimum of {case.name} is not known")
    return case.known.upper_objective


def _source(case: Case) -> str:
    return "" if case.known is None else case.known.source


def _close(got: float | None, value: float, tolerance: float) -> bool:
    return got is not None and abs(got - value) <= tolerance * max(1.0, abs(value))


def _sense(got: float | None, value: float) -> str:
    turned = value != 0.0 and _close(got, -value, 1e-8)
    return " It has the other sign: results are in the user's sense, also where the leader maximises." if turned else ""


def _points(result: Result) -> list[tuple[str, bytes]]:
    both = {**{f"x.{k}": v for k, v in result.x.items()}, **{f"y.{k}": v for k, v in result.y.items()}}
    return sorted((name, np.asarray(value, dtype=float).tobytes()) for name, value in both.items())
