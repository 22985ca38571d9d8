"""Matrix of situations in which a solve may be called: each cell is right, a clear error, or a fault.

A mode is one entry of `MODES`, a kind of equation one of `KINDS`, a way to call one of `CALLS`. `cell`
compares with plain iteration under PyTorch alone. `python tests/boundary.py` prints the matrix.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import implicitly as im
import torch
from at_once import in_threads
from boundary_kinds import (
    KINDS,
    WEIGHTS,
    Kind,
)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

RIGHT, ERROR, WRONG, RAW = "right", "error", "WRONG", "RAW ERROR"
PACKAGE = str(Path(im.__file__).parent)
SEED = 3


# --- ways to call


def _extra(kind: Kind) -> tuple[Any, ...]:
    return getattr(kind, "arguments", ())


def _layer_of(function: Callable[..., Tensor], kind: Kind) -> Callable[[Tensor], Tensor]:
    layer = im.ImplicitLayer(function, init=lambda x, *rest: torch.zeros_like(x))
    return lambda x: layer(x, *_extra(kind))


def _function(kind: Kind, wrap: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    function = wrap(kind)
    return _layer_of(lambda *args: function(*args), kind)


def _module(kind: Kind, wrap: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    return _layer_of(wrap(kind), kind)


def _root(kind: Kind, wrap: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    function = wrap(kind)

    def residual(z: Tensor, *args: Any) -> Tensor:
        return z.clone() - function(z, *args)

    return lambda x: im.root(residual, torch.zeros_like(x), x, *_extra(kind), batch_dims=1).value


def _fixed_point(kind: Kind, wrap: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    function = wrap(kind)

    def solve(x: Tensor) -> Tensor:
        start = torch.zeros_like(x)
        return im.fixed_point(
            lambda *args: function(*args), start, x, *_extra(kind), batch_dims=1
        ).value

    return solve


CALLS: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = {
    "function": _function,
    "module": _module,
    "root": _root,
    "fixed point": _fixed_point,
}


# --- modes: tensors from a solve, and the same from the plain iteration


def loss(z: Tensor) -> Tensor:
    return ((z * z.conj()).real * WEIGHTS.to(z.real.dtype)).sum()


def _gradients(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    z = solve(x)
    return [z.detach(), *torch.autograd.grad(loss(z), [x, w])]


def _value(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    return [solve(x).detach()]


def _no_grad(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [solve(x)]


def _inference(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        z = solve(x.clone())
    return [z.clone()]


def _checkpoint(reentrant: bool) -> Callable[..., list[Tensor]]:
    def gradients(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
        x, w.grad = x.clone().requires_grad_(), None
        z = checkpoint(solve, x, use_reentrant=reentrant)
        loss(z).backward()
        return [z.detach(), x.grad, w.grad]

    return gradients


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(function, backend="eager")


def _compile_around(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    return _gradients(_compiled(lambda x: solve(2 * x / 2)), x, w)


def _vmap(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    return [torch.vmap(solve, randomness="same")(torch.stack([x, x])).detach()]


def _twice(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    return [torch.stack([solve(x), solve(x)]).detach()]


def _batched(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    z = solve(x)
    cotangents = torch.stack([torch.ones_like(z), z.detach()])
    return list(torch.autograd.grad(z, [x, w], cotangents, is_grads_batched=True))


def _batched_one_by_one(solve: Callable[..., Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    z = solve(x)
    rows = [
        torch.autograd.grad(z, [x, w], c, retain_graph=True)
        for c in (torch.ones_like(z), z.detach())
    ]
    return [torch.stack(entries) for entries in zip(*rows, strict=True)]


def _jvp(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    return [tensor.detach() for tensor in torch.func.jvp(solve, (x,), (x.flip(0),))]


def _vjp_of_vjp(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    def inner(x: Tensor) -> Tensor:
        z, pullback = torch.func.vjp(solve, x)[:2]
        return pullback(z)[0]

    value, pullback = torch.func.vjp(inner, x)[:2]
    return [value.detach(), pullback(x)[0].detach()]


def _hessian(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    # Of two real numbers that scale the input, so that complex kinds have one as well.
    def of(scales: Tensor) -> Tensor:
        return loss(solve(x * (scales[0] + scales[1] * x)))

    return [torch.func.hessian(of)(torch.tensor([0.9, 0.1], dtype=x.real.dtype)).detach()]


def _linearize(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    value, tangent = torch.func.linearize(solve, x)
    return [value.detach(), tangent(x.flip(0)).detach()]


def _nested(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    def outer(z: Tensor, x: Tensor) -> Tensor:
        return 0.3 * solve(x + 0.1 * z)

    return _gradients(
        lambda x: im.fixed_point(outer, torch.zeros_like(x), x, batch_dims=1).value, x, w
    )


def _nested_plain(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    def iterate(x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(15):
            z = 0.3 * solve(x + 0.1 * z)
        return z

    return _gradients(iterate, x, w)


def _distributed(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = w

        def forward(self, x: Tensor) -> Tensor:
            return solve(x) + 0 * self.w

    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=0, world_size=1
        )
        try:
            model = torch.nn.parallel.DistributedDataParallel(Model())
            x, w.grad = x.clone().requires_grad_(), None
            z = model(x)
            loss(z).backward()
            return [z.detach(), x.grad, w.grad]
        finally:
            torch.distributed.destroy_process_group()


def _autocast(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        z = solve(x)
    return [z.detach(), *torch.autograd.grad(loss(z), [x, w])]


def _threads(solve: Callable[[Tensor], Tensor], x: Tensor, w: Tensor) -> list[Tensor]:
    found = in_threads(lambda: _gradients(solve, x, w), 3)
    return [tensor for one in found for tensor in one]


@dataclass(frozen=True)
class Mode:
    """One situation: tensors from the solve, and the ones they are compared with."""

    got: Callable[..., list[Tensor]]
    want: Callable[..., list[Tensor]]
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function
    dtype: torch.dtype = torch.float64
    tolerance: float = 1e-7


MODES: dict[str, Mode] = {
    "eager": Mode(_gradients, _gradients),
    "no_grad": Mode(_no_grad, _value),
    "inference_mode": Mode(_inference, _value),
    "checkpoint": Mode(_checkpoint(False), _gradients),
    "reentrant checkpoint": Mode(_checkpoint(True), _gradients),
    "compile around": Mode(_compile_around, _gradients),
    "compile inside": Mode(_gradients, _gradients, wrap=_compiled),
    "vmap": Mode(_vmap, _twice),
    "batched cotangents": Mode(_batched, _batched_one_by_one),
    "jvp": Mode(_jvp, _jvp),
    "vjp of vjp": Mode(_vjp_of_vjp, _vjp_of_vjp),
    "hessian": Mode(_hessian, _hessian, tolerance=1e-6),
    "linearize": Mode(_linearize, _jvp),
    "nested": Mode(_nested, _nested_plain),
    "DDP": Mode(_distributed, _gradients),
    "autocast": Mode(_autocast, _gradients, dtype=torch.float32, tolerance=0.05),
    "threads": Mode(_threads, _threads),
}


# --- the matrix


def cell(mode: str, call: str, kind: str) -> tuple[str, str]:
    """The verdict on one cell, and what it rests on."""
    of = MODES[mode]
    equation = KINDS[kind](of.dtype)
    torch.manual_seed(SEED)
    solve = CALLS[call](equation, of.wrap)
    seen: list[Tensor] = []

    def seeded(x: Tensor) -> Tensor:
        # Random numbers of a call are those of the seed, whichever mode calls.
        if threading.current_thread() is threading.main_thread():
            torch.manual_seed(SEED)
        return solve(x)

    def iterated(x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(60):
            z = equation.plain(z, x, seen[0])
        return z

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            got = of.got(seeded, equation.x, equation.w)
        except Exception as error:
            return _judged(error)
        torch.manual_seed(SEED)
        seen.append(CALLS[call](equation, lambda f: f)(equation.x).detach())
        if kind == "random" and mode == "threads":
            return _each(got, equation, seen, iterated)
        want = of.want(iterated, equation.x, equation.w)
    return _compared(got, want, of.tolerance)


def _each(
    got: list[Tensor], equation: Kind, seen: list[Tensor], iterated: Callable[[Tensor], Tensor]
) -> tuple[str, str]:
    """Threads have masks of their own."""
    verdicts = []
    for start in range(0, len(got), 3):
        seen[0] = got[start]
        want = _gradients(iterated, equation.x, equation.w)
        verdicts.append(_compared(got[start : start + 3], want, 1e-7))
    return max(verdicts, key=lambda verdict: verdict[0] != RIGHT)


def _judged(error: Exception) -> tuple[str, str]:
    """An error is clear if this package raises it, or the compiler with its reason."""
    cause: BaseException = error
    frames = traceback.extract_tb(cause.__traceback__)
    own = frames[-1].filename.startswith(PACKAGE) and "/tests/" not in frames[-1].filename
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return (ERROR if own else RAW), text


def _compared(got: list[Tensor], want: list[Tensor], tolerance: float) -> tuple[str, str]:
    errors = []
    for one, other in zip(got, want, strict=True):
        if one.shape != other.shape:
            return WRONG, f"shape {tuple(one.shape)} for {tuple(other.shape)}"
        if not other.numel():
            continue
        scale = float(other.abs().max()) + 1e-3
        errors.append(float((one - other).abs().max()) / scale)
    worst = max(errors, default=0.0)
    return (RIGHT if worst <= tolerance else WRONG), f"{worst:.1e}"


def table(
    modes: list[str] | None = None, progress: Callable[[str], None] = lambda line: None
) -> tuple[str, dict[tuple[str, str, str], tuple[str, str]]]:
    """The matrix as Markdown, a row for each mode and call, and all verdicts."""
    found: dict[tuple[str, str, str], tuple[str, str]] = {}
    lines = [f"| mode | call | {' | '.join(KINDS)} |", "|---|---|" + "---|" * len(KINDS)]
    for mode in modes or MODES:
        for call in CALLS:
            row = []
            for kind in KINDS:
                found[mode, call, kind] = cell(mode, call, kind)
                verdict, text = found[mode, call, kind]
                name = text.split(":")[0]
                row.append(f"`{name}`" if verdict == ERROR else verdict)
                if verdict in (WRONG, RAW):
                    progress(f"{verdict}: {mode}, {call}, {kind}: {text}")
            lines.append(f"| {mode} | {call} | {' | '.join(row)} |")
            progress(lines[-1])
    return "\n".join(lines), found


if __name__ == "__main__":
    table(sys.argv[1:] or None, lambda line: print(line, flush=True))
