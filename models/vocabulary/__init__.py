"""Embeddings of tokens, and predictions of tokens with the same tables."""

from .adaptive import AdaptiveVocabulary
from .plain import PlainVocabulary
from .vocabulary import Vocabulary

__all__ = ["AdaptiveVocabulary", "PlainVocabulary", "Vocabulary"]
