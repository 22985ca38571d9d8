"""`implicitly train` and `implicitly evaluate`."""

import csv

import pytest

pytest.importorskip("lightning")

from implicitly.cli.app import app
from implicitly.models.training import latest, restore
from typer.testing import CliRunner

CONFIGURATION = """
title: commands
model:
  name: transformer
  width: 16
  heads: 2
  depth: {name: equilibrium, stopping: {rtol: 1e-2, max_steps: 12}, on_failure: accept}
data: {name: copy-memory-task, delay: 5, training: 64, test: 8}
batch: 4
steps: 8
validate: 4
checkpoint: 4
"""


@pytest.fixture
def file(tmp_path):
    written = tmp_path / "run.yaml"
    written.write_text(CONFIGURATION)
    return written


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_run_is_trained_resumed_and_evaluated(tmp_path, file):
    folder = tmp_path / "run"
    first = invoke("train", file, "-o", folder, "--accelerator", "cpu")
    assert first.exit_code == 0, first.output
    assert "8 steps in" in first.output
    assert "implicitly evaluate" in first.output
    again = invoke("train", file, "-o", folder, "--accelerator", "cpu")
    assert again.exit_code == 2
    assert "holds a run already" in again.output
    more = invoke("train", file, "-o", folder, "--resume", "--set", "steps=12")
    assert more.exit_code == 0, more.output
    assert restore(latest(folder)).step == 12

    table, figure = tmp_path / "sweep.csv", tmp_path / "sweep.png"
    options = [
        "--tolerance",
        "1e-1",
        "--limit",
        "2",
        "--limit",
        "4",
        "--csv",
        table,
        "--figure",
        figure,
    ]
    shown = invoke("evaluate", folder, *options)
    assert shown.exit_code == 0, shown.output
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["setting"] for row in rows] == ["as configured", "tolerance", "limit", "limit"]
    assert [float(row["evaluations"]) for row in rows[2:]] == [3.0, 5.0]
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_an_unrolled_network_is_evaluated_at_other_depths(tmp_path, file):
    folder = tmp_path / "run"
    change = "model.depth={name: weight-tied, depth: 3}"
    assert invoke("train", file, "-o", folder, "--set", change).exit_code == 0
    shown = invoke("evaluate", folder)
    assert shown.exit_code == 0, shown.output
    assert "limit" in shown.output
    assert "tolerance" not in shown.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "no-such"], "no configuration is called 'no-such'"),
        (["train", "demo", "--set", "stpes=1"], "did you mean 'steps'?"),
        (["train", "demo", "--strategy", "dpd"], "--strategy must be auto, ddp or fsdp"),
        (["train", "demo", "--accelerator", "abacus"], "abacus"),
        (["evaluate", "no-such"], "there is no checkpoint 'no-such'"),
        (["evaluate", ".", "--part", "tets"], "--part must be train, valid or test"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert says in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_folder_without_checkpoints_is_named(tmp_path):
    result = invoke("evaluate", tmp_path)
    assert result.exit_code == 2
    assert "holds no checkpoint" in " ".join(result.output.split())


def test_the_vocabulary_of_the_data_must_be_that_of_the_checkpoint(tmp_path, file):
    folder = tmp_path / "run"
    invoke("train", file, "-o", folder, "--set", "data={name: permutation-task, size: 3}")
    result = invoke("evaluate", folder, "--set", "data={name: permutation-task, size: 2}")
    assert result.exit_code == 2
    assert "a vocabulary of 6, but that of the data is 2" in " ".join(result.output.split())


def test_a_run_that_diverges_exits_with_1(tmp_path, file):
    result = invoke("train", file, "-o", tmp_path / "run", "--set", "largest_loss=1e-3")
    assert result.exit_code == 1
    assert "Diverged: the loss of step 0" in " ".join(result.output.split())
