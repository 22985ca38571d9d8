"""Functions that write in place: they get a copy of the unknown, and may not write to arguments.

The unknown belongs to the solver, at the first evaluation to the caller. A function that writes to it
(`z.mul_(...)`, or a leading `ReLU(inplace=True)`) gets a copy at each evaluation. Autograd counts the writes
to each tensor, so that detecting them costs no arithmetic. Writes that it does not count (`z.data.mul_(...)`,
`z.numpy()[...] = ...`) show in the values of the first evaluations, of which the first may be at zero.

A value belongs to the solver as well. A function that returns a tensor of its own, to write to it again at
the next evaluation, has its values copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef

from ..equations.capture import levels
from ..equations.differentiation import transforming
from ..equations.layout import Leaves

# A module gets copies of its buffers, but code that was compiled for it writes to its own ones.
# Evaluations whose unknown is looked at and whose values are remembered: so many buffers may be used in turn.
_FIRST = 2
_COMPILED = (
    ". If it is compiled and keeps batch statistics, call layer.eval(), or compile a part "
    "that keeps none"
)


class InPlaceError(RuntimeError):
    """A function changes a tensor in place that it must not change."""


class Lending:
    """Lends the unknown to the function of one call: itself, or a copy if the function writes to it.

    Attributes:
        writes: The function writes to its unknown; `None` before the first evaluation.
        records: The function differentiates with respect to its unknown, which autograd then records.
        recorded: The unknown of the last evaluation, where it was recorded for the function alone.
    """

    def __init__(self, described: str) -> None:
        self._described = described
        self.writes: bool | None = None
        self.records = False
        self.recorded: Leaves = ()
        self._returned = 0
        self._memory: dict[int, StorageWeakRef] = {}
        """The memory of the first values, by its address."""
        self._looks = _FIRST
        self._settled = False
        """All that the first evaluations can show has been seen: the function does not write."""

    def run(self, function: Callable[[Leaves], Leaves], z: Leaves) -> Leaves:
        """`function(z)`, without changes to `z`, and with values that no later evaluation changes.

        Raises:
            InPlaceError: The function writes to its unknown, but did not at its first evaluation, or writes
                past autograd.
        """
        if self._settled and len(z) == 1 and not transforming():
            count = z[0]._version
            value = function(z)
            if z[0]._version != count:
                self._refuse_later()
            return self._own(value)
        if self.records and not transforming():
            return self._recorded(function, z)
        # A copy of a tensor that requires gradients is no leaf, which compiled functions notice.
        plain = not any(leaf.requires_grad for leaf in z)
        has_values = all(type(leaf) is Tensor for leaf in z)  # Not within a trace.
        look = self._looks > 0 and plain and has_values and not transforming()
        lent = tuple(leaf.clone() for leaf in z) if look or self.writes is not False else z
        before = [writes_to(leaf) for leaf in lent]
        value = function(lent)
        wrote = before != [writes_to(leaf) for leaf in lent]
        if look:
            self._looks -= 1
            if not wrote and not _same(lent, z):
                raise InPlaceError(
                    f"{self._described} changes its unknown in place where autograd does not see it (z.data, "
                    "z.numpy()); use operations that make new tensors (z = z * a)"
                )
        if self.writes is None:
            self.writes = wrote
        elif wrote and not self.writes:
            self._refuse_later()
        self._settled = not (self._looks or self.writes or self.records)
        return self._own(value)

    def _refuse_later(self) -> NoReturn:
        raise InPlaceError(
            f"{self._described} changes its unknown in place in some evaluations, but did not in the first; "
            "use operations that make new tensors (z = z * a, not z *= a or z.mul_(a))"
        )

    def _own(self, value: Leaves) -> Leaves:
        """The value, copied if its memory is that of an earlier value."""
        if transforming():
            return value
        if len(value) == 1 and self._returned == _FIRST:  # As below, without loops.
            (leaf,) = value
            ordinary = type(leaf) is Tensor and not leaf.requires_grad
            if ordinary and leaf.untyped_storage().data_ptr() not in self._memory:
                return value
        if any(leaf.requires_grad or type(leaf) is not Tensor for leaf in value):
            return value
        memory = {(s := leaf.untyped_storage()).data_ptr(): s for leaf in value}
        if self._returned < _FIRST:
            self._returned += 1
            self._memory |= {place: StorageWeakRef(one) for place, one in memory.items()}
        elif not any(self._is_earlier(place, one) for place, one in memory.items()):
            return value
        return tuple(leaf.clone() for leaf in value)

    def _is_earlier(self, place: int, storage: UntypedStorage) -> bool:
        """True if memory is that of one of the first values, and not new memory at its address.

        Memory that PyTorch has not allocated, as of a NumPy array, has another storage in each tensor.
        """
        if place not in self._memory:
            return False
        return self._memory[place] == StorageWeakRef(storage) or not storage.resizable()

    def _recorded(self, function: Callable[[Leaves], Leaves], z: Leaves) -> Leaves:
        outside = torch.is_grad_enabled()
        with torch.enable_grad():
            if not all(leaf.requires_grad for leaf in z):
                z = tuple(leaf.detach().requires_grad_() for leaf in z)
                self.recorded = z
            value = function(z)
        return value if outside else tuple(leaf.detach() for leaf in value)


def _same(tensors: Leaves, others: Leaves) -> bool:
    """True if the values are equal; those that are no numbers are equal to each other."""
    with torch.no_grad():
        return all(
            torch.equal(one, other)
            or bool(((one == other) | ((one != one) & (other != other))).all())
            for one, other in zip(tensors, others, strict=True)
        )


def check_arguments(
    described: str, tensors: Leaves, before: list[int], *, module: bool = False
) -> None:
    """Raise an `InPlaceError` if one of `tensors`, arguments of a function, was written to.

    Args:
        described: The function's name.
        tensors: Its arguments.
        before: How often each had been written to.
        module: The function is a module, whose parameters and buffers are among its arguments.
    """
    for position, (tensor, count) in enumerate(zip(tensors, before, strict=True)):
        if writes_to(tensor) != count:
            raise InPlaceError(
                f"{described} changes its argument in place (tensor {position} among its arguments, "
                f"of shape {tuple(tensor.shape)}), so that it is another function at each evaluation; use "
                "operations that make new tensors (x = x * a, not x *= a or x.mul_(a))"
                + (_COMPILED if module else "")
            )


def writes_to(tensor: Tensor) -> int:
    """Number of in-place changes of `tensor`, over all levels of `torch.func` transforms."""
    if not transforming():
        return 1 if tensor.is_inference() else tensor._version
    return sum(1 if level.is_inference() else level._version for level in levels(tensor))
