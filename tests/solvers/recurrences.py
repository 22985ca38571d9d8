"""Recurrences to be solved, and the loops that they stand for."""

import torch
from implicitly import Stopping
from layers import draw
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
TIGHT = Stopping(rtol=1e-14)


# --- Equations ------------------------------------------------------------------------------------


def gated(s: Tensor, x: Tensor, W: Tensor, V: Tensor) -> Tensor:
    """A minimal gated unit: `g = σ(·)`, `s' = g ⊙ s + (1 − g) ⊙ tanh(·)`."""
    gate, new = (s @ W + x @ V).chunk(2, dim=1)
    gate = torch.sigmoid(gate)
    return gate * s + (1 - gate) * torch.tanh(new)


def loop(f, s0: Tensor, xs: Tensor, *args: Tensor) -> Tensor:
    """The states of `s_t = f(s_{t−1}, x_t)`, one after the other."""
    state, states = s0, []
    for t in range(xs.shape[1]):
        state = f(state, xs[:, t], *args)
        states.append(state)
    return torch.stack(states, dim=1)


def gated_inputs(batch=2, length=60, d=3, inputs=2, gain=0.7, seed=0):
    W = draw(d, 2 * d, seed=seed)
    W = gain * W / torch.linalg.matrix_norm(W, 2)
    V, xs, s0 = (
        draw(inputs, 2 * d, seed=seed + 1),
        draw(batch, length, inputs, seed=seed + 2),
        draw(batch, d, seed=seed + 3),
    )
    return W, V, xs, s0


def trellis(z: Tensor, injection: Tensor, history: Tensor, W: Tensor) -> Tensor:
    """A cell of TrellisNet with kernel 2 and dilation 1 on `z = [h; c]`, `(batch, 2H, T)`."""
    hidden = z.shape[1] // 2
    past = torch.cat((history, z[:, :, :-1]), dim=2)
    h = torch.cat((history[:, :hidden], z[:, :hidden]), dim=2)
    a = injection + torch.nn.functional.conv1d(h, W)
    i, o, g, f = a.chunk(4, dim=1)
    c = torch.sigmoid(f) * past[:, hidden:] + torch.sigmoid(i) * torch.tanh(g)
    return torch.cat((torch.sigmoid(o) * torch.tanh(c), c), dim=1)


def trellis_inputs(batch=2, hidden=3, length=50, seed=0, gain=0.3):
    W = gain * draw(4 * hidden, hidden, 2, seed=seed)
    return (
        draw(batch, 4 * hidden, length, seed=seed + 1),
        0.5 * draw(batch, 2 * hidden, 1, seed=seed + 2),
        W,
    )


def trellis_by_hand(injection: Tensor, history: Tensor, W: Tensor) -> Tensor:
    """Its equilibrium, one time step after the other: plain iteration of each to rounding."""
    hidden, states, before = W.shape[1], [], history[:, :, 0]
    for t in range(injection.shape[2]):
        state = before
        for _ in range(200):
            h = state[:, :hidden]
            a = injection[:, :, t] + before[:, :hidden] @ W[:, :, 0].mT + h @ W[:, :, 1].mT
            i, o, g, f = a.chunk(4, dim=1)
            c = torch.sigmoid(f) * before[:, hidden:] + torch.sigmoid(i) * torch.tanh(g)
            state = torch.cat((torch.sigmoid(o) * torch.tanh(c), c), dim=1)
        states.append(state)
        before = state
    return torch.stack(states, dim=2)
