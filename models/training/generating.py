"""Text that a trained model generates after a prompt."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice

import torch

from ...options.options import check_integer
from ..data import Vocabulary
from ..data.corpus import UNKNOWN, split
from ..memory import Memory
from ..sampling import Sampling
from ..sequence_model import SequenceModel
from .checkpoints import Restored
from .data import seed_of
from .errors import CheckpointError


def generate_text(
    restored: Restored,
    prompt: str = "\n",
    *,
    length: int = 200,
    sampling: Sampling | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[str]:
    """Pieces of the text that a model generates, each as soon as it is known.

    The model remembers as many positions as in training, with those of a segment. A seed gives the same
    text.

    Args:
        restored: The model.
        prompt: The text before.
        length: Number of symbols to generate.
        sampling: Choice of symbols; by default at random by their probability.
        seed: Seed of the choice.
        device: Device to run on.

    Raises:
        CheckpointError: The model has no symbols.
        CorpusError: A symbol of the prompt is unknown, and there is no `<unk>`.
        ValueError: The prompt is empty, or a number is out of range.

    Examples:
        >>> from implicitly.models.data import Vocabulary
        >>> from implicitly.models.training import Restored, load
        >>> run = load("character", ["model.width=8", "model.heads=2"])
        >>> symbols = Vocabulary(("a", "b", "<unk>"), "character")
        >>> untrained = Restored(run, 3, 0, run.model_for(3).state_dict(), {}, symbols)
        >>> len(list(generate_text(untrained, "ab", length=5)))
        5
    """
    check_integer("length", length, 0)
    check_integer("seed", seed, 0)
    if restored.symbols is None:
        raise CheckpointError(
            "the model has no symbols: it was trained on data that is no text, or by an earlier version. "
            "Its model().generate(tokens, steps) takes and returns numbers"
        )
    codes = prompt_codes(restored.symbols, prompt)
    model = restored.model().to(device).eval()
    return _generated(restored, model, codes.to(device), length, sampling or Sampling(), seed)


def _generated(
    restored: Restored,
    model: SequenceModel,
    codes: torch.Tensor,
    length: int,
    sampling: Sampling,
    seed: int,
) -> Iterator[str]:
    symbols, segment = restored.symbols, restored.configuration.length
    assert symbols is not None  # for the type checker: `generate_text` has looked
    keep = min(model.most_kept, model.kept(None) + segment)
    *before, last = codes.unsqueeze(0).split(segment, dim=1)
    memory: Memory | None = None
    with torch.no_grad():
        for piece in before:
            memory = model(piece, memory, keep=keep).memory
    generator = torch.Generator().manual_seed(seed_of(seed))
    code = int(codes[-1])
    for token in islice(model.stream(last, memory, sampling, generator, keep), length):
        previous, code = code, int(token)
        # Words are parted by spaces that depend on the word before.
        yield symbols.decode([previous, code])[len(symbols.decode([previous])) :]


def prompt_codes(symbols: Vocabulary, prompt: str) -> torch.Tensor:
    """Codes of a prompt; one of words goes on in its last line. Symbols that are read as `<unk>` warn.

    Raises:
        CorpusError: A symbol is unknown, and there is no `<unk>`.
        ValueError: The prompt is empty.

    Examples:
        >>> prompt_codes(Vocabulary(("the", "<eos>"), "word"), "the the").tolist()
        [0, 0]
    """
    codes = symbols.encode(prompt)
    known = {*symbols.symbols}
    strange = sorted({symbol for symbol in split(prompt, symbols.level) if symbol not in known})
    if strange:
        warnings.warn(
            f"the vocabulary has no {', '.join(map(repr, strange))}, read as {UNKNOWN}",
            stacklevel=3,
        )
    if symbols.level == "word" and not prompt.endswith("\n"):
        codes = codes[:-1]
    if not len(codes):
        raise ValueError(f"prompt must have at least one {symbols.level}, got {prompt!r}")
    return codes
