"""Locks that end with their process, and files that are replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from implicitly.files.locks import is_released, lock
from implicitly.files.whole import explained, replacing

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def held_by_a_child(file: Path) -> tuple[int, int]:
    """The number of a process that has locked `file`, and a descriptor that lets it end."""
    locked, tell = os.pipe()
    wait, release = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.close(release)
        with file.open("r+b") as opened:
            lock(opened)
            os.write(tell, b"1")
            os.read(wait, 1)
        os._exit(0)
    os.read(locked, 1)
    for descriptor in (locked, tell, wait):
        os.close(descriptor)
    return child, release


@fork
def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"begun")
    child, release = held_by_a_child(file)
    try:
        with file.open("r+b") as opened:
            held = lock(opened, wait=False)
        assert (held, is_released(file)) == (False, False)
    finally:
        os.close(release)
        os.waitpid(child, 0)
    assert is_released(file)
    with file.open("r+b") as opened:
        assert lock(opened, wait=False)


def test_an_empty_file_may_be_about_to_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_released(tmp_path / "file")


def test_a_failed_replacement_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def fails() -> None:
        with replacing(file) as part:
            part.write_text("new")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        fails()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "old"


def test_a_full_disk_is_said_in_words() -> None:
    full, other = OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken")
    place = Path("place")
    assert explained(full, place) == "no space is left on the disk of place: make room, then resume"
    assert explained(other, place, "read") == f"place cannot be read: {other}"
