"""Sequence models on the implicit layer: DEQ-Transformer, DEQ-TrellisNet and their explicit counterparts."""

from .counting import ParameterCount, count_parameters
from .depth import Equilibrium, Stacked, WeightTied, by_scan
from .memory import Memory
from .output import Output, Piece
from .recurrent import EquilibriumRNN, RecurrentOptions
from .sequence_model import SequenceModel
from .stability import jacobian_penalty, residual_penalty, spectral_radius
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
    "Piece",
    "RecurrentOptions",
    "SequenceModel",
    "Stacked",
    "Transformer",
    "TransformerOptions",
    "TrellisNet",
    "TrellisNetOptions",
    "WeightTied",
    "by_scan",
    "causal_newton",
    "count_parameters",
    "jacobian_penalty",
    "residual_penalty",
    "spectral_radius",
]
