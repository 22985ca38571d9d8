"""One look at a running solve, as callbacks get it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Check:
    """One look at a running solve; arrays have an entry for each system.

    Attributes:
        step: The steps of the solver so far.
        norms: Root-mean-square norms of the residuals; NaN for systems that have ended.
        status: `Status` codes, `RUNNING` for systems that have not ended.
        iterate: Gives the iterate, for `value`.

    Examples:
        >>> import torch, implicitly
        >>> seen = []
        >>> def note(check):
        ...     seen.append((check.step, round(check.value.item(), 3)))
        >>> solver = implicitly.Newton()
        >>> z = implicitly.root(lambda z: z**2 - 2, torch.tensor(1.5), solver=solver, callback=note)
        >>> seen[:2]
        [(0, 1.5), (1, 1.417)]
    """

    step: int
    norms: np.ndarray
    status: np.ndarray
    iterate: Callable[[], Any] = field(repr=False)

    @cached_property
    def value(self) -> Any:
        """The iterate in the structure of `z0`, detached; of systems that have ended, where they ended.

        It is formed when it is first asked for, which is possible within the callback alone.
        """
        return self.iterate()

    def of(self, form: Callable[[Any], Any]) -> Check:
        """The check with iterates in another form."""
        return replace(self, iterate=lambda: form(self.value))


Callback = Callable[[Check], bool | None] | Callable[[int, np.ndarray], bool | None]
"""A function of a `Check`, or of the step and the residual norms; a true result ends the solve."""


@dataclass(frozen=True)
class Watcher:
    """A callback that takes a `Check`, whichever form the caller's has."""

    watch: Callable[[Check], Any]

    def __call__(self, check: Check) -> bool:
        """True if the solve is to end."""
        return bool(self.watch(check))

    @staticmethod
    def of(callback: Callback | Watcher | None) -> Watcher | None:
        """The watcher of a callback; `None` of none.

        Raises:
            TypeError: It takes neither one argument nor two.
        """
        if callback is None or isinstance(callback, Watcher):
            return callback
        given: Callable[..., Any] = callback
        arguments = _arguments(given)
        if arguments == 1:
            return Watcher(given)
        return Watcher(lambda check: given(check.step, check.norms))


def _arguments(callback: Any) -> int:
    """The number of arguments that a callback takes; two where it takes both numbers or does not say."""
    advice = f"callback must take a Check, or the step and the residual norms, got {callback!r}"
    if not callable(callback):
        raise TypeError(advice)
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):
        return 2
    for number in (2, 1):
        try:
            signature.bind(*range(number))
        except TypeError:
            continue
        return number
    raise TypeError(advice)
