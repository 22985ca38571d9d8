"""Dense linear solves with a check of the backward error, and another method where it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .rows import product

# A solve is accurate where its backward error is below this many n·eps. That of a good solve is a few n·eps,
# that of a wrong one larger by orders of magnitude.
_BACKWARD_ERROR_UNITS = 100.0
# `A` counts as numerically singular where `SINGULAR_UNITS·√n·eps·‖A‖·‖x‖ > ‖b‖`.
SINGULAR_UNITS = 16.0
# From this n on, LAPACK gets the matrices of a batch one by one where several threads would share them:
# PyTorch 2.13 hangs, reports invalid pivots or returns wrong numbers for whole batches (from n = 160 on).
_TOGETHER_BELOW = 128
# Sizes of rows or columns that differ by more are brought to one.
_ALIKE = 1e3


def solve_dense(matrices: Tensor, right: Tensor) -> Tensor:
    """Solve `A x = b` for every system of a batch.

    LU comes first. A system is solved again on its own where the backward error
    `‖b − Ax‖ / (‖A‖‖x‖ + ‖b‖)` is beyond rounding, or where the solution is as large as that of a singular
    matrix: by LU, and if that is no better, by the least-squares solution of minimum norm.

    Args:
        matrices: `A`, `(batch, n, n)`.
        right: `b`, `(batch, n)`.

    Returns:
        `x`, `(batch, n)`; rows whose `A` or `b` is not finite are NaN.

    Source: Rigal & Gaches 1967 (backward error); Golub & Van Loan 2013, section 5.5 (minimum norm); Golub &
    Pereyra 1973 (its derivative, which PyTorch has).

    Examples:
        >>> solve_dense(torch.tensor([[[2.0]], [[0.0]]]), torch.tensor([[4.0], [1.0]])).flatten().tolist()
        [2.0, 0.0]
    """
    if right.numel() == 0:
        return torch.zeros_like(right)
    try:
        (solution,) = _batched(_solve, matrices, right)
    except RuntimeError:  # Each system is solved again below, by itself.
        solution = torch.full_like(right, torch.nan)
    return _mended(matrices, right, solution)


def units(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Powers of two for rows and columns, `(batch, n)` each, that bring their largest entries near one.

    Ones for a matrix whose rows and columns are of like size.

    Examples:
        >>> [part.tolist() for part in units(torch.tensor([[[1e-9, 0.0], [0.0, 2.0]]]))]
        [[[536870912.0, 0.25]], [[1.0, 1.0]]]
    """
    if matrices.numel() == 0:
        ones = matrices.new_ones(matrices.shape[:2])
        return ones, ones
    size = matrices.abs()
    rows = powers_of_two(size.amax(dim=2))
    columns = powers_of_two((rows.unsqueeze(2) * size).amax(dim=1))
    alike = _spread(size.amax(dim=2)) & _spread(size.amax(dim=1))
    alike = alike.unsqueeze(1)
    return torch.where(alike, 1.0, rows), torch.where(alike, 1.0, columns)


def _spread(sizes: Tensor) -> Tensor:
    """The systems whose sizes, `(batch, n)`, differ by less than a thousand; zeros do not count."""
    least = torch.where(sizes > 0, sizes, torch.inf).amin(dim=1)
    return ~(sizes.amax(dim=1) > _ALIKE * least)


def powers_of_two(sizes: Tensor) -> Tensor:
    """Powers of two that bring `sizes` to between 1/2 and 1; 1 where one is 0 or not finite."""
    power = torch.ldexp(torch.ones_like(sizes), -torch.frexp(sizes).exponent)
    usable = (sizes > 0) & torch.isfinite(sizes) & torch.isfinite(power)
    return torch.where(usable, power, 1.0)


@dataclass(frozen=True)
class DenseFactors:
    """Matrices with their LU factors, for several solves, each checked as in `solve_dense`.

    Examples:
        >>> factors = DenseFactors.of(torch.tensor([[[2.0]], [[0.0]]]))
        >>> factors.solve(torch.tensor([[4.0], [1.0]])).flatten().tolist()
        [2.0, 0.0]
    """

    matrices: Tensor
    lu: Tensor
    pivots: Tensor

    @staticmethod
    def of(matrices: Tensor) -> DenseFactors:
        """Factor `(batch, n, n)` matrices."""
        if matrices.numel() == 0:
            return DenseFactors(matrices, matrices, matrices.new_zeros(matrices.shape[:2]).int())
        try:
            lu, pivots = factored(matrices)
        except RuntimeError:  # Factors of NaN make `solve` treat each system on its own.
            lu = torch.full_like(matrices, torch.nan)
            order = torch.arange(1, matrices.shape[1] + 1, dtype=torch.int32)
            pivots = order.to(matrices.device).expand(matrices.shape[:2])
        return DenseFactors(matrices, lu, pivots)

    def solve(self, right: Tensor, *, transpose: bool = False) -> Tensor:
        """`x` of `A x = b`, or of `Aᵀ x = b`, for `b`, `(batch, n)`, checked as in `solve_dense`."""
        if right.numel() == 0:
            return torch.zeros_like(right)
        solution = substituted(self.lu, self.pivots, right, transpose=transpose)
        return _mended(self.matrices.mT if transpose else self.matrices, right, solution)

    def or_else(self, mask: Tensor, other: DenseFactors) -> DenseFactors:
        """The factors of `other` where `mask`, `(batch,)`, is true, and these elsewhere."""
        matrix = mask.reshape(-1, 1, 1)
        return DenseFactors(
            torch.where(matrix, other.matrices, self.matrices),
            torch.where(matrix, other.lu, self.lu),
            torch.where(mask.unsqueeze(1), other.pivots, self.pivots),
        )


def factored(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """LU factors and pivots of `(batch, n, n)` matrices, unchecked."""
    lu, pivots = _batched(_factor, matrices)
    return lu, pivots


def substituted(lu: Tensor, pivots: Tensor, right: Tensor, *, transpose: bool = False) -> Tensor:
    """The solutions from factors for right sides `(batch, n)`, unchecked."""
    substitute = partial(_substitute, transpose=transpose)
    (solution,) = _batched(substitute, lu, pivots, right)
    return solution


def _solve(matrices: Tensor, right: Tensor) -> tuple[Tensor, ...]:
    return (torch.linalg.solve_ex(matrices, right.unsqueeze(2)).result.squeeze(2),)


def _factor(matrices: Tensor) -> tuple[Tensor, ...]:
    lu, pivots, _ = torch.linalg.lu_factor_ex(matrices)
    return lu, pivots


def _substitute(
    lu: Tensor, pivots: Tensor, right: Tensor, *, transpose: bool
) -> tuple[Tensor, ...]:
    return (torch.linalg.lu_solve(lu, pivots, right.unsqueeze(2), adjoint=transpose).squeeze(2),)


def _batched(function: Callable[..., tuple[Tensor, ...]], *batches: Any) -> tuple[Tensor, ...]:
    """`function` of all systems at once, or of one after the other where a batch is not safe."""
    first: Tensor = batches[0]
    alone = first.device.type == "cpu" and first.shape[1] >= _TOGETHER_BELOW
    if not alone or first.shape[0] == 1 or torch.get_num_threads() == 1:
        return function(*batches)
    systems = [function(*(batch[i : i + 1] for batch in batches)) for i in range(first.shape[0])]
    return tuple(torch.cat(parts) for parts in zip(*systems, strict=True))


def _mended(matrices: Tensor, right: Tensor, solution: Tensor) -> Tensor:
    """The solution, computed again for the systems in which it is wrong."""
    wrong = (~accurate(matrices, right, solution)).nonzero().flatten()
    if wrong.numel() == 0:
        return solution
    if torch.is_grad_enabled():  # Rows of a batch that are not taken would have derivatives of NaN.
        return torch.stack([_solve_alone(*one) for one in zip(matrices, right, strict=True)])
    again = [_solve_alone(matrices[index], right[index]) for index in wrong.tolist()]
    return solution.index_copy(0, wrong, torch.stack(again))


def accurate(matrices: Tensor, right: Tensor, solution: Tensor) -> Tensor:
    """The systems, `(batch,)`, with a small backward error and a matrix that is not near a singular one."""
    error = right - product(matrices, solution)
    size = torch.linalg.matrix_norm(matrices) * torch.linalg.vector_norm(solution, dim=-1)
    given = torch.linalg.vector_norm(right, dim=-1)
    n, eps = right.shape[1], torch.finfo(right.dtype).eps
    # A NaN in the solution makes these false.
    small = torch.linalg.vector_norm(error, dim=-1) <= _BACKWARD_ERROR_UNITS * n * eps * (
        size + given
    )
    regular = SINGULAR_UNITS * n**0.5 * eps * size <= given
    return small & regular


def _solve_alone(matrix: Tensor, right: Tensor) -> Tensor:
    if not bool(torch.isfinite(matrix).all() and torch.isfinite(right).all()):
        return torch.full_like(right, torch.nan)
    solution = torch.linalg.solve_ex(matrix, right).result
    if bool(accurate(matrix[None], right[None], solution[None])):
        return solution
    # It has derivatives of its own, while those of singular vectors are not finite for a singular matrix.
    inverse = torch.linalg.pinv(matrix, rtol=right.numel() * torch.finfo(right.dtype).eps)
    return inverse @ right
