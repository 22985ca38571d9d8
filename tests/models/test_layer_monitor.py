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
    radii = [row["layer/spectral radius"] for row in rows]
    assert radii[0] == "0.5"
    assert set(radii) <= {"0.5", ""}
    assert not module.layer._forward_hooks


class Turned(nn.Module):
    """A map with noise and statistics, whose Jacobian has the eigenvalues ±0.8 i and 0.3."""

    def __init__(self) -> None:
        super().__init__()
        turn = torch.tensor([[0.0, -0.8, 0.0], [0.8, 0.0, 0.0], [0.0, 0.0, 0.3]])
        self.weight = nn.Parameter(turn)
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.5)

    def forward(self, z, x):
        return z @ self.weight.mT + self.drop(self.norm(x))


class Noisy(Regression):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.scale, self.layer = nn.Linear(1, 3), ImplicitLayer(Turned())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_the_spectral_radius_is_measured_and_training_goes_on_as_without(tmp_path: Path) -> None:
    ends = []
    monitored: list[list[lightning.Callback]] = [[], [ImplicitLayerMonitor(every=2)]]
    for callbacks in monitored:
        module = Noisy()
        torch.manual_seed(2)
        trainer = lightning.Trainer(
            callbacks=callbacks, logger=CSVLogger(tmp_path), accelerator="cpu", max_epochs=2,
            log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False,
        )  # fmt: skip
        inputs = torch.linspace(-1, 1, 8)[:, None]
        data: DataLoader[Any] = DataLoader(TensorDataset(inputs), batch_size=4)
        trainer.fit(module, data)
        ends.append(module.state_dict())
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    (file,) = (found for found in tmp_path.rglob("metrics.csv") if "radius" in found.read_text())
    with file.open(encoding="utf-8") as opened:
        radii = [row["layer/spectral radius"] for row in csv.DictReader(opened)]
    # Lightning logs a value again until the next one or the end of the epoch.
    measured = [float(radius) for radius in dict.fromkeys(radii) if radius]
    assert len(measured) == 2
    exact = torch.linalg.eigvals(module.state_dict()["layer.f.weight"].double()).abs().max()
    assert measured[0] == pytest.approx(0.8, abs=1e-3)
    assert measured[1] == pytest.approx(float(exact), abs=0.02)


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="every must be at least 0, got -1"):
        ImplicitLayerMonitor(every=-1)
