"""Functions that write to tensors past autograd, or return the same memory again; copies of used layers."""

import copy
import pickle

import implicitly as im
import numpy as np
import pytest
import torch
from implicitly.implicit.equations.differentiation import pullback
from torch.multiprocessing.reductions import StorageWeakRef

D = torch.float64
X = torch.tensor([[0.4, -0.2], [0.1, 0.6]], dtype=D)


def halved(z):
    return 0.5 * torch.tanh(z)


def solution():
    z = torch.zeros_like(X)
    for _ in range(80):
        z = halved(z) + X
    return z


def written_to_data(z, x):
    z.data.mul_(0.5)
    return halved(2 * z) + x


def written_by_numpy(z, x):
    z.detach().numpy()[...] *= 0.5
    return halved(2 * z) + x


@pytest.mark.parametrize("f", [written_to_data, written_by_numpy])
@pytest.mark.parametrize("records", [False, True])
def test_a_write_past_autograd_is_an_error_and_the_start_stays(f, records):
    start = torch.zeros_like(X)
    with pytest.raises(im.InPlaceError, match="where autograd does not see it"):
        im.fixed_point(f, start, X.clone().requires_grad_(records), batch_dims=1)
    assert not start.any()


def a_tensor():
    buffer = torch.empty_like(X)
    return lambda: buffer


def an_array():
    buffer = np.empty(X.shape)
    return lambda: torch.from_numpy(buffer)


@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize("kind", [a_tensor, an_array])
@pytest.mark.parametrize("solver", [None, im.FixedPointIteration(), im.Broyden(), im.DFSANE()])
def test_a_function_that_returns_its_own_buffers(buffers, kind, solver):
    own = [kind() for _ in range(buffers)]
    calls = []

    def f(z, x):
        calls.append(None)
        return own[len(calls) % buffers]().copy_(halved(z.detach()) + x.detach())

    with torch.no_grad():
        z = im.fixed_point(f, torch.zeros_like(X), X, solver=solver).value
    torch.testing.assert_close(z, solution(), rtol=0, atol=1e-7)
    x = X.clone().requires_grad_()
    value = im.fixed_point(f, torch.zeros_like(X), x, solver=im.FixedPointIteration()).value
    with pytest.raises(im.MissingDerivativeError):
        value.sum().backward()


def test_the_graph_of_a_solution_holds_neither_its_start_nor_values_before_it():
    values = []

    def f(z, x):
        value = halved(z) + x
        values.append(StorageWeakRef(value.untyped_storage()))
        return value

    x = X.clone().requires_grad_()
    start = torch.zeros_like(X)
    given = StorageWeakRef(start.untyped_storage())
    solution = im.fixed_point(f, start, x, batch_dims=1)
    del start
    assert given.expired()
    assert all(value.expired() for value in values)
    assert solution.value.requires_grad


def test_products_with_a_jacobian_do_not_hold_the_value():
    (value,), product = pullback(lambda z: (z * z,), (X,))
    kept = StorageWeakRef(value.untyped_storage())
    del value
    assert kept.expired()
    assert torch.equal(product((torch.ones_like(X),))[0], 2 * X)


@pytest.mark.parametrize(
    "transformed",
    [
        lambda layer: torch.func.grad(lambda x: layer(x).sum())(X),
        lambda layer: torch.vmap(layer)(X[None]),
        lambda layer: torch.func.jvp(layer, (X,), (X,)),
        lambda layer: torch.func.jacrev(layer)(X),
    ],
    ids=["grad", "vmap", "jvp", "jacrev"],
)
def test_a_layer_can_be_copied_after_a_transform(transformed):
    layer = im.ImplicitLayer(Sum())
    transformed(layer)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other.solution.value.reshape(X.shape), solution())
        torch.testing.assert_close(other(X), solution())


class Sum(torch.nn.Module):
    def forward(self, z, x):
        return halved(z) + x
