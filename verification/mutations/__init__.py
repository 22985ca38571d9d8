"""Layers with planted gradient bugs, and correct layers, to test the verification itself."""

from .bugs import BUGS, Bug
from .correct import CORRECT, Right
from .families import FAMILIES, Family
from .hiding import HIDING_BUGS, HidingBug
from .planted import Recipe, planted
from .second_order import SECOND_ORDER_BUGS, right_twice

__all__ = [
    "BUGS",
    "CORRECT",
    "FAMILIES",
    "HIDING_BUGS",
    "SECOND_ORDER_BUGS",
    "Bug",
    "Family",
    "HidingBug",
    "Recipe",
    "Right",
    "planted",
    "right_twice",
]
