"""Random limits on the iterations of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ...depth import Equilibrium
from ..configuration import RandomLimits
from ..data import generator_of


class RandomIterationLimits(Callback):
    """Callback that draws the limit on forward iterations in each step; validation uses the model's own.

    Args:
        settings: The smallest and the largest limit.
        seed: Seed of the draw.

    Examples:
        >>> RandomIterationLimits(RandomLimits(least=8, most=24), seed=0).settings.most
        24
    """

    def __init__(self, settings: RandomLimits, seed: int) -> None:
        self.settings, self._seed = settings, seed
        self._own: Equilibrium | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        module: Any = pl_module
        own = module.model.depth
        generator = generator_of(self._seed, 4, module.number)
        limit = int(
            torch.randint(self.settings.least, self.settings.most + 1, (), generator=generator)
        )
        self._own = own
        module.model.depth = replace(own, stopping=replace(own.stopping, max_steps=limit))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module: Any = pl_module
        module.model.depth, self._own = self._own, None
