"""Sequence models on the implicit layer: DEQ-Transformer, DEQ-TrellisNet and their explicit counterparts."""

from .cell import Cell
from .code import CodeError, import_code
from .counting import ParameterCount, count_parameters
from .depth import Depth, Equilibrium, Stacked, WeightTied, by_scan
from .memory import Memory
from .model_options import ModelOptions
from .output import Output, Piece
from .recent_states import RecentStates
from .recurrent import EquilibriumRNN, RecurrentOptions
from .registry import register_data, register_model
from .sampling import Sampling
from .sequence_model import SequenceModel
from .stability import jacobian_penalty, residual_penalty, spectral_radius
from .transformer import DEQTransformer, Transformer, TransformerOptions
from .trellisnet import DEQTrellisNet, TrellisNet, TrellisNetOptions, causal_newton
from .vocabulary import AdaptiveVocabulary, PlainVocabulary, Vocabulary

__all__ = [
    "AdaptiveVocabulary",
    "Cell",
    "CodeError",
    "DEQTransformer",
    "DEQTrellisNet",
    "Depth",
    "Equilibrium",
    "EquilibriumRNN",
    "Memory",
    "ModelOptions",
    "Output",
    "ParameterCount",
    "Piece",
    "PlainVocabulary",
    "RecentStates",
    "RecurrentOptions",
    "Sampling",
    "SequenceModel",
    "Stacked",
    "Transformer",
    "TransformerOptions",
    "TrellisNet",
    "TrellisNetOptions",
    "Vocabulary",
    "WeightTied",
    "by_scan",
    "causal_newton",
    "count_parameters",
    "import_code",
    "jacobian_penalty",
    "register_data",
    "register_model",
    "residual_penalty",
    "spectral_radius",
]
