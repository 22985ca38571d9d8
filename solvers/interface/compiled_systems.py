"""Systems whose residual is compiled code: what a problem carries of them, and how they share the cores."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_BLOCKS_PER_THREAD = 8
_SMALLEST_BLOCK = 32
_WORTH_A_THREAD = 2e-4
"""Seconds of work below which calling in another thread takes longer than it saves."""


class NoDerivativeError(Exception):
    """A compiled function has no derivative that could be formed."""


class CompilationError(NoDerivativeError, TypeError):
    """Numba cannot compile a function for the arguments that it is to take."""


@dataclass(frozen=True)
class CompiledSystems:
    """Independent systems of `n` unknowns, given by functions that Numba has compiled.

    Attributes:
        function: `function(z, parameters, out)` writes the value at `z` to `out`, both `(n,)`.
        jacobian: `jacobian(z, parameters, out)` writes to `out`, `(n, n)`, which is zero when it is
            called; or `None`.
        n: Unknowns of one system.
        parameters: Parameters of each system, `(batch, k)` in float64.
        name: The name of the equation in error messages.

    Examples:
        >>> import numba
        >>> @numba.njit
        ... def square(z, p, out):
        ...     out[0] = z[0] ** 2 - p[0]
        >>> CompiledSystems(square, None, 1, np.array([[4.0], [9.0]]), "square").parameters.shape
        (2, 1)
    """

    function: Any
    jacobian: Any | None
    n: int
    parameters: np.ndarray
    name: str


def in_blocks(work: Callable[[int, int], None], systems: int) -> None:
    """Call `work(start, stop)` on ranges that make up all `systems`, on as many threads as torch uses.

    `work` must release the global interpreter lock. Whichever thread is free takes the next range, so
    that hard systems, or a core that is busy with something else, hold nobody up; more threads than
    one are called in once the first range has shown that the rest is worth it.
    """
    threads = torch.get_num_threads()
    size = max(-(-systems // (_BLOCKS_PER_THREAD * threads)), _SMALLEST_BLOCK)
    starts = itertools.count(0, size)

    def take() -> None:
        while (start := next(starts)) < systems:
            work(start, min(start + size, systems))

    if threads == 1 or systems <= size:
        work(0, systems)
        return
    began = time.perf_counter()
    work(next(starts), size)
    expected = (time.perf_counter() - began) * (systems / size - 1)
    if expected <= _WORTH_A_THREAD:
        work(size, systems)
        return
    helpers = [_pool().submit(take) for _ in range(threads - 1)]
    take()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


_threads: ThreadPoolExecutor | None = None


def _pool() -> ThreadPoolExecutor:
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="implicitly")
    return _threads


def _forget_pool() -> None:
    """A forked process has none of its parent's threads."""
    global _threads
    _threads = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
