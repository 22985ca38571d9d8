"""Layers with planted gradient bugs, and correct ones, on which the verification itself is tried."""

from .bugs import BUGS, Bug
from .families import FAMILIES, Family
from .planted import Recipe, planted

__all__ = ["BUGS", "FAMILIES", "Bug", "Family", "Recipe", "planted"]
