"""A third model on one page: a recurrent network whose states of all times are found together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..implicit import recurrence
from ..solvers import Solution, Stopping
from ..solvers.options import Options, is_number
from .checks import check_sizes, check_tokens
from .vocabulary import PlainVocabulary


@dataclass(frozen=True)
class RNNOptions(Options):
    """Options of an `EquilibriumRNN`.

    Attributes:
        vocabulary: Number of tokens.
        width: Features of a state and of an embedding.
        rtol: Relative tolerance of the solve.

    Raises:
        ValueError: An option is out of range.

    Examples:
        >>> RNNOptions(vocabulary=10).width
        32
    """

    vocabulary: int
    width: int = 32
    rtol: float = 1e-5

    def __post_init__(self) -> None:
        check_sizes(self, "vocabulary", "width")
        if not is_number(self.rtol, 0):
            raise ValueError(f"rtol must be a number ≥ 0, got {self.rtol!r}")


class EquilibriumRNN(nn.Module):
    """A language model with `h_t = GRU(x_t, h_{t−1})`, all times at once by Newton steps with a scan.

    The recurrence is an equation for the whole sequence, which `recurrence` solves and differentiates.
    The memory is the last state.

    Args:
        options: Sizes and tolerance.

    Source: Lim et al. 2024, arXiv:2309.12252; Cho et al. 2014 (the GRU).

    Examples:
        >>> model = EquilibriumRNN(RNNOptions(vocabulary=10, width=8))
        >>> tokens = torch.zeros(2, 100, dtype=torch.long)
        >>> loss, memory, solution = model.loss(tokens, tokens)
        >>> memory.shape, bool(solution.converged.all()), int(solution.steps.max()) < 20
        (torch.Size([2, 8]), True, True)
    """

    def __init__(self, options: RNNOptions) -> None:
        super().__init__()
        self.options = options
        self.vocabulary = PlainVocabulary(options.vocabulary, options.width)
        self.cell = nn.GRUCell(options.width, options.width)

    def forward(self, tokens: Tensor, memory: Tensor | None = None) -> Solution:
        """The states of all times, `(batch, time, width)`, as `value` of the solution."""
        xs = self.vocabulary.embed(check_tokens("tokens", tokens, self.options.vocabulary))
        s0 = xs.new_zeros(len(xs), self.options.width) if memory is None else memory.detach()
        stopping = Stopping(rtol=self.options.rtol)
        return recurrence(lambda s, x: self.cell(x, s), s0, xs, stopping=stopping)

    def loss(
        self, tokens: Tensor, targets: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Solution]:
        """The mean negative log-probability of `targets`, the next memory, and the solution."""
        targets = check_tokens("targets", targets, self.options.vocabulary)
        solution = self(tokens, memory)
        losses = self.vocabulary.losses(solution.value, targets)
        return losses.mean(), solution.value[:, -1].detach(), solution.detach()
