"""Solves inside a block, counted, and made to rounding whatever tolerance they ask for.

A layer that holds an equation somewhere inside is as exact as its solver's tolerance. Whoever measures its
derivatives compares it with the same layer whose solves have no error, and sees what of an error is the
solver's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...solvers import Stopping
from ...solvers.interface.stopping import DEFAULTS
from ..calls.settings import Settings
from ..gradients import Exact, Gradient

# A relative residual of so many roundings is as small as solvers reach.
_FINEST_UNITS = 4


@dataclass
class Block:
    """The solves of one block.

    Attributes:
        finest: They are made to rounding.
        solves: How many there were so far.
    """

    finest: bool
    solves: int = 0

    def settings(self, asked: Settings, z0: Any) -> Settings:
        """The settings of the next solve, from those that it asks for."""
        self.solves += 1
        dtypes = [leaf.dtype for leaf in tree_leaves(z0) if isinstance(leaf, Tensor)]
        if (
            not self.finest
            or not dtypes
            or not all(d.is_floating_point or d.is_complex for d in dtypes)
        ):
            return asked
        eps = max(torch.finfo(dtype).eps for dtype in dtypes)
        return replace(
            asked,
            stopping=_finest(asked.stopping, eps),
            gradient=_with_finest(asked.gradient or Exact(), eps),
            on_failure="accept",
        )


_BLOCK: ContextVar[Block | None] = ContextVar("block of closer solves", default=None)


@contextmanager
def watched_solves(finest: bool = False) -> Iterator[Block]:
    """Count the solves in this block, and make them and their adjoints to rounding if that is asked for.

    A solve that comes no closer returns the best that it has seen; limits on steps hold. In a block within a
    block the inner one is in force.

    Args:
        finest: Make them to rounding.

    Examples:
        >>> import torch, implicitly
        >>> f = lambda z, x: 0.5 * torch.cos(z) + x
        >>> x, loose = torch.tensor(1.0, dtype=torch.float64), implicitly.Stopping(rtol=1e-2)
        >>> with watched_solves(finest=True) as block:
        ...     z = implicitly.fixed_point(f, torch.zeros_like(x), x, stopping=loose).value
        >>> block.solves, bool((f(z, x) - z).abs() < 1e-14)
        (1, True)
    """
    block = Block(finest)
    token = _BLOCK.set(block)
    try:
        yield block
    finally:
        _BLOCK.reset(token)


def block() -> Block | None:
    """The block around the caller, if there is one."""
    return _BLOCK.get()


def _finest(rule: Stopping | None, eps: float) -> Stopping:
    return replace(
        rule or DEFAULTS, rtol=0.0, rtol_residual=_FINEST_UNITS * eps, atol=None, atol_residual=None
    )


def _with_finest(mode: Any, eps: float) -> Gradient:
    """The mode with the finest rule in place of its own, if it has one."""
    has_rule = any(field.name == "stopping" for field in fields(mode))
    gradient: Gradient = replace(mode, stopping=_finest(mode.stopping, eps)) if has_rule else mode
    return gradient
