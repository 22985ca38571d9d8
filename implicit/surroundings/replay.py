"""Replay of autocast, default device and random state, so that all evaluations in a call are of one function.

The solver and every derivative evaluate the user's function many times, the backward pass even outside
of the `autocast` region of the call. Each evaluation has the autocast state and the default device of the
call, and the tensors that stood in for others. If the first
evaluation drew random numbers (dropout), each later one starts from the same generator state, so that
one mask holds for the whole solve and its derivatives. The generators end where one evaluation leaves
them. While other threads run, which share the generators, the numbers themselves are recorded instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._pytree import tree_leaves

from ..equations.exchange import Substitute, active
from ..equations.layout import Leaves
from .autocast import Autocast
from .draws import Draw, Recording, Repetition, refuse_in_graph, repeating
from .inference import OrdinaryCopies


def random_state(devices: Iterable[torch.device]) -> tuple[Tensor, ...]:
    """States of the CPU generator and of the generators of the CUDA `devices`."""
    states = [torch.get_rng_state()]
    states += [torch.cuda.get_rng_state(device) for device in devices]
    return tuple(states)


def set_random_state(devices: Iterable[torch.device], states: tuple[Tensor, ...]) -> None:
    """Set the generators to states from `random_state`."""
    torch.set_rng_state(states[0])
    for device, state in zip(devices, states[1:], strict=True):
        torch.cuda.set_rng_state(state, device)


class Replay:
    """Surroundings of one call, restored for each evaluation of its function.

    Attributes:
        random: The function draws random numbers.
        doubtful: The generators do not tell whether the first evaluation drew; another one is to be recorded.

    Args:
        described: The function's name in errors.
        trees: Pytrees that hold the tensors of the call.
        known: The function is known to draw no random numbers.
    """

    def __init__(self, described: str, *trees: Any, known: bool = False) -> None:
        self._described = described
        # Devices of the unknown, the first tree, suffice where no numbers are drawn.
        trees = trees if torch.cuda.is_initialized() else ()
        leaves = tree_leaves(trees[:1] if known else trees)
        devices = {leaf.device for leaf in leaves if isinstance(leaf, Tensor)}
        self._inference = torch.is_inference_mode_enabled()
        self._exchanges = active()
        self._default_device = _default_device()
        types = {"cpu"} | {device.type for device in devices if device.type == "cuda"}
        self._types = tuple(sorted(types))
        self._autocast = tuple(Autocast.current(device_type) for device_type in self._types)
        self._devices = tuple(device for device in devices if device.type == "cuda")
        self._start = () if known else random_state(self._devices)
        self._after_first: tuple[Tensor, ...] | None = () if known else None
        self.random = False
        self.doubtful = False
        self._recording: Recording | None = None
        self._draws: list[Draw] | None = None
        self._plain = False
        if known:
            self._settle()

    @property
    def standing_in(self) -> Leaves:
        """The tensors that take the place of others in the function of an enclosing call."""
        modes = (mode for mode in self._exchanges if isinstance(mode, Substitute))
        return tuple(tensor for mode in modes for tensor in mode.replacements)

    @property
    def autocast(self) -> tuple[Autocast, ...]:
        """The autocast state of the call, for each type of device."""
        return self._autocast

    def autocast_dtype(self, device: torch.device) -> torch.dtype | None:
        """The dtype of autocast on `device`, if it is on."""
        for state in self._autocast:
            if state.enabled and state.device_type == device.type:
                return state.dtype
        return None

    def run(self, function: Callable[[], Any]) -> Any:
        """Call `function` in these surroundings."""
        if self._plain and not self._surrounded():
            return function()
        with ExitStack() as stack:
            if _default_device() != self._default_device:
                stack.enter_context(self._default_device or torch.device("cpu"))
            on = active()
            for mode in self._exchanges:
                if mode not in on:
                    stack.enter_context(mode)
            if self._inference:
                stack.enter_context(OrdinaryCopies())
            for state in self._autocast:
                if not state.is_current:
                    stack.enter_context(state.context())
            if self._after_first is None:
                result = function()
                self._after_first = random_state(self._devices)
                self.random = not _same(self._start, self._after_first)
                # Numbers that are given again move no generator.
                self.doubtful = repeating() or (self.random and threading.active_count() > 1)
                self._settle()
            elif self._recording is not None:
                stack.enter_context(self._recording)
                result = function()
            elif self._draws:
                if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None:
                    refuse_in_graph(self._described, self._draws[0].name)
                stack.enter_context(Repetition(self._described, self._draws))
                result = function()
            elif self.random:
                outside = random_state(self._devices)
                set_random_state(self._devices, self._start)
                try:
                    result = function()
                finally:
                    set_random_state(self._devices, outside)
            else:
                result = function()
        return result

    def _settle(self) -> None:
        special = self.random or self._inference or self._exchanges or self._default_device
        self._plain = not (special or any(state.enabled for state in self._autocast))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the random numbers of the evaluation inside, which later ones get again."""
        self._recording = Recording()
        self._plain = False
        try:
            yield
        finally:
            self._draws, self._recording = self._recording.draws, None
            self.random, self.doubtful = bool(self._draws), False
            self._settle()

    def _surrounded(self) -> bool:
        """True if this evaluation has surroundings of its own, which must give way."""
        return any(map(torch.is_autocast_enabled, self._types)) or _default_device() is not None

    def check_unmoved(self, evaluate: Callable[[], Any]) -> None:
        """Raise a `RuntimeError` if random numbers were drawn although the first evaluation drew none.

        Args:
            evaluate: One more evaluation of the function, which shows whether it draws: others may have moved
                the generators, as another thread or a callback.
        """
        if not self._after_first or self.random:
            return
        if _same(self._after_first, random_state(self._devices)):
            return
        with self.recording():
            evaluate()
        if self.random:
            raise RuntimeError(
                f"{self._described} drew random numbers in a later evaluation but none in the first, so "
                "it is not one function throughout the solve; draw them before the call, or in every "
                "evaluation"
            )


def _default_device() -> torch.device | None:
    """The device of `torch.device` as a context or `torch.set_default_device`, if any."""
    if not torch._C._len_torch_function_stack():
        return None
    return next(
        (m.device for m in _get_current_function_mode_stack() if isinstance(m, DeviceContext)), None
    )


def _same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
