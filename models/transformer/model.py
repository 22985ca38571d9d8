"""The transformer language model, at equilibrium or at a finite depth."""

from __future__ import annotations

from torch import Tensor

from ...options.options import is_integer
from ..checks import check_equilibrium
from ..dropout import apply_mask, draw_mask
from ..memory import Memory
from ..registry import register_model
from ..sequence_model import SequenceModel
from ..vocabulary import AdaptiveVocabulary, PlainVocabulary, Vocabulary
from ..weight_norm import linear
from .cell import TransformerCell
from .options import TransformerOptions


@register_model(TransformerOptions)
class Transformer(SequenceModel):
    """A transformer language model with relative attention, memory and tied vocabulary.

    By `options.depth` its states are an equilibrium, or come from layers with shared or with separate
    weights; cells, vocabulary and memory are the same. Embeddings, times `√width`, are injected
    into the queries, keys and values of every layer.

    Args:
        options: Sizes, rates and depth.

    Source: Bai, Kolter & Koltun 2019, section 4 (DEQ-Transformer); Dai et al. 2019.

    Examples:
        >>> import torch
        >>> from implicitly.models import Transformer, TransformerOptions, WeightTied
        >>> options = TransformerOptions(vocabulary=20, width=16, heads=2, depth=WeightTied(4))
        >>> model = Transformer(options)
        >>> loss, output = model.loss(torch.zeros(2, 6, dtype=torch.long), torch.ones(2, 6).long())
        >>> loss.shape, output.hidden.shape
        (torch.Size([]), torch.Size([2, 6, 16]))
    """

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__(options.depth, _vocabulary(options), lambda: TransformerCell(options))
        self.options = options
        features = 3 * options.heads * options.per_head
        self.injection = linear(
            options.width, features, bias=True, normalised=False, deviation=options.spread
        )

    def embed(self, tokens: Tensor) -> Tensor:
        return self._dropped(self.vocabulary.embed(tokens))

    def inject(self, embedded: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        injection = self.injection(embedded)
        return injection, injection

    def read_out(self, states: Tensor) -> Tensor:
        return self._dropped(states)

    def empty_memory(self, batch: int) -> Memory:
        none = self.injection.weight.new_zeros(batch, 0, self.options.width)
        inputs = none.new_zeros(batch, 0, self.injection.out_features)
        return Memory((none,) * len(self.cells), inputs)

    def kept(self, keep: int | None) -> int:
        if keep is None:
            return self.options.memory
        if not is_integer(keep, 0) or keep >= self.options.positions:
            raise ValueError(
                f"keep must be an integer from 0 to {self.options.positions - 1}, one below positions, "
                f"got {keep!r}"
            )
        return keep

    @property
    def most_kept(self) -> int:
        most = self.options.positions - 1
        return most if self.options.context is None else min(most, self.options.context - 1)

    def check_length(self, memory: int, length: int) -> None:
        if memory + length > self.options.positions:
            raise ValueError(
                f"{memory} remembered and {length} given tokens are more than the "
                f"{self.options.positions} positions: give shorter sequences one after the other, with "
                "their memory, or raise TransformerOptions(positions=...)"
            )

    def _dropped(self, x: Tensor) -> Tensor:
        shape = (len(x), 1, self.options.width)
        return apply_mask(x, draw_mask(shape, self.options.dropout, x, self.training))


class DEQTransformer(Transformer):
    """A transformer whose states are the equilibrium of its cell.

    Args:
        options: Sizes, rates and an `Equilibrium` as depth.

    Raises:
        TypeError: `options.depth` is finite.

    Source: Bai, Kolter & Koltun 2019, section 4.

    Examples:
        >>> import torch
        >>> from implicitly.models import DEQTransformer, TransformerOptions
        >>> model = DEQTransformer(TransformerOptions(vocabulary=20, width=16, heads=2, memory=8))
        >>> output = model(torch.zeros(2, 6, dtype=torch.long))
        >>> output.hidden.shape, output.memory.states[0].shape
        (torch.Size([2, 6, 16]), torch.Size([2, 6, 16]))
    """

    def __init__(self, options: TransformerOptions) -> None:
        check_equilibrium("DEQTransformer", "Transformer", options.depth)
        super().__init__(options)


def _vocabulary(options: TransformerOptions) -> Vocabulary:
    scale = options.width**0.5
    if not options.cutoffs:
        return PlainVocabulary(options.vocabulary, options.width, scale)
    return AdaptiveVocabulary(
        options.vocabulary, options.width, options.cutoffs, options.table, options.divisor, scale
    )
