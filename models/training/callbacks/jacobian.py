"""Regularisation of the Jacobian at the equilibrium."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ...output import Output
from ...stability import jacobian_penalty
from ..configuration import JacobianSettings
from ..data import generator_of


class JacobianRegularisation(Callback):
    """Callback that adds `weight · jacobian_penalty` to the loss of randomly drawn steps.

    Args:
        settings: Weight, probability and number of noise vectors.
        seed: Seed of the draw.

    Source: Bai, Koltun & Kolter 2021 (arXiv:2106.14342), equation 7.

    Examples:
        >>> JacobianRegularisation(JacobianSettings(weight=0.1), seed=0).settings.weight
        0.1
    """

    def __init__(self, settings: JacobianSettings, seed: int) -> None:
        self.settings, self._seed = settings, seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module: Any = pl_module

        def penalty(output: Output) -> Tensor:
            # All processes draw the same steps; otherwise some would wait for others.
            drawn = torch.rand((), generator=generator_of(self._seed, 3, module.number))
            if not output.pieces or drawn >= self.settings.probability:
                return output.hidden.new_zeros(())
            values = [jacobian_penalty(one, self.settings.samples) for one in output.pieces]
            mean = torch.stack(values).mean()
            module.log("jacobian penalty", mean.detach())
            return self.settings.weight * mean

        module.penalties.append(penalty)
