"""Extras of the package that parts of the demonstration need."""

from __future__ import annotations

import importlib.util


def can_draw() -> bool:
    """True if figures can be drawn."""
    return _installed("matplotlib")


def can_train() -> bool:
    """True if sequence models can be trained."""
    return _installed("lightning", "tensorboard", "yaml")


def can_study() -> bool:
    """True if studies can be run."""
    return _installed("joblib", "pandas", "plotly", "psutil", "pyarrow", "pydantic", "yaml")


def _installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)
