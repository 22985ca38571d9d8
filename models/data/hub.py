"""WikiText and the Penn Treebank through Hugging Face `datasets`."""

from __future__ import annotations

from .corpus import Corpus, Level
from .errors import CorpusError

HUB = {
    "wikitext-2": ("Salesforce/wikitext", "wikitext-2-v1", "text"),
    "wikitext-103": ("Salesforce/wikitext", "wikitext-103-v1", "text"),
    "ptb": ("ptb-text-only/ptb_text_only", "penn_treebank", "sentence"),
}
"""Path, configuration and column of each corpus on the hub."""


def from_hub(name: str, level: Level = "word") -> Corpus:
    """Download a corpus, or take it from the cache of `datasets`.

    Args:
        name: `"wikitext-2"`, `"wikitext-103"` or `"ptb"`.
        level: `"word"` or `"character"`.

    Raises:
        ValueError: No such corpus.
        CorpusError: `datasets` is missing, or the corpus is unavailable.

    Examples:
        >>> sorted(HUB)
        ['ptb', 'wikitext-103', 'wikitext-2']
    """
    if name not in HUB:
        raise ValueError(f"name must be one of {', '.join(sorted(HUB))}, got {name!r}")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise CorpusError(
            "datasets is not installed: pip install 'implicitly[datasets]', or give a folder of text"
        ) from error
    path, configuration, column = HUB[name]
    try:
        parts = load_dataset(path, configuration)
    except Exception as error:
        raise CorpusError(
            f"{name} cannot be had from the hub ({type(error).__name__}: {error}); give a folder with "
            "train.txt, valid.txt and test.txt instead"
        ) from error
    texts = {
        part: "\n".join(line.rstrip("\n") for line in parts[there][column])
        for part, there in (("train", "train"), ("valid", "validation"), ("test", "test"))
    }
    return Corpus.of_texts(texts, level, name)
