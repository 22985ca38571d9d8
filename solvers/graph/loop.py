"""The loop of a whole solve as operations of a graph: steps, and the verdict of each system.

It is the driver once more, with tensors for arrays: the same `verdict` ends a system, the same bound on the
error puts off the claim of a fixed point, and the iterate of the moment in which a system ends is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..driving.contraction import error_bound
from ..driving.demand import SAFE
from ..driving.progress import (
    CONVERGED,
    FAR,
    RECURSION_MARGIN,
    REREAD_MARGIN,
    RUNNING,
    Progress,
    Rules,
    verdict,
)
from ..interface.norms import rms_unit
from ..interface.problem import Form, Problem
from ..interface.tolerance import ends_at_zero, threshold
from .cut import Cut
from .method import Method, tensors_of, with_tensors


class Asked(NamedTuple):
    """All numbers that a solve depends on, as tensors; one entry per system, in float64, but for `numbers`.

    Norms are root-mean-square. `first` has the norms of the first residual, `reference` those that relative
    tolerances refer to, of a fixed point unused; NaN stands for the norm of the residual at the start. An
    absolute tolerance of NaN is the default one of a fixed point.
    """

    rtol: Tensor
    atol: Tensor
    first: Tensor
    reference: Tensor
    held: Tensor
    """Boolean: systems that take no part."""
    numbers: Tensor
    """Limit on steps, patience, patience at rounding, divergence, rounding level, tolerance on the error."""


class Report(NamedTuple):
    """The end of a run."""

    z: Tensor
    systems: Tensor
    """Status, steps, step of the kept iterate, its residual norm, its error: `(5, batch)` in float64."""
    steps: Tensor
    """Steps of the loop."""


class _Track(NamedTuple):
    """The ledger of the loop; an entry for each system but for the last field."""

    status: Tensor
    steps: Tensor
    best_step: Tensor
    kept_norm: Tensor
    error: Tensor
    best: Tensor
    mark: Tensor
    since: Tensor
    reached: Tensor
    norm: Tensor
    """At the last step."""
    step: Tensor


@dataclass(frozen=True)
class Loop:
    """A solve by `method` of an equation given by a graph.

    Attributes:
        method: The steps.
        equation: The graph of the part that the steps evaluate.
        form: The form of the equation.
        linear: The equation is linear.
        recursive: Residuals come from a recursion.
        ends_itself: The solver says when it can do no more.
        fine: The function computes in more than half precision.
    """

    method: Method
    equation: Cut
    form: Form
    linear: bool
    recursive: bool
    ends_itself: bool
    fine: bool

    @property
    def _relative(self) -> bool:
        return self.form == "fixed_point" and not self.linear

    def __call__(
        self, z: Tensor, residual: Tensor, length: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """The tensors of a `Report`, from those of an `Asked` and the inputs of the equation.

        Args:
            z: The start.
            residual: The residual there, of a linear equation; others are evaluated.
            length: The length of a first step.
            tensors: The fields of an `Asked`, then the inputs of the equation.
        """
        from torch._higher_order_ops.while_loop import while_loop_op

        count = len(Asked._fields)
        asked, inputs = Asked(*tensors[:count]), tensors[count:]
        prepared = tuple(_own(tensor) for tensor in self.equation.prepare(inputs))
        problem = self._problem(prepared)
        if self.method.part != "operator":
            residual = problem.residual(z)
        own = _norms(residual, rms_unit(z.shape[1]))
        asked = asked._replace(
            first=torch.where(torch.isnan(asked.first), own, asked.first),
            reference=torch.where(torch.isnan(asked.reference), own, asked.reference),
        )
        state = self.method.begin(problem, z, residual, length)
        begun = self._begun(z, residual)
        default = ends_at_zero(z.dtype) * torch.where(torch.isfinite(begun), begun, 0.0)
        asked = asked._replace(atol=torch.where(torch.isnan(asked.atol), default, asked.atol))
        carried = _distinct(_carry(state, z, self._start(z, residual, asked)))
        given = (begun, *asked, *prepared)
        split = len(carried)

        def goes_on(*tensors: Tensor) -> Tensor:
            track = _Track(*tensors[split - len(_Track._fields) : split])
            return (track.status == RUNNING).any()

        def body(*tensors: Tensor) -> tuple[Tensor, ...]:
            begun, *rest = tensors[split:]
            asked, prepared = Asked(*rest[:count]), rest[count:]
            before, kept, track = _uncarry(state, tensors[:split])
            after, kept, track = self._step(prepared, before, kept, track, asked, begun)
            return tuple(_fresh(t, tensors) for t in _carry(after, kept, track))

        loop: Any = while_loop_op
        final = loop(goes_on, body, carried, given)
        last, kept, track = _uncarry(state, final)
        if self.method.lazy:
            kept = self.method.finish(last)
        return tuple(_report(kept, track))

    def _problem(self, prepared: Sequence[Tensor]) -> Problem:
        """The equation as the steps see it."""

        def graph(z: Tensor) -> Any:
            return self.equation.after(z, *prepared)

        part = self.method.part
        if part == "operator":
            return Problem(graph, self.form, operator=graph)
        if part == "jacobian":
            return Problem(
                lambda z: graph(z)[0], self.form, linearize=lambda z: _linearized(graph(z))
            )
        return Problem(graph, self.form)

    def _begun(self, z: Tensor, residual: Tensor) -> Tensor:
        """The larger of the sizes of the start and of its residual."""
        unit = rms_unit(z.shape[1])
        return torch.maximum(_norms(z, unit), _norms(residual, unit))

    def _start(self, z: Tensor, residual: Tensor, asked: Asked) -> _Track:
        """Before the first step: a system that is solved at its start takes none."""
        norm = _norms(residual, rms_unit(residual.shape[1]))
        zero = torch.zeros_like(norm, dtype=torch.int64)
        reference = _norms(z, rms_unit(z.shape[1])) if self._relative else asked.reference
        solved = norm <= threshold(asked.rtol, asked.atol, reference)
        held = torch.where(asked.held | solved, CONVERGED, RUNNING)
        never = torch.zeros((), dtype=torch.int64, device=norm.device)
        nothing = torch.full_like(norm, torch.nan)
        return _Track(
            held + zero, zero, zero.clone(), norm, nothing, norm.clone(), norm.clone(), zero.clone(),
            asked.held & False, norm.clone(), never,
        )  # fmt: skip

    def _step(
        self,
        prepared: Sequence[Tensor],
        before: Any,
        kept: Tensor,
        track: _Track,
        asked: Asked,
        begun: Tensor,
    ) -> tuple[Any, Tensor, _Track]:
        """One step of every system, and its verdict."""
        running = track.status == RUNNING
        problem, unit = self._problem(prepared), rms_unit(kept.shape[1])
        # A system that has ended is evaluated where it ended.
        problem.park(~running.unsqueeze(1), kept)
        state, step = self.method.advance(problem, before), track.step + 1
        own = getattr(state, "norm", None)
        norm = _norms(state.residual, unit) if own is None else own.double() * unit
        reference = _norms(state.z, unit) if self._relative else asked.reference
        goal = threshold(asked.rtol, asked.atol, reference)
        level = asked.numbers[4]
        at_rounding = norm <= level * reference
        progress = Progress(track.best, track.mark, track.since, track.reached)
        progress = progress.after(norm, step, at_rounding)
        claims, bar, error = norm <= goal, goal, torch.full_like(norm, torch.nan)
        if self._relative:
            error = self._error(before, state, track.norm, norm, reference)
            late = claims & (error > asked.numbers[5]) & (norm > asked.atol)
            late = late & self.fine
            bar = torch.where(late, -1.0, goal)
            far = (reference > FAR * begun) | (norm == 0)
            error = torch.where(far & ~late, torch.nan, error)
        elif not self.linear and hasattr(state, "error"):
            # A larger one is for the driver to estimate.
            known = state.error().double()
            error = torch.where(known <= SAFE * asked.numbers[5], known, torch.nan)
        codes = verdict(
            self._rules(asked), norm, bar, asked.first, progress, step,
            at_rounding=at_rounding, end_status=getattr(state, "end_status", None),
            last=step >= asked.numbers[0],
        )  # fmt: skip
        converged = codes == CONVERGED
        keep = running & ((norm < track.best) | converged)
        if not self.method.lazy:
            kept = torch.where(keep.unsqueeze(1), state.z, kept)
        after = _Track(
            status=torch.where(running, codes, track.status),
            steps=torch.where(running, step, track.steps),
            best_step=torch.where(keep, step, track.best_step),
            kept_norm=torch.where(keep, norm, track.kept_norm),
            error=torch.where(keep & claims, error, track.error),
            best=torch.where(running, progress.best, track.best),
            mark=torch.where(running, progress.mark, track.mark),
            since=torch.where(running, progress.since, track.since),
            reached=progress.reached,
            norm=norm,
            step=step,
        )
        return state, kept, after

    def _rules(self, asked: Asked) -> Rules:
        _, patience, at_rounding, divergence, *_ = asked.numbers.unbind()
        # The graph rounds otherwise than the function, which is evaluated again at the end.
        margin = RECURSION_MARGIN if self.recursive else REREAD_MARGIN
        return Rules(patience, at_rounding, divergence, self.ends_itself, margin)  # type: ignore[arg-type]

    def _error(
        self, before: Any, state: Any, past: Tensor, norm: Tensor, reference: Tensor
    ) -> Tensor:
        """The bound on the error of a fixed point; unknown where it did not move."""
        moved = _norms(state.z - before.z, rms_unit(state.z.shape[1]))
        error = error_bound(moved, norm, past, reference)
        return torch.where(moved == 0, torch.nan, error)


@dataclass(frozen=True)
class _Matrices:
    """A derivative that is given by its matrices."""

    matrices: Tensor

    def jvp(self, v: Tensor) -> Tensor:
        return torch.bmm(self.matrices, v.unsqueeze(2)).squeeze(2)

    def vjp(self, u: Tensor) -> Tensor:
        return torch.bmm(u.unsqueeze(1), self.matrices).squeeze(1)

    def jacobian(self, like: Tensor) -> Tensor:
        return self.matrices


def _linearized(values: tuple[Tensor, Tensor]) -> tuple[Tensor, _Matrices]:
    value, matrices = values
    return value, _Matrices(matrices)


def _norms(rows: Tensor, unit: float) -> Tensor:
    """Root-mean-square norms in float64."""
    return torch.linalg.vector_norm(rows, dim=1).double() * unit


def _report(kept: Tensor, track: _Track) -> Report:
    systems = torch.stack(
        (track.status, track.steps, track.best_step, track.kept_norm, track.error)
    )
    return Report(kept, systems, track.step)


def _carry(state: Any, kept: Tensor, track: _Track) -> tuple[Tensor, ...]:
    return (*tensors_of(state), kept, *track)


def _uncarry(like: Any, tensors: Sequence[Tensor]) -> tuple[Any, Tensor, _Track]:
    split = len(tensors) - len(_Track._fields)
    state = with_tensors(like, tensors[: split - 1])
    return state, tensors[split - 1], _Track(*tensors[split:])


def _own(tensor: Tensor) -> Tensor:
    """A tensor that no other shares its memory with."""
    return tensor.contiguous()


def _distinct(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors with a copy of each that came before."""
    seen: list[Tensor] = []
    for tensor in tensors:
        seen.append(_fresh(tensor, seen))
    return tuple(seen)


def _fresh(tensor: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """A loop may not return what it was given."""
    return tensor.clone() if any(tensor is one for one in inputs) else tensor
