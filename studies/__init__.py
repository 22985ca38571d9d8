"""Comparative studies of solvers: run, stored row by row, resumed and reported."""

from .errors import StoreError, StoreWarning, StudyError
from .reporting import Comparison, compare, report
from .row import COLUMNS, OUTCOMES, Row
from .store import Plan, Store

__all__ = [
    "COLUMNS",
    "OUTCOMES",
    "Comparison",
    "Plan",
    "Row",
    "Store",
    "StoreError",
    "StoreWarning",
    "StudyError",
    "compare",
    "report",
]
