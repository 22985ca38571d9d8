"""Small models of both kinds, solved to rounding."""

import torch
from implicitly import Exact, Stopping
from implicitly.models import (
    Equilibrium,
    Transformer,
    TransformerOptions,
    TrellisNet,
    TrellisNetOptions,
)

VOCABULARY = 11
TIGHT = Equilibrium(
    stopping=Stopping(rtol=1e-11, max_steps=2000),
    gradient=Exact(stopping=Stopping(rtol=1e-11, max_steps=2000)),
    on_failure="raise",
)


def transformer(depth=TIGHT, **options):
    return Transformer(
        TransformerOptions(VOCABULARY, width=12, heads=2, inner=16, depth=depth, **options)
    )


def trellisnet(depth=TIGHT, **options):
    options = {"deviation": 0.3, **options}
    return TrellisNet(TrellisNetOptions(VOCABULARY, output=4, hidden=5, depth=depth, **options))


MAKERS = [transformer, trellisnet]


def make(maker, *args, **options):
    torch.manual_seed(0)
    return maker(*args, **options).double()


def tokens(batch=3, length=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (batch, length), generator=generator)
