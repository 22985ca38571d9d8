"""A step of Broyden's good method, after the evaluation, in compiled code."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class BroydenArrays(NamedTuple):
    """A state as arrays for compiled code."""

    point: np.ndarray
    """Iterates, residuals and directions, `(3, batch, 1, n)`."""
    numbers: np.ndarray
    """Sizes, lengths and norms of the iterates, `(3, batch, 1, 1)`."""
    first_length: np.ndarray
    updates: np.ndarray

    @classmethod
    def of(cls, state: Any) -> BroydenArrays:
        """The arrays of a state that has none; the norms of the iterates are not used and stay zero."""
        first_length = state.first_length
        if first_length is None:
            first_length = torch.ones_like(state.size)
        return cls(
            torch.stack((state.z_row, state.residual_row, state.direction)).numpy(),
            torch.stack((state.size, state.length, torch.zeros_like(state.size))).numpy(),
            first_length.contiguous().numpy(),
            state.updates.numpy(),
        )


def compiled_step(
    state: Any,
    updates: Tensor,
    taken: Tensor,
    trial: Tensor,
    residual: Tensor,
    limits: tuple[float, float],
) -> Any:
    """The state after the trial point `trial` was evaluated.

    Args:
        state: The state before.
        updates: The storage of the updates, with room for one more.
        taken: The direction that led to `trial`.
        trial: The trial point, a row per system.
        residual: The residual at `trial`.
        limits: The growth of the residual norm that is accepted, and the smallest curvature.
    """
    # Numba takes a sixth of a second to import.
    from .broyden_kernel import good_step

    before: BroydenArrays = state.arrays or BroydenArrays.of(state)
    stored = before.updates if updates is state.updates else updates.numpy()
    point, numbers_after = np.empty_like(before.point), np.empty_like(before.numbers)
    good_step(
        before.point,
        before.numbers,
        before.first_length,
        stored,
        state.used,
        before.point[2] if taken is state.direction else taken.numpy(),
        trial.numpy(),
        residual.numpy(),
        *limits,
        point,
        numbers_after,
    )
    z_row, residual_row, direction = map(torch.from_numpy, point)
    size, length, z_size = map(torch.from_numpy, numbers_after)
    after = type(state)(
        z_row, residual_row, size, direction, length, updates, state.used + 1,
        state.first_length, state.count + 1, z_size,
    )  # fmt: skip
    after.arrays = BroydenArrays(point, numbers_after, before.first_length, stored)
    return after
