"""Files and folders of a store, and errors of the operating system as errors of the store."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ...files.whole import explained, replacing
from ..errors import StoreError


def replace_text(file: Path, text: str) -> None:
    """Replace a file: write a new one beside it, then rename it."""
    check_kind(file, stat.S_ISREG)
    with replacing(file) as part:
        part.write_text(text, encoding="utf-8")


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
        raise StoreError(explained(error, path, doing)) from error
