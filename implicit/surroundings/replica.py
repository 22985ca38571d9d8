"""Replica of a module, whose parameters can be exchanged while other threads use the original.

`torch.func.functional_call` replaces a module's parameters by other tensors for the time of one call.
Another thread that uses the module meanwhile would take these for the parameters. So a call replaces them
in a replica of its own, and never in the user's module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn

_STATE = ("_parameters", "_buffers", "_modules")


class Replica:
    """Replica of a module; attributes set on one are set on the other.

    Attributes:
        module: The replica, which holds the parameters and buffers of the original.
    """

    def __init__(self, module: nn.Module) -> None:
        # TorchScript modules cannot be copied part by part, and have no parameters to exchange.
        self._parts = [
            part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule)
        ]
        self._copies = {id(part): _empty(part) for part in self._parts}
        # For each part its attributes, as (value of the original, value of the replica).
        self._known: list[dict[str, tuple[Any, Any]]] = [{} for _ in self._parts]
        for part in self._parts:
            copy = self._copies[id(part)]
            copy.__dict__["_modules"] = {
                name: child if child is None else self._copies.get(id(child), child)
                for name, child in part._modules.items()
            }
        self.module = self._copies[id(module)]

    def __call__(self, evaluate: Callable[[nn.Module], Any]) -> Any:
        """`evaluate(replica)`; attributes that it sets are set on the original too."""
        for part, known in zip(self._parts, self._known, strict=True):
            held = self._copies[id(part)].__dict__
            for name, value in list(part.__dict__.items()):
                if name not in _STATE and (name not in known or known[name][0] is not value):
                    held[name] = self._counterpart(value)
                    known[name] = (value, held[name])
        try:
            return evaluate(self.module)
        finally:
            for part, known in zip(self._parts, self._known, strict=True):
                for name, value in list(self._copies[id(part)].__dict__.items()):
                    if name not in _STATE and (name not in known or known[name][1] is not value):
                        part.__dict__[name] = value
                        known[name] = (value, value)

    def _counterpart(self, value: Any) -> Any:
        """An attribute of the original with parts of the replica in place of the original's."""
        if isinstance(value, nn.Module):
            return self._copies.get(id(value), value)
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self._counterpart(value.__self__))
        if isinstance(value, functools.partial):
            args = map(self._counterpart, value.args)
            return functools.partial(self._counterpart(value.func), *args, **value.keywords)
        if type(value) in (list, tuple):
            entries = [self._counterpart(entry) for entry in value]
            same = all(a is b for a, b in zip(entries, value, strict=True))
            return value if same else type(value)(entries)
        if type(value) is dict:
            found = {key: self._counterpart(entry) for key, entry in value.items()}
            return value if all(found[key] is value[key] for key in value) else found
        return value


def _empty(part: nn.Module) -> nn.Module:
    """A module of the same class with the same parameters and buffers, and no other attributes yet."""
    copy: nn.Module = part.__new__(type(part))
    state = {name: dict(part.__dict__[name]) for name in _STATE}
    object.__setattr__(copy, "__dict__", state)
    return copy
