"""Calls of a layer that are all alike: what was found out of its module once is not looked up again.

A call that has gone the short way leaves its equation and its compiled loop here. The next one with the same
module and inputs of the same shapes runs the loop at once, after it has seen that the module holds the same
tensors and parts. Its function is then evaluated at the solution, as on the short way.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from ...solvers import Solution, Stopping
from ...solvers.graph.loop import Asked
from ...solvers.graph.run import CompiledLoop
from ...solvers.interface.stopping import DEFAULTS
from ...solvers.interface.traced import TracedEquation
from ..calls.call import Asking, Call
from ..calls.settings import Settings
from ..equations.capture import captured_leaves, graph_clock
from ..equations.differentiation import transforming
from ..equations.layout import Layout, Leaves
from ..rule import solve_call
from ..surroundings.writes import check_arguments, writes_to
from .shortcut import Straight, solved_everywhere

_MOST_CALLS = 16


class Parts:
    """The tensors and parts of a module at one time."""

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        self._parts = [
            (
                p,
                p._parameters,
                p._buffers,
                p._modules,
                len(p._parameters),
                len(p._buffers),
                p.training,
            )
            for p in parts
        ]
        self._held = [
            (held, key, value)
            for part in parts
            for held in (part._parameters, part._buffers, part._modules)
            for key, value in held.items()
        ]

    @property
    def has_buffers(self) -> bool:
        """True if a part holds a buffer, which evaluations may change."""
        return any(buffers for _, _, buffers, *_ in self._parts)

    def unchanged(self) -> bool:
        """True if the module holds the same tensors and parts, in the same mode."""
        for part, parameters, buffers, modules, p, b, training in self._parts:
            state = part.__dict__
            if (
                state["_parameters"] is not parameters
                or state["_buffers"] is not buffers
                or state["_modules"] is not modules
                or len(parameters) != p
                or len(buffers) != b
                or state["training"] is not training
            ):
                return False
        return all(held.get(key) is value for held, key, value in self._held)


@dataclass(frozen=True)
class Prepared:
    """One kind of call of a module."""

    settings: Settings
    parts: Parts
    call: Call
    captured: Leaves
    tensors: Leaves
    """Parameters of the module, in the order in which they are arguments."""
    constants: Leaves
    """Tensors that are inputs of the graph, and no arguments."""
    loop: CompiledLoop
    traced: TracedEquation
    """The equation, without the tensors of a call."""
    asked: Asked
    layout: Layout
    rtol: float

    def solve(self, module: nn.Module, z0: Tensor, inputs: Leaves) -> Solution | None:
        """The solution, or `None` to take another way."""
        layout, call = self.layout, self.call
        args = (*inputs, *self.tensors, *self.captured)
        z = layout.flatten((z0.detach(),))
        equation = replace(self.traced, inputs=(*args, *self.constants))
        run = self.loop(equation, z, z, None, self.asked)
        if not solved_everywhere(run):
            return None
        found = Straight(run, layout, self.rtol, layout.dtype)
        recording = torch.is_grad_enabled()
        clock = graph_clock() if recording else 0
        own = args[: len(inputs) + len(self.tensors)]
        before = [writes_to(tensor) for tensor in own]
        (at,) = found.leaves
        count = at._version
        value = module(at, *inputs)
        if type(value) is not Tensor or value.shape != at.shape or value.dtype != at.dtype:
            return None
        if at._version != count:
            return None
        check_arguments(call.equation.described, own, before, module=True)
        if recording:
            leaves = captured_leaves(call.equation.described, (value,), clock, own)
            known = set(map(id, own))
            closed_over = tuple(leaf for leaf in leaves if id(leaf) not in known)
            if len(closed_over) != len(self.captured) or not all(
                map(is_, closed_over, self.captured)
            ):
                return None
        confirmed = found.confirmed((value.detach(),))
        if confirmed is None:
            return None
        outcome, record = confirmed
        if recording and any(arg.requires_grad for arg in args):
            asking = Asking(
                record,
                self.settings.on_failure,
                precision=layout.dtype,
                outcome=outcome,
                build=_only,
            )
            outcome = solve_call(call, (z0.detach(),), args, asking)
        return record.solution(outcome.value[0], outcome)


def _only(leaves: Leaves) -> Any:
    return leaves[0]


class _Memory:
    """The calls of each module that is alive."""

    def __init__(self) -> None:
        self._calls: weakref.WeakKeyDictionary[nn.Module, dict[Any, Prepared]] = (
            weakref.WeakKeyDictionary()
        )

    def clear(self) -> None:
        """Forget all calls."""
        self._calls.clear()

    def note(self, module: nn.Module, key: Any, prepared: Prepared) -> None:
        """Keep a call."""
        calls = self._calls.setdefault(module, {})
        if len(calls) >= _MOST_CALLS:
            calls.clear()
        calls[key] = prepared

    def solved(
        self, module: nn.Module, z0: Any, inputs: tuple[Any, ...], settings: Settings
    ) -> Solution | None:
        """The solution of a call like an earlier one, or `None`."""
        calls = self._calls.get(module)
        if not calls or not _ordinary((z0, *inputs)):
            return None
        prepared = calls.get(call_key(settings, z0, inputs))
        if prepared is None or prepared.settings is not settings or not prepared.parts.unchanged():
            return None
        return prepared.solve(module, z0, inputs)


def call_key(settings: Settings, z0: Tensor, inputs: tuple[Tensor, ...]) -> Any:
    """The kind of a call."""
    return (
        id(settings), torch.is_grad_enabled(), torch.get_num_threads(), z0.shape, z0.dtype, z0.device,
        *((x.shape, x.dtype, x.device) for x in inputs),
    )  # fmt: skip


def _ordinary(tensors: tuple[Any, ...]) -> bool:
    """True for plain tensors, outside of every mode and transform."""
    return (
        all(type(tensor) is Tensor and not tensor.is_inference() for tensor in tensors)
        and not torch._C._len_torch_function_stack()
        and not torch._C._len_torch_dispatch_stack()
        and torch.autograd.forward_ad._current_level < 0
        and not torch.is_inference_mode_enabled()
        and not transforming()
        and not torch.is_autocast_enabled("cpu")
        and not torch.is_autocast_enabled("cuda")
    )


PREPARED = _Memory()
"""The calls of this process."""


def prepared_by(
    module: nn.Module,
    settings: Settings,
    call: Call,
    captured: Leaves,
    tensors: Leaves,
    found: Straight,
    stopping: Stopping | None,
    start: Leaves,
    inputs: int,
) -> None:
    """Note a call that has gone the short way, if all of its inputs and its unknown are plain tensors.

    Args:
        module: Its module.
        settings: Its settings.
        call: The call.
        captured: The leaves that the module closes over.
        tensors: The arguments: inputs, then parameters.
        found: The solution.
        stopping: The stopping rule.
        start: The start.
        inputs: Number of the inputs.
    """
    parts = Parts(module)
    loop, traced = found.loop, found.traced
    if loop is None or traced is None or parts.has_buffers or len(start) != 1:
        return
    given, parameters = tensors[:inputs], tensors[inputs:]
    if not _ordinary((*start, *given)) or len({id(t) for t in tensors}) < len(tensors):
        return
    rule = stopping or DEFAULTS
    z = found.layout.flatten(start)
    asked = loop.asked_plainly(rule, z, found.layout.dtype)
    constants = traced.inputs[len(tensors) + len(captured) :]
    PREPARED.note(
        module,
        call_key(settings, start[0], given),
        Prepared(
            settings, parts, call, captured, parameters, constants, loop, replace(traced, inputs=()), asked,
            found.layout, found.rtol,
        ),
    )  # fmt: skip
