"""Text files, plain or compressed, read in pieces that end with lines."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import CorpusError

_PIECE = 2**20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def pieces(file: Path) -> Iterator[str]:
    r"""The text of a file in UTF-8, in pieces that end with lines.

    A line ends with `\n`, `\r\n` or `\r`, each of which is read as `\n`; form feeds and the separators of
    Unicode are parts of a line. A byte-order mark at the beginning of the file does not belong to the text.

    Raises:
        CorpusError: The file cannot be read, or is not UTF-8; the message names it.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "text.txt")
        >>> _ = file.write_bytes(b"\xef\xbb\xbfto be\r\nor not")
        >>> "".join(pieces(file))
        'to be\nor not'
    """
    waiting: list[str] = []
    for text in _decoded(file):
        end = text.rfind("\n") + 1
        if end:
            waiting.append(text[:end])
            yield "".join(waiting)
            waiting.clear()
        if end < len(text):
            waiting.append(text[end:])
    if waiting:
        yield "".join(waiting)


def bytes_of(file: Path) -> Iterator[bytes]:
    """The bytes of a file as it is on the disk.

    Raises:
        CorpusError: The file cannot be read.
    """
    yield from _read(file, compressed=False)


def _decoded(file: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = io.IncrementalNewlineDecoder(decoder, translate=True)
    before = 0
    for number, content in enumerate(_read(file, compressed=file.suffix == ".gz")):
        if number == 0:
            if content.startswith(_UTF16):
                raise CorpusError(f"{file} is text in UTF-16: write it as UTF-8")
            if content.startswith(codecs.BOM_UTF8):
                before, content = len(codecs.BOM_UTF8), content[len(codecs.BOM_UTF8) :]
        pending = len(decoder.getstate()[0])
        try:
            yield lines.decode(content)
        except UnicodeDecodeError as error:
            raise _not_utf8(file, before - pending + error.start, error) from error
        before += len(content)
    pending = len(decoder.getstate()[0])
    try:
        yield lines.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _not_utf8(file, before - pending + error.start, error) from error


def _not_utf8(file: Path, place: int, error: UnicodeDecodeError) -> CorpusError:
    byte = error.object[error.start]
    return CorpusError(
        f"{file} is not text in UTF-8: {error.reason} at byte {place} (0x{byte:02x}); write it as UTF-8"
    )


def size_of(file: Path) -> int:
    """Size of a file in bytes.

    Raises:
        CorpusError: It is a folder, a link to nothing, or a pipe, which would block its reader.
    """
    try:
        if file.is_file():
            return file.stat().st_size
    except OSError as error:
        raise CorpusError(f"{file} cannot be read ({error})") from error
    kind = "a folder" if file.is_dir() else "a link to nothing" if file.is_symlink() else "no file"
    raise CorpusError(f"{file} is {kind}: expected a text file")


def _read(file: Path, *, compressed: bool) -> Iterator[bytes]:
    size_of(file)
    try:
        reader: Any = gzip.open if compressed else open
        with reader(file, "rb") as opened:
            while content := opened.read(_PIECE):
                yield content
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{file} cannot be read ({type(error).__name__}: {error})") from error
