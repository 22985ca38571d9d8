"""Cells beside plain loops in NumPy, over time steps, heads and positions."""

import numpy as np
import pytest
import torch
from implicitly.models import TransformerOptions, TrellisNetOptions
from implicitly.models.transformer import TransformerCell
from implicitly.models.trellisnet import TrellisNetCell

torch.manual_seed(0)
# Sums of at most 40 terms of size one, in float64, through three normalisations.
CLOSE = {"rtol": 0, "atol": 1e-12}


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def normalised(rows):
    out = np.empty_like(rows)
    for i, row in enumerate(rows):
        out[i] = (row - row.mean()) / np.sqrt(((row - row.mean()) ** 2).mean() + 1e-5)
    return out


def row_normed(layer):
    length = layer.parametrizations.weight.original0.detach().numpy()
    direction = layer.parametrizations.weight.original1.detach().numpy()
    return np.stack([g * v / np.sqrt((v**2).sum()) for g, v in zip(length, direction, strict=True)])


def transformer_reference(cell, z, U, memory, memory_U):
    """One sequence: `z` and `U` at T positions, after M remembered ones."""
    o = cell.options
    qkv, position, out = row_normed(cell.qkv), row_normed(cell.position), row_normed(cell.out)
    expand, contract = row_normed(cell.expand), row_normed(cell.contract)
    bias = [b.detach().numpy() for b in (cell.out.bias, cell.expand.bias, cell.contract.bias)]
    u, v = cell.content_bias.detach().numpy(), cell.position_bias.detach().numpy()
    M, T, h, w, d = len(memory), len(z), o.heads, o.per_head, o.width
    rows = np.concatenate((memory, z))
    if o.norm == "pre":
        rows = normalised(rows)
    projected = np.stack([qkv @ row for row in rows]) + np.concatenate((memory_U, U))

    def part(i, which, head):
        return projected[i][which * h * w + head * w :][:w]

    def relative(distance, head):
        n = len(range(0, d, 2))
        angles = np.array([distance * 10000.0 ** (-2 * k / d) for k in range(n)])
        return (position @ np.concatenate((np.sin(angles), np.cos(angles)))[:d])[head * w :][:w]

    result = np.empty_like(z)
    for t in range(T):
        gathered = np.zeros(h * w)
        for head in range(h):
            q = part(M + t, 0, head)
            seen = [j for j in range(M + t + 1) if o.context is None or M + t - j < o.context]
            scores = [
                ((q + u[head]) @ part(j, 1, head) + (q + v[head]) @ relative(M + t - j, head))
                / np.sqrt(w)
                for j in seen
            ]
            weights = np.exp(scores) / np.exp(scores).sum()
            for j, weight in zip(seen, weights, strict=True):
                gathered[head * w : (head + 1) * w] += weight * part(j, 2, head)
        z1 = z[t] + out @ gathered + bias[0]
        z1 = normalised(z1[None])[
            0
        ]  # At its end in one kind of norm, before the next map in the other.
        z2 = z1 + contract @ np.maximum(expand @ z1 + bias[1], 0) + bias[2]
        result[t] = normalised(z2[None])[0] if o.norm == "post" else z2
    return result


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(("memory", "context"), [(0, None), (3, None), (3, 4)])
def test_the_transformers_cell_is_that_of_plain_loops(norm, memory, context):
    options = TransformerOptions(
        vocabulary=5, width=6, heads=2, head_width=4, inner=7, norm=norm, context=context
    )
    cell = TransformerCell(options).double()
    for bias in (cell.out.bias, cell.expand.bias, cell.contract.bias):
        torch.nn.init.normal_(bias)
    z, U = random(2, 5, 6), random(2, 5, 24)
    before, before_U = random(2, memory, 6), random(2, memory, 24)
    weights = cell.weights()
    inputs = cell.inputs(weights, cell.masks(U), U, before, before_U)
    found = cell.map(z, weights, inputs)
    for row in range(2):
        parts = (x[row].numpy() for x in (z, U, before, before_U))
        np.testing.assert_allclose(
            found[row].detach(), transformer_reference(cell, *parts), **CLOSE
        )


@pytest.mark.parametrize("kernel", [2, 3])
def test_the_trellisnets_cell_is_that_of_plain_loops(kernel):
    options = TrellisNetOptions(vocabulary=5, output=2, hidden=3, kernel=kernel, deviation=0.5)
    cell = TrellisNetCell(options).double()
    torch.nn.init.normal_(cell.convolution.bias)
    H, z, U, history = 5, random(2, 4, 10), random(2, 4, 20), random(2, kernel - 1, 10)
    weights = cell.weights()
    found = cell.map(z, weights, cell.inputs(weights, cell.masks(U), U, history, U[:, :0]))
    W, b = row_normed(cell.convolution), cell.convolution.bias.detach().numpy()

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for row in range(2):
        whole = torch.cat((history, z), dim=1)[row].numpy()
        for t in range(4):
            now = kernel - 1 + t
            a = U[row, t].numpy() + b
            for tap in range(kernel):
                a = a + W[:, tap * H : (tap + 1) * H] @ whole[now - kernel + 1 + tap, :H]
            i, o, g, f = a[:H], a[H : 2 * H], a[2 * H : 3 * H], a[3 * H :]
            c = sigmoid(f) * whole[now - 1, H:] + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            np.testing.assert_allclose(found[row, t].detach(), np.concatenate((h, c)), **CLOSE)
