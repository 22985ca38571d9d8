"""Sizes and rates of a TrellisNet."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...options.options import check_truth
from ..checks import check_deviation, check_kind_of_depth, check_rates, check_sizes
from ..depth import Depth, Equilibrium, by_scan
from ..model_options import ModelOptions
from ..vocabulary.adaptive import check_cutoffs


@dataclass(frozen=True)
class TrellisNetOptions(ModelOptions):
    """Options of a TrellisNet language model.

    A state is `h` and `c`, each of `hidden + output` features.

    Attributes:
        vocabulary: Number of tokens.
        output: Features that predict tokens, and length of the tied embeddings.
        hidden: Further features of `h`.
        depth: `Equilibrium(...)`, `WeightTied(depth)` or `Stacked(depth)`.
        kernel: Time steps that a convolution sees, itself included.
        embedding_dropout: Rate at which whole tokens are dropped.
        input_dropout: Rate for embeddings.
        hidden_dropout: Rate for `h` inside of the cell.
        output_dropout: Rate for the predicting features.
        weight_dropout: Rate for the weights of both convolutions.
        weight_norm: True for normalised weights of both convolutions.
        cutoffs: Cutoffs of an adaptive softmax; empty for a plain one.
        deviation: Standard deviation of weights at the start.

    Raises:
        ValueError: An option is out of range.
        TypeError: An option has the wrong type.

    Examples:
        >>> TrellisNetOptions(vocabulary=100, output=8, hidden=24).width
        32
    """

    vocabulary: int
    output: int = 128
    hidden: int = 256
    depth: Depth = field(default_factory=Equilibrium)
    kernel: int = 2
    embedding_dropout: float = 0.0
    input_dropout: float = 0.0
    hidden_dropout: float = 0.0
    output_dropout: float = 0.0
    weight_dropout: float = 0.0
    weight_norm: bool = True
    cutoffs: tuple[int, ...] = ()
    deviation: float = 0.01

    def __post_init__(self) -> None:
        check_sizes(self, "vocabulary", "output", "hidden", "kernel")
        if self.kernel < 2:
            raise ValueError(
                f"kernel must be an integer ≥ 2, or no time step sees another; got {self.kernel!r}"
            )
        check_kind_of_depth(self.depth)
        check_rates(
            self, "embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout",
            "weight_dropout",
        )  # fmt: skip
        check_truth("weight_norm", self.weight_norm)
        if self.cutoffs != ():
            check_cutoffs(self.cutoffs, self.vocabulary)
        check_deviation("deviation", self.deviation)

    @property
    def width(self) -> int:
        """Features of `h`, and of `c`."""
        return self.hidden + self.output


def causal_newton(options: TrellisNetOptions, rtol: float = 1e-4) -> Equilibrium:
    """An equilibrium solved by Newton's method with a scan over time, and its adjoint likewise.

    `CausalNewton` needs kernel 2, with which a time step depends on itself and its predecessor. Its blocks
    have `2 · width` rows, so it is for narrow models.

    Args:
        options: Options of the model.
        rtol: Tolerance of both solves on the residual, relative to the state.

    Raises:
        ValueError: The kernel is not 2.

    Source: Lim et al. 2024, arXiv:2309.12252.

    Examples:
        >>> options = TrellisNetOptions(vocabulary=10, output=4, hidden=4)
        >>> causal_newton(options).solver
        CausalNewton(block=16, time='first', jacobian='full', damping=0.0)
    """
    if options.kernel != 2:
        raise ValueError(
            "CausalNewton needs a kernel of 2, whose time steps see one step back; got "
            f"kernel={options.kernel}"
        )
    return by_scan(2 * options.width, rtol)
