"""Block-bidiagonal Jacobians along time: assembled from a few products, solved by a scan."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..interface.golden import golden_sequence
from .affine_scan import affine_scan

Time = Literal["first", "last"]

_PROBE_COLOURS, _COLOURS = 3, 2
_SQUARINGS = 3


class StructureError(ValueError):
    """A Jacobian is not block-bidiagonal along time."""


@dataclass(frozen=True)
class TimeAxis:
    """Layout of flat systems `(batch, n)` as sequences `(batch, T, block)`.

    Attributes:
        block: Unknowns per time step.
        time: `"first"`: the unknowns of one time step are adjacent; `"last"`: the values of one unknown at
            all times are adjacent.
    """

    block: int
    time: Time

    def split(self, flat: Tensor) -> Tensor:
        """The sequences of flat systems."""
        batch, n = flat.shape
        if self.time == "first":
            return flat.reshape(batch, n // self.block, self.block)
        return flat.reshape(batch, self.block, n // self.block).mT

    def join(self, steps: Tensor) -> Tensor:
        """The flat systems of sequences."""
        if self.time == "last":
            steps = steps.mT
        return steps.reshape(steps.shape[0], -1)


@dataclass(frozen=True)
class Bidiagonal:
    """Block-bidiagonal matrices, one per system.

    Attributes:
        diagonal: The blocks `D_t`, `(batch, T, d, d)`, or their diagonals, `(batch, T, d)`.
        neighbour: The blocks `N_t` that couple time `t` to the one before, or to the one after if
            `upper`; zero where there is no such time. Shaped like `diagonal`.
        upper: The blocks `N_t` lie above the diagonal.
    """

    diagonal: Tensor
    neighbour: Tensor
    upper: bool

    @property
    def transposed(self) -> Bidiagonal:
        """The transposes."""
        shift = 1 if self.upper else -1
        turned = replace(self, neighbour=self.neighbour.roll(shift, dims=1), upper=not self.upper)
        if self.diagonal.ndim == 3:
            return turned
        return replace(turned, diagonal=turned.diagonal.mT, neighbour=turned.neighbour.mT)

    @property
    def forward(self) -> Bidiagonal:
        """The same matrices as lower ones: with time reversed if they are upper."""
        if not self.upper:
            return self
        return Bidiagonal(self.diagonal.flip(1), self.neighbour.flip(1), upper=False)

    def size(self, steps: Tensor) -> Tensor:
        """`‖D_t‖‖v_t‖ + ‖N_t‖‖v_{t−1}‖` of lower matrices, `(batch, T)`: the scale of their products."""
        length = torch.linalg.vector_norm(steps, dim=2)
        size = _frobenius(self.diagonal) * length
        size[:, 1:] += _frobenius(self.neighbour)[:, 1:] * length[:, :-1]
        return size

    def recurrence(self, right: Tensor) -> tuple[Tensor, Tensor]:
        """`A` and `b` of the recurrence `δ_t = A_t δ_{t−1} + b_t` that solves `J δ = right`; `J` is lower."""
        if self.diagonal.ndim == 3:
            return -self.neighbour / self.diagonal, right / self.diagonal
        columns = torch.cat((-self.neighbour, right.unsqueeze(3)), dim=3)
        solved = torch.linalg.solve_ex(self.diagonal, columns).result
        return solved[..., :-1], solved[..., -1]


def solve_recurrence(slopes: Tensor, offsets: Tensor, limit: float) -> Tensor:
    """`δ_t = A_t δ_{t−1} + b_t` by one scan, with each `A_t` scaled to a norm of at most `limit`."""
    if limit == 0:
        return offsets
    if limit < float("inf"):
        cut = (limit / norm_bound(slopes)).clamp(max=1.0)
        slopes = cut.reshape(*cut.shape, *[1] * (slopes.ndim - 2)) * slopes
    return affine_scan(slopes, offsets)


def norm_bound(matrices: Tensor) -> Tensor:
    """Upper bounds on the 2-norms of `(batch, T, d, d)` matrices, or of `(batch, T, d)` diagonals.

    With `G = AᵀA` and `k` squarings, `‖A‖₂ ≤ ‖G^(2^k)‖_F^(1 / 2^(k+1)) ≤ d^(1 / 2^(k+2)) ‖A‖₂`.
    """
    if matrices.ndim == 3:
        return matrices.abs().amax(dim=2)
    size = _frobenius(matrices)
    unit = matrices / size.masked_fill(size == 0, 1.0)[..., None, None]
    gram = unit.mT @ unit
    for _ in range(_SQUARINGS):
        gram = gram @ gram
    return size * _frobenius(gram) ** (0.5 ** (_SQUARINGS + 1))


def assemble(
    product: Callable[[Tensor], Tensor],
    like: Tensor,
    axis: TimeAxis,
    *,
    full: bool = True,
    eps: float,
    described: str,
) -> Bidiagonal:
    """The blocks of a block-bidiagonal matrix from `2 · block + 3` products with it.

    Only neighbouring time steps share rows, so that one product with a unit vector at every second
    time gives that column of all their blocks. Three more products, each with a vector at
    every third time, show on which side of the diagonal the blocks lie, and verify the blocks found.

    Args:
        product: `v ↦ J v` on `(batch, n)` tensors.
        like: A tensor of the shape, dtype and device of the `v`.
        axis: The layout of time steps.
        full: Keep whole blocks, not only their diagonals.
        eps: The relative rounding error of the products.
        described: The solver's name, for the error message.

    Raises:
        StructureError: The matrix is not block-bidiagonal.

    Source: Curtis, Powell & Reid 1974.
    """
    steps = axis.split(like)
    batch, length, d = steps.shape

    def respond(vectors: Tensor, colour: int, colours: int) -> Tensor:
        sparse = torch.zeros_like(steps)
        sparse[:, colour::colours] = vectors
        return axis.split(product(axis.join(sparse)))

    weights = golden_sequence(length * d, first=1, device=like.device) + 0.5
    probe = weights.to(like.dtype).reshape(length, d)
    responses = [
        respond(probe[c::_PROBE_COLOURS], c, _PROBE_COLOURS) for c in range(_PROBE_COLOURS)
    ]
    response = torch.stack(responses)
    # A coupling weaker than this is indistinguishable from rounding; ignoring it only slows convergence.
    negligible = eps**0.5 * response.abs().amax(dim=(0, 2, 3), keepdim=True)
    side = torch.arange(length, device=like.device)
    colour = torch.arange(_PROBE_COLOURS, device=like.device)[:, None]
    before = ((side - colour) % 3 == 1)[:, None, :, None]
    after = ((side - colour) % 3 == 2)[:, None, :, None]
    strong = response.abs() > negligible
    coupled_before, coupled_after = torch.stack(
        ((strong & before).any(), (strong & after).any())
    ).tolist()
    if coupled_before and coupled_after:
        raise StructureError(
            _not_bidiagonal(described, axis, "depends on times before and after it")
        )
    upper = bool(coupled_after)

    shape = (batch, length, d, d) if full else (batch, length, d)
    diagonal, neighbour = like.new_zeros(shape), like.new_zeros(shape)
    explained = torch.zeros_like(steps)
    units = torch.eye(d, dtype=like.dtype, device=like.device)
    for c, (j, unit) in itertools.product(range(_COLOURS), enumerate(units)):
        here = slice(c, length, _COLOURS)
        source, there = _neighbours(c, length, upper)
        column = respond(unit, c, _COLOURS)
        kept = slice(None) if full else j
        diagonal[:, here, ..., j] = column[:, here, kept]
        neighbour[:, there, ..., j] = column[:, there, kept]
        explained[:, here] += probe[here, j, None] * column[:, here]
        explained[:, there] += probe[source, j, None] * column[:, there]
    # Comparisons with NaN are false: a system that is not finite does not count against the structure.
    if bool(((response.sum(0) - explained).abs() > negligible[0]).any()):
        raise StructureError(_not_bidiagonal(described, axis, "depends on times further away"))
    return Bidiagonal(diagonal, neighbour, upper)


def _neighbours(colour: int, length: int, upper: bool) -> tuple[slice, slice]:
    """The times of a colour whose neighbour's residual depends on them, and these neighbours."""
    if not upper:
        return slice(colour, length - 1, _COLOURS), slice(colour + 1, length, _COLOURS)
    first = colour or _COLOURS
    return slice(first, length, _COLOURS), slice(first - 1, length - 1, _COLOURS)


def _not_bidiagonal(described: str, axis: TimeAxis, found: str) -> str:
    return (
        f"{described} with block={axis.block}, time={axis.time!r} needs an equation whose residual at "
        f"each time step depends on that step and the one before (or, reversed, after), but a residual "
        f"{found}. Check that block is the number of unknowns per time step and that time says "
        "where the time axis is; for other structures use NewtonKrylov()"
    )


def _frobenius(matrices: Tensor) -> Tensor:
    axes = (2, 3) if matrices.ndim == 4 else (2,)
    return torch.linalg.vector_norm(matrices, dim=axes)
