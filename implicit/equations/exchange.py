"""Modes of PyTorch in which every torch function gets other tensors in place of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._pytree import tree_map_only

from .layout import Leaves

_NOTHING = nullcontext()


class ExchangeMode(TorchFunctionMode):
    """Mode in which every torch function gets `exchanged(tensor)` in place of each tensor."""

    @abstractmethod
    def exchanged(self, tensor: Tensor) -> Tensor:
        """The tensor to take the place of `tensor`; it may be `tensor` itself."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        args, kwargs = tree_map_only(Tensor, self.exchanged, (args, kwargs or {}))
        return func(*args, **kwargs)


def active() -> tuple[ExchangeMode, ...]:
    """The modes of this kind that are on in this thread, innermost last."""
    if not torch._C._len_torch_function_stack():
        return ()
    stack = _get_current_function_mode_stack()
    return tuple(mode for mode in stack if isinstance(mode, ExchangeMode))


def exchanged(tensors: Leaves) -> Leaves:
    """`tensors` as a torch function would get them now.

    An autograd function is no torch function: its arguments are exchanged before it is called.
    """
    for mode in reversed(active()):
        tensors = tuple(map(mode.exchanged, tensors))
    return tensors


def set_aside() -> AbstractContextManager[None]:
    """Take these modes off; other ones stay.

    A call takes those off that it is made under, and puts them back for each evaluation of its function. So
    they act on that function alone, and never on the tensors of the call itself.
    """
    return _set_aside() if active() else _NOTHING


@contextmanager
def _set_aside() -> Iterator[None]:
    stack = _get_current_function_mode_stack()
    _replace_stack([mode for mode in stack if not isinstance(mode, ExchangeMode)])
    try:
        yield
    finally:
        _replace_stack(stack)


def _replace_stack(modes: list[TorchFunctionMode]) -> None:
    for _ in range(torch._C._len_torch_function_stack()):
        torch._C._pop_torch_function_stack()
    for mode in modes:
        torch._C._push_on_torch_function_stack(mode)


class Substitute(ExchangeMode):
    """Mode in which every torch function gets `replacements` in place of `originals`.

    An original may itself be a replacement of another mode, as in an equation inside the function of
    another. The mode of the inner equation is then entered first, so that it gets what the outer one gives.
    """

    def __init__(self, originals: Leaves, replacements: Leaves) -> None:
        super().__init__()
        self.replacements = replacements
        # The originals are kept, so that no other tensor can get the id of one.
        self._by_id = {id(a): (a, b) for a, b in zip(originals, replacements, strict=True)}

    def exchanged(self, tensor: Tensor) -> Tensor:
        found = self._by_id.get(id(tensor))
        return tensor if found is None else found[1]
