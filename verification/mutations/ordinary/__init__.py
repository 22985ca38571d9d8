"""Ordinary layers without an equation: wrong ones, right ones, and points without a derivative."""

from .entry import Ordinary
from .right import DOUBTFUL, RIGHT
from .wrong import WRONG

ORDINARY: tuple[Ordinary, ...] = (*WRONG, *RIGHT, *DOUBTFUL)
"""The whole registry."""

__all__ = ["DOUBTFUL", "ORDINARY", "RIGHT", "WRONG", "Ordinary"]
