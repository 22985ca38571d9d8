"""Regularisation of the residual after a few layers."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ...output import Output
from ...stability import residual_penalty
from ..configuration import ShallowStart


class ResidualRegularisation(Callback):
    """Callback that adds `residual · residual_penalty` to the loss of shallow steps after the first `alone`.

    Args:
        settings: Settings of the shallow start.

    Examples:
        >>> ResidualRegularisation(ShallowStart(steps=9, residual=0.1)).settings.residual
        0.1
    """

    def __init__(self, settings: ShallowStart) -> None:
        self.settings = settings

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module: Any = pl_module

        def penalty(output: Output) -> Tensor:
            step = module.global_step
            if not self.settings.alone <= step < self.settings.steps:
                return output.hidden.new_zeros(())
            mean = torch.stack([residual_penalty(one) for one in output.pieces]).mean()
            module.log("residual penalty", mean.detach())
            return self.settings.residual * mean

        module.penalties.append(penalty)
