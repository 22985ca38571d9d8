"""Errors of a run; each message says what to do."""

from __future__ import annotations


class ConfigurationError(ValueError):
    """A configuration cannot be read, or a field is unknown, missing or out of range."""


class CheckpointError(ValueError):
    """A checkpoint is missing, corrupt, or of another model."""


class StorageError(OSError):
    """The folder of a run cannot be written to; what was written before stays."""


class TrainingDivergedError(ArithmeticError):
    """A loss is not finite, or is too large."""
