"""Reading of a run's logs."""

from __future__ import annotations

import csv
import io
from pathlib import Path


def records(folder: str | Path) -> dict[str, dict[int, float]]:
    """Every metric of a run by step; for steps that a resumed run repeated, the later record counts.

    Args:
        folder: Folder of the run.

    Examples:
        >>> records("no such folder")
        {}
    """
    found: dict[str, dict[int, float]] = {}
    parts = sorted(Path(folder).glob("csv/version_*/metrics.csv"), key=_version)
    for file in parts:
        for row in csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    found.setdefault(name, {})[int(row["step"])] = float(value)
    return found


def _version(file: Path) -> int:
    return int(file.parent.name.removeprefix("version_"))
