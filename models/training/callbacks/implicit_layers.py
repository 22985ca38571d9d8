"""Logs of the implicit layers of any module."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ....implicit import LayerRecord, LayerRecords, record_layers


class ImplicitLayerMonitor(Callback):
    """Callback that logs steps, residual norm and unsolved share of every `ImplicitLayer` of any module.

    For each layer, named as in the module, `NAME/steps` and `NAME/unsolved` are means over its calls in a
    training batch, and `NAME/residual` is the largest. They go to the loggers of the trainer (CSV,
    TensorBoard, W&B), every `log_every_n_steps` batches. Each process logs its own systems.

    Raises:
        ValueError: In `fit`, if the module has no `ImplicitLayer`.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[ImplicitLayerMonitor()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._context = ExitStack()
        self._records = LayerRecords()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._records = self._context.enter_context(record_layers(pl_module))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._records.rows.clear()  # Also of validation.

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

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._context.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._context.close()
