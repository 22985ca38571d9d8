"""Random numbers of one evaluation, recorded and given again, where other threads may draw meanwhile.

All threads share PyTorch's generators. While others draw, a change of their state does not tell who drew, and
a state that is set back for one thread is set back for all. So the numbers themselves are kept, and no
generator is touched. Operations that draw carry the tag `nondeterministic_seeded`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from ...solvers.interface.traced import GraphError

# Operations whose numbers depend on no tensor but by its shape, by their names without a trailing underscore.
_PLAIN = {
    "bernoulli", "cauchy", "exponential", "geometric", "log_normal", "normal", "normal_functional", "rand",
    "rand_like", "randint", "randint_like", "randn", "randn_like", "random", "randperm", "uniform",
}  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """The random numbers of one operation, and its name."""

    name: str
    numbers: Tensor


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
            # Of a dropout the mask, whose numbers are independent of the input.
            name = _name(func)
            numbers = result[1] if name == "native_dropout" else result
            if name not in _PLAIN and name != "native_dropout":
                raise RuntimeError(
                    f"a function draws random numbers by {func} while other threads run, which cannot be "
                    "repeated for later evaluations; draw them before the call"
                )
            self.draws.append(Draw(name, numbers.detach().clone()))
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
        draw, name = next(self._left, None), _name(func)
        # The same operation may write to a tensor in one evaluation and make a new one in another.
        place: Tensor | None = args[0] if args and isinstance(args[0], Tensor) else None
        shape = place.shape if place is not None else None
        if draw is None or draw.name != name or shape not in (None, draw.numbers.shape):
            raise RuntimeError(
                f"{self._described} draws other random numbers in a later evaluation (by {func}) than in "
                "the first, so it is not one function throughout the solve; draw them before the call"
            )
        if name == "native_dropout":
            mask = draw.numbers.clone()
            return args[0] * mask / (1 - args[1]), mask
        if func._schema.is_mutable:
            written: Any = (kwargs or {}).get("out", place)
            return written.copy_(draw.numbers)
        return draw.numbers.clone()


def repeating() -> bool:
    """True in the function of an enclosing call whose random numbers are given again."""
    if not torch._C._len_torch_dispatch_stack():
        return False
    return any(isinstance(mode, Repetition) for mode in _get_current_dispatch_mode_stack())


def _draws(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def _name(func: Any) -> str:
    """The name of an operation, the same for its form in place."""
    name: str = func.overloadpacket.__name__
    return name.rstrip("_")


def refuse_in_graph(described: str, operation: Any) -> NoReturn:
    """Raise a `GraphError` for random numbers.

    Raises:
        GraphError: Always.
    """
    raise GraphError(
        f"{described} draws random numbers (by {operation}), which a graph would draw anew in each "
        "iteration: call layer.eval(), draw them before the call and pass them as an argument, or solve "
        "without Compiled, which repeats them"
    )
