"""Ordinary layers without an equation: `verify` beside torch's gradcheck, on a registry and on many draws.

    python docs/results/ordinary.py [--jobs N] [--anew]

writes docs/results/ordinary.md in a quarter of an hour of one core. Every number on the page comes from
this run. Results are kept in build/ordinary.jsonl as they come: a run that is interrupted goes on where it
was, and `--anew` starts again.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from implicitly.verification import verify
from implicitly.verification.mutations.ordinary import ORDINARY, Ordinary
from kept import asked
from torch import nn

DRAWS, AT_ONCE = 100, 10
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
HERE = Path(__file__).parent
OPTIONS: dict[torch.dtype, dict[str, float]] = {
    torch.float64: {},
    torch.float32: {"eps": 1e-3, "atol": 1e-2, "rtol": 1e-2},
}
"""Options of gradcheck: its defaults in float64, which are hopeless in float32."""
GRADCHECK_UP_TO = 10_000
"""Entries of inputs and parameters; gradcheck calls the layer twice for each, and again for each output."""


@dataclass(frozen=True)
class Row:
    """The verdicts on one layer."""

    entry: Ordinary
    dtype: torch.dtype
    fast: str
    full: str | None
    named: bool
    seconds: float
    gradcheck: bool | None


@lru_cache(maxsize=1)
def prepared() -> None:
    """Set a process up; the first verification in it imports parts of PyTorch."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    verify(Scaled(nn.Linear(2, 2)), torch.ones(2, 2, requires_grad=True))


def examined(name: str, precision: str) -> dict[str, Any]:
    """The verdicts of both efforts and of gradcheck; in bfloat16 those of fast effort alone."""
    prepared()
    dtype = getattr(torch, precision)
    (entry,) = (entry for entry in ORDINARY if entry.name == name)
    layer, inputs = entry.make(dtype)
    began = time.process_time()
    reports = [verify(layer, inputs)]
    seconds = time.process_time() - began
    if dtype is not torch.bfloat16:
        reports.append(verify(*entry.make(dtype), effort="full"))
    causes = [finding.cause for report in reports for finding in report.findings]
    return {
        "fast": reports[0].verdict.name,
        "full": reports[1].verdict.name if len(reports) == 2 else None,
        "named": bool(entry.cause) and any(entry.cause in cause for cause in causes),
        "seconds": seconds,
        "gradcheck": passes(*entry.make(dtype), OPTIONS[dtype]) if dtype in OPTIONS else None,
    }


def passes(
    layer: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, float]
) -> bool | None:
    """Whether gradcheck lets a layer pass; the parameters of a module are inputs for it.

    `None` for a layer of too many entries.
    """
    module = sys.modules["torch.autograd.gradcheck"]
    function, tensors = layer, inputs
    if isinstance(layer, nn.Module):
        names = [name for name, p in layer.named_parameters() if p.requires_grad]
        parameters = [p for p in layer.parameters() if p.requires_grad]

        def function(*everything: Any) -> Any:
            given, own = everything[: len(inputs)], everything[len(inputs) :]
            return torch.func.functional_call(layer, dict(zip(names, own, strict=True)), given)

        tensors = (*inputs, *parameters)

    if sum(tensor.numel() for tensor in tensors if torch.is_tensor(tensor)) > GRADCHECK_UP_TO:
        return None

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


def of_draws(name: str, precision: str, first: int) -> dict[str, Any]:
    """Correct draws, draws whose error of 0.5 % is found, and the CPU seconds of each call."""
    prepared()
    dtype = getattr(torch, precision)
    ((make, shape),) = ((make, shape) for other, make, shape in drawn() if other == name)
    correct, wrong, seconds = [], [], []
    for seed in range(first, first + AT_ONCE):
        torch.manual_seed(seed)
        module = make().to(dtype)
        x = torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()
        for layer, verdicts in ((module, correct), (Scaled(module), wrong)):
            began = time.process_time()
            verdicts.append(verify(layer, x, seed=seed).verdict.name)
            seconds.append(time.process_time() - began)
    return {"right": correct, "scaled": wrong, "seconds": seconds}


# --- The page --------------------------------------------------------------------------------------


def share(part: int, whole: int) -> str:
    """A share as a fraction."""
    return f"{part}/{whole}" if whole else "–"


def gradchecked(rows: list[Row], passed: bool) -> str:
    """The share of layers that gradcheck lets pass, or rejects."""
    known = [row for row in rows if row.gradcheck is not None]
    return share(sum(row.gradcheck is passed for row in known), len(known))


def of_wrong_layers(rows: list[Row]) -> Iterator[str]:
    """The table of mistakes found."""
    yield (
        "| dtype | found, fast | found, full | by `gradcheck` | cause named "
        "| CPU seconds, median (largest) |"
    )
    yield "|---|---|---|---|---|---|"
    for dtype in DTYPES:
        own = [row for row in rows if row.dtype is dtype and row.entry.kind == "wrong"]
        fast = [row for row in own if not row.entry.full]
        full = [row for row in own if row.full is not None]
        naming = [row for row in own if row.entry.cause]
        yield (
            f"| {str(dtype)[6:]} | {share(sum(r.fast == 'WRONG' for r in fast), len(fast))} "
            f"| {share(sum(r.full == 'WRONG' for r in full), len(full))} "
            f"| {gradchecked(own, False)} | {share(sum(r.named for r in naming), len(naming))} "
            f"| {spent([r.seconds for r in own])} |"
        )


def of_right_layers(rows: list[Row]) -> Iterator[str]:
    """The table of verdicts on right layers and on points without a derivative."""
    yield (
        "| layers | dtype | effort | correct | unreliable | unconverged | wrong | `gradcheck` passes "
        "| CPU seconds, median (largest) |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for kind in ("right", "doubtful"):
        for dtype in DTYPES:
            own = [row for row in rows if row.dtype is dtype and row.entry.kind == kind]
            for effort in ("fast", "full"):
                found = Counter(getattr(row, effort) for row in own)
                if not own or None in found:
                    continue
                fast = effort == "fast"
                yield (
                    f"| {kind} | {str(dtype)[6:]} | {effort} | {found['CORRECT']} "
                    f"| {found['UNRELIABLE']} | {found['UNCONVERGED']} | {found['WRONG']} "
                    f"| {gradchecked(own, True) if fast else ''} "
                    f"| {spent([row.seconds for row in own]) if fast else ''} |"
                )


def spent(seconds: list[float]) -> str:
    """Median and largest of some times."""
    return f"{statistics.median(seconds):.2f} ({max(seconds):.2f})"


def of_many_draws(draws: dict[tuple[str, str], list[dict[str, Any]]]) -> Iterator[str]:
    """The table of draws."""
    yield (
        "| layer | dtype | right ones correct | unreliable | wrong | error of 0.5 % found "
        "| CPU seconds, median (largest) |"
    )
    yield "|---|---|---|---|---|---|---|"
    for (name, precision), parts in draws.items():
        right = Counter(verdict for part in parts for verdict in part["right"])
        scaled = Counter(verdict for part in parts for verdict in part["scaled"])
        yield (
            f"| {name} | {precision} | {share(right['CORRECT'], right.total())} "
            f"| {right['UNRELIABLE']} | {right['WRONG']} | {share(scaled['WRONG'], scaled.total())} "
            f"| {spent([s for part in parts for s in part['seconds']])} |"
        )


def names(rows: list[Row]) -> str:
    """Layers by name and dtype."""
    return "; ".join(f"{row.entry.name} ({str(row.dtype)[6:]})" for row in rows) or "none"


def page(rows: list[Row], draws: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """The page in Markdown."""
    kinds = Counter(entry.kind for entry in ORDINARY)
    wide = [row for row in rows if row.full is not None]
    missed = [row for row in wide if row.entry.kind == "wrong" and row.full != "WRONG"]
    alarms = [row for row in rows if row.entry.kind != "wrong" and "WRONG" in (row.fast, row.full)]
    undecided = [
        row for row in wide if row.entry.kind == "right" and "UNRELIABLE" in (row.fast, row.full)
    ]
    unnamed = [row for row in rows if row.entry.cause and not row.named]
    return f"""# Verification of ordinary layers

{kinds["wrong"]} wrong layers, {kinds["right"]} right ones and {kinds["doubtful"]} points without a
derivative, none with a known equation: hand-written backward passes, ReLU networks, norms, attention,
recurrent and convolutional layers, embeddings, linear algebra, samples, complex and sparse tensors
(`verification/mutations/ordinary`). Every mistake is of at least 1 %. `gradcheck` runs with its defaults in
float64, and with `eps=1e-3, atol=rtol=1e-2` in float32; parameters of modules are inputs for it, and
layers of more than {GRADCHECK_UP_TO:,} entries are left out. Seconds
are those of the processor, on a machine that was busy with other work, which lengthens them. Made by

```sh
python docs/results/ordinary.py
```

## Mistakes found

{chr(10).join(of_wrong_layers(rows))}

*Found, fast* leaves out the mistakes that only another presentation of the layer shows (another batch, other
signs, another cotangent); they are for `effort="full"`. Seconds are those of `effort="fast"`. Not found with
full effort: {names(missed)}. Cause not named: {names(unnamed)}.

## Verdicts on right layers

{chr(10).join(of_right_layers(rows))}

Right or doubtful layers called wrong: {names(alarms)}. Right layers left undecided in float64 or float32:
{names(undecided)}. In bfloat16 the rounding of a gradient alone exceeds 1 %: a right layer there is
`UNRELIABLE`, with the advice to verify it in float64, and the same code in float64 is examined on the way.

## Many draws

`verify(effort="fast")` on {DRAWS} draws of weights and inputs each; the same layers with a gradient 0.5 % too
large.

{chr(10).join(of_many_draws(draws))}

## Found in PyTorch

Two layers are not in the registry, since PyTorch 2.13 is wrong there:
`torch.nn.utils.parametrizations.weight_norm` in its second derivative, which `gradgradcheck` confirms, and
the backward pass of `torch.cdist` under `torch.func.vmap`, which differs from single calls by its own size.
"""


def main() -> None:
    """Examine what is missing, and write the page."""
    kept, jobs = asked(__doc__, "ordinary.jsonl")
    layers = [(entry, dtype) for entry in ORDINARY for dtype in DTYPES if dtype in entry.dtypes]
    wanted = [(name, dtype) for name, _, _ in drawn() for dtype in ("float64", "float32")]
    parts = [[*one, first] for one in wanted for first in range(0, DRAWS, AT_ONCE)]
    found = kept.all(parts, of_draws, jobs)
    draws = {
        one: [result for part, result in zip(parts, found, strict=True) if tuple(part[:2]) == one]
        for one in wanted
    }
    cases = [[entry.name, str(dtype)[6:]] for entry, dtype in layers]
    results = kept.all(cases, examined, jobs)
    rows = [Row(*one, **result) for one, result in zip(layers, results, strict=True)]
    (HERE / "ordinary.md").write_text(page(rows, draws), encoding="utf-8")


if __name__ == "__main__":
    main()
