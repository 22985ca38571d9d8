"""Sources of the batches of a run; each batch is a function of its number alone.

So an interrupted run continues with the right batch, and every process takes its rows of the same batch.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...options.options import Options, check_integer, one_of
from ..checks import check_sizes
from ..data import (
    CopyMemory,
    Corpus,
    CorpusError,
    PermutationTracking,
    Segments,
    Vocabulary,
    from_hub,
    read_corpus,
    standard_library,
)
from ..data.copy_memory import SYMBOLS
from ..data.corpus import LEVELS, Level
from ..registry import register_data
from .errors import ConfigurationError

_PIECE = 2**20
Part = Literal["train", "valid", "test"]


class Batch(NamedTuple):
    """Batch of one step.

    Attributes:
        tokens: `(batch, time)`.
        targets: Tokens to predict, `(batch, time)`.
        first: True if the memory starts anew.
    """

    tokens: Tensor
    targets: Tensor
    first: bool

    def rows(self, process: int, processes: int) -> Batch:
        """The rows of one process among several.

        Raises:
            ValueError: The batch cannot be split evenly.
        """
        batch = len(self.tokens)
        if batch % processes:
            raise ValueError(
                f"a batch of {batch} cannot be shared evenly by {processes} processes: give a batch that "
                f"is a multiple of {processes}"
            )
        share = batch // processes
        mine = slice(process * share, (process + 1) * share)
        return Batch(self.tokens[mine], self.targets[mine], self.first)


class Batches(ABC):
    """The batches of a run.

    Attributes:
        vocabulary: Number of tokens.
        digests: Digests of the data that do not follow from a configuration: of the symbols of a text, and
            of its training part.
        symbols: The symbols of a text; `None` for data that is no text.
    """

    vocabulary: int
    symbols: Vocabulary | None = None
    digests: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def training(self, number: int) -> Batch:
        """Batch `number` of training, from 0 on, without end."""

    @abstractmethod
    def held_out(self, part: Part) -> Iterator[Batch]:
        """All batches of `"valid"` or `"test"`, or of `"train"` once."""

    def recoded(self, symbols: Vocabulary) -> Batches:
        """The same batches in the codes of other symbols.

        Raises:
            ConfigurationError: It is no text, or of other symbols that cannot be replaced.
        """
        raise ConfigurationError(
            "the data is no text, so its symbols cannot be those of other weights"
        )


class _Text(Batches):
    """Batches of a corpus: consecutive segments, so that memory passes on."""

    def __init__(self, corpus: Corpus, batch: int, length: int) -> None:
        self.vocabulary, self.symbols = len(corpus.vocabulary), corpus.vocabulary
        self._corpus, self._sizes = corpus, (batch, length)
        self.digests = {
            "symbols": _digest(repr(corpus.vocabulary.symbols).encode()),
            "training": _digest(*(part.int().numpy() for part in corpus.train.split(_PIECE))),
        }
        self._parts = {
            "train": Segments(corpus.train, batch, length),
            "valid": Segments(corpus.valid, batch, length),
            "test": Segments(corpus.test, batch, length),
        }

    def recoded(self, symbols: Vocabulary) -> Batches:
        try:
            return _Text(self._corpus.recoded(symbols), *self._sizes)
        except CorpusError as error:
            raise ConfigurationError(f"data: {error}") from error

    def training(self, number: int) -> Batch:
        segments = self._parts["train"]
        index = number % len(segments)
        return Batch(*segments[index], first=index == 0)

    def held_out(self, part: Part) -> Iterator[Batch]:
        for index, segment in enumerate(self._parts[part]):
            yield Batch(*segment, first=index == 0)


class _Copying(Batches):
    """Batches of a fixed set of sequences, in another order in each epoch."""

    vocabulary = SYMBOLS

    def __init__(self, task: CopyMemoryTask, batch: int, seed: int) -> None:
        self._task, self._batch, self._seed = task, batch, seed
        ends = (task.training, task.training + task.test)
        drawn = CopyMemory(task.delay).digits(ends[1] + task.test, generator_of(seed))
        self._digits = dict(zip(("train", "valid", "test"), drawn.tensor_split(ends), strict=True))

    def training(self, number: int) -> Batch:
        digits = self._digits["train"]
        around, index = divmod(number, len(digits) // self._batch)
        order = torch.randperm(len(digits), generator=generator_of(self._seed, around))
        chosen = digits[order[index * self._batch : (index + 1) * self._batch]]
        easier = number < self._task.easier
        return self._of(chosen, self._task.easier_delay if easier else self._task.delay)

    def _of(self, digits: Tensor, delay: int) -> Batch:
        return Batch(*CopyMemory(delay).sequences(digits), first=True)

    def held_out(self, part: Part) -> Iterator[Batch]:
        for digits in self._digits[part].split(self._batch):
            yield self._of(digits, self._task.delay)


class _Tracking(Batches):
    """Batches of products of permutations, drawn on demand."""

    def __init__(self, task: PermutationTracking, batch: int, length: int, seed: int) -> None:
        self.vocabulary = task.vocabulary
        self._task, self._batch, self._length, self._seed = task, batch, length, seed

    def _drawn(self, *key: int) -> Batch:
        generator = generator_of(self._seed, *key)
        return Batch(*self._task.draw(self._batch, self._length, generator), first=True)

    def training(self, number: int) -> Batch:
        return self._drawn(0, number)

    def held_out(self, part: Part) -> Iterator[Batch]:
        for number in range(16):
            yield self._drawn(("train", "valid", "test").index(part), number)


class Data(Options, ABC):
    """Settings of a source of batches."""

    @abstractmethod
    def open(self, batch: int, length: int, seed: int) -> Batches:
        """The batches.

        Args:
            batch: Number of sequences.
            length: Tokens of each sequence, if the task does not fix it.
            seed: Seed of random data.

        Raises:
            CorpusError: Text is missing or empty.
        """


@register_data
@dataclass(frozen=True)
class TextFolder(Data):
    """A folder of `train`, `valid` and `test` text files; see `read_corpus`.

    Attributes:
        folder: Path of the folder.
        level: `"character"` or `"word"`.

    Examples:
        >>> TextFolder("texts", level="word").level
        'word'
    """

    folder: str
    level: Level = "character"

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", os.fspath(self.folder))
        one_of("level", self.level, LEVELS)

    def open(self, batch: int, length: int, seed: int) -> Batches:
        return _Text(read_corpus(self.folder, self.level), batch, length)


@register_data
@dataclass(frozen=True)
class HuggingFace(Data):
    """A corpus of the hub; see `from_hub`.

    Attributes:
        corpus: `"wikitext-2"`, `"wikitext-103"` or `"ptb"`.
        level: `"word"` or `"character"`.

    Examples:
        >>> HuggingFace("ptb").level
        'word'
    """

    corpus: str
    level: Level = "word"

    def __post_init__(self) -> None:
        one_of("level", self.level, LEVELS)

    def open(self, batch: int, length: int, seed: int) -> Batches:
        return _Text(from_hub(self.corpus, self.level), batch, length)


@register_data
@dataclass(frozen=True)
class StandardLibrary(Data):
    """The source of Python's standard library; see `standard_library`.

    Attributes:
        characters: Approximate number of characters to read.
        level: `"character"` or `"word"`.

    Examples:
        >>> StandardLibrary(50_000).open(batch=2, length=8, seed=0).training(0).tokens.shape
        torch.Size([2, 8])
    """

    characters: int = 1_000_000
    level: Level = "character"

    def __post_init__(self) -> None:
        check_sizes(self, "characters")
        one_of("level", self.level, LEVELS)

    def open(self, batch: int, length: int, seed: int) -> Batches:
        return _Text(standard_library(self.characters, self.level), batch, length)


@register_data
@dataclass(frozen=True)
class CopyMemoryTask(Data):
    """The copy memory task; see `CopyMemory`.

    Attributes:
        delay: `T`.
        training: Number of training sequences.
        test: Number of sequences of each held-out part.
        easier: Number of first batches with the delay `easier_delay`: the model learns to recall over a
            short blank before the long one.
        easier_delay: Their delay.

    Examples:
        >>> CopyMemoryTask(delay=5).open(batch=2, length=1, seed=0).training(0).tokens.shape
        torch.Size([2, 25])
    """

    delay: int
    training: int = 20_000
    test: int = 2_000
    easier: int = 0
    easier_delay: int = 20

    def __post_init__(self) -> None:
        CopyMemory(self.delay)
        check_sizes(self, "training", "test", "easier_delay")
        check_integer("easier", self.easier, 0)

    def open(self, batch: int, length: int, seed: int) -> Batches:
        if batch > self.training:
            raise ValueError(
                f"batch must be at most the {self.training} sequences of training, got {batch}"
            )
        return _Copying(self, batch, seed)


@register_data
@dataclass(frozen=True)
class PermutationTask(Data):
    """Tracking a product of permutations; see `PermutationTracking`.

    Attributes:
        size: Things that are permuted.

    Examples:
        >>> PermutationTask(3).open(batch=2, length=7, seed=0).training(0).tokens.shape
        torch.Size([2, 7])
    """

    size: int = 5

    def __post_init__(self) -> None:
        PermutationTracking(self.size)

    def open(self, batch: int, length: int, seed: int) -> Batches:
        return _Tracking(PermutationTracking(self.size), batch, length, seed)


def _digest(*parts: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def seed_of(*key: int) -> int:
    """A seed for `torch.manual_seed` that depends on several numbers.

    Examples:
        >>> seed_of(0, 1) != seed_of(1, 0)
        True
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def generator_of(*key: int) -> torch.Generator:
    """A generator whose seed depends on several numbers."""
    return torch.Generator().manual_seed(seed_of(*key))
