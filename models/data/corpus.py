"""Corpora: text in three parts as codes of characters or words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ...options.options import one_of
from . import kept_codes
from .errors import CorpusError
from .text_file import pieces, size_of

Level = Literal["character", "word"]
LEVELS: tuple[Level, ...] = ("character", "word")
PARTS = ("train", "valid", "test")
UNKNOWN, END = "<unk>", "<eos>"
_MAPPED_FROM = 2**28
"""Codes of text files of at least this many bytes are stored in a file beside them, and memory-mapped."""


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of a corpus, the most frequent first.

    Attributes:
        symbols: Characters or words.
        level: `"character"` or `"word"`.
    """

    symbols: tuple[str, ...]
    level: Level

    def __len__(self) -> int:
        return len(self.symbols)

    def __post_init__(self) -> None:
        one_of("level", self.level, LEVELS)
        object.__setattr__(self, "_codes", {s: i for i, s in enumerate(self.symbols)})

    def encode(self, text: str) -> Tensor:
        """Codes of the symbols of a text; unknown symbols become `<unk>`.

        Raises:
            CorpusError: A symbol is unknown, and the vocabulary has no `<unk>`.

        Examples:
            >>> Vocabulary(("a", "b"), "character").encode("abba").tolist()
            [0, 1, 1, 0]
        """
        codes: dict[str, int] = self._codes  # type: ignore[attr-defined]
        unknown = codes.get(UNKNOWN)
        try:
            found = [codes.get(s, unknown) for s in split(text, self.level)]
            return torch.tensor(found, dtype=torch.int64)
        except TypeError:
            strange = next(s for s in split(text, self.level) if s not in codes)
            raise CorpusError(
                f"{strange!r} is not in the vocabulary, which has no {UNKNOWN}"
            ) from None

    def decode(self, codes: Iterable[int]) -> str:
        r"""The text of some codes.

        Examples:
            >>> Vocabulary(("the", "<eos>", "end"), "word").decode([0, 2, 1])
            'the end\n'
        """
        symbols = [self.symbols[code] for code in codes]
        if self.level == "character":
            return "".join(symbols)
        text = " ".join("\n" if symbol == END else symbol for symbol in symbols)
        return text.replace(" \n", "\n").replace("\n ", "\n")


def split(text: str, level: Level) -> Iterator[str]:
    r"""Symbols of a text: its characters, or its words with an end after each line.

    Only `\n` ends a line; form feeds and the separators of Unicode part words.

    Examples:
        >>> list(split("to be\nor not", "word"))
        ['to', 'be', '<eos>', 'or', 'not', '<eos>']
    """
    if level == "character":
        yield from text
        return
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    for line in lines:
        yield from line.split()
        yield END


@dataclass(frozen=True)
class Corpus:
    """Text as one-dimensional integer tensors.

    Attributes:
        train: Training part.
        valid: Validation part.
        test: Test part.
        vocabulary: The symbols.
        name: Source of the text.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    vocabulary: Vocabulary
    name: str = ""

    @staticmethod
    def of_texts(
        texts: dict[str, str],
        level: Level = "character",
        name: str = "",
        vocabulary: Vocabulary | None = None,
    ) -> Corpus:
        """A corpus from the text of its parts.

        Args:
            texts: Text of `train`, `valid` and `test`.
            level: `"character"` or `"word"`.
            name: Source of the text.
            vocabulary: The symbols; `None` for those of the training part.

        Raises:
            CorpusError: A part is missing or empty.

        Examples:
            >>> corpus = Corpus.of_texts({"train": "abc", "valid": "ab", "test": "cx"})
            >>> corpus.test.tolist(), corpus.vocabulary.symbols
            ([2, 3], ('a', 'b', 'c', '<unk>'))
        """
        for part in PARTS:
            if not texts.get(part, "").strip():
                raise CorpusError(
                    f"the {part} part of the corpus {name or 'given'} is missing or empty"
                )
        if vocabulary is None:
            vocabulary = _vocabulary(Counter(split(texts["train"], level)), level)
        train, valid, test = (vocabulary.encode(texts[part]) for part in PARTS)
        return Corpus(train, valid, test, vocabulary, name)

    def recoded(self, symbols: Vocabulary) -> Corpus:
        """The same text in the codes of other symbols; those that are not among them become `<unk>`.

        Raises:
            CorpusError: The level is another, or a symbol is unknown and there is no `<unk>`.

        Examples:
            >>> corpus = Corpus.of_texts({"train": "abc", "valid": "ab", "test": "cx"})
            >>> corpus.recoded(Vocabulary(("c", "<unk>"), "character")).train.tolist()
            [1, 1, 0]
        """
        if symbols.level != self.vocabulary.level:
            raise CorpusError(
                f"the level of the symbols must be that of the text, {self.vocabulary.level!r}, got "
                f"{symbols.level!r}"
            )
        codes = {symbol: code for code, symbol in enumerate(symbols.symbols)}
        unknown = codes.get(UNKNOWN, -1)
        table = torch.tensor([codes.get(symbol, unknown) for symbol in self.vocabulary.symbols])
        train, valid, test = (table[part.long()] for part in (self.train, self.valid, self.test))
        if any(bool((part < 0).any()) for part in (train, valid, test)):
            raise CorpusError(
                f"the text has symbols that are not among the given, without {UNKNOWN}"
            )
        return Corpus(train, valid, test, symbols, self.name)


def _vocabulary(counts: Counter[str], level: Level) -> Vocabulary:
    ordered = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    known = ordered if UNKNOWN in counts else [*ordered, UNKNOWN]
    return Vocabulary(tuple(known), level)


def read_corpus(
    folder: str | Path, level: Level = "character", mapped_from: int = _MAPPED_FROM
) -> Corpus:
    """Read `train`, `valid` and `test` text files of a folder, or one file in three parts.

    Args:
        folder: Folder of `train.txt`, `valid.txt` and `test.txt`; `.txt.gz` and prefixes (`ptb.train.txt`)
            are allowed. A single file is cut at ends of lines: 90 % of its characters for training, then
            5 % for validation, and the rest for the test.
        level: `"character"` or `"word"`.
        mapped_from: Codes of files of at least this many bytes are written beside them (`.codes.npy`), and
            memory-mapped. They are made anew once a text has changed.

    Raises:
        CorpusError: The folder or a part is missing, ambiguous, empty, or not text in UTF-8; the message
            names the file.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for part in ("train", "valid", "test"):
        ...     _ = (folder / f"{part}.txt").write_text("to be or not to be")
        >>> len(read_corpus(folder, "word").vocabulary)
        6
    """
    one_of("level", level, LEVELS)
    place = Path(folder)
    if place.is_file():
        return Corpus.of_texts(_cut("".join(pieces(place))), level, place.name)
    if not place.is_dir():
        raise CorpusError(
            f"folder must be a folder with train, valid and test text, or a text file, got {str(place)!r}"
        )
    files = {part: _file(place, part) for part in PARTS}
    counts: Counter[str] = Counter()
    for text in pieces(files["train"]):
        counts.update(split(text, level))
    if not counts:
        raise CorpusError(f"the file {files['train'].name} of {str(place)!r} is empty")
    vocabulary = _vocabulary(counts, level)
    train, valid, test = (_codes(file, vocabulary, mapped_from) for file in files.values())
    return Corpus(train, valid, test, vocabulary, place.name)


def _cut(text: str) -> dict[str, str]:
    """A text in three parts, each ending with a line."""
    ends = [text.find("\n", len(text) * share // 100) + 1 or len(text) for share in (90, 95)]
    return {"train": text[: ends[0]], "valid": text[ends[0] : ends[1]], "test": text[ends[1] :]}


def _file(place: Path, part: str) -> Path:
    try:
        names = sorted(path.name for path in place.iterdir())
    except OSError as error:
        raise CorpusError(f"{str(place)!r} cannot be read: {error}") from error
    endings = tuple(f"{part}{suffix}" for suffix in (".txt", ".txt.gz"))
    found = [
        place / name
        for name in names
        if name in endings or name.endswith(tuple(f".{ending}" for ending in endings))
    ]
    if len(found) != 1:
        listed = ", ".join(names) or "nothing"
        what = "more than one" if found else "no"
        raise CorpusError(
            f"{str(place)!r} holds {what} file for {part}: expected {part}.txt or {part}.txt.gz, "
            f"found {listed}"
        )
    return found[0]


def _codes(file: Path, vocabulary: Vocabulary, mapped_from: int) -> Tensor:
    def parts() -> Iterator[Tensor]:
        return (vocabulary.encode(text) for text in pieces(file))

    if size_of(file) < mapped_from:
        encoded = list(parts())
        codes = torch.cat(encoded) if encoded else torch.zeros(0, dtype=torch.int64)
    else:
        codes = kept_codes.mapped(file, vocabulary.level, vocabulary.symbols, parts)
    if len(codes) == 0:
        raise CorpusError(f"the file {file.name} of {str(file.parent)!r} is empty")
    return codes
