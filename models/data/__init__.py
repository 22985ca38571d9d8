"""Data for sequence models: synthetic tasks, text from folders, from Hugging Face, and from Python itself."""

from .copy_memory import CopyMemory
from .corpus import Corpus, Vocabulary, read_corpus
from .errors import CorpusError
from .hub import HUB, from_hub
from .permutations import PermutationTracking
from .segments import Segment, Segments
from .standard_library import standard_library

__all__ = [
    "HUB",
    "CopyMemory",
    "Corpus",
    "CorpusError",
    "PermutationTracking",
    "Segment",
    "Segments",
    "Vocabulary",
    "from_hub",
    "read_corpus",
    "standard_library",
]
