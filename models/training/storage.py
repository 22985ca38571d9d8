"""Folder of a run: checkpoints that are whole or not there, and errors of the disk in words."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ...files.locks import lock
from ...files.whole import explained, replacing
from .errors import CheckpointError, ConfigurationError, StorageError

_LONGEST_NAME = 200


class WholeCheckpoints(TorchCheckpointIO):
    """Writing of checkpoints beside their place, from where they are renamed once they are on the disk.

    Lightning's own way goes through the folder for temporary files, and copies if that is on another disk:
    then a full disk or a kill leaves half a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        replace_bytes(Path(path), content.getbuffer())


def replace_bytes(file: Path, content: bytes | memoryview) -> None:
    """Replace a file as a whole.

    Raises:
        StorageError: It cannot be written; the file that was there stays.
    """
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            part.write_bytes(content)


@contextlib.contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turn errors of the operating system into a `StorageError` that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        said = explained(error, place, then="make room, then resume (--resume)")
        raise StorageError(said) from error


def folder_of(title: str, parent: Path) -> Path:
    """The folder of a run within `parent` that has its title.

    Raises:
        ConfigurationError: The title is no name for a folder, so that it could lead to another place.

    Examples:
        >>> folder_of("copy-memory", Path("build/runs")).name
        'copy-memory'
    """
    usable = title.isprintable() and not title.startswith(".") and title.strip() == title
    if not usable or any(sign in title for sign in "/\\:") or len(title.encode()) > _LONGEST_NAME:
        raise ConfigurationError(
            f"the title {title!r} cannot name a folder: give --output, or a title without separators"
        )
    return parent / title


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder for one run at a time; the processes of one run count as one.

    Raises:
        CheckpointError: Another run holds it.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("LOCAL_RANK", "NODE_RANK")):
        yield
        return
    with contextlib.ExitStack() as stack:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            opened = stack.enter_context((folder / "lock").open("ab"))
        free = True
        with contextlib.suppress(OSError):  # A file system without locks.
            free = lock(opened, wait=False)
        if not free:
            raise CheckpointError(
                f"another process is training in {str(folder)!r}: wait for it, or give another --output"
            )
        yield
