"""Synthetic tasks follow their specification, texts are read whole, and what is missing is named."""

import gzip
import itertools
import math
import os
from pathlib import Path

import pytest
import torch
from implicitly.models.data import (
    CopyMemory,
    Corpus,
    CorpusError,
    PermutationTracking,
    Segments,
    from_hub,
    read_corpus,
    standard_library,
)

SHARED = Path(
    os.environ.get(
        "IMPLICITLY_DATA", Path(__file__).parent.parent.parent.parent / "shared" / "data"
    )
)
TEXT = "to be or not to be\nthat is the question\n"


def generator():
    return torch.Generator().manual_seed(0)


def folder(tmp_path, **texts):
    for part, text in {"train": TEXT, "valid": TEXT, "test": TEXT, **texts}.items():
        if text is not None:
            (tmp_path / f"{part}.txt").write_text(text)
    return tmp_path


# --- Synthetic tasks -------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [1, 7, 400])
def test_the_digits_stand_first_and_are_expected_last(delay):
    task = CopyMemory(delay)
    tokens, targets = task.draw(5, generator())
    assert tokens.shape == targets.shape == (5, delay + 20)
    assert ((tokens[:, :10] >= 1) & (tokens[:, :10] <= 8)).all()
    assert (tokens[:, 10 : 9 + delay] == 0).all()
    assert (tokens[:, -11:] == 9).all()
    assert (targets[:, :-10] == 0).all()
    assert torch.equal(targets[:, -10:], tokens[:, :10])


def test_the_memoryless_loss_is_that_of_the_paper():
    assert CopyMemory(400).memoryless_loss == pytest.approx(0.0495, abs=5e-5)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_targets_are_the_products_of_the_permutations_so_far(size):
    task = PermutationTracking(size)
    tokens, targets = task.draw(3, 12, generator())
    listed = list(itertools.permutations(range(size)))
    for row, expected in zip(tokens.tolist(), targets.tolist(), strict=True):
        product = tuple(range(size))
        for token, target in zip(row, expected, strict=True):
            product = tuple(listed[token][place] for place in product)
            assert listed[target] == product
    assert task.vocabulary == math.factorial(size)


def test_sizes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="delay must be an integer ≥ 1, got 0"):
        CopyMemory(0)
    with pytest.raises(ValueError, match="size must be an integer from 2 to 6, got 9"):
        PermutationTracking(9)


# --- Text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["character", "word"])
def test_a_folder_is_read_and_decodes_to_its_text(tmp_path, level):
    corpus = read_corpus(folder(tmp_path), level)
    assert corpus.vocabulary.decode(corpus.train.tolist()) == TEXT
    symbols = set(TEXT) if level == "character" else {*TEXT.split(), "<eos>"}
    assert set(corpus.vocabulary.symbols) == {*symbols, "<unk>"}


def test_the_most_frequent_symbols_come_first(tmp_path):
    corpus = read_corpus(folder(tmp_path, train="b b b a a c"), "word")
    assert corpus.vocabulary.symbols == ("b", "a", "<eos>", "c", "<unk>")


def test_what_training_does_not_have_is_unknown(tmp_path):
    corpus = read_corpus(folder(tmp_path, test="to jump"), "word")
    assert corpus.vocabulary.decode(corpus.test.tolist()) == "to <unk>\n"


def test_compressed_files_with_longer_names_are_read(tmp_path):
    for part in ("train", "valid", "test"):
        with gzip.open(tmp_path / f"ptb.{part}.txt.gz", "wt") as file:
            file.write(TEXT)
    assert len(read_corpus(tmp_path, "word").train) == 12


def test_large_files_are_mapped_and_the_same(tmp_path):
    place = folder(tmp_path)
    read, mapped = read_corpus(place), read_corpus(place, mapped_from=1)
    kept = sorted(place.glob("*.codes.npy"))
    assert len(kept) == 3
    assert torch.equal(read.train, mapped.train.long())
    assert torch.equal(read_corpus(place, mapped_from=1).test.long(), read.test)
    assert sorted(place.glob("*.codes.npy")) == kept


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"valid": None}, "holds no file for valid: expected valid.txt"),
        ({"test": ""}, "the file test.txt of .* is empty"),
        ({"train": ""}, "the file train.txt of .* is empty"),
    ],
)
def test_a_missing_or_empty_part_is_named(tmp_path, texts, says):
    with pytest.raises(CorpusError, match=says):
        read_corpus(folder(tmp_path, **texts))


def test_a_missing_folder_and_an_ambiguous_one_are_named(tmp_path):
    with pytest.raises(CorpusError, match="folder must be a folder with train, valid and test"):
        read_corpus(tmp_path / "absent")
    (folder(tmp_path) / "old.train.txt").write_text(TEXT)
    with pytest.raises(CorpusError, match="holds more than one file for train"):
        read_corpus(tmp_path)


def test_the_level_is_one_of_two(tmp_path):
    with pytest.raises(ValueError, match="level must be one of"):
        read_corpus(folder(tmp_path), "syllable")


def test_a_corpus_that_the_hub_does_not_list_is_refused():
    with pytest.raises(ValueError, match="name must be one of ptb, wikitext-103, wikitext-2"):
        from_hub("ptp")


def test_the_hub_out_of_reach_is_an_error_that_names_the_way_out(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def refuse(*arguments):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(CorpusError, match=r"no route\); give a folder with train.txt"):
        from_hub("ptb")


def test_the_standard_library_is_text_for_everyone():
    corpus = standard_library(200_000)
    assert len(corpus.train) > 100_000
    assert "def " in corpus.vocabulary.decode(corpus.train[:20_000].tolist())
    assert min(len(corpus.valid), len(corpus.test)) > 1000
    printable = {chr(code) for code in range(32, 127)} | {"\n", "\t", "<unk>"}
    assert len(corpus.vocabulary) == len(printable)
    assert set(corpus.vocabulary.symbols) == printable
    with pytest.raises(CorpusError, match="holds 0 modules"):
        standard_library(folder=Path(__file__).parent / "absent")


def test_the_codes_of_the_standard_library_are_those_of_every_python(tmp_path):
    for name, text in (("a", "x = 1\n"), ("b", "é"), ("c", "if x:\n\tpass\n")):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    other, here = standard_library(1000, folder=tmp_path), standard_library(20_000)
    assert other.vocabulary == here.vocabulary
    assert other.vocabulary.decode(other.valid.tolist()) == "<unk>"
    assert other.vocabulary.decode(other.test.tolist()) == "if x:\n\tpass\n"


def test_segments_follow_one_another_and_targets_are_the_next_tokens():
    codes = torch.arange(103)
    found = list(Segments(codes, batch=4, length=8))
    streams = torch.cat([segment.tokens for segment in found], dim=1)
    assert torch.equal(streams, codes[:100].reshape(4, 25)[:, :-1])
    assert all(torch.equal(s.targets, s.tokens + 1) for s in found)
    with pytest.raises(ValueError, match="a text of 3 tokens is too short for 2 streams"):
        next(Segments(codes[:3], batch=2, length=8))


@pytest.mark.parametrize(
    ("name", "words", "vocabulary"), [("ptb", 929_589, 10_000), ("wikitext-2", 2_088_628, 33_278)]
)
def test_the_benchmark_texts_have_their_known_sizes(name, words, vocabulary):
    # Mikolov et al. 2010 and Merity et al. 2016, with an end after each line.
    if not (SHARED / name).is_dir():
        pytest.skip(f"{name} is not here")
    corpus = read_corpus(SHARED / name, "word")
    assert len(corpus.train) == words
    assert len(corpus.vocabulary) == vocabulary


def test_a_corpus_of_texts_needs_all_three():
    with pytest.raises(CorpusError, match="the valid part of the corpus given is missing or empty"):
        Corpus.of_texts({"train": "a", "test": "b"})


def test_a_single_file_is_cut_in_three_at_the_ends_of_lines(tmp_path):
    text = "".join(f"line {number}\n" for number in range(100))
    (tmp_path / "all.txt").write_text(text)
    corpus = read_corpus(tmp_path / "all.txt")
    parts = [
        corpus.vocabulary.decode(codes.tolist())
        for codes in (corpus.train, corpus.valid, corpus.test)
    ]
    assert "".join(parts) == text
    assert all(part.endswith("\n") for part in parts)
    # A line is one of a hundred.
    assert [100 * len(p) / len(text) for p in parts] == pytest.approx([90, 5, 5], abs=1)
