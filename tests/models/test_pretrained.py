"""Models handed on: saved, loaded, generating, trained further."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("safetensors")

from implicitly.cli.app import app
from implicitly.models.data import CorpusError, Vocabulary
from implicitly.models.training import (
    CheckpointError,
    ConfigurationError,
    StandardLibrary,
    evaluate,
    find_model,
    from_pretrained,
    generate_text,
    latest,
    restore,
    save_pretrained,
)
from implicitly.models.training.configuration import as_text
from implicitly.models.training.data import seed_of
from implicitly.models.training.generating import prompt_codes
from typer.testing import CliRunner

from .runs import COPY, TEXT, run
from .test_own_models import IMPLICITLY, block


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(folder, TEXT)
    return folder


def text(place, **options):
    return "".join(generate_text(find_model(place)[1], **{"length": 30, "seed": 3, **options}))


def test_a_checkpoint_holds_the_symbols_of_its_text(trained):
    symbols = restore(latest(trained)).symbols
    data = StandardLibrary(20_000).open(4, 8, 0)
    assert symbols == data.symbols
    assert symbols.decode(symbols.encode("import os")) == "import os"


def test_a_model_is_the_same_after_saving_and_loading(trained, tmp_path):
    before = restore(latest(trained))
    save_pretrained(before, tmp_path / "model")
    after = from_pretrained(tmp_path / "model")
    assert after.configuration == before.configuration
    assert (after.vocabulary, after.step, after.symbols) == (
        before.vocabulary,
        before.step,
        before.symbols,
    )
    assert dict(after.digests) == dict(before.digests)
    assert after.weights.keys() == before.weights.keys()
    for name, value in before.weights.items():
        assert torch.equal(value, after.weights[name]), name


def test_the_same_seed_has_the_same_text(trained, tmp_path):
    found = latest(trained)
    save_pretrained(restore(found), tmp_path / "model")
    assert len(list(generate_text(restore(found), length=30))) == 30
    assert text(found) == text(found) == text(tmp_path / "model")
    assert text(found) != text(found, seed=4)


def test_a_prompt_longer_than_a_segment_is_read_in_pieces(trained):
    found = restore(latest(trained))
    noise = torch.Generator().manual_seed(0)
    # Larger weights, so that the text depends on what was remembered.
    weights = {
        name: value + torch.randn(value.shape, generator=noise)
        for name, value in found.weights.items()
    }
    restored = found._replace(weights=weights)
    prompt = "import os, sys, re, json\n"
    codes = restored.symbols.encode(prompt).unsqueeze(0)
    model = restored.model().eval()
    memory = None
    for start in (0, 8, 16):
        with torch.no_grad():
            memory = model(codes[:, start : start + 8], memory, keep=16).memory
    generator = torch.Generator().manual_seed(seed_of(3))
    wanted = model.generate(codes[:, 24:], 20, memory, generator=generator, keep=16)
    written = "".join(generate_text(restored, prompt, length=20, seed=3))
    assert written == restored.symbols.decode(wanted[0].tolist())


def test_words_are_parted_as_in_the_whole_text():
    symbols = Vocabulary(("the", "<eos>", "end"), "word")
    assert prompt_codes(symbols, "the end").tolist() == [0, 2]
    assert prompt_codes(symbols, "the end\n").tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match="at least one word"):
        prompt_codes(symbols, "")
    with pytest.raises(CorpusError, match="'a' is not in the vocabulary"):
        prompt_codes(symbols, "a")


def test_symbols_of_a_prompt_that_are_unknown_warn():
    symbols = Vocabulary(("a", "<unk>"), "character")
    with pytest.warns(UserWarning, match=r"no 'é', 'ü', read as <unk>"):
        assert prompt_codes(symbols, "aüéü").tolist() == [0, 1, 1, 1]


def test_a_model_without_symbols_generates_no_text(tmp_path):
    run(tmp_path, COPY)
    with pytest.raises(CheckpointError, match="no symbols"):
        text(tmp_path)


def test_the_commands_export_and_generate(trained, tmp_path):
    folder = tmp_path / "model"
    shown = invoke("export", trained, folder)
    assert shown.exit_code == 0, shown.output
    restored = find_model(trained)[1]
    data = restored.batches(restored.configuration)
    loss = evaluate(restored.model(), data.held_out("valid")).loss
    described = json.loads((folder / "config.json").read_text())
    assert described["measured"]["valid"]["loss"] == pytest.approx(loss, rel=1e-6)
    card = (folder / "README.md").read_text()
    assert f"{loss:.4f}" in card
    assert as_text(restored.configuration) in card
    written = invoke("generate", folder, "--prompt", "def ", "--length", "12", "--seed", "3")
    assert written.exit_code == 0, written.output
    assert written.output == "def " + text(folder, prompt="def ", length=12) + "\n"
    assert invoke("evaluate", folder, "--limit", "2").exit_code == 0
    assert "top_p must be" in invoke("generate", folder, "--top-p", "2").output


def test_a_folder_with_something_else_is_not_written_to(trained, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="something other than a model"):
        save_pretrained(restore(latest(trained)), tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", "{", "cannot be read"),
        ("config.json", "[]", "must hold an object"),
        ("config.json", "{}", "does not describe a model"),
        ("model.safetensors", "no weights", "cannot be read"),
        ("symbols.json", '{"symbols": 3}', "symbols that cannot be read"),
        ("model.safetensors", None, "is missing"),
    ],
)
def test_a_broken_folder_is_named(trained, tmp_path, file, content, says):
    save_pretrained(restore(latest(trained)), tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError, match=says) as error:
        from_pretrained(tmp_path)
    assert file in str(error.value)


def folder_of_texts(place):
    place.mkdir()
    for part in ("train", "valid", "test"):
        (place / f"{part}.txt").write_text("zebra é quiz\n" * 60)
    return place


def test_a_run_begins_with_the_weights_and_symbols_of_another(trained, tmp_path):
    texts = folder_of_texts(tmp_path / "texts")
    change = f"data={{name: text-folder, folder: {texts}}}"
    weights = latest(trained)
    tuned = run(tmp_path / "tuned", TEXT, change, "steps=4", weights=weights)
    there = restore(latest(tmp_path / "tuned"))
    assert there.recoded
    assert there.symbols == restore(weights).symbols
    whole = run(tmp_path / "whole", TEXT, change, weights=weights)
    assert tuned.metrics["train loss"] != whole.metrics["train loss"]
    # Resumed from step 4, with nothing said of the weights, to the same end.
    parts = run(tmp_path / "tuned", TEXT, change, resume=True)
    for name, value in whole.module.model.state_dict().items():
        assert torch.equal(value, parts.module.model.state_dict()[name]), name
    shown = invoke("evaluate", tmp_path / "tuned", "--limit", "2")
    assert shown.exit_code == 0, shown.output


def test_the_first_loss_of_a_tuned_run_is_that_of_its_weights(trained, tmp_path):
    restored = find_model(trained)[1]
    batch = restored.batches(restored.configuration).training(0)
    tuned = run(tmp_path, TEXT, "model.dropout=0", "steps=1", weights=trained)
    wanted = restored.model().eval().loss(batch.tokens, batch.targets)[0].detach()
    assert tuned.metrics["train loss"] == pytest.approx(float(wanted), rel=1e-5)


def test_weights_of_other_sizes_are_an_error(trained, tmp_path):
    with pytest.raises(CheckpointError, match="do not fit the model"):
        run(tmp_path / "a", TEXT, "model.width=8", weights=trained)
    run(tmp_path / "copy", COPY)
    with pytest.raises(CheckpointError, match="no symbols"):
        run(tmp_path / "b", TEXT, weights=tmp_path / "copy")
    with pytest.raises(ConfigurationError, match="is no text"):
        run(tmp_path / "c", COPY, weights=trained)


def command(*arguments):
    return [sys.executable, "-c", IMPLICITLY, *map(str, arguments)]


@pytest.mark.long
def test_a_model_of_ones_own_is_killed_resumed_handed_on_and_generates_the_same(tmp_path):
    (tmp_path / "gated.py").write_text(block("python"))
    settings = block("yaml").replace("steps: 6", "steps: 60") + "checkpoint: 4\nlog: 1\n"
    (tmp_path / "gated.yaml").write_text(settings)
    for folder in ("whole", "parts"):
        arguments = command("train", "gated.yaml", "-o", folder, "--accelerator", "cpu")
        process = subprocess.Popen(arguments, cwd=tmp_path)
        if folder == "whole":
            assert process.wait() == 0
            continue
        while not list((tmp_path / folder / "checkpoints").glob("step=1*.ckpt")):
            time.sleep(0.01)
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() != 0

    def done(*arguments):
        ended = subprocess.run(
            command(*arguments), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    done("train", "gated.yaml", "-o", "parts", "--resume", "--accelerator", "cpu")
    ends = [
        torch.load(tmp_path / folder / "checkpoints" / "step=60.ckpt", weights_only=True)
        for folder in ("whole", "parts")
    ]
    for name, value in ends[0]["state_dict"].items():
        assert torch.equal(value, ends[1]["state_dict"][name]), name
    done("export", "parts/checkpoints/step=60.ckpt", "model", "--code", "gated.py")
    options = ("--prompt", "import ", "--length", "40", "--seed", "5", "--code", "gated.py")
    texts = [done("generate", place, *options) for place in ("model", "model", "whole")]
    assert texts[0] == texts[1]
    assert texts[0].startswith("import ")
    assert len(texts[0]) > len("import ") + 40
    assert done("generate", "whole/checkpoints/step=60.ckpt", *options) == texts[0]
