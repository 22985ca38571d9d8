"""Comparative studies of solvers: run, stored row by row, resumed and reported."""

from .configuration import Configuration, load, shipped
from .errors import StoreError, StoreWarning, StudyError
from .overview import Progress, export, status
from .reporting import Comparison, compare, report
from .row import COLUMNS, OUTCOMES, Row
from .running import Summary, resume, run
from .store import Plan, Store

__all__ = [
    "COLUMNS",
    "OUTCOMES",
    "Comparison",
    "Configuration",
    "Plan",
    "Progress",
    "Row",
    "Store",
    "StoreError",
    "StoreWarning",
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
