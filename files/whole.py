"""Files written beside their place and renamed: a full disk or a kill leaves the old one as it was."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

PART = ".part"
"""Ending of a file that is being written; a killed process leaves it behind."""


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A new name beside `file`; the file written under it takes its place once the block has ended.

    Raises:
        OSError: It cannot be written; the file that was there stays.

    Examples:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "result"
        >>> with replacing(place) as part:
        ...     _ = part.write_text("whole")
        >>> place.read_text(), len(list(place.parent.iterdir()))
        ('whole', 1)
    """
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}{PART}")
    try:
        yield part
        sync(part)
        part.replace(file)
        sync(file.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if os.name != "posix":  # On other systems a folder cannot be opened.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # A file system that cannot be asked.
            raise
    finally:
        os.close(descriptor)


def explained(
    error: OSError, place: Path, doing: str = "written to", then: str = "make room, then resume"
) -> str:
    """A sentence on the error at `place`, with the way out of a full disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left on the disk of {place}: {then}"
    return f"{place} cannot be {doing}: {error}"
