"""Core checks: every verification runs them, and exploring checks run them again at other inputs."""

from __future__ import annotations

from collections.abc import Callable

from ..evidence import Evidence
from ..session import Session
from .conduct import repeatable
from .finite_differences import finite_differences
from .identities import forward_mode, linearity
from .implicit_reference import implicit_reference

Check = Callable[[Session], list[Evidence]]

CORE: dict[str, Check] = {
    "implicit reference": implicit_reference,
    "finite differences": finite_differences,
    "linearity in the cotangent": linearity,
    "forward against reverse mode": forward_mode,
    "the same call again": repeatable,
}
"""Core checks by name."""
