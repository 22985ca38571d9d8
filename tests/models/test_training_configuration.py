"""Configurations of runs, from YAML and back, and the batches that they stand for."""

from dataclasses import replace

import pytest
import torch
from implicitly.models import configurations

pytest.importorskip("lightning")

from implicitly.models import training
from implicitly.models.training import (
    ConfigurationError,
    ShallowStart,
    load,
)
from implicitly.models.training.configuration import as_text, from_text
from implicitly.models.training.data import Batch, seed_of

from .runs import TEXT, make


@pytest.mark.parametrize("name", training.named())
def test_every_named_configuration_is_read_and_written_back(name):
    configuration = load(name)
    assert configuration.description
    assert from_text(as_text(configuration)) == configuration


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("stpes=3", "there is no field 'stpes'; did you mean 'steps'?"),
        ("model.widht=3", "model: there is no field 'widht'; did you mean 'width'?"),
        ("model.depth.solver=andersen", "nothing is called 'andersen'; did you mean 'anderson'?"),
        ("model.depth.solver={name: anderson, memroy: 3}", "did you mean 'memory'?"),
        ("model={width: 3}", "model: name must be given, one of recurrent, transformer"),
        ("model.vocabulary=3", "there is no field 'vocabulary'"),
        ("data.name=text-foldre", "did you mean 'text-folder'?"),
        ("data.name=text-folder", "data: there is no field 'characters'"),
        ("steps=many", "steps must be an integer ≥ 1, got 'many'"),
        ("clip=-1", "clip must be a finite number > 0, got -1"),
        ("optimiser.rate=fast", "optimiser.rate must be a number, got 'fast'"),
        ("precision=16", "precision must be one of"),
        ("steps", "field=value"),
        ("steps.more=3", "steps has no fields"),
        ("model.depth={name: weight-tied, depth: 4}", "model.depth"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_the_nearest(change, says):
    if change.startswith("model.depth={name: weight"):
        change, says = "jacobian.weight=0.1", "jacobian is for models at equilibrium"
        changes = ["model.depth={name: weight-tied, depth: 4}", change]
    else:
        changes = [change]
    with pytest.raises(ConfigurationError) as error:
        make(TEXT, *changes)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title: [", "is no YAML"),
        ("- 1", "must hold fields"),
        ("title: a\ndata: ptb", "model must be given"),
        ("title: a\nmodle: {}\ndata: {}", "did you mean 'model'?"),
        ("title: a\nmodel: {name: transformer}", "data must be given"),
    ],
)
def test_text_that_is_no_configuration_is_an_error(text, says):
    with pytest.raises(ConfigurationError) as error:
        from_text(text)
    assert says in str(error.value)


def test_an_unknown_name_lists_those_that_there_are():
    with pytest.raises(ConfigurationError, match="did you mean 'copy-memory'"):
        load("copy-memroy")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("wikitext103-transformer", configurations.TRANSFORMER_WIKITEXT103),
        ("wikitext103-trellisnet", configurations.TRELLISNET_WIKITEXT103),
        ("ptb-trellisnet", configurations.TRELLISNET_PTB),
    ],
)
def test_the_sizes_of_the_paper_are_those_of_the_named_configurations(name, sizes):
    model = load(name).model
    assert replace(model, vocabulary=sizes.vocabulary, depth=sizes.depth) == sizes
    for mine, its in (
        (model.depth.stopping, sizes.depth.stopping),
        (model.depth.gradient.stopping, sizes.depth.gradient.stopping),
        (model.depth.subsequence, sizes.depth.subsequence),
    ):
        assert mine == its


def test_the_sequences_of_copy_memory_all_come_once_before_any_comes_again():
    data = training.CopyMemoryTask(delay=5, training=64, test=8).open(4, 1, seed=0)
    around = [data.training(number).tokens[:, :10] for number in range(32)]
    first, second = torch.cat(around[:16]), torch.cat(around[16:])
    assert not torch.equal(first, second)
    assert sorted(first.tolist()) == sorted(second.tolist())
    held_out = torch.cat([batch.tokens for batch in data.held_out("test")])
    assert len(held_out) == 8


def test_the_streams_of_a_text_start_anew_at_its_end():
    data = training.StandardLibrary(5000).open(4, 8, seed=0)
    firsts = [number for number in range(500) if data.training(number).first]
    assert len(firsts) > 1
    assert torch.equal(data.training(0).tokens, data.training(firsts[1]).tokens)


def test_processes_share_the_rows_of_a_batch():
    batch = Batch(torch.arange(8).reshape(4, 2), torch.arange(8).reshape(4, 2), True)
    parts = [batch.rows(process, 2).tokens for process in range(2)]
    assert torch.equal(torch.cat(parts), batch.tokens)
    with pytest.raises(ValueError, match="a batch of 4 cannot be shared evenly by 3 processes"):
        batch.rows(0, 3)


def test_seeds_depend_on_all_their_numbers():
    assert len({seed_of(a, b) for a in range(20) for b in range(20)}) == 400


@pytest.mark.parametrize(("steps", "first"), [(0.85, 170), (17, 17), (0, 0), (0.001, 0)])
def test_the_shallow_start_is_a_number_of_steps_or_their_share(steps, first):
    configuration = load("character", ["steps=200", f"shallow.steps={steps}"])
    assert configuration.shallow.within(200) == first
    assert from_text(as_text(configuration)) == configuration


@pytest.mark.parametrize("steps", [1.0, 1.5, -0.1, -1, True])
def test_a_share_outside_of_zero_to_one_is_an_error(steps):
    with pytest.raises(ValueError, match="share above 0 and below 1"):
        ShallowStart(steps=steps)
