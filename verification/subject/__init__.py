"""Subject of a verification: any layer as a flat function of named tensors."""

from .errors import LayerError, NoForwardModeError
from .slots import Slot
from .subject import Subject
from .tape import Tape, Tensors

__all__ = ["LayerError", "NoForwardModeError", "Slot", "Subject", "Tape", "Tensors"]
