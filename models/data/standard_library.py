"""Source of Python's standard library, a text that every machine has."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from .corpus import UNKNOWN, Corpus, Level, Vocabulary
from .errors import CorpusError

CHARACTERS = Vocabulary(
    (
        *" etsrniao\nldfcpmu_h.,)(\"=b'g:yw-#xvEkTN0IS1AROP[]CF2L*",
        *"DMj3\\U+q>/4z%B56H<WG8V}{97YX!K|`;?@QZJ&^$~\t",
        UNKNOWN,
    ),
    "character",
)
"""All printable characters of ASCII, the most frequent of the standard library first.

The text differs between versions of Python; that of one and the codes of a model from another agree.
"""
_SHARES = {"train": 0.9, "valid": 0.05, "test": 0.05}


def standard_library(
    characters: int = 1_000_000, level: Level = "character", folder: Path | None = None
) -> Corpus:
    """Corpus of standard library modules in the order of their names, cut into three parts between modules.

    Characters have the codes of `CHARACTERS` under every version of Python; other characters are `<unk>`.

    Args:
        characters: Approximate number of characters to read.
        level: `"character"` or `"word"`.
        folder: Folder of modules; `None` for those of this Python.

    Raises:
        CorpusError: There are fewer than three modules.
        ValueError: `characters` is not positive.

    Examples:
        >>> corpus = standard_library(20_000)
        >>> len(corpus.train) > len(corpus.valid) > 0
        True
    """
    if characters < 1:
        raise ValueError(f"characters must be at least 1, got {characters!r}")
    place = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    files = sorted(file for file in place.glob("[a-z]*.py") if file.is_file())
    if len(files) < len(_SHARES):
        raise CorpusError(f"{str(place)!r} holds {len(files)} modules, at least 3 are needed")
    texts: dict[str, str] = {}
    start = 0
    each = max(characters // len(files), 1)
    for part, share in _SHARES.items():
        end = len(files) if part == "test" else start + max(1, round(share * len(files)))
        end = min(end, len(files) - (len(_SHARES) - len(texts) - 1))
        texts[part] = "".join(_start_of(file, each) for file in files[start:end])
        start = end
    symbols = CHARACTERS if level == "character" else None
    return Corpus.of_texts(texts, level, "the standard library", symbols)


def _start_of(file: Path, characters: int) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")[:characters]
    except OSError as error:
        raise CorpusError(f"{file} cannot be read: {error}") from error
