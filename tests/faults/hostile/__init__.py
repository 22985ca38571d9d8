"""Acts of hostile cells, by name."""

from . import answers, channel, functions, processes, settings
from .registry import ACTS, answer

_FILLED_BY = (processes, channel, settings, functions, answers)

__all__ = ["ACTS", "answer"]
