"""Reports of studies: a page that opens offline, figures on paper, tables; and two studies compared."""

from .comparing import Comparison, compare
from .writing import FORMATS, Format, report

__all__ = ["FORMATS", "Comparison", "Format", "compare", "report"]
