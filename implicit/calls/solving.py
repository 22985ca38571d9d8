"""One call of `root` or one of its kin: the function in its surroundings, solved, with its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import is_
from typing import Any

from ...solvers import Solution, SolveError
from ..arrays.array_function import ArrayFunction, array_call
from ..compiled.numba_equation import NumbaEquation
from ..equations.differentiation import coarsest, constants, derivative_wanted, transforming
from ..equations.equation import GivenEquation
from ..equations.exchange import set_aside
from ..equations.hooks import without_hooks
from ..equations.identity import Identity
from ..equations.layout import Leaves
from ..graphs.prepared import prepared_by
from ..graphs.shortcut import CAPTURED, by_graph, inner, straight
from ..optimisation.active_bounds import active_bounds
from ..optimisation.bounds import bounded_call
from ..optimisation.forms import box_of, is_programme, objective_of
from ..rule import solve_call
from ..surroundings import inference
from ..surroundings.arguments import describe
from ..surroundings.closer import block
from ..surroundings.evaluation import UserFunction
from ..surroundings.keywords import WithKeywords
from ..surroundings.module import PureModule
from ..surroundings.replay import Replay
from ..surroundings.tracing import refuse_tracing
from ..surroundings.watching import watching_of
from .call import Asking, Call
from .outcome import CallOutcome, Record
from .recorded import differentiable
from .settings import Settings


def solve_equation(
    function: Callable[..., Any],
    z0: Any,
    args: tuple[Any, ...],
    settings: Settings,
    described: str | None = None,
    keywords: Mapping[str, Any] | None = None,
) -> Solution:
    """Solve the equation of `function`, with arguments as in `root`."""
    described = described or describe(function)
    around = block()
    if around is not None:
        settings = around.settings(settings, z0)
    if isinstance(function, ArrayFunction):
        function, described, settings = array_call(function, settings)
    if keywords:
        function, args = with_keywords(function, args, keywords)
    if settings.bounds is not None:
        function, args, settings = bounded_call(function, z0, args, settings)
    refuse_tracing(described)
    identity = None
    # Surroundings are recorded outside of the blocks, in which the modes of the caller are off.
    if by_graph(settings):
        replay = Replay(described, z0, args, known=True)
        known = UserFunction(
            function, described, z0, args, settings.batch_dims, replay, settings.has_aux
        )
        with inference.left(), set_aside():
            identity = known.identity()
            solution = _straight(known, settings, identity)
        if solution is not None:
            return solution
    replay = Replay(described, z0, args)
    given = UserFunction(
        function, described, z0, args, settings.batch_dims, replay, settings.has_aux
    )
    with inference.left(), set_aside():
        with without_hooks():
            first = given.evaluate_first()
        call = _call(given, settings, first.captured)
        watching = watching_of(settings, described) if settings.watched else None
        asking = Asking(
            on_failure=settings.on_failure,
            trace=settings.trace,
            callback=None if watching is None else watching.watcher,
            first=None if transforming() else tuple(leaf.detach() for leaf in first.value),
            precision=replay.autocast_dtype(given.start[0].device) or coarsest(first.value),
            build=given.build,
        )
        try:
            outcome = differentiable(call, asking, given.start, (*given.tensors, *first.captured))
        except SolveError as error:
            given.note_changes(error, first, asking.precision)
            if watching is not None:
                error.solution = replace(error.solution, history=watching.history)
            raise
        with without_hooks():
            given.finish(outcome.value)
        if identity is not None and not (given.moves_buffers or replay.random):
            CAPTURED.note(identity, first.captured)
        solution = _solution(given, asking.record, outcome)
        if settings.bounds is not None:
            at = active_bounds(given, outcome.value, settings.batch_dims)
            solution = replace(solution, bounds=at)
    given.release()
    if watching is None or watching.history is None:
        return solution
    return replace(solution, history=watching.history)


def _straight(given: UserFunction, settings: Settings, identity: Identity) -> Solution | None:
    """The solution by a compiled graph that is known from an earlier call, or `None`."""
    captured = CAPTURED.find(identity)
    if captured is None:
        return None
    call = _call(given, settings, captured, identity)
    solver, args = inner(settings.chosen_solver), (*given.tensors, *captured)
    assert solver is not None  # for the type checker
    found = straight(call.equation, solver, settings.chosen_stopping, constants(given.start), args)
    if found is None:
        return None
    first = given.evaluate_known(found.leaves)
    same = len(first.captured) == len(captured) and all(map(is_, first.captured, captured))
    if not same or given.moves_buffers:
        return None
    confirmed = found.confirmed(constants(first.value))
    if confirmed is None:
        return None
    outcome, record = confirmed
    asking = Asking(
        record, settings.on_failure, precision=found.precision, outcome=outcome, build=given.build
    )
    if derivative_wanted(args):
        outcome = solve_call(call, constants(given.start), args, asking)
    given.finish(outcome.value)
    if (
        isinstance(given.function, PureModule)
        and given.takes_tensors
        and not given.function.keywords
        and not given.has_aux
    ):
        module, parameters = given.function.module, len(given.function.parameters)
        prepared_by(
            module, settings, call, captured, given.tensors, found, settings.chosen_stopping, given.start,
            len(given.tensors) - parameters,
        )  # fmt: skip
    return _solution(given, record, outcome)


def _solution(given: UserFunction, record: Record, outcome: CallOutcome) -> Solution:
    """The solution of a call, with its auxiliary output if it has one."""
    solution = record.solution(given.build(outcome.value), outcome)
    if not given.has_aux:
        return solution
    return replace(solution, aux=given.auxiliary(outcome.value))


def with_keywords(
    function: Callable[..., Any], args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function with its keyword arguments as the last of its arguments."""
    args = (*args, *keywords.values())
    if isinstance(
        function, NumbaEquation
    ):  # It takes its one argument by place as well as by name.
        return function, args
    return WithKeywords(function, tuple(keywords)), args


def _call(
    given: UserFunction, settings: Settings, captured: Leaves, identity: Identity | None = None
) -> Call:
    function = given.function
    equation = GivenEquation(
        given=given.bind,
        form=settings.form,
        batch_dims=settings.batch_dims,
        captured=captured,
        linear=settings.linear,
        batched_args=given.batched(settings.batched_args, len(captured)),
        described=given.described,
        compiled=function.form if isinstance(function, NumbaEquation) else None,
        causal=settings.causal,
        identified=given.identity if identity is None else lambda: identity,
        derivatives=None
        if settings.derivatives is None
        else given.derivatives(settings.derivatives),
        objective=objective_of(given),
        box=box_of(given),
        programme=is_programme(given),
    )
    return Call(
        equation,
        settings.chosen_solver,
        settings.chosen_stopping,
        settings.chosen_gradient,
        len(given.start),
    )
