"""Models and data of one's own: registered, named in a configuration, restored from a checkpoint."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from implicitly.models import (
    EquilibriumRNN,
    ModelOptions,
    RecurrentOptions,
    import_code,
    register_data,
    register_model,
    registry,
)
from implicitly.models.code import CodeError
from implicitly.models.training import (
    CheckpointError,
    ConfigurationError,
    CopyMemoryTask,
    TrainingConfiguration,
    latest,
    load,
    restore,
    train,
)
from implicitly.models.training.configuration import as_text, from_text

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-model.md"
IMPLICITLY = "from implicitly.cli import main; main()"


def block(language):
    return re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[1]


@pytest.fixture
def registered():
    """The registry without the models of the page, and afterwards as it was."""
    before = [(known, dict(known)) for known in (registry.MODELS, registry.DATA)]
    registry.MODELS.pop("gated-convolution", None)
    yield
    for known, content in before:
        known.clear()
        known.update(content)


@pytest.fixture
def own(tmp_path, monkeypatch, registered):
    """A folder with the model and the configuration of the page, as the current one."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "gated.py").write_text(block("python"))
    (tmp_path / "gated.yaml").write_text(block("yaml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(*arguments):
    return subprocess.run(
        [sys.executable, "-c", *arguments], capture_output=True, text=True, check=False
    )


def test_a_configuration_names_a_file_and_is_written_back_with_it(own):
    run = load("gated.yaml")
    assert type(run.model).__name__ == "GatedConvolutionOptions"
    assert "gated.py:GatedConvolution" in as_text(run)
    assert from_text(as_text(run)) == run
    output = run.model_for(11)(torch.zeros(2, 5, dtype=torch.long))
    assert output.hidden.shape == (2, 5, 24)


def test_reading_text_runs_no_code(own):
    (own / "gates.py").write_text("raise SystemExit('this was run')")
    text = block("yaml").replace("gated.py:GatedConvolution", "gates.py:Gates")
    with pytest.raises(ConfigurationError, match=r"runs no code.*--code gates\.py"):
        from_text(text)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import no_such_module", "cannot import 'broken.py': ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("", "does not register 'Model'"),
    ],
)
def test_a_file_without_the_model_is_an_error(own, content, says):
    (own / "broken.py").write_text(content)
    (own / "run.yaml").write_text(block("yaml").replace("gated.py:Gated", "broken.py:Model #"))
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        load("run.yaml")


def test_a_missing_file_is_named():
    with pytest.raises(CodeError, match=r"no file 'nowhere\.py'"):
        import_code("nowhere.py")


@dataclass(frozen=True)
class UnknownOptions(RecurrentOptions):
    pass


def test_options_of_no_registered_model_are_an_error_at_once():
    with pytest.raises(TypeError, match=r"register_model\(UnknownOptions\)"):
        TrainingConfiguration("unknown", UnknownOptions(3), CopyMemoryTask(5))


def test_data_of_no_registered_class_is_an_error_at_once():
    with pytest.raises(TypeError, match="register_data"):
        TrainingConfiguration("unknown", RecurrentOptions(3), "text")


def test_a_name_is_given_once(registered):
    class RecurrentOptions(ModelOptions):
        pass

    with pytest.raises(TypeError, match="frozen dataclass"):
        register_model(RecurrentOptions)
    other = dataclass(frozen=True)(
        type("Recurrent", (ModelOptions,), {"__annotations__": {"vocabulary": int, "depth": int}})
    )
    with pytest.raises(ValueError, match="'recurrent' is registered already"):
        register_model(other)(EquilibriumRNN)
    with pytest.raises(TypeError, match="data must be a frozen dataclass"):
        register_data(object)


def test_a_checkpoint_restores_a_model_that_has_been_imported(own):
    folder = own / "run"
    train(load("gated.yaml", ["steps=2", "checkpoint=2"]), folder, accelerator="cpu")
    there = restore(latest(folder))
    assert type(there.model()).__name__ == "GatedConvolution"
    assert train(load("gated.yaml", ["steps=3"]), folder, accelerator="cpu", resume=True).steps == 3


@pytest.mark.long
def test_a_checkpoint_in_a_new_process_needs_the_code_named(own):
    trained = python(IMPLICITLY, "train", "gated.yaml", "-o", "run", "--accelerator", "cpu")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    refused = python(IMPLICITLY, "evaluate", "run", "--limit", "2")
    assert refused.returncode == 2
    assert "--code gated.py" in refused.stdout
    # From another place, too: the name after the colon counts.
    (own / "moved").mkdir()
    (own / "gated.py").rename(own / "moved" / "gated.py")
    shown = python(IMPLICITLY, "evaluate", "run", "--limit", "2", "--code", "moved/gated.py")
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_a_checkpoint_of_an_unknown_model_says_what_to_do(own):
    folder = own / "run"
    train(load("gated.yaml", ["steps=1"]), folder, accelerator="cpu")
    registry.MODELS.pop("gated-convolution")
    with pytest.raises(CheckpointError, match="has not been imported"):
        restore(latest(folder))
