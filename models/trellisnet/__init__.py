"""The TrellisNet language model."""

from .cell import TrellisNetCell
from .model import DEQTrellisNet, TrellisNet
from .options import TrellisNetOptions, causal_newton

__all__ = ["DEQTrellisNet", "TrellisNet", "TrellisNetCell", "TrellisNetOptions", "causal_newton"]
