"""Texts that are no text, that change, and that several processes map at once."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from implicitly.models.data import Corpus, CorpusError, read_corpus, standard_library
from implicitly.models.data.corpus import Level

from .campaign import NOT_TRIED, Trial, fault
from .machine import forked, small_disk

LEVELS: tuple[Level, ...] = ("character", "word")


def made(folder: Path, train: bytes, other: bytes = b"abc\n", suffix: str = ".txt") -> Path:
    """A new folder of texts."""
    place = folder / f"text{len(list(folder.iterdir()))}"
    place.mkdir()
    for part in ("train", "valid", "test"):
        (place / f"{part}{suffix}").write_bytes(train if part == "train" else other)
    return place


def text(corpus: Corpus, part: str = "train") -> str:
    return corpus.vocabulary.decode(getattr(corpus, part).tolist())


def refused(place: Path, level: Any, name: str, mapped_from: int = 2**28) -> str:
    """Empty if a corpus is refused with an error that names its file."""
    try:
        read_corpus(place, level, mapped_from)
    except CorpusError as error:
        return "" if name in str(error) else f"the error does not name {name}: {error}"
    except Exception as error:  # Of any kind.
        return f"{type(error).__name__}: {error}"
    return "it was read"


BAD: dict[str, bytes] = {
    "a byte that is never UTF-8": b"abc\xff abc\n",
    "an unfinished character at the end": "é".encode()[:1],
    "a character cut by a line": b"ab\xc3\ncd",
    "an encoded surrogate": b"ab\xed\xa0\x80\n",
    "an overlong character": b"ab\xc0\xafcd\n",
    "UTF-16": "abc\n".encode("utf-16"),
    "UTF-16 without a mark, in Latin": "é\n".encode("utf-16-le"),
    "Latin-1": "caf\xe9\n".encode("latin-1"),
    "a bad byte after a megabyte": b"a b\n" * 300_000 + b"\xfe\n",
}


@fault()
def bytes_that_are_no_text(folder: Path, draw: random.Random) -> Iterator[Trial]:
    for level in LEVELS:
        for said, content in {**BAD, "noise": draw.randbytes(10_000)}.items():
            for mapped_from in (0, 2**28):
                where = f"{said}, {level}, mapped from {mapped_from}"
                yield where, refused(made(folder, content), level, "train.txt", mapped_from)
            yield (
                f"{said} in test, {level}",
                refused(made(folder, b"abc\n", content), level, "valid.txt"),
            )
            single = folder / f"single{draw.randrange(10**9)}.txt"
            single.write_bytes(content)
            yield f"{said} as a single file, {level}", refused(single, level, single.name)


@fault()
def files_that_are_no_text_file(folder: Path, draw: random.Random) -> Iterator[Trial]:
    whole = gzip.compress(b"abc\n" * 1000)
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF
    noise = bytes(spoilt)
    packed = {
        "a compressed file that is cut off": whole[:-20],
        "a compressed file without its sum": whole[:-8],
        "a compressed file with a changed byte": noise,
        "a compressed file that is none": b"abc",
        "garbage after a compressed file": whole + b"garbage",
        "an empty compressed file": b"",
    }
    for said, content in packed.items():
        yield (
            said,
            refused(
                made(folder, content, gzip.compress(b"abc\n"), ".txt.gz"), "word", "train.txt.gz"
            ),
        )
    things: dict[str, Callable[[Path], Any]] = {
        "a folder": lambda place: place.mkdir(),
        "a link to nothing": lambda place: place.symlink_to("nowhere"),
        "a link to itself": lambda place: place.symlink_to(place.name),
        "a pipe": lambda place: os.mkfifo(place),
        "nothing": lambda place: None,
        "an empty file": lambda place: place.write_bytes(b""),
    }
    for said, make in things.items():
        for part in ("train", "valid", "test"):
            place = made(folder, b"abc\n")
            (place / f"{part}.txt").unlink()
            make(place / f"{part}.txt")
            yield f"{said} as {part}", refused(place, "character", part)


@fault()
def signs_that_look_like_ends_of_lines(folder: Path, draw: random.Random) -> Iterator[Trial]:
    others = ("\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
    for sign in others:
        corpus = read_corpus(made(folder, f"a b{sign}c\nd\n".encode()), "word")
        yield f"{sign!r} in words", "" if text(corpus) == "a b c\nd\n" else repr(text(corpus))
        corpus = read_corpus(made(folder, f"a b{sign}c\nd\n".encode()))
        yield (
            f"{sign!r} in characters",
            "" if text(corpus) == f"a b{sign}c\nd\n" else repr(text(corpus)),
        )
    for said, content in {"CRLF": b"a b\r\nc\r\n", "CR": b"a b\rc\r", "LF": b"a b\nc\n"}.items():
        for level in LEVELS:
            found = text(read_corpus(made(folder, content), level))
            yield f"{said}, {level}", "" if found == "a b\nc\n" else repr(found)
    # A pair of signs that two pieces of the file share.
    border = b"x" * (2**20 - 1)
    found = text(read_corpus(made(folder, border + b"\r\ny\n")))
    yield "CRLF on a border", "" if found == border.decode() + "\ny\n" else repr(found[-9:])
    found = text(read_corpus(made(folder, border + "é\n".encode())))
    yield "a character on a border", "" if found == border.decode() + "é\n" else repr(found[-9:])
    for level in LEVELS:
        corpus = read_corpus(made(folder, b"\xef\xbb\xbfabc\n", b"\xef\xbb\xbfabc\n"), level)
        marks = [sign for sign in corpus.vocabulary.symbols if "\ufeff" in sign]
        unknown = "<unk>" in text(corpus, "valid")
        yield f"byte-order marks, {level}", "a mark is read" if marks or unknown else ""
        corpus = read_corpus(made(folder, "a\ufeffb\n".encode()), level)
        yield f"a mark within, {level}", "" if "\ufeff" in text(corpus) else "it is lost"


def _equal(place: Path, level: Any = "character") -> str:
    """Empty if mapped codes are those of the text."""
    mapped, read = read_corpus(place, level, 0), read_corpus(place, level)
    for part in ("train", "valid", "test"):
        if getattr(mapped, part).tolist() != getattr(read, part).tolist():
            return f"{part} reads {text(mapped, part)[:20]!r}, not {text(read, part)[:20]!r}"
    return ""


@fault()
def texts_that_change_beside_kept_codes(folder: Path, draw: random.Random) -> Iterator[Trial]:
    for level in LEVELS:
        for part in ("train", "valid", "test"):
            place = made(folder, b"aa ab\n" * 20, b"ab ab\n" * 20)
            read_corpus(place, level, 0)
            file = place / f"{part}.txt"
            times = file.stat()
            content = file.read_bytes()
            file.write_bytes(content.replace(b"b", b"z").replace(b"a", b"b").replace(b"z", b"a"))
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
            yield f"{part} of the same size and time, {level}", _equal(place, level)
            kept = [path.name for path in place.glob(f"{part}*.npy")]
            yield f"one file of codes, {part}, {level}", "" if len(kept) == 1 else str(kept)


@fault()
def codes_that_are_damaged(folder: Path, draw: random.Random) -> Iterator[Trial]:
    for said in ("cut off", "cut to nothing", "cut in its header", "a changed byte", "longer"):
        place = made(folder, b"abc\n" * 1000)
        read_corpus(place, "character", 0)
        kept = next(place.glob("train*.npy"))
        content = bytearray(kept.read_bytes())
        if said == "a changed byte":
            content[draw.randrange(128, len(content))] ^= 1
        cut = {"cut off": 1000, "cut to nothing": 0, "cut in its header": 50}.get(
            said, len(content)
        )
        kept.write_bytes(bytes(content[:cut]) + (b"more" if said == "longer" else b""))
        yield said, _equal(place)
    for said, other in {
        "a pickle": pickle.dumps({"a": 1}),
        "objects of NumPy": _objects(folder),
        "text": b"abc",
    }.items():
        place = made(folder, b"abc\n" * 1000)
        read_corpus(place, "character", 0)
        kept = next(place.glob("train*.npy"))
        kept.write_bytes(other)
        yield said, refused(place, "character", kept.name, 0)


def _objects(folder: Path) -> bytes:
    file = folder / "objects.npy"
    np.save(file, np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True)
    content = file.read_bytes()
    file.unlink()
    return content


@fault()
def processes_that_map_a_text_at_once(folder: Path, draw: random.Random) -> Iterator[Trial]:
    for number in range(4):
        letters = bytes(97 + (i * draw.randrange(1, 9)) % 11 for i in range(200_000)) + b"\n"
        place = made(folder, letters)
        expected = int(read_corpus(place).train.sum())
        begin = time.monotonic() + 0.3

        def read(place: Path = place, begin: float = begin, expected: int = expected) -> None:
            warnings.simplefilter("error")
            while time.monotonic() < begin:
                pass
            if int(read_corpus(place, "character", 0).train.sum()) != expected:
                raise ValueError("wrong codes")

        processes = [forked(read) for _ in range(4)]
        failed = [process for process in processes if os.waitpid(process, 0)[1]]
        yield f"round {number}", f"{len(failed)} of 4 failed" if failed else ""


@fault()
def a_disk_without_room_for_codes(folder: Path, draw: random.Random) -> Iterator[Trial]:
    with small_disk(folder / "disk", "64k") as disk:
        if disk is None:
            yield "codes", f"{NOT_TRIED}no small disk can be made here (mount)"
            return
        place = made(disk.place, b"abcd\n" * 5000)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            corpus = read_corpus(place, "character", 0)
        yield "right codes", "" if text(corpus) == "abcd\n" * 5000 else "other codes"
        yield (
            "it is said",
            "" if any("cannot be kept" in str(one.message) for one in said) else "no",
        )
        left = [path.name for path in place.iterdir() if "unfinished" in path.name]
        yield "nothing is left", str(left) if left else ""


@fault()
def modules_that_cannot_be_read(folder: Path, draw: random.Random) -> Iterator[Trial]:
    for name in "abcd":
        (folder / f"{name}.py").write_text("x = 1\n")
    (folder / "e.py").mkdir()
    (folder / "f.py").symlink_to("nowhere")
    (folder / "g.py").write_bytes(b"\xff\xfe")
    corpus = standard_library(100, folder=folder)
    yield "others are read", "" if len(corpus.train) else "nothing is read"
