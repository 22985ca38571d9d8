"""Ordinary layers without an equation: `verify` beside torch's gradcheck, on a registry and on many draws.

    python docs/results/ordinary.py

writes docs/results/ordinary.md in some ten minutes on two cores. Every number on the page comes from this
run.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from implicitly.verification import Verdict, verify
from implicitly.verification.mutations.ordinary import ORDINARY, Ordinary
from joblib import Parallel, delayed
from torch import nn

DRAWS = 100
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
HERE = Path(__file__).parent
OPTIONS: dict[torch.dtype, dict[str, float]] = {
    torch.float64: {},
    torch.float32: {"eps": 1e-3, "atol": 1e-2, "rtol": 1e-2},
}
"""Options of gradcheck: its defaults in float64, which are hopeless in float32."""


@dataclass(frozen=True)
class Row:
    """The verdicts on one layer."""

    position: int
    dtype: torch.dtype
    fast: str
    full: str
    named: bool
    seconds: float
    gradcheck: bool | None

    @property
    def entry(self) -> Ordinary:
        return ORDINARY[self.position]


def examined(position: int, dtype: torch.dtype) -> Row:
    """The verdicts of both efforts and of gradcheck; in bfloat16 those of fast effort alone."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    entry = ORDINARY[position]
    layer, inputs = entry.make(dtype)
    began = time.perf_counter()
    fast = verify(layer, inputs)
    seconds = time.perf_counter() - began
    full = fast if dtype is torch.bfloat16 else verify(*entry.make(dtype), effort="full")
    causes = [f.cause for report in (fast, full) for f in report.findings]
    return Row(
        position, dtype, fast.verdict.name, full.verdict.name,
        any(entry.cause in cause for cause in causes) if entry.cause else False,
        seconds,
        passes(*entry.make(dtype), OPTIONS[dtype]) if dtype in OPTIONS else None,
    )  # fmt: skip


def passes(layer: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, float]) -> bool:
    """Whether gradcheck lets a layer pass; the parameters of a module are inputs for it."""
    module = sys.modules["torch.autograd.gradcheck"]
    function, tensors = layer, inputs
    if isinstance(layer, nn.Module):
        names = [name for name, p in layer.named_parameters() if p.requires_grad]
        parameters = [p for p in layer.parameters() if p.requires_grad]

        def function(*everything: Any) -> Any:
            given, own = everything[: len(inputs)], everything[len(inputs) :]
            return torch.func.functional_call(layer, dict(zip(names, own, strict=True)), given)

        tensors = (*inputs, *parameters)

    def seeded(*everything: Any) -> Any:
        torch.manual_seed(0)
        value = function(*everything)
        return tuple(torch.utils._pytree.tree_leaves(value))

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        with mock.patch.object(module, "_run_slow_mode_and_get_error", return_value=""):
            try:
                return torch.autograd.gradcheck(seeded, tensors, raise_exception=False, **options)
            except Exception:
                return False


class Scaled(nn.Module):
    """A module whose gradient is 0.5 % too large."""

    class Function(torch.autograd.Function):
        """The identity with a factor in its backward pass."""

        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            return 1.005 * cotangents[0]

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any) -> Any:
        return self.Function.apply(self.module(x))


class Attention(nn.Module):
    """Self-attention of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.inner(x, x, x)[0]


class Bias(nn.Module):
    """A bias alone."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(5))

    def forward(self, x: Any) -> Any:
        return x + self.bias


def drawn() -> Iterator[tuple[str, Callable[[], nn.Module], tuple[int, ...]]]:
    """The layers of which many are drawn."""
    yield "linear", lambda: nn.Linear(5, 4), (6, 5)
    yield "a bias", Bias, (4, 5)
    yield (
        "ReLU network",
        lambda: nn.Sequential(
            nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
        ),
        (16, 8),
    )
    yield "linear, batch norm", lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), (6, 4)
    yield "layer norm", lambda: nn.LayerNorm(6), (4, 6)
    yield "attention", Attention, (2, 5, 8)
    yield "convolution", lambda: nn.Conv2d(2, 3, 3), (2, 2, 6, 6)


def of_draws(name: str, dtype: torch.dtype) -> list[int]:
    """Draws that are correct, and draws whose error of 0.5 % is found."""
    torch.set_num_threads(1)
    ((make, shape),) = ((make, shape) for other, make, shape in drawn() if other == name)
    counts = [0, 0]
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        module = make().to(dtype)
        x = torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()
        counts[0] += verify(module, x, seed=seed).verdict is Verdict.CORRECT
        counts[1] += verify(Scaled(module), x, seed=seed).verdict is Verdict.WRONG
    return counts


def share(part: int, whole: int) -> str:
    """A share as a fraction."""
    return f"{part}/{whole}" if whole else "–"


def registry(rows: list[Row]) -> Iterator[str]:
    """The table of the registry."""
    yield "| layers | dtype | found, fast | found, full | by `gradcheck` | cause named | seconds, median |"
    yield "|---|---|---|---|---|---|---|"
    for kind in ("right", "doubtful"):
        for dtype in DTYPES:
            own = [r for r in rows if r.dtype is dtype and r.entry.kind == kind]
            for effort in ("fast", "full") if own else ():
                found = Counter(getattr(r, effort) for r in own)
                yield (
                    f"| {kind} | {str(dtype)[6:]} | {effort} | {found['CORRECT']} | {found['UNRELIABLE']} "
                    f"| {found['WRONG']} | {checked(own, False)} |"
                )


def checked(rows: list[Row], passed: bool) -> str:
    """The share of layers that gradcheck lets pass, or rejects."""
    known = [r for r in rows if r.gradcheck is not None]
    return share(sum(r.gradcheck is passed for r in known), len(known))


def main() -> None:
    """Run everything and write the page."""
    parallel = Parallel(n_jobs=2)
    rows = parallel(
        delayed(examined)(position, dtype)
        for position, entry in enumerate(ORDINARY)
        for dtype in DTYPES
        if dtype in entry.dtypes
    )
    wanted = [(name, dtype) for name, _, _ in drawn() for dtype in DTYPES[:2]]
    counts = parallel(delayed(of_draws)(name, dtype) for name, dtype in wanted)
    draws = [
        "| layer | dtype | correct | an error of 0.5 % found |",
        "|---|---|---|---|",
        *(
            f"| {name} | {str(dtype)[6:]} | {right}/{DRAWS} | {found}/{DRAWS} |"
            for (name, dtype), (right, found) in zip(wanted, counts, strict=True)
        ),
    ]
    kinds = Counter(entry.kind for entry in ORDINARY)
    missed = sorted({r.entry.name for r in rows if r.entry.kind == "wrong" and r.full != "WRONG"})
    alarms = sorted(
        {r.entry.name for r in rows if r.entry.kind != "wrong" and "WRONG" in (r.fast, r.full)}
    )
    page = f"""# Verification of ordinary layers

{kinds["wrong"]} wrong layers, {kinds["right"]} right ones and {kinds["doubtful"]} points without a
derivative, none with a known equation: hand-written backward passes, ReLU networks, norms, attention,
recurrent and convolutional layers, embeddings, linear algebra, samples, complex and sparse tensors
(`verification/mutations/ordinary`). Every mistake is of at least 1 %. `gradcheck` runs with its defaults in
float64, and with `eps=1e-3, atol=rtol=1e-2` in float32; parameters of modules are inputs for it. Made by

```sh
python docs/results/ordinary.py
```

## The registry

{chr(10).join(registry(rows))}

*Found, fast* leaves out the bugs that only another presentation of the layer shows (another batch, other
signs, another cotangent). Not found with full effort: {", ".join(missed) or "none"}. Right or doubtful
layers called wrong: {", ".join(alarms) or "none"}. In bfloat16 the rounding of a gradient alone exceeds
1 %: a right layer there is `UNRELIABLE`, with the advice to verify it in float64, and the same code in
float64 is examined on the way.

## Many draws

`verify(effort="fast")` on {DRAWS} draws of weights and inputs each.

{chr(10).join(draws)}

## Found in PyTorch

Two layers were moved out of the registry of right ones, since PyTorch 2.13 is wrong there:
`torch.nn.utils.parametrizations.weight_norm` in its second derivative, which `gradgradcheck` confirms, and
the backward pass of `torch.cdist` under `torch.func.vmap`, which differs from single calls by its own size.
"""
    (HERE / "ordinary.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
