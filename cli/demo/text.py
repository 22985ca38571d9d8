"""Real text that is on every machine: the source of the Python standard library."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

TRAINING_MODULES = (
    "argparse", "ast", "bisect", "calendar", "cmd", "codecs", "configparser", "contextlib", "copy",
    "csv", "datetime", "difflib", "enum", "fractions", "functools", "heapq", "inspect", "os",
    "pickle", "pprint", "random", "shutil", "socket", "statistics", "subprocess", "tarfile",
    "threading", "tokenize", "traceback", "typing", "uuid", "warnings",
)  # fmt: skip
HELD_OUT_MODULES = ("code", "dataclasses", "gettext", "pdb", "smtplib", "string", "textwrap")

CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
SYMBOLS = len(CHARACTERS) + 1
"""One for each character, and the last one for all others."""

_CODES = {character: code for code, character in enumerate(CHARACTERS)}


class TextError(RuntimeError):
    """The text of the standard library was not found."""


@dataclass(frozen=True)
class Corpus:
    """Text as symbol codes, one-dimensional integer tensors.

    Attributes:
        training: The text to learn from.
        held_out: Text of other modules.
        modules: Names of the modules that were found, those to learn from first.
    """

    training: Tensor
    held_out: Tensor
    modules: tuple[str, ...]


def encode(text: str) -> Tensor:
    """The symbol code of each character."""
    return torch.tensor([_CODES.get(character, SYMBOLS - 1) for character in text])


def load_corpus(
    characters: int,
    training: Sequence[str] = TRAINING_MODULES,
    held_out: Sequence[str] = HELD_OUT_MODULES,
    folder: Path | None = None,
) -> Corpus:
    """Read the first `characters` characters of every module that is there.

    Args:
        characters: Limit for each module.
        training: Names of the modules to learn from.
        held_out: Names of the modules to validate on.
        folder: Where the modules are; `None` for the standard library of this Python.

    Raises:
        TextError: No module to learn from, or none to validate on, was found.
    """
    place = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    found: list[str] = []
    parts: list[Tensor] = []
    for names in (training, held_out):
        there = [name for name in names if (place / f"{name}.py").is_file()]
        if not there:
            raise TextError(f"none of {', '.join(names)} is in {place}, as .py files")
        parts.append(torch.cat([encode(_start_of(place / f"{n}.py", characters)) for n in there]))
        found += there
    return Corpus(parts[0], parts[1], tuple(found))


def _start_of(file: Path, characters: int) -> str:
    return file.read_text(encoding="utf-8", errors="replace")[:characters]


def windows(text: Tensor, starts: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """The `context` characters from each of `starts` on, and the character that follows each.

    Returns:
        Codes of shape `(batch, context)` and `(batch,)`.
    """
    return text[starts.unsqueeze(1) + torch.arange(context)], text[starts + context]


def evenly_spaced(text: Tensor, count: int, context: int) -> Tensor:
    """Starts of `count` windows spread over the whole of `text`."""
    last = len(text) - context - 1
    return torch.linspace(0, last, count, dtype=torch.float64).long()
