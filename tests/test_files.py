"""Locks that end with their files, and files that are replaced as a whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from implicitly.files.locks import is_released, lock
from implicitly.files.whole import explained, replacing


def test_a_lock_ends_when_its_file_is_closed(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    file = tmp_path / "file"
    file.write_bytes(b"begun")
    with file.open("r+b") as one, file.open("r+b") as another:
        assert lock(one)
        assert not lock(another, wait=False)
        assert not is_released(file)
    assert is_released(file)
    with file.open("r+b") as again:
        assert lock(again, wait=False)


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
