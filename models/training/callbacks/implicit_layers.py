"""Logs of the implicit layers of any module."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from ....implicit import ImplicitLayer, LayerRecord, LayerRecords, record_layers
from ...stability import spectral_radius
from ..data import generator_of


class ImplicitLayerMonitor(Callback):
    """Callback that logs steps, residual norm, unsolved share and spectral radius of every `ImplicitLayer`.

    For each layer, named as in the module, `NAME/steps` and `NAME/unsolved` are means over its calls in a
    training batch, and `NAME/residual` is the largest. They go to the loggers of the trainer (CSV,
    TensorBoard, W&B), every `log_every_n_steps` batches. Each process logs its own systems.

    `NAME/spectral radius` is the largest of `∂f/∂z` at the solutions of a batch, by a power method of some
    14 products; for fixed points whose unknown is one tensor with one batch dimension. The training goes on
    as without it: random numbers are put back, and buffers are copies.

    Args:
        every: Batches between two estimates of the spectral radius; 0 for none.
        seed: Seed of the first vector of the power method.

    Raises:
        ValueError: `every` is negative; in `fit`, if the module has no `ImplicitLayer`.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[ImplicitLayerMonitor()], logger=False, accelerator="cpu")
    """

    def __init__(self, every: int = 100, seed: int = 0) -> None:
        if every < 0:
            raise ValueError(f"every must be at least 0, got {every}")
        self.every, self._seed = every, seed
        self._context = ExitStack()
        self._records = LayerRecords()
        self._radii: dict[str, list[Tensor]] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._records = self._context.enter_context(record_layers(pl_module))
        for name, layer in pl_module.named_modules() if self.every else ():
            if isinstance(layer, ImplicitLayer) and _has_radius(layer):
                handle = layer.register_forward_hook(self._measure(name or "."), with_kwargs=True)
                self._context.callback(handle.remove)

    def _measure(self, name: str) -> Any:
        def measure(layer: Any, inputs: Any, keywords: Any, output: Any) -> None:
            z = None if layer.solution is None else layer.solution.value
            if self._radii is not None and isinstance(z, Tensor):
                keywords = {key: value for key, value in keywords.items() if key != "z0"}
                self._radii.setdefault(name, []).append(
                    _radius(layer.f, z, inputs, keywords, generator_of(self._seed, 6, 0))
                )

        return measure

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._records.rows.clear()  # Also of validation.
        measured = self.every and trainer.global_step % self.every == 0
        self._radii = {} if measured else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        by_layer: dict[str, list[LayerRecord]] = {}
        for row in self._records.rows:
            by_layer.setdefault(row.layer, []).append(row)
        for name, rows in by_layer.items():
            pl_module.log(f"{name}/steps", sum(row.steps for row in rows) / len(rows))
            pl_module.log(f"{name}/unsolved", sum(row.unsolved for row in rows) / len(rows))
            pl_module.log(f"{name}/residual", max(row.residual for row in rows))
        for name, radii in (self._radii or {}).items():
            pl_module.log(f"{name}/spectral radius", torch.stack(radii).max())
        self._radii = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._context.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._context.close()


def _has_radius(layer: ImplicitLayer) -> bool:
    settings = layer.settings
    return settings.form == "fixed_point" and settings.batch_dims == 1 and not settings.has_aux


def _radius(
    function: Any, z: Tensor, inputs: Any, keywords: Any, generator: torch.Generator
) -> Tensor:
    """Largest spectral radius of a layer's function at a solution, without a trace of its evaluation."""

    def value(z: Tensor) -> Any:
        if not isinstance(function, nn.Module):
            return function(z, *inputs, **keywords)
        buffers = {name: buffer.clone() for name, buffer in function.named_buffers()}
        return torch.func.functional_call(function, buffers, (z, *inputs), keywords)

    with torch.no_grad(), torch.random.fork_rng():
        return spectral_radius(value, z, generator=generator).max()
