"""Random calls: shapes, dtypes, memory layouts, solvers and modes drawn at random; right or a clear error."""

import random
import warnings

import boundary
import implicitly as im
import pytest
import torch

DTYPES = {
    torch.float32: 1e-3,
    torch.float64: 1e-7,
    torch.complex64: 1e-3,
    torch.complex128: 1e-7,
}
SOLVERS = [
    None,
    im.FixedPointIteration(),
    im.Anderson(),
    im.Broyden(),
    im.NewtonKrylov(),
    im.Newton(),
    im.DFSANE(),
]
LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT if x.ndim > 1 else x,
    "strided": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "conjugated": lambda x: x.conj().resolve_conj().conj() if x.is_complex() else x,
    "expanded": lambda x: x[:1].expand(x.shape) if x.ndim and len(x) else x,
}
MODES = [
    name
    for name in boundary.MODES
    if name not in ("compile around", "compile inside", "hessian", "DDP", "autocast", "nested")
]
SHAPES = [(), (1,), (3,), (2, 3), (1, 1), (4, 2, 3), (0, 3), (3, 0), (2, 1, 2)]


class Map(torch.nn.Module):
    """`z ↦ a tanh(w z) + b z.flip + x`, written in several ways."""

    def __init__(self, dtype, way):
        super().__init__()
        self.way = way
        self.w = torch.nn.Parameter(torch.tensor(0.6, dtype=dtype))

    def forward(self, z, x, scale=1.0):
        if self.way == "in place" and torch.is_grad_enabled() is False:
            return z.mul_(self.w).tanh_().mul_(0.5).add_(x)
        bent = 0.5 * torch.tanh(self.w * z) * scale
        if self.way == "coupled" and z.ndim:
            return bent + 0.2 * z.flip(-1) + x
        if self.way == "conjugate":
            return bent + 0.2 * z.conj() + x
        return bent + x


def draw(rng):
    dtype, shape = rng.choice(list(DTYPES)), rng.choice(SHAPES)
    return {
        "dtype": dtype,
        "shape": shape,
        "batch_dims": rng.randint(0, len(shape)),
        "layout": rng.choice(list(LAYOUTS)),
        "solver": rng.choice(SOLVERS),
        "form": rng.choice(["fixed point", "root", "layer", "keyword", "closure"]),
        "mode": rng.choice(MODES),
        "way": rng.choice(["plain", "coupled", "conjugate", "in place"]),
    }


def solver_of(call, cell):
    def solve(x):
        options = {"batch_dims": call["batch_dims"], "solver": call["solver"]}
        start = torch.zeros_like(x)
        if call["form"] == "root":
            return im.root(lambda z, x: z.clone() - cell(z, x), start, x, **options).value
        if call["form"] == "layer":
            return im.ImplicitLayer(cell, **options)(x)
        if call["form"] == "keyword":
            scale = torch.ones((), dtype=x.dtype)
            return im.fixed_point(cell, start, x, scale=scale, **options).value
        if call["form"] == "closure":
            return im.fixed_point(lambda z, x: cell(z, x), start, x, **options).value
        return im.fixed_point(cell, start, x, **options).value

    return solve


def loss(z):
    weights = torch.linspace(-1, 1, z.numel(), dtype=z.real.dtype).reshape(z.shape)
    return ((z * z.conj()).real * weights).sum()


def run(call, seed):
    """A line about the fault of a call, or `None`."""
    torch.manual_seed(seed)
    cell = Map(call["dtype"], call["way"])
    plain = Map(call["dtype"], "plain" if call["way"] == "in place" else call["way"])
    plain.load_state_dict(cell.state_dict())
    x = LAYOUTS[call["layout"]](0.3 * torch.randn(call["shape"], dtype=call["dtype"]))

    def iterated(x):
        z = torch.zeros_like(x)
        for _ in range(120):
            z = plain(z, x)
        return z

    mode = boundary.MODES[call["mode"]]
    try:
        got = mode.got(solver_of(call, cell), x, cell.w)
    except Exception as error:
        verdict, text = boundary._judged(error)
        if verdict == boundary.ERROR:
            return None
        try:  # An error that plain PyTorch raises as well is its own, as of jvp at an expanded tensor.
            mode.got(iterated, x, plain.w)
        except Exception as same:
            return None if type(same) is type(error) else f"{verdict} {call}: {text}"
        return f"{verdict} {call}: {text}"
    want = mode.want(iterated, x, plain.w)
    verdict, text = boundary._compared(got, want, DTYPES[call["dtype"]])
    return None if verdict == boundary.RIGHT else f"{verdict} {call}: {text}"


def faults(first, count, monkeypatch):
    monkeypatch.setattr(boundary, "loss", loss)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(first, first + count):
            fault = run(draw(random.Random(seed)), seed)
            if fault is not None:
                found.append(f"seed {seed}: {fault}")
    return found


def test_a_few_random_calls_are_right_or_clear_errors(monkeypatch):
    assert faults(0, 15, monkeypatch) == []


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_five_thousand_random_calls_are_right_or_clear_errors(part, monkeypatch):
    assert faults(1000 + 500 * part, 500, monkeypatch) == []
