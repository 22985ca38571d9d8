"""Names that the shell completes, found without importing what the commands need."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def shipped_studies(incomplete: str) -> list[str]:
    """Shipped studies whose names begin so.

    Examples:
        >>> shipped_studies("qu")
        ['quick']
    """
    return _stems(_PACKAGE / "studies" / "shipped", incomplete)


def configurations(incomplete: str) -> list[str]:
    """Configurations of sequence models whose names begin so.

    Examples:
        >>> configurations("dem")
        ['demo']
    """
    return _stems(_PACKAGE / "models" / "training" / "named", incomplete)


def _stems(folder: Path, incomplete: str) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml") if file.stem.startswith(incomplete))
