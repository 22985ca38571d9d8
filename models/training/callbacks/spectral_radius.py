"""Regular estimates of the spectral radius."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ...stability import spectral_radius
from ..data import generator_of


class SpectralRadiusMonitor(Callback):
    """Callback that logs the largest spectral radius of `∂f/∂z` over the sequences of a batch.

    Args:
        every: Steps between two estimates.
        seed: Seed of the first vector of the power method.

    Examples:
        >>> SpectralRadiusMonitor(every=100, seed=0).every
        100
    """

    def __init__(self, every: int, seed: int) -> None:
        self.every, self._seed = every, seed

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        module: Any = pl_module
        output, number = module.output, module.number
        if (
            output is None
            or not output.pieces
            or number % (self.every * trainer.accumulate_grad_batches)
        ):
            return
        generator = generator_of(self._seed, 5, number)
        with torch.no_grad():
            radii = [
                spectral_radius(one.function, one.value, generator=generator)
                for one in output.pieces
            ]
        module.log("spectral radius", torch.cat(radii).max())
