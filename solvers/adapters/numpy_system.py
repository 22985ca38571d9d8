"""One system as functions of NumPy vectors in float64, in the form that SciPy takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .one_system import OneSystem

Array = NDArray[np.float64]

# Exceptions that SciPy raises where a method cannot go on.
FAILURES = (ArithmeticError, ValueError, RuntimeError)


class NumPySystem:
    """`sign` times the residual of a system, and its Jacobian.

    The last evaluation is kept and used again at the same point: methods ask for their start twice.
    """

    def __init__(self, system: OneSystem, sign: float) -> None:
        self._system = system
        self._sign = sign
        self._last: tuple[Array, Array] | None = None
        self.start = _array(system.start)

    def tensor(self, x: Array) -> Tensor:
        """`x` as the unknown of the system."""
        # A copy: SciPy writes into its vectors.
        return torch.from_numpy(np.array(x, dtype=np.float64)).to(self._system.start)

    def function(self, x: Array) -> Array:
        """The function whose root SciPy looks for."""
        if self._last is not None and np.array_equal(self._last[0], x):
            return self._last[1].copy()
        value = self._sign * _array(self._system.residual(self.tensor(x)))
        self._last = np.array(x), value
        return value.copy()

    def function_as_step(self, x: Array) -> Array:
        """The function for methods that report no steps: each evaluation counts as one."""
        before = self._system.evaluations
        value = self.function(x)
        if self._system.evaluations > before:
            self._system.evaluated()
        return value

    def jacobian(self, x: Array) -> Array:
        """The Jacobian of the function, `(n, n)`."""
        return self._sign * _array(self._system.jacobian(self.tensor(x)))


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().double().cpu().numpy(), dtype=np.float64)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence SciPy's and NumPy's warnings of overflow and slow progress: the status says it."""
    with warnings.catch_warnings():
        for module in (r"scipy\.", r"numpy\."):
            warnings.filterwarnings("ignore", category=RuntimeWarning, module=module)
        yield
