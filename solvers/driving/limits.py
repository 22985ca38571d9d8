"""Limits on the residual of each equation, where the caller gives them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..interface.stopping import Stopping


@dataclass(frozen=True)
class ResidualLimits:
    """The largest residual of each equation, `(batch, n)`.

    Examples:
        >>> limits = ResidualLimits.of(Stopping(atol_residual=(1e-3, 1.0)), torch.zeros(1, 2))
        >>> limits.excess(torch.tensor([[5e-4, -2.0]])).tolist()
        [2.0]
    """

    largest: Tensor

    @staticmethod
    def of(stopping: Stopping, z: Tensor) -> ResidualLimits | None:
        """The limits of a stopping rule on systems with the iterates `z`; `None` without any.

        Raises:
            ValueError: There are neither as many limits as equations nor as many as in all systems.
        """
        given = stopping.atol_residual
        if given is None:
            return None
        batch, n = z.shape
        limits = torch.tensor(given, dtype=torch.float64, device=z.device)
        if limits.numel() not in (1, n, batch * n):
            raise ValueError(
                f"atol_residual must be one number, or one for each of the {n} equations of a system, or "
                f"one for each equation of the {batch} systems; got {limits.numel()} numbers"
            )
        shape = (1, 1) if limits.numel() == 1 else (-1, n)
        return ResidualLimits(limits.reshape(shape).expand(batch, n))

    def of_system(self, system: int) -> ResidualLimits:
        """The limits of one system."""
        return ResidualLimits(self.largest[system : system + 1])

    def typical(self) -> Tensor:
        """The root mean square of the limits of each system, `(batch,)`: no norm of a solution is above."""
        return self.largest.square().mean(dim=1).sqrt()

    def excess(self, residual: Tensor) -> Tensor:
        """The largest residual of each system as a multiple of its limit, `(batch,)`; NaN where it is NaN."""
        part = residual.detach().double().abs()
        return torch.where(part == 0, 0.0, part / self.largest).amax(dim=1)

    def account(self, residual: Tensor, system: int) -> str:
        """The equation of a system that is farthest above its limit, for error messages."""
        size = residual[system].detach().double().abs()
        worst = int(torch.nan_to_num(size / self.largest[system], nan=torch.inf).argmax())
        return (
            f"the residual of equation {worst} is {float(size[worst]):.1g}, above its atol_residual of "
            f"{float(self.largest[system, worst]):.1g}"
        )
