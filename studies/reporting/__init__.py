"""Reports of studies: a page that opens offline, figures on paper, tables; and two studies compared."""

from .writing import FORMATS, Format, report

__all__ = ["FORMATS", "Format", "report"]
