"""Names of options classes in a configuration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from types import ModuleType
from typing import Any

_NAMES = {"DFSANE": "df-sane", "BiCGStab": "bicgstab", "DenseLU": "dense-lu"}


def kebab(kind: type) -> str:
    """The name of a class in a configuration.

    Examples:
        >>> import implicitly
        >>> kebab(implicitly.NewtonKrylov), kebab(implicitly.GMRES)
        ('newton-krylov', 'gmres')
    """
    name = kind.__name__
    if name.isupper():
        return _NAMES.get(name, name.lower())
    return _NAMES.get(name, re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower())


def by_kebab(kinds: Iterable[type]) -> dict[str, type]:
    """Classes by their names in a configuration."""
    return {kebab(kind): kind for kind in kinds}


def public_kinds(module: ModuleType, base: type) -> dict[str, type[Any]]:
    """The concrete subclasses of `base` among the public names of a module, by their names.

    Examples:
        >>> from implicitly import solvers
        >>> public_kinds(solvers, solvers.Solver)["anderson"]
        <class 'implicitly.solvers.fixed_point.anderson.Anderson'>
    """
    found = (getattr(module, name) for name in module.__all__)
    return by_kebab(
        kind
        for kind in found
        if isinstance(kind, type) and issubclass(kind, base) and not inspect.isabstract(kind)
    )
