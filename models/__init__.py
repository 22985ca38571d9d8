"""Sequence models on the implicit layer: DEQ-Transformer, DEQ-TrellisNet and their explicit counterparts."""

from .counting import ParameterCount, count_parameters
from .depth import Equilibrium, Stacked, WeightTied
from .output import Memory, Output, Solved
from .recurrent import EquilibriumRNN, RNNOptions
from .sequence_model import SequenceModel
from .transformer import DEQTransformer, Transformer, TransformerOptions
from .trellisnet import DEQTrellisNet, TrellisNet, TrellisNetOptions, causal_newton

__all__ = [
    "DEQTransformer",
    "DEQTrellisNet",
    "Equilibrium",
    "EquilibriumRNN",
    "Memory",
    "Output",
    "ParameterCount",
    "RNNOptions",
    "SequenceModel",
    "Solved",
    "Stacked",
    "Transformer",
    "TransformerOptions",
    "TrellisNet",
    "TrellisNetOptions",
    "WeightTied",
    "causal_newton",
    "count_parameters",
]
