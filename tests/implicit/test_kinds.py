"""Masked, nested and other special tensors: right where they can be, else errors that name the way out."""

import implicitly as im
import pytest
import torch
from torch.masked import masked_tensor

pytestmark = pytest.mark.filterwarnings("ignore")

PARTS = [torch.tensor([[0.1, 0.2]]), torch.tensor([[0.3, 0.4], [0.5, 0.6]])]


def special():
    strided = torch.nested.nested_tensor(PARTS)
    return {
        "masked": (
            masked_tensor(torch.ones(2), torch.tensor([True, False])),
            "masked tensor.*mask",
        ),
        "nested": (strided, "nested tensor.*to_padded_tensor"),
        "jagged": (torch.nested.nested_tensor(PARTS, layout=torch.jagged), "nested tensor.*unbind"),
        "sparse": (torch.eye(2).to_sparse(), "sparse_coo.*to_dense"),
        "mkldnn": (torch.ones(2).to_mkldnn(), "mkldnn.*to_dense"),
        "float8": (torch.ones(2).to(torch.float8_e4m3fn), r"float8_e4m3fn.*float\(\)"),
    }


every = pytest.mark.parametrize(
    "name", ["masked", "nested", "jagged", "sparse", "mkldnn", "float8"]
)


def half(z, x=0.0):
    return 0.5 * z + x


@every
def test_a_start_of_a_special_kind_is_an_error_with_the_way_out(name):
    tensor, words = special()[name]
    for call in (
        lambda: im.fixed_point(half, tensor, 0.1),
        lambda: im.root(half, {"a": tensor}),
        lambda: im.ImplicitLayer(half)(tensor),
    ):
        with pytest.raises(TypeError, match=words):
            call()


@every
def test_a_value_of_a_special_kind_is_an_error_with_the_way_out(name):
    tensor, words = special()[name]
    start = torch.ones(2)
    with pytest.raises(TypeError, match="must return") as caught:
        im.fixed_point(lambda z: tensor, start)
    assert name == "float8" or caught.match(words)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("closed_over", [False, True])
def test_nested_arguments(layout, closed_over):
    def solved(x):
        def f(z, x):
            return 0.5 * torch.tanh(z) + torch.nested.to_padded_tensor(x, 0.0).sum() / 4

        start = torch.zeros(2)
        if closed_over:
            return im.fixed_point(lambda z: f(z, x), start).value
        return im.fixed_point(f, start, x).value

    want = im.fixed_point(lambda z: 0.5 * torch.tanh(z) + 2.1 / 4, torch.zeros(2)).value
    x = torch.nested.nested_tensor(PARTS, layout=layout)
    torch.testing.assert_close(solved(x), want)
    x.requires_grad_()
    if layout is torch.strided:
        with pytest.raises(TypeError, match=r"torch\.jagged"):
            solved(x)
        return
    (gradient,) = torch.autograd.grad(solved(x).sum(), x)
    slope = 2 / 4 / (1 - 0.5 / torch.cosh(want[0]) ** 2)
    torch.testing.assert_close(gradient.unbind()[1], slope.expand(2, 2))


def test_masked_arguments():
    mask = torch.tensor([True, False])
    x = masked_tensor(torch.ones(2), mask, requires_grad=True)
    value = im.fixed_point(lambda z, x: 0.5 * z + x.to_tensor(0.0), torch.zeros(2), x).value
    torch.testing.assert_close(value, 2.0 * mask)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(gradient.get_data() * mask, 2.0 * mask)


def test_a_value_on_another_device_is_an_error():
    with pytest.raises(ValueError, match="on cpu, but the value returned for it is on meta"):
        im.fixed_point(lambda z: torch.zeros(2, device="meta"), torch.zeros(2))
