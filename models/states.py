"""States of a pass: the equilibrium of a cell, or the end of a number of layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..implicit import Autocast, Exact, Gradient, fixed_point
from ..options.options import check_integer
from ..solvers import Stopping
from .cell import Pass
from .depth import Depth, Equilibrium, Stacked, WeightTied
from .memory import Memory
from .output import Piece

# Relative tolerance in half precision, in rounding units. Measured on cells of both models in bfloat16: after
# 100 iterations, the residual of every token is below 0.4 units.
_REACHABLE_UNITS = 1
# The same for the adjoint: its residual scales with the solution, which is several times larger than the
# cotangent that the tolerance is relative to.
_ADJOINT_UNITS = 4


class Found(NamedTuple):
    """States of a pass.

    Attributes:
        states: States at all positions after the last layer, `(batch, time, state)`.
        levels: States for the memory, one tensor for each layer with separate weights.
        pieces: The states with their map, one for each subsequence.
    """

    states: Tensor
    levels: list[Tensor]
    pieces: tuple[Piece, ...] = ()


class Given(NamedTuple):
    """Input of a pass.

    Attributes:
        injection: Features injected at each position, `(batch, time, features)`.
        remembered: The part of the input that a memory keeps, `(batch, time, features)`.
        memory: The memory before the first position.
    """

    injection: Tensor
    remembered: Tensor
    memory: Memory


def find(how: Depth, passes: list[Pass], z: Tensor, given: Given, depth: int | None) -> Found:
    """Find the states for `how` from the start `z`; a given `depth` unrolls shared layers instead."""
    if isinstance(how, Stacked):
        if depth is not None:
            raise ValueError("stacked layers have a depth of their own: leave depth out")
        return _stack(passes, z, given)
    if isinstance(how, Equilibrium) and depth is None:
        return _solve(how, passes[0], z, given)
    if isinstance(how, WeightTied) and depth is None:
        depth = how.depth
    return _unroll(passes[0], z, given, depth, how.checkpoint)


def _solve(how: Equilibrium, part: Pass, z: Tensor, given: Given) -> Found:
    """The equilibrium, solved piece after piece; each is the history of the next."""
    injection, length = given.injection, given.injection.shape[1]
    size, token = how.subsequence or length, how.coefficients == "token"
    history, history_inputs = given.memory.states[0], given.memory.inputs
    pieces = []
    for start in range(0, length, size):
        piece = slice(start, min(start + size, length))
        inputs = part.inputs(injection[:, piece], history, history_inputs)
        solution = fixed_point(
            part.cell.map,
            z[:, piece],
            part.weights,
            inputs,
            solver=how.solver,
            stopping=floored(how.stopping, injection.dtype),
            gradient=_floored_gradient(how.derivative, injection.dtype),
            batch_dims=2 if token else 1,
            causal=token,
            on_failure=how.on_failure,
            trace=how.trace,
        )
        function = _filled(part.cell.map, part.weights, inputs, z.device)
        pieces.append(Piece(solution.value, function, solution.detach()))
        if piece.stop < length:
            history = torch.cat((history, solution.value), dim=1)
            history_inputs = torch.cat((history_inputs, given.remembered[:, piece]), dim=1)
    values = [piece.value for piece in pieces]
    states = values[0] if len(values) == 1 else torch.cat(values, dim=1)
    return Found(states, [states], tuple(pieces))


def _unroll(part: Pass, z: Tensor, given: Given, layers: int | None, checkpointed: bool) -> Found:
    """The states after a number of layers that share their weights."""
    check_integer("depth", layers, 1)
    inputs = part.inputs(given.injection, given.memory.states[0], given.memory.inputs)
    function = _filled(part.cell.map, part.weights, inputs, z.device)
    for _ in range(int(layers or 0)):
        if checkpointed and torch.is_grad_enabled():
            # Masks are arguments: a layer draws no random numbers.
            z = checkpoint(function, z, use_reentrant=False, preserve_rng_state=False)
        else:
            z = function(z)
    return Found(z, [z], (Piece(z, function),))


def _stack(passes: list[Pass], z: Tensor, given: Given) -> Found:
    """The states after layers with separate weights; the memory keeps the input of each layer."""
    levels = []
    for part, history in zip(passes, given.memory.states, strict=True):
        levels.append(z)
        inputs = part.inputs(given.injection, history, given.memory.inputs)
        z = part.cell.map(z, part.weights, inputs)
    return Found(z, levels)


def floored(stopping: Stopping, dtype: torch.dtype, units: float = _REACHABLE_UNITS) -> Stopping:
    """Raise the tolerance of `stopping` on residuals to one that a cell in half precision can reach.

    Examples:
        >>> floored(Stopping(rtol=1e-4), torch.bfloat16).rtol_residual
        0.0078125
        >>> floored(Stopping(rtol=1e-4), torch.float32).rtol_residual is None
        True
    """
    if dtype not in (torch.bfloat16, torch.float16):
        return stopping
    given = stopping.rtol if stopping.rtol_residual is None else stopping.rtol_residual
    return replace(stopping, rtol_residual=max(given or 0.0, units * torch.finfo(dtype).eps))


def _floored_gradient(gradient: Gradient, dtype: torch.dtype) -> Gradient:
    if not isinstance(gradient, Exact) or gradient.stopping is None:
        return gradient
    return replace(gradient, stopping=floored(gradient.stopping, dtype, _ADJOINT_UNITS))


def _filled(
    function: Callable[..., Tensor], weights: Any, inputs: Any, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """`function` of its first argument alone, always in the precision of this pass."""
    autocast = Autocast.current(device.type)

    def filled(z: Tensor) -> Tensor:
        if autocast.is_current:
            return function(z, weights, inputs)
        with autocast.context():
            return function(z, weights, inputs)

    return filled
