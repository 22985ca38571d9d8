"""Sizes and rates of a transformer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...options.options import check_integer, check_truth, one_of
from ..checks import check_deviation, check_kind_of_depth, check_rates, check_sizes
from ..depth import Depth, Equilibrium
from ..model_options import ModelOptions
from ..vocabulary.adaptive import check_cutoffs


@dataclass(frozen=True)
class TransformerOptions(ModelOptions):
    """Options of a transformer language model.

    Attributes:
        vocabulary: Number of tokens.
        width: Features of a state (`d`).
        heads: Attention heads.
        head_width: Features of a head; `None` for `width / heads`.
        inner: Features inside of the position-wise map; `None` for `4 · width`.
        depth: `Equilibrium(...)`, `WeightTied(depth)` or `Stacked(depth)`.
        norm: Layer normalisation after each half of the cell (`"post"`: bounds the states) or before
            (`"pre"`: needs its Jacobian regularised).
        memory: Positions remembered from one forward pass to the next.
        context: Positions that a token sees, itself among them; `None` for all of memory and sequence.
        positions: Largest number of positions of memory and sequence together.
        dropout: Rate for embeddings, outputs, and the inside of the cell.
        attention_dropout: Rate for attention weights.
        weight_norm: True for normalised weights of the cell's maps.
        cutoffs: Cutoffs of the adaptive vocabulary; empty for a plain one.
        divisor: Divisor of the vectors' length from cluster to cluster.
        table: Length of the vectors of the most frequent tokens; `None` for `width`.
        deviation: Standard deviation of the cell's and injection's weights at the start; `None` for
            `1 / √n` with `n` the features that come in. Small weights make a cell near the identity,
            whose equilibrium is slow to find.
        initial: Weights of the cell's maps at the start: `"normal"`, of the deviation; or `"uniform"`,
            `U(±1/√n)`, which leaves the deviation to the injection. The authors' code draws `"uniform"`: it
            normalises the weights before it draws those of its deviation, which are then lost.

    Raises:
        ValueError: An option is out of range, or sizes do not fit together.
        TypeError: An option has the wrong type.

    Examples:
        >>> TransformerOptions(vocabulary=100, width=32, heads=4).per_head
        8
    """

    vocabulary: int
    width: int = 256
    heads: int = 8
    head_width: int | None = None
    inner: int | None = None
    depth: Depth = field(default_factory=Equilibrium)
    norm: Literal["post", "pre"] = "post"
    memory: int = 0
    context: int | None = None
    positions: int = 4096
    dropout: float = 0.0
    attention_dropout: float = 0.0
    weight_norm: bool = True
    cutoffs: tuple[int, ...] = ()
    divisor: int = 1
    table: int | None = None
    deviation: float | None = None
    initial: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        check_sizes(self, "vocabulary", "width", "heads", "positions", "divisor")
        if self.head_width is None and self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads, or head_width given; got width={self.width}, "
                f"heads={self.heads}"
            )
        check_sizes(self, "per_head", "inside")
        check_kind_of_depth(self.depth)
        one_of("norm", self.norm, ("post", "pre"))
        one_of("initial", self.initial, ("normal", "uniform"))
        check_integer("memory", self.memory, 0)
        if self.memory >= self.positions:
            raise ValueError(
                f"memory must leave room for tokens among the positions: got memory={self.memory}, "
                f"positions={self.positions}"
            )
        if self.context is not None:
            check_sizes(self, "context")
        check_rates(self, "dropout", "attention_dropout")
        check_truth("weight_norm", self.weight_norm)
        if self.cutoffs != ():
            check_cutoffs(self.cutoffs, self.vocabulary)
        elif self.divisor != 1 or self.table is not None:
            raise ValueError(
                "divisor and table are for an adaptive vocabulary: give cutoffs as well"
            )
        if self.table is not None:
            check_sizes(self, "table")
        check_deviation("deviation", self.spread)

    @property
    def per_head(self) -> int:
        """Features of a head."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def inside(self) -> int:
        """Features inside of the position-wise map."""
        return 4 * self.width if self.inner is None else self.inner

    @property
    def spread(self) -> float:
        """Standard deviation of weights at the start."""
        return self.width**-0.5 if self.deviation is None else self.deviation
