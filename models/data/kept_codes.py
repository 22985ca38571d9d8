"""Codes of large texts, in a file beside the text that is memory-mapped.

The name of such a file has a digest of the text and of the vocabulary, and another of the codes themselves.
So codes are used only for the very text that they were made from, and only if they are whole.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...files.locks import is_released, lock
from .errors import CorpusError
from .text_file import bytes_of

_ENDING, _UNFINISHED = ".codes.npy", ".unfinished"
_DIGEST = 12
_CODE = np.dtype("<i4")
_HEADER = 128
"""Bytes of a NumPy header for a vector of any length, padded to a multiple of 64."""
_MAGIC = np.lib.format.MAGIC_PREFIX
_PIECE = 2**20


def mapped(
    file: Path, level: str, symbols: Iterable[str], codes: Callable[[], Iterator[Tensor]]
) -> Tensor:
    """The codes of a text, memory-mapped from the file beside it, which is written if there is none.

    Several processes may do so at once: each writes under a name of its own. Where no file can be written,
    the codes are kept in memory, with a warning. A file that was cut off is made anew.

    Args:
        file: The text.
        level: Level of the vocabulary.
        symbols: Symbols of the vocabulary in their order.
        codes: Returns the codes of the pieces of the text.

    Raises:
        CorpusError: The text cannot be read, or a file of codes holds something else, such as a pickle.
    """
    base = f"{file.name}.{level}."
    stem = f"{base}{_digest_of(file, level, symbols)}."
    for kept in sorted(file.parent.glob(f"{glob.escape(stem)}*{_ENDING}")):
        found = _loaded(kept, kept.name[len(stem) : -len(_ENDING)])
        if found is not None:
            return found
    try:
        kept = _written(file.with_name(stem), codes())
    except OSError as error:
        warnings.warn(
            f"the codes of {file} cannot be kept beside it ({error}): they are held in memory, and every "
            "process makes them anew",
            stacklevel=4,
        )
        return torch.cat([part.int() for part in codes()])
    _clean(kept, base)
    found = _loaded(kept, None)
    if found is None:  # Another process has written other codes meanwhile.
        return torch.cat([part.int() for part in codes()])
    return found


def _digest_of(file: Path, level: str, symbols: Iterable[str]) -> str:
    """Digest of the content of a text and of everything else that its codes depend on."""
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for symbol in (level, *symbols):
        content = symbol.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    for content in bytes_of(file):
        digest.update(content)
    return digest.hexdigest()


def _loaded(kept: Path, digest: str | None) -> Tensor | None:
    """The codes of a file if they have this digest; `None` if they have not, or are cut off."""
    try:
        _check_kind(kept)
        codes = np.load(kept, mmap_mode="c", allow_pickle=False)
    except CorpusError:
        raise
    except (OSError, ValueError, EOFError):
        return None
    if codes.dtype != _CODE or codes.ndim != 1:
        return None
    if digest is not None:
        found = hashlib.blake2b(digest_size=_DIGEST)
        for start in range(0, len(codes), _PIECE):
            found.update(codes[start : start + _PIECE].tobytes())
        if found.hexdigest() != digest:
            return None
    return torch.from_numpy(codes)


def _check_kind(kept: Path) -> None:
    """Raise a `CorpusError` for a file that does not begin as one of NumPy, or is of Python's objects."""
    with kept.open("rb") as opened:
        start = opened.read(_HEADER)
    if not (_MAGIC.startswith(start[: len(_MAGIC)]) and b"O'" not in start):
        raise CorpusError(
            f"{kept} is in the place of the codes of a text, and holds something else, which is not read: "
            "move it away"
        )


def _written(stem: Path, codes: Iterator[Tensor]) -> Path:
    """The file to which codes have been written.

    They are written and not mapped, since a write to a mapped file on a full disk ends the process.
    """
    unfinished = stem.with_name(f"{stem.name}{uuid.uuid4().hex}{_UNFINISHED}")
    digest = hashlib.blake2b(digest_size=_DIGEST)
    count = 0
    try:
        with unfinished.open("xb") as opened:
            lock(opened)
            opened.write(bytes(_HEADER))
            for part in codes:
                content = part.numpy().astype(_CODE).tobytes()
                opened.write(content)
                digest.update(content)
                count += len(part)
            opened.seek(0)
            layout = {"descr": _CODE.str, "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(opened, layout)
            opened.flush()
            os.fsync(opened.fileno())
            kept = stem.with_name(f"{stem.name}{digest.hexdigest()}{_ENDING}")
            unfinished.replace(kept)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return kept


def _clean(kept: Path, base: str) -> None:
    """Remove codes of earlier texts and vocabularies, and files that killed processes have left."""
    for other in kept.parent.glob(f"{glob.escape(base)}*"):
        unfinished = other.name.endswith(_UNFINISHED)
        if other == kept or not (unfinished or other.name.endswith(_ENDING)):
            continue
        with contextlib.suppress(OSError):
            if not unfinished or is_released(other):
                other.unlink()
