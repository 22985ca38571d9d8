"""Comparative studies of solvers: run, stored row by row, resumed and reported."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .configuration import StudyConfiguration, load, shipped
    from .errors import GuardError, StoreError, StoreWarning, StudyError
    from .overview import Progress, export, status
    from .reporting import Comparison, compare, report
    from .row import COLUMNS, OUTCOMES, Row
    from .running import Summary, resume, run
    from .store import Plan, Store

__all__ = [
    "COLUMNS",
    "OUTCOMES",
    "Comparison",
    "GuardError",
    "Plan",
    "Progress",
    "Row",
    "Store",
    "StoreError",
    "StoreWarning",
    "StudyConfiguration",
    "StudyError",
    "Summary",
    "compare",
    "export",
    "load",
    "report",
    "resume",
    "run",
    "shipped",
    "status",
]

_HOMES = {
    "configuration": ("StudyConfiguration", "load", "shipped"),
    "errors": ("GuardError", "StoreError", "StoreWarning", "StudyError"),
    "overview": ("Progress", "export", "status"),
    "reporting": ("Comparison", "compare", "report"),
    "row": ("COLUMNS", "OUTCOMES", "Row"),
    "running": ("Summary", "resume", "run"),
    "store": ("Plan", "Store"),
}


def __getattr__(name: str) -> object:
    """Import a name at its first use, so that rows are read and reported without PyTorch."""
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f".{home}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
