"""Sizes of the paper's models.

The iteration limits are those of the authors' scripts. Systems that are unsolved within them are accepted,
as there. If the paper leaves a size open, the remark says how it was chosen.

Source: Bai, Kolter & Koltun 2019, tables 1–3 and appendix; scripts in locuslab/deq.
"""

from __future__ import annotations

from ..implicit import Exact
from ..solvers import PrefixAnderson, Stopping
from .depth import Equilibrium
from .transformer import TransformerOptions
from .trellisnet import TrellisNetOptions


def limited(forward: int, backward: int, subsequence: int | None = None) -> Equilibrium:
    """An equilibrium with limits on the iterations of both passes, residuals ≤ 1e-3 of the state.

    Examples:
        >>> limited(30, 35).stopping.max_steps
        30
    """
    return Equilibrium(
        stopping=Stopping(rtol=0.1, rtol_residual=1e-3, max_steps=forward),
        gradient=Exact(solver=PrefixAnderson(), stopping=Stopping(rtol=1e-3, max_steps=backward)),
        subsequence=subsequence,
        on_failure="accept",
    )


TRANSFORMER_WIKITEXT103 = TransformerOptions(
    vocabulary=267735,
    width=700,
    heads=10,
    head_width=70,
    inner=48000,
    memory=150,
    dropout=0.05,
    cutoffs=(20000, 40000, 200000),
    divisor=4,
    table=1024,
    deviation=0.02,
    initial="uniform",
    depth=limited(30, 35),
)
"""110M parameters, 71M outside of the vocabulary. The paper omits the tables' width; 1024 is that of
Transformer-XL and gives the paper's count. The script released later has 700: 97M. Its deviation of 0.02
never reaches normalised weights, so that they start uniform; with it, those of the second map inside would
be 7.6 times as large."""

TRELLISNET_WIKITEXT103 = TrellisNetOptions(
    vocabulary=267735,
    output=500,
    hidden=1500,
    input_dropout=0.1,
    hidden_dropout=0.1,
    output_dropout=0.1,
    cutoffs=(2800, 20000, 76000),
    depth=limited(45, 45, subsequence=50),
)
"""174M parameters, 40M outside of the vocabulary, by the sizes of the script. The paper's table says 180M
and 45M, which do not follow from any published sizes."""

TRELLISNET_PTB = TrellisNetOptions(
    vocabulary=10000,
    output=400,
    hidden=1000,
    embedding_dropout=0.1,
    input_dropout=0.45,
    hidden_dropout=0.28,
    output_dropout=0.45,
    weight_dropout=0.5,
    depth=limited(45, 45),
)
"""24M parameters, 20M outside of the vocabulary; rates of TrellisNet, as in the paper."""

TRANSFORMER_COPY_MEMORY = TransformerOptions(
    vocabulary=10, width=28, heads=4, inner=120, depth=limited(30, 35)
)
"""About 14K parameters, as in the paper, which omits the sizes."""
