"""Base class of the options of models."""

from __future__ import annotations

from typing import Any

from ..options.options import Options
from .depth import Depth


class ModelOptions(Options):
    """Options of a model: a frozen dataclass with the fields `vocabulary` and `depth`, and its own.

    Attributes:
        vocabulary: Number of tokens.
        depth: `Equilibrium(...)`, `WeightTied(depth)` or `Stacked(depth)`.

    Examples:
        >>> from implicitly.models import TransformerOptions
        >>> issubclass(TransformerOptions, ModelOptions)
        True
    """

    vocabulary: int
    depth: Any

    @property
    def states(self) -> Depth:
        """Depth of the states."""
        depth: Depth = self.depth
        return depth
