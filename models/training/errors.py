"""What can go wrong in a run, each with its way out in the message."""

from __future__ import annotations


class ConfigurationError(ValueError):
    """A configuration cannot be read, or a field is unknown, missing or out of range."""


class CheckpointError(ValueError):
    """A checkpoint is missing, corrupt, or of another model."""


class TrainingDivergedError(ArithmeticError):
    """A loss is not finite, or has left the range of what learning does."""
