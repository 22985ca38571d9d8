"""Ordinary layers without an equation: wrong ones, right ones, and points without a derivative."""

from . import right_functions, right_modules, wrong_functions, wrong_modules
from .entering import DOUBTFUL, RIGHT, WRONG
from .entry import Ordinary

ORDINARY: tuple[Ordinary, ...] = (*WRONG, *RIGHT, *DOUBTFUL)
"""The whole registry, which the modules beside this one fill."""

_FILLED_BY = (right_functions, right_modules, wrong_functions, wrong_modules)

__all__ = ["DOUBTFUL", "ORDINARY", "RIGHT", "WRONG", "Ordinary"]
