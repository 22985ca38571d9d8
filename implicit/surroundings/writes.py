"""Functions that change tensors in place: given copies where that is right, refused where it is not.

The unknown is the solver's, and at the first evaluation the caller's. A function that writes into it
(`z.mul_(...)`, `ReLU(inplace=True)` before anything else) must get a copy at each evaluation. Autograd counts
the writes to each tensor, so that telling costs no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..equations.capture import levels
from ..equations.layout import Leaves


class InPlaceError(RuntimeError):
    """A function changes in place what it must leave as it is."""


class Lending:
    """The unknown as one call's function may have it: as it is, or a copy if the function writes.

    Attributes:
        writes: Whether the function writes into its unknown; `None` before the first evaluation.
    """

    def __init__(self, described: str) -> None:
        self._described = described
        self.writes: bool | None = None

    def run(self, function: Callable[[Leaves], Leaves], z: Leaves) -> Leaves:
        """`function(z)`, which leaves `z` untouched.

        Raises:
            InPlaceError: The function writes into its unknown, but did not at its first evaluation.
        """
        lent = z if self.writes is False else tuple(leaf.clone() for leaf in z)
        before = [writes_to(leaf) for leaf in lent]
        value = function(lent)
        wrote = before != [writes_to(leaf) for leaf in lent]
        if self.writes is None:
            self.writes = wrote
        elif wrote and not self.writes:
            raise InPlaceError(
                f"{self._described} changes its unknown in place in some evaluations, but did not in "
                "the first; use operations that make new tensors (z = z * a, not z *= a or z.mul_(a))"
            )
        return value


def check_arguments(described: str, tensors: Leaves, before: list[int]) -> None:
    """Raise an `InPlaceError` if one of `tensors`, arguments of a function, was written into."""
    for position, (tensor, count) in enumerate(zip(tensors, before, strict=True)):
        if writes_to(tensor) != count:
            raise InPlaceError(
                f"{described} changes its argument in place (tensor {position} among its arguments, "
                f"of shape {tuple(tensor.shape)}), so that it is another function at each evaluation; use "
                "operations that make new tensors (x = x * a, not x *= a or x.mul_(a))"
            )


def writes_to(tensor: Tensor) -> int:
    """How often `tensor` was changed in place, at any level of `torch.func` transforms."""
    return sum(1 if level.is_inference() else level._version for level in levels(tensor))
