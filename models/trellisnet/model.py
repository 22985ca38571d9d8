"""The TrellisNet language model, at equilibrium or at a finite depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checks import check_equilibrium
from ..dropout import apply_mask, draw_mask
from ..memory import Memory
from ..registry import register_model
from ..sequence_model import SequenceModel
from ..vocabulary import AdaptiveVocabulary, PlainVocabulary, Vocabulary
from ..weight_norm import linear, weight_of
from .cell import TrellisNetCell, windows
from .options import TrellisNetOptions


@register_model(TrellisNetOptions)
class TrellisNet(SequenceModel):
    """A TrellisNet language model with history and tied vocabulary.

    By `options.depth` its states are an equilibrium, or come from layers with shared or with separate
    weights. A causal convolution of the embeddings is injected into the gates of every layer. The
    memory holds the last `kernel − 1` states and embeddings, so that a sequence may be read in pieces.

    Args:
        options: Sizes, rates and depth.

    Source: Bai, Kolter & Koltun 2019, section 4 (DEQ-TrellisNet). Their code pads the embeddings of each
    segment with zeros; here the convolution continues across segments.

    Examples:
        >>> from implicitly.models import TrellisNet, TrellisNetOptions, WeightTied
        >>> options = TrellisNetOptions(vocabulary=20, output=8, hidden=8, depth=WeightTied(4))
        >>> model = TrellisNet(options)
        >>> loss, output = model.loss(torch.zeros(2, 6, dtype=torch.long), torch.ones(2, 6).long())
        >>> loss.shape, output.hidden.shape
        (torch.Size([]), torch.Size([2, 6, 8]))
    """

    def __init__(self, options: TrellisNetOptions) -> None:
        super().__init__(options.depth, _vocabulary(options), lambda: TrellisNetCell(options))
        self.options = options
        self.injection = linear(
            options.kernel * options.output,
            4 * options.width,
            bias=True,
            normalised=options.weight_norm,
            deviation=options.deviation,
        )

    def embed(self, tokens: Tensor) -> Tensor:
        options, embedded = self.options, self.vocabulary.embed(tokens)
        words = draw_mask(
            (options.vocabulary, 1), options.embedding_dropout, embedded, self.training
        )
        if words is not None:
            embedded = embedded * words[tokens]
        return self._dropped(embedded, options.input_dropout)

    def inject(self, embedded: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        weight = weight_of(self.injection, self.options.weight_dropout, self.training)
        before = memory.inputs.to(embedded.dtype)
        seen = windows(torch.cat((before, embedded), dim=1), self.options.kernel)
        return nn.functional.linear(seen, weight, self.injection.bias), embedded

    def read_out(self, states: Tensor) -> Tensor:
        outputs = states[..., self.options.hidden : self.options.width]
        return self._dropped(outputs, self.options.output_dropout)

    def empty_memory(self, batch: int) -> Memory:
        steps = self.options.kernel - 1
        states = self.injection.bias.new_zeros(batch, steps, 2 * self.options.width)
        inputs = states.new_zeros(batch, steps, self.options.output)
        return Memory((states,) * len(self.cells), inputs)

    def kept(self, keep: int | None) -> int:
        if keep not in (None, self.most_kept):
            raise ValueError(
                f"a TrellisNet remembers kernel − 1 = {self.most_kept} time steps: leave keep out, got "
                f"{keep!r}"
            )
        return self.most_kept

    @property
    def most_kept(self) -> int:
        return self.options.kernel - 1

    def _dropped(self, x: Tensor, rate: float) -> Tensor:
        return apply_mask(x, draw_mask((len(x), 1, x.shape[2]), rate, x, self.training))


class DEQTrellisNet(TrellisNet):
    """A TrellisNet whose states are the equilibrium of its cell.

    Args:
        options: Sizes, rates and an `Equilibrium` as depth.

    Raises:
        TypeError: `options.depth` is finite.

    Source: Bai, Kolter & Koltun 2019, section 4.

    Examples:
        >>> from implicitly.models import DEQTrellisNet, TrellisNetOptions
        >>> model = DEQTrellisNet(TrellisNetOptions(vocabulary=20, output=8, hidden=8))
        >>> output = model(torch.zeros(2, 6, dtype=torch.long))
        >>> output.converged, output.memory.states[0].shape
        (True, torch.Size([2, 1, 32]))
    """

    def __init__(self, options: TrellisNetOptions) -> None:
        check_equilibrium("DEQTrellisNet", "TrellisNet", options.depth)
        super().__init__(options)


def _vocabulary(options: TrellisNetOptions) -> Vocabulary:
    made: Vocabulary
    if options.cutoffs:
        made = AdaptiveVocabulary(options.vocabulary, options.output, options.cutoffs)
    else:
        made = PlainVocabulary(options.vocabulary, options.output)
    for table in made.all_tables():
        nn.init.uniform_(table, -0.1, 0.1)
    return made
