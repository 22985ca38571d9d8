"""A step of Anderson acceleration, type II, with its arithmetic in compiled code."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from ..interface.problem import Problem


class AndersonArrays(NamedTuple):
    """A state as arrays for compiled code."""

    ring: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Residuals, targets and weights."""
    first: np.ndarray
    mixing: np.ndarray
    limits: tuple[np.ndarray, np.ndarray, np.ndarray]
    """The limit in force, the strict and the lenient one."""
    plain: np.ndarray
    size: np.ndarray


def compiled_step(solver: Any, problem: Problem, state: Any, floor: float, expansion: float) -> Any:
    """The state after one step of `solver`; it holds the next iterate already."""
    # Numba takes a sixth of a second to import.
    from .anderson_kernel import type_two_step

    z, ring, count = state.following, state.ring, state.count + 1
    if z is None:
        z = torch.bmm(solver.combination(state), ring.targets).squeeze(1)
    residual = problem.residual(z).contiguous()
    before: AndersonArrays = state.arrays or _arrays(solver, state)
    slots = ring.residuals.shape[1]
    sizes = np.empty((2, *before.size.shape), before.size.dtype)
    following = np.empty(z.shape, before.size.dtype)
    type_two_step(
        *before.ring,
        before.first,
        before.mixing,
        before.limits,
        before.plain,
        (state.count % slots, count % slots),
        z.numpy(),
        residual.numpy(),
        before.size,
        (floor, state.relative, state.tiny, np.inf if solver.safeguard is None else expansion),
        solver.restart is not None and count % solver.restart == 0,
        sizes,
        following,
    )
    after = type(state)(
        z, residual, ring, state.first, state.identity, state.mixing, torch.from_numpy(sizes[0]),
        torch.from_numpy(before.limits[0]), state.strict, state.lenient,
        torch.from_numpy(before.plain), state.fast, state.relative, state.tiny, count,
        torch.from_numpy(sizes[1]), torch.from_numpy(following),
    )  # fmt: skip
    after.arrays = before._replace(size=sizes[0])
    return after


def _arrays(solver: Any, state: Any) -> AndersonArrays:
    """The arrays of a state that has none; all that is written, except the ring, is copied."""
    ring, size = state.ring, state.size
    mixing = torch.full_like(size, solver.mixing) if state.mixing is None else state.mixing
    return AndersonArrays(
        (ring.residuals.numpy(), ring.targets.numpy(), ring.weights.numpy()),
        state.first.numpy(),
        mixing.numpy(),
        (state.limit.clone().numpy(), state.strict.numpy(), state.lenient.numpy()),
        state.plain.clone().numpy(),
        size.numpy(),
    )
