"""Recursive residuals, which rounding may take away from the truth, confirmed by an evaluation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..interface.norms import rms_unit
from .active import Active
from .ledger import Ledger
from .progress import CONVERGED, MAX_STEPS, REFINED, STALLED
from .rounding import RoundingCheck, reachable


class Confirmation:
    """Confirms what a solver whose residual comes from a recursion calls converged."""

    def __init__(
        self, ledger: Ledger, active: Active, rounding: RoundingCheck, residual: Tensor
    ) -> None:
        self._ledger, self._active, self._rounding = ledger, active, rounding
        self._evaluated = (ledger.z, residual)
        """`(z, residual)` with the smallest *evaluated* residual; initially the start."""

    def run(self, first: np.ndarray, more: np.ndarray) -> tuple[Tensor, bool]:
        """Replace norms by those of the true residual; systems that fall short run again.

        Args:
            first: Norms at the first look.
            more: The systems that may take further steps.

        Returns:
            The residual at the kept iterates, and true if a system fell short.
        """
        ledger, problem = self._ledger, self._active.restore()
        residual = problem.residual(ledger.z)
        both = (torch.linalg.vector_norm(one, dim=1) for one in (residual, self._evaluated[1]))
        read = torch.stack(tuple(both)).detach().cpu().numpy()
        norm, before = read.astype(np.float64) * rms_unit(residual.shape[1])
        worse = ~(norm <= before)
        if worse.any():  # Rounding has led a recursion astray.
            these = torch.from_numpy(worse).to(ledger.z.device).unsqueeze(1)
            ledger.z = torch.where(these, self._evaluated[0], ledger.z)
            residual = torch.where(these, self._evaluated[1], residual)
            norm = np.where(worse, before, norm)
        self._evaluated = (ledger.z, residual)
        ledger.norm = norm
        short = claimed = (ledger.status == CONVERGED) & ~(norm <= ledger.threshold)
        if claimed.any() and self._rounding.tolerance.is_default:
            ledger.threshold = np.maximum(ledger.threshold, reachable(problem, ledger.z))
            short = claimed & ~(norm <= ledger.threshold)
        # A system that was at the rounding level already has had its second chance.
        at_level = before <= self._rounding.level * first
        stuck = short & (~(norm <= REFINED * before) | at_level)
        ledger.reopen(short & more)
        ledger.end(short & ~more, MAX_STEPS, ledger.steps[short & ~more])
        ledger.end(stuck, STALLED, ledger.steps[stuck])
        return residual, bool(claimed.any())
