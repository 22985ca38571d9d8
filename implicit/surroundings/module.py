"""A module as a pure function of its parameters and buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..equations.capture import levels
from ..equations.identity import Identity
from ..equations.layout import Leaves
from .keywords import called
from .replica import Replica


class PureModule:
    """`(z, *inputs, parameters, buffers) ↦ module(z, *inputs)` without side effects.

    The last inputs are given by name if there are `keywords`. Parameters and buffers become arguments of the
    equation. If they are the ones that the module holds, the module itself is called; else a replica that
    holds the given ones.

    A module may change buffers when it is called (batch statistics). The first evaluation shows which.
    Every evaluation then gets copies of their values from before the call (`freeze`), and the buffers
    themselves change once, by the evaluation at the solution (`move_buffers`).
    """

    def __init__(self, module: nn.Module, keywords: tuple[str, ...] = ()) -> None:
        self.module, self.keywords = module, keywords
        self._replica: Replica | None = None
        self._scripted = Scripted.of(module)
        self._slots: dict[str, tuple[dict[str, Any], str]] = {}
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        self._walk(module)
        self._known = not self.buffers
        self._before: dict[str, Tensor] = {}

    def _walk(self, module: nn.Module) -> None:
        """Collect the tensors that can be exchanged, those of TorchScript modules cannot, each once."""
        seen: set[int] = set()
        for prefix, part in module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):
                continue
            for held, found in (
                (part._parameters, self.parameters),
                (part._buffers, self.buffers),
            ):
                for key, tensor in held.items():
                    if tensor is None:
                        continue
                    name = f"{prefix}.{key}" if prefix else key
                    self._slots[name] = (held, key)
                    if id(tensor) not in seen:
                        seen.add(id(tensor))
                        found[name] = tensor

    @property
    def changes_buffers(self) -> bool:
        """True if the first evaluation changed a buffer."""
        return bool(self._before)

    @property
    def is_lazy(self) -> bool:
        """True if a parameter or buffer has no shape yet."""
        return any(map(is_lazy, (*self.parameters.values(), *self.buffers.values())))

    def check_devices(self, z: Tensor) -> None:
        """Raise a `ValueError` if a parameter or buffer is on another device than the unknown."""
        for kind, tensors in (("parameter", self.parameters), ("buffer", self.buffers)):
            for name, tensor in tensors.items():
                # PyTorch accepts a scalar tensor on the CPU with tensors of any device.
                apart = tensor.device != z.device
                if apart and not (tensor.ndim == 0 and tensor.device.type == "cpu"):
                    raise ValueError(
                        f"{kind} {name!r} of {type(self.module).__name__} is on {tensor.device}, but the "
                        f"unknown z0 is on {z.device}; move the layer, layer.to({str(z.device)!r}), or "
                        "its inputs"
                    )

    def held(self) -> Leaves:
        """The tensors that the module holds now, in the order of parameters and buffers."""
        return tuple(
            self._slots[name][0][self._slots[name][1]] for name in (*self.parameters, *self.buffers)
        )

    def identity(self) -> Identity:
        """The identity of the function between calls; parameters and buffers are arguments."""
        key = (type(self.module), self.module.training, self.keywords, tuple(self._before))
        return Identity(key, (self.module,))

    def freeze(self, tensors: Leaves) -> Leaves:
        """`tensors` with copies, from before the call, of the buffers that the module changes."""
        copies = {id(self.buffers[name]): copy for name, copy in self._before.items()}
        return tuple(copies.get(id(tensor), tensor) for tensor in tensors)

    def __call__(self, z: Any, *inputs_and_state: Any) -> Any:
        *inputs, parameters, buffers = inputs_and_state
        if self._scripted is not None:
            scripted, self._scripted = self._scripted, None
            value = self(z, *inputs_and_state)
            scripted.check(f"the module {type(self.module).__name__}")
            return value
        if not self._known:
            return self._first_call(z, inputs, parameters, buffers)
        if self._holds(parameters) and self._holds(buffers):
            return called(self.module, z, inputs, self.keywords)
        own = {name: b.clone() if self._copied(name, b) else b for name, b in buffers.items()}
        return self._with_state(z, inputs, {**parameters, **own})

    def move_buffers(self, z: Any, *inputs: Any) -> None:
        """Let the module change its buffers by an evaluation at `z`."""
        with torch.no_grad():
            called(self.module, z, inputs, self.keywords)

    def _first_call(
        self, z: Any, inputs: list[Any], parameters: dict[str, Tensor], buffers: dict[str, Tensor]
    ) -> Any:
        copies = {
            name: buffer.clone() if buffer.layout == torch.strided else buffer
            for name, buffer in buffers.items()
        }
        state = {**parameters, **copies}
        value = self._with_state(z, inputs, state)
        # functional_call writes newly assigned buffers to the dictionary it was given. Values are compared
        # because batch normalisation does not count its updates in the version of a tensor.
        self._before = {
            name: buffer.clone() if buffer.layout == torch.strided else buffer
            for name, buffer in buffers.items()
            if not _same(state[name], buffer)
        }
        self._known = True
        return value

    def _with_state(self, z: Any, inputs: list[Any], state: dict[str, Tensor]) -> Any:
        if self._replica is None:
            self._replica = Replica(self.module)

        def evaluate(module: nn.Module) -> Any:
            def given(z: Any, *args: Any, **keywords: Any) -> Any:
                return torch.func.functional_call(module, state, (z, *args), keywords)

            return called(given, z, inputs, self.keywords)

        return self._replica(evaluate)

    def _copied(self, name: str, buffer: Tensor) -> bool:
        return name in self._before and buffer.layout == torch.strided

    def _holds(self, tensors: dict[str, Tensor]) -> bool:
        for name, tensor in tensors.items():
            held, key = self._slots[name]
            if held.get(key) is not tensor:
                return False
        return True


def _same(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    (*_, a), (*_, b) = levels(a), levels(b)
    return a.layout == b.layout == torch.strided and a.shape == b.shape and bool((a == b).all())


def initialise(
    module: nn.Module, z0: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    """Give the parameters of lazy modules their shapes, by an evaluation at the start.

    It is made in evaluation mode, so that it changes no statistics and draws no masks.
    """
    training = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            module(z0, *inputs, **keywords)
    finally:
        for part, mode in training:
            part.training = mode


class Scripted:
    """Buffers of the TorchScript modules in a module, which may not change when it is called.

    Their code cannot be given other buffers, and would change its own at every evaluation.
    """

    def __init__(self, buffers: list[Tensor]) -> None:
        self._buffers, self._before = buffers, [buffer.clone() for buffer in buffers]

    @staticmethod
    def of(module: nn.Module) -> Scripted | None:
        """The buffers; `None` if there are none."""
        scripted = (part for part in module.modules() if isinstance(part, torch.jit.ScriptModule))
        buffers = [buffer for part in scripted for buffer in part.buffers(recurse=False)]
        return Scripted(buffers) if buffers else None

    def check(self, described: str) -> None:
        """Raise a `TypeError` if one has changed, and set them back.

        Raises:
            TypeError: A buffer has changed.
        """
        changed = False
        for buffer, before in zip(self._buffers, self._before, strict=True):
            if not torch.equal(buffer, before):
                changed = True
                with torch.no_grad():
                    buffer.copy_(before)
        if changed:
            raise TypeError(
                f"{described} has TorchScript code that changes a buffer (batch statistics) at every "
                "evaluation, and a solve needs many: call layer.eval(), or give the module itself for "
                "torch.jit.script(module)"
            )
