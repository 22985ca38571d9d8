"""Sequence models on the implicit layer: DEQ-Transformer, DEQ-TrellisNet and their explicit counterparts."""

from .depth import Equilibrium, Stacked, WeightTied
from .output import Memory, Output, Solved
from .sequence_model import SequenceModel
from .transformer import DEQTransformer, Transformer, TransformerOptions
from .trellisnet import DEQTrellisNet, TrellisNet, TrellisNetOptions, causal_newton

__all__ = [
    "DEQTransformer",
    "DEQTrellisNet",
    "Equilibrium",
    "Memory",
    "Output",
    "SequenceModel",
    "Solved",
    "Stacked",
    "Transformer",
    "TransformerOptions",
    "TrellisNet",
    "TrellisNetOptions",
    "WeightTied",
    "causal_newton",
]
