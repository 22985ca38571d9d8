"""Random numbers of one evaluation, recorded and given again, where other threads may draw meanwhile.

All threads share PyTorch's generators. While others draw, a change of their state does not tell who drew, and
a state that is set back for one thread is set back for all. So the numbers themselves are kept, and no
generator is touched. Operations that draw carry the tag `nondeterministic_seeded`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_flatten, tree_map_only


@dataclass(frozen=True)
class Draw:
    """One operation that drew random numbers: what it was asked for, and its result."""

    operation: Any
    asked: tuple[Any, ...]
    result: Any


class Recording(TorchDispatchMode):
    """Mode that keeps the numbers of each operation that draws some.

    Attributes:
        draws: The operations and their numbers, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if _draws(func):
            kept = tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), result)
            self.draws.append(Draw(func, _asked(args, kwargs), kept))
        return result


class Repetition(TorchDispatchMode):
    """Mode in which the operations that draw give the numbers of a recording.

    Raises:
        RuntimeError: The evaluation draws other numbers than the recorded one.
    """

    def __init__(self, described: str, draws: list[Draw]) -> None:
        super().__init__()
        self._described = described
        self._left: Iterator[Draw] = iter(draws)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not _draws(func):
            return func(*args, **(kwargs or {}))
        draw = next(self._left, None)
        if draw is None or draw.operation is not func or draw.asked != _asked(args, kwargs):
            raise RuntimeError(
                f"{self._described} draws other random numbers in a later evaluation (by {func}) than in "
                "the first, so it is not one function throughout the solve; draw them before the call"
            )
        if func._schema.is_mutable:
            # The numbers are written to a tensor that was given, and is returned.
            place: Tensor = (kwargs or {}).get("out", args[0] if args else None)
            return place.copy_(draw.result)
        return tree_map_only(Tensor, torch.clone, draw.result)


def repeating() -> bool:
    """True in the function of an enclosing call whose random numbers are given again."""
    if not torch._C._len_torch_dispatch_stack():
        return False
    return any(isinstance(mode, Repetition) for mode in _get_current_dispatch_mode_stack())


def _draws(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def _asked(args: tuple[Any, ...], kwargs: Any) -> tuple[Any, ...]:
    """The arguments without values of tensors."""
    leaves = tree_flatten((args, kwargs or {}))[0]
    return tuple(
        (tuple(leaf.shape), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
        for leaf in leaves
        if not isinstance(leaf, torch.Generator)
    )
