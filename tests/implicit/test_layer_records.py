"""Records of implicit layers: every call, by the numbers of its own solution; nothing stays behind."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from implicitly import FixedPointIteration, ImplicitLayer, Stopping, record_layers
from torch import nn


class Halved(nn.Module):
    """`z = slope · z + x`, whose iterates from zero miss the solution by `slopeᵏ`."""

    def __init__(self, slope: float, **options) -> None:
        super().__init__()
        self.solve = ImplicitLayer(
            lambda z, x: slope * z + x, solver=FixedPointIteration(), on_failure="accept", **options
        )

    def forward(self, x):
        return self.solve(x)


def test_a_record_has_the_numbers_of_its_call() -> None:
    model = nn.Sequential(Halved(0.5, stopping=Stopping(max_steps=3)), nn.ReLU(), Halved(0.0))
    x = torch.ones(4, 2, dtype=torch.float64)
    with record_layers(model) as records:
        model(x)
        model(2 * x)
    assert [(row.layer, row.call) for row in records.rows] == [
        ("0.solve", 0), ("2.solve", 0), ("0.solve", 1), ("2.solve", 1),
    ]  # fmt: skip
    first, constant, doubled, _ = records.rows
    assert (first.systems, first.steps, first.unsolved) == (4, 3.0, 1.0)
    # The iterates are 1, 3/2, 7/4, and f(7/4) − 7/4 = 1/8 in both unknowns; its root mean square.
    assert first.residual == pytest.approx(0.125, rel=4 * torch.finfo(torch.float64).eps)
    assert doubled.residual == pytest.approx(2 * first.residual, rel=1e-15)
    assert (constant.unsolved, constant.residual) == (0.0, 0.0)
    assert first.evaluations >= 3


def test_the_share_of_unsolved_systems_is_counted() -> None:
    slopes = torch.tensor([[0.0], [0.0], [0.0], [0.99]], dtype=torch.float64)
    layer = ImplicitLayer(
        lambda z, x: slopes * z + x, solver=FixedPointIteration(), stopping=Stopping(max_steps=5),
        on_failure="accept",
    )  # fmt: skip
    with record_layers(layer) as records:
        layer(torch.ones(4, 1, dtype=torch.float64))
    (row,) = records.rows
    assert row.layer == "."
    assert row.unsolved == 0.25


def test_nothing_is_recorded_after_the_context_and_values_are_the_same_within() -> None:
    model = Halved(0.5)
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    before = model(x)
    with record_layers(model) as records:
        within = model(x)
        with pytest.raises(TypeError):  # A call that raises has no record.
            model(None)
    model(x)
    assert len(records.rows) == 1
    assert torch.equal(before, within)
    assert not model.solve._forward_hooks


def test_a_call_inside_a_transform_is_counted_as_unreadable() -> None:
    model = Halved(0.5)
    with record_layers(model) as records:
        torch.func.vmap(model)(torch.ones(3, 1, 2, dtype=torch.float64))
    assert records.rows == []
    assert records.unreadable == {"solve": 1}


def test_a_table_has_a_row_for_each_call(tmp_path: Path) -> None:
    model = Halved(0.5)
    with record_layers(model) as records:
        for _ in range(3):
            model(torch.ones(2, 2))
    records.write_csv(tmp_path / "layers.csv")
    with (tmp_path / "layers.csv").open(encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["call"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["steps"]) == records.rows[0].steps


def test_a_module_without_layers_is_an_error() -> None:
    with (
        pytest.raises(ValueError, match="Linear has no ImplicitLayer"),
        record_layers(nn.Linear(2, 2)),
    ):
        pass
    function: Any = torch.cos
    with pytest.raises(TypeError, match="module must be"), record_layers(function):
        pass
