"""Reading of a run's logs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from .errors import CheckpointError


def records(folder: str | Path) -> dict[str, dict[int, float]]:
    """Every metric of a run by step; for steps that a resumed run repeated, the later record counts.

    A last line without an end, which a killed run leaves, does not count.

    Args:
        folder: Folder of the run.

    Raises:
        CheckpointError: A file cannot be read, or has other than numbers.

    Examples:
        >>> records("no such folder")
        {}
    """
    found: dict[str, dict[int, float]] = {}
    for file in _files(Path(folder)):
        try:
            text = file.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            for row in csv.DictReader(io.StringIO(whole)):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        found.setdefault(name, {})[int(row["step"])] = float(value)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            said = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"{file} has no records that can be read ({said})") from error
    return found


def _files(folder: Path) -> list[Path]:
    """Records of the run and of each time it was resumed, in their order."""
    numbered = [
        (int(file.parent.name.removeprefix("version_")), file)
        for file in folder.glob("csv/version_*/metrics.csv")
        if file.parent.name.removeprefix("version_").isdecimal()
    ]
    return [file for _, file in sorted(numbered)]
