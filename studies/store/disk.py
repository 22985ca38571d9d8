"""Crash-safe writing of files, and errors of the operating system as errors of the store."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import StoreError

PART = ".part"
"""Ending of a file that is being written; a killed process leaves it behind."""


def part_of(file: Path) -> Path:
    """A new name beside a file, under which its next content is written."""
    return file.with_name(f"{file.name}.{uuid.uuid4().hex}{PART}")


def replace_text(file: Path, text: str) -> None:
    """Replace a file: write a new one beside it, then rename it."""
    check_kind(file, stat.S_ISREG)
    part = part_of(file)
    try:
        part.write_text(text, encoding="utf-8")
        sync(part)
        part.replace(file)
        sync(file.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if os.name != "posix":  # On other systems a folder cannot be opened.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`, in as many parts as the operating system takes it."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def is_file(path: Path) -> bool:
    """True for a file, false if there is nothing.

    Raises:
        StoreError: There is something else, such as a folder, a link or a pipe.
    """
    return check_kind(path, stat.S_ISREG)


def is_folder(path: Path) -> bool:
    """True for a folder, false if there is nothing.

    Raises:
        StoreError: There is something else.
    """
    return check_kind(path, stat.S_ISDIR)


def make_folder(path: Path) -> None:
    """Make a folder within a store if there is none.

    Raises:
        StoreError: Something else has its name.
    """
    if not is_folder(path):
        path.mkdir(exist_ok=True)


def check_kind(path: Path, expected: Callable[[int], bool]) -> bool:
    """False if there is nothing at `path`, true if it is of the expected kind; links are not followed.

    A link could lead out of the store, and a pipe would block its reader.

    Raises:
        StoreError: It is of another kind.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if expected(mode):
        return True
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
    wanted = "file" if expected is stat.S_ISREG else "folder"
    raise StoreError(
        f"{path} is {kind} where the store keeps a {wanted}: move it away, or name another store"
    )


_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISREG, "a file"),
)


@contextlib.contextmanager
def disk_errors(path: Path, doing: str = "written to") -> Iterator[None]:
    """Turn errors of the operating system into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"no space is left on the disk of {path}: make room, then resume"
            ) from (error)
        raise StoreError(f"{path} cannot be {doing}: {error}") from error
