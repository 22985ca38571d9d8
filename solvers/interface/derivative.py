"""The derivative of a function at one point, as products and as matrices."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Derivative(Protocol):
    """The derivative of `function` at one point; every tensor is `(batch, n)`.

    It may have an attribute `columns`: the number of products that `jacobian` takes, if not `n`.
    """

    def jvp(self, v: Tensor) -> Tensor: ...

    def vjp(self, u: Tensor) -> Tensor: ...

    def jacobian(self, like: Tensor) -> Tensor:
        """All Jacobians, `(batch, n, n)`, in the dtype and on the device of `like`, `(batch, n)`."""
        ...
