"""Checks that a function was the same one throughout a call and its derivatives.

They cost no evaluation where all is well: a solve that fails evaluates its function once more at the start,
and a backward pass has the value at the solution anyway.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...solvers.interface.norms import rms
from ..calls.outcome import Record
from ..equations.differentiation import transforming
from ..equations.layout import Layout, Leaves
from .failure import level_of_caller

# Two values of one function may differ by so many roundings of their size.
_ROUNDINGS = 1e3
# The residual at a solution may have grown by this factor.
_GROWTH = 10.0


class ChangedFunctionWarning(UserWarning):
    """A function has another value than it had at the same point before."""


def differs(value: Leaves, before: Leaves, precision: torch.dtype) -> bool:
    """True if two values at one point cannot come from one function."""
    eps = torch.finfo(precision).eps
    return any(
        bool(((a - b).abs() > _ROUNDINGS * eps * (1 + b.abs().amax())).any())
        for a, b in zip(value, before, strict=True)
        if a.numel()
    )


def note_of_change(described: str) -> str:
    """A line for the message of a failed solve."""
    return (
        f"{described} has another value at the start than in its first evaluation: it is not one function "
        "throughout the solve. It may count its calls, change a tensor that it closes over, or draw "
        "random "
        "numbers that are not PyTorch's default ones."
    )


def check_at_solution(
    described: str, form: str, z: Leaves, value: Leaves, record: Record, layout: Layout
) -> None:
    """Warn if the residual at a solution is larger than it was when the solve ended.

    Args:
        described: The function's name.
        form: The form of its equation.
        z: The solution.
        value: The value of the function there, in the derivative.
        record: The record of the call.
        layout: The layout of `z`.
    """
    solved = record.solved
    if solved is None or transforming() or len(solved.norm) != layout.systems:
        return
    with torch.no_grad():
        flat, new = layout.flatten(z), layout.flatten(value)
        norm = _norms(new - flat if form == "fixed_point" else new)
        size = _norms(flat) + _norms(new)
    eps = torch.finfo(solved.precision).eps
    grown = norm > most_residual(solved.norm, size, eps)
    if (grown & solved.converged).any():
        warnings.warn(
            f"{described} has another value at the solution in the derivative than at the end of the solve: "
            "it is not one function, and the derivative is that of another one. It may count its calls, use "
            "a tensor or a setting that has changed since, or draw random numbers that are not PyTorch's "
            "default ones",
            ChangedFunctionWarning,
            stacklevel=level_of_caller(),
        )


def most_residual(before: Any, size: Any, eps: float) -> Any:
    """The largest residual of one function at a solution, from that at the end of the solve, and its size."""
    return _GROWTH * (before + _ROUNDINGS * eps * (size + before))


def _norms(rows: Tensor) -> np.ndarray:
    return np.asarray(rms(rows).cpu().numpy(), dtype=np.float64)
