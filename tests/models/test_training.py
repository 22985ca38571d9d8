"""Runs: configurations, the same result after a kill, several processes, and what goes wrong."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from implicitly.models import Equilibrium, Output, Piece
from implicitly.models.data import CorpusError

pytest.importorskip("lightning")

from implicitly.models import training
from implicitly.models.training import (
    CheckpointError,
    ConfigurationError,
    TrainingDivergedError,
    evaluate,
    records,
    restore,
    sweep,
)
from lightning.pytorch import Callback

from .runs import COPY, TEXT, make, run


def weights(result):
    return {name: value.clone() for name, value in result.module.model.state_dict().items()}


def logged(folder, name):
    return records(folder).get(name, {})


def command(*arguments):
    return [sys.executable, "-c", "from implicitly.cli import main; main()", *arguments]


class KilledError(Exception):
    pass


class KillAt(Callback):
    """Ends a run as a kill would: nothing is written after."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KilledError


# --- Runs ----------------------------------------------------------------------------------------


def test_a_run_learns(tmp_path):
    changes = ["steps=60", "optimiser.rate=1e-2", "validate=60", "data.delay=1"]
    result = run(tmp_path, COPY, *changes)
    losses = logged(tmp_path, "train loss")
    # Symbols of copy memory in the order of their frequency are worth much less than log 10.
    assert losses[0] > 2.0
    assert result.metrics["valid loss"] < 1.6


def test_a_run_records_both_solves_and_the_penalties(tmp_path):
    changes = [
        "jacobian={weight: 0.1, probability: 1.0}",
        "monitor=2",
        "shallow={steps: 2, residual: 0.1}",
    ]
    run(tmp_path, TEXT, *changes)
    for name in (
        "train loss", "train perplexity", "forward evaluations", "forward residual",
        "backward evaluations", "backward residual", "gradient norm", "jacobian penalty",
        "residual penalty", "spectral radius",
    ):  # fmt: skip
        values = logged(tmp_path, name)
        assert values, name
        assert all(math.isfinite(value) for value in values.values()), name
    assert any(tmp_path.glob("tensorboard/*/events*"))
    assert set(logged(tmp_path, "valid loss")) == {5, 11}


def test_shallow_steps_have_the_loss_of_the_unrolled_network(tmp_path):
    changes = ["shallow.steps=1", "steps=1", "model.dropout=0.0"]
    run(tmp_path, TEXT, *changes)
    configuration = make(TEXT, *changes)
    data = configuration.data.open(4, 8, 0)
    module = training.running.LanguageModelling(configuration, data)
    batch = data.training(0)
    with torch.no_grad():
        loss, _ = module.model.loss(batch.tokens, batch.targets, depth=2)
    assert logged(tmp_path, "train loss")[0] == pytest.approx(float(loss), rel=1e-6)


def test_accumulated_batches_are_one_larger_batch(tmp_path):
    # The rows of the two halves are those of the whole, for copy memory of a single round.
    one = run(tmp_path / "one", COPY, "batch=8", "steps=1")
    two = run(tmp_path / "two", COPY, "batch=4", "accumulate=2", "steps=1")
    for name, value in weights(one).items():
        # One step of Adam: ± the learning rate, but for gradients near rounding.
        assert (value - weights(two)[name]).abs().max() < 1e-5


def test_limits_are_drawn_and_the_models_own_hold_in_validation(tmp_path):
    result = run(tmp_path, COPY, "limits={least: 2, most: 5}", "steps=12")
    evaluations = logged(tmp_path, "forward evaluations")
    assert {int(value) - 1 for value in evaluations.values()} <= {2, 3, 4, 5}
    assert len(set(evaluations.values())) > 1
    depth = result.module.model.depth
    assert isinstance(depth, Equilibrium)
    assert depth.stopping.max_steps == 12


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (TEXT, ["accumulate=2", "jacobian={weight: 0.1, probability: 0.5}"]),
        (
            COPY,
            [
                "shallow={steps: 6, alone: 2, least: 1, most: 3, residual: 0.1}",
                "limits={least: 3, most: 9}",
            ],
        ),
        pytest.param(TEXT, ["model={name: recurrent, width: 8}"], marks=pytest.mark.long),
    ],
    ids=["text", "copy memory", "recurrent"],
)
def test_a_resumed_run_has_the_result_of_one_that_was_not_interrupted(tmp_path, text, changes):
    whole = run(tmp_path / "whole", text, *changes)
    with pytest.raises(KilledError):
        run(tmp_path / "parts", text, *changes, callbacks=[KillAt(7)])
    resumed = run(tmp_path / "parts", text, *changes, resume=True)
    assert resumed.steps == whole.steps == 12
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert logged(tmp_path / "whole", "train loss") == logged(tmp_path / "parts", "train loss")
    assert whole.metrics["valid loss"] == resumed.metrics["valid loss"]


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_to_the_same_result(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(TEXT.replace("steps: 12", "steps: 60"))
    for folder in ("whole", "parts"):
        process = subprocess.Popen(command("train", str(file), "-o", str(tmp_path / folder)))
        if folder == "whole":
            assert process.wait() == 0
            continue
        while not (tmp_path / folder / "checkpoints" / "step=20.ckpt").exists():
            time.sleep(0.02)
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() != 0
    arguments = command("train", str(file), "-o", str(tmp_path / "parts"), "--resume")
    assert subprocess.run(arguments).returncode == 0
    ends = [restore(training.latest(tmp_path / folder)) for folder in ("whole", "parts")]
    assert ends[0].step == ends[1].step == 60
    for name, value in ends[0].weights.items():
        assert torch.equal(value, ends[1].weights[name]), name


@pytest.mark.long
def test_two_processes_have_the_losses_of_one(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(TEXT.replace("dropout: 0.1", "dropout: 0.0"))
    for devices in ("1", "2"):
        arguments = ["--devices", devices, "--accelerator", "cpu", "-o", str(tmp_path / devices)]
        script = tmp_path / "implicitly.py"
        script.write_text("from implicitly.cli import main\nmain()\n")
        script = script.rename(tmp_path / "command.py")
        done = subprocess.run([sys.executable, str(script), "train", str(file), *arguments])
        assert done.returncode == 0
    for name in ("train loss", "valid loss", "gradient norm"):
        one, two = (logged(tmp_path / devices, name) for devices in ("1", "2"))
        assert one.keys() == two.keys()
        # Sums in another order; the rounding of float32, 6e-8, grows over 12 steps of Adam.
        assert [two[step] for step in one] == pytest.approx(list(one.values()), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_a_run_in_another_precision_goes_on_in_it(tmp_path, precision):
    penalties = (
        "shallow.steps=1",
        "shallow.residual=0.1",
        "jacobian.weight=0.1",
        "jacobian.probability=1",
    )
    result = run(tmp_path, TEXT, f"precision={precision}", "steps=3", "monitor=1", *penalties)
    assert math.isfinite(result.metrics["train loss"])
    memory = result.module.memory
    assert memory is not None
    assert memory.states[0].dtype == (torch.float64 if precision == "64-true" else torch.float32)


def test_several_processes_need_a_batch_that_they_can_share(tmp_path):
    with pytest.raises(ConfigurationError, match="a batch of 4 cannot be shared evenly by 3"):
        run(tmp_path, TEXT, devices=3)


# --- What goes wrong -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_run_that_diverges_says_so_and_keeps_the_last_checkpoint(tmp_path):
    run(tmp_path, TEXT, "steps=4")
    with pytest.raises(TrainingDivergedError) as error:
        run(tmp_path, TEXT, "largest_loss=0.5", resume=True)
    assert "the loss of step 4 is" in str(error.value)
    assert "step=4.ckpt" in str(error.value)
    assert restore(tmp_path / "checkpoints" / "step=4.ckpt").step == 4


def test_a_loss_that_is_no_number_is_found_at_once(tmp_path):
    class Spoil(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 5:
                next(pl_module.parameters()).data.fill_(float("nan"))

    with pytest.raises(
        TrainingDivergedError, match=r"step 5 is nan, not a finite number.*step=4\.ckpt"
    ):
        run(tmp_path, TEXT, callbacks=[Spoil()])


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    run(tmp_path, COPY, "steps=4")
    with pytest.raises(CheckpointError, match="holds a run already"):
        run(tmp_path, COPY)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("model.width=32", "its model.width is 16 and not 32"),
        ("model.norm=pre", "its model.norm is its default and not 'pre'"),
        ("data.delay=6", "its data.delay is 5 and not 6"),
        ("seed=1", "its seed is its default and not 1"),
    ],
)
def test_a_checkpoint_of_another_run_is_named(tmp_path, change, says):
    run(tmp_path, COPY, "steps=4")
    with pytest.raises(CheckpointError) as error:
        run(tmp_path, COPY, change, resume=True)
    assert says in str(error.value)


def test_a_checkpoint_that_is_cut_off_is_named_with_those_beside_it(tmp_path):
    run(tmp_path, COPY)
    file = training.latest(tmp_path)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        CheckpointError, match=r"cannot be read as a checkpoint .* beside it are best\.ckpt, step=8"
    ):
        run(tmp_path, COPY, "steps=20", resume=True)


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"implicitly": 3}, [1, 2]], ids=str)
def test_a_file_of_another_program_is_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="was not written by a run of implicitly"):
        restore(tmp_path / "other.ckpt")


class Harmful:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def test_nothing_in_a_checkpoint_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        restore(tmp_path / "harmful.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_missing_checkpoint_and_a_missing_corpus_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        restore(tmp_path / "none.ckpt")
    with pytest.raises(CorpusError, match="folder must be a folder"):
        run(tmp_path, TEXT, f"data={{name: text-folder, folder: {tmp_path / 'none'}}}")


# --- Evaluation ----------------------------------------------------------------------------------


def test_the_perplexity_is_that_of_the_log_probabilities(tmp_path):
    result = run(tmp_path, TEXT, "steps=2", "validate=2")
    restored = restore(training.latest(tmp_path))
    model = restored.model()
    data = restored.configuration.data.open(4, 8, 0)
    batches = list(data.held_out("valid"))[:5]
    found = evaluate(model, batches)
    model.eval()
    memory, total = None, 0.0
    with torch.no_grad():
        for batch in batches:
            scores, output = model.log_probabilities(batch.tokens, memory)
            total -= float(scores.gather(2, batch.targets.unsqueeze(2)).double().sum())
            memory = output.memory
    assert found.tokens == 5 * 4 * 8
    assert found.loss == pytest.approx(total / found.tokens, rel=1e-6)
    assert result.metrics["valid loss"] == pytest.approx(
        evaluate(model, data.held_out("valid")).loss, rel=1e-5
    )


def test_limits_and_tolerances_of_a_sweep_are_kept_to(tmp_path):
    run(tmp_path, COPY, "steps=2")
    restored = restore(training.latest(tmp_path))
    model = restored.model()
    own = model.depth
    batches = list(restored.configuration.data.open(4, 8, 0).held_out("test"))
    found = list(sweep(model, batches, tolerances=[1e-1, 1e-3], limits=[2, 5]))
    assert [(kind, value) for kind, value, _ in found] == [
        ("tolerance", 1e-1), ("tolerance", 1e-3), ("limit", 2), ("limit", 5),
    ]  # fmt: skip
    assert [round(one.evaluations) - 1 for _, _, one in found[2:]] == [2, 5]
    assert found[1][2].residual < found[0][2].residual
    assert model.depth is own


def test_a_batch_of_several_pieces_counts_all_of_them():
    z = torch.zeros(1, 2, 3)
    piece = Piece(z, torch.cos)
    assert Output(z, None, z, (piece, piece)).solutions == ()


def test_a_run_that_was_killed_before_a_record_makes_its_steps_again(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, COPY)
    with pytest.raises(KilledError):
        run(killed, COPY, callbacks=[KillAt(9)])
    # As if the process had ended between its last checkpoint and the record of that step.
    last = int(training.latest(killed).stem.removeprefix("step="))
    assert last > 4
    (file,) = killed.glob("csv/version_*/metrics.csv")
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    step = lines[0].strip().split(",").index("step")
    kept = [line for line in lines[1:] if int(line.split(",")[step]) < last - 1]
    file.write_text("".join((lines[0], *kept)), encoding="utf-8")
    run(killed, COPY, resume=True)
    assert logged(whole, "train loss") == logged(killed, "train loss")
