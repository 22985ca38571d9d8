"""A request for a verification, as a marked test or a factory returns it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_FORMS = (
    "(layer, inputs), (layer, inputs, residual), or a dictionary with 'layer', 'inputs' and, if wanted, "
    "'residual' and 'tighten'"
)


@dataclass(frozen=True)
class Request:
    """A layer to verify, with all that `verify` needs to know of it.

    Attributes:
        layer: See `verify`.
        inputs: See `verify`.
        residual: See `verify`.
        tighten: See `verify`.
    """

    layer: Callable[..., Any]
    inputs: Any
    residual: Callable[..., Any] | None = None
    tighten: Callable[[float], Callable[..., Any]] | None = None

    @staticmethod
    def of(returned: object, source: str) -> Request:
        """The request that a function returned.

        Args:
            returned: A tuple or a dictionary.
            source: The function, in the words of an error.

        Raises:
            TypeError: It is neither, or has other parts.

        Examples:
            >>> Request.of({"layer": abs, "inputs": 1}, "my_factory").inputs
            1
        """
        if isinstance(returned, Mapping):
            unknown = set(returned) - {"layer", "inputs", "residual", "tighten"}
            if not unknown and {"layer", "inputs"} <= set(returned):
                return Request(**returned)
            found = f"a dictionary with the keys {sorted(map(str, returned))}"
        elif isinstance(returned, tuple):
            if len(returned) in (2, 3):
                return Request(*returned)
            found = f"a tuple of {len(returned)}"
        else:
            found = type(returned).__name__
        raise TypeError(f"{source} must return {_FORMS}, got {found}")
