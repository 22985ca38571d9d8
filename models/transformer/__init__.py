"""The transformer language model."""

from .cell import TransformerCell
from .model import DEQTransformer, Transformer
from .options import TransformerOptions

__all__ = ["DEQTransformer", "Transformer", "TransformerCell", "TransformerOptions"]
