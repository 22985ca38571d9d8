"""The Lightning callback on a module that is none of the package's."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from implicitly import FixedPointIteration, ImplicitLayer, Stopping
from implicitly.models.training.callbacks import ImplicitLayerMonitor
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Regression(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(1, 1)
        self.layer = ImplicitLayer(
            lambda z, x: 0.5 * z + x, solver=FixedPointIteration(), stopping=Stopping(max_steps=3),
            on_failure="accept",
        )  # fmt: skip

    def training_step(self, batch, number):
        return self.layer(self.scale(batch[0])).square().mean()

    def validation_step(self, batch, number):
        self.layer(torch.zeros_like(batch[0]))  # Solved at once: it must not be seen in training.

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore")
def test_every_layer_of_any_module_is_logged_batch_by_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Regression()
    trainer = lightning.Trainer(
        callbacks=[ImplicitLayerMonitor()], logger=CSVLogger(tmp_path), accelerator="cpu", max_epochs=2,
        log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    data: DataLoader[Any] = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2)
    trainer.fit(module, data, data)
    (file,) = tmp_path.rglob("metrics.csv")
    with file.open(encoding="utf-8") as opened:
        rows = [row for row in csv.DictReader(opened) if row["layer/steps"]]
    assert len(rows) == 4
    assert {float(row["layer/steps"]) for row in rows} == {3.0}
    assert {float(row["layer/unsolved"]) for row in rows} == {1.0}
    assert all(float(row["layer/residual"]) > 0 for row in rows)
    assert not module.layer._forward_hooks
