"""Ordinary layers without an equation: every mistake of 1 % is found, and no right layer is called wrong."""

import dataclasses
import warnings
from itertools import pairwise

import pytest
import torch
from implicitly.verification import Verdict, verify
from implicitly.verification.mutations.ordinary import DOUBTFUL, RIGHT, WRONG
from layers import function, wanted
from torch import nn

D, S = torch.float64, torch.float32


def chosen(entries, every):
    """A case for each entry and dtype; most of them only in the long run."""
    return [
        pytest.param(
            entry,
            dtype,
            id=f"{entry.name}, {str(dtype)[6:]}",
            marks=() if (i + (dtype is S)) % every == 0 else pytest.mark.long,
        )
        for i, entry in enumerate(entries)
        for dtype in (D, S)
        if dtype in entry.dtypes
    ]


@pytest.mark.parametrize(("entry", "dtype"), chosen(WRONG, 6))
def test_a_wrong_layer_is_found_and_its_cause_is_named(entry, dtype):
    layer, inputs = entry.make(dtype)
    report = verify(layer, inputs, effort="full" if entry.full else "fast")
    assert report.verdict is Verdict.WRONG
    assert all("factor of 1 " not in f"{finding.cause} " for finding in report.findings)


def test_causes_of_ordinary_mistakes_are_named_in_four_of_five_cases():
    expecting = [entry for entry in WRONG if entry.cause and not entry.full][::5]
    named = 0
    for entry in expecting:
        layer, inputs = entry.make(D)
        causes = [finding.cause for finding in verify(layer, inputs).findings]
        named += any(entry.cause in cause for cause in causes)
    assert named >= 0.8 * len(expecting)


@pytest.mark.parametrize(("entry", "dtype"), chosen(RIGHT, 8))
def test_a_right_layer_is_correct(entry, dtype):
    layer, inputs = entry.make(dtype)
    verdict = verify(layer, inputs).verdict
    # In float32 with bfloat16 inside nothing of 1 % can be told.
    assert verdict is Verdict.CORRECT or (entry.name == "autocast inside" and dtype is S)


@pytest.mark.long
@pytest.mark.parametrize(("entry", "dtype"), chosen(RIGHT, 1))
def test_a_right_layer_is_never_wrong_with_full_effort(entry, dtype):
    layer, inputs = entry.make(dtype)
    assert verify(layer, inputs, effort="full").verdict is not Verdict.WRONG


@pytest.mark.parametrize(("entry", "dtype"), chosen(DOUBTFUL, 3))
def test_a_point_without_a_derivative_is_never_wrong(entry, dtype):
    layer, inputs = entry.make(dtype)
    assert verify(layer, inputs, effort="full").verdict is not Verdict.WRONG


@pytest.mark.parametrize("entry", [e for e in RIGHT if torch.bfloat16 in e.dtypes][::24])
def test_a_right_layer_in_bfloat16_is_not_wrong_and_the_report_says_what_to_do(entry):
    layer, inputs = entry.make(torch.bfloat16)
    report = verify(layer, inputs)
    assert report.verdict is Verdict.CORRECT or "bfloat16 rounds" in str(report)


def test_the_registry_is_as_large_as_it_says():
    assert len(WRONG) >= 60
    assert len(RIGHT) >= 120
    assert len(DOUBTFUL) >= 10
    names = [entry.name for entry in (*WRONG, *RIGHT, *DOUBTFUL)]
    assert len(set(names)) == len(names)


# --- Kinks, rounding, zeros ------------------------------------------------------------------------


def relu_network(seed):
    torch.manual_seed(seed)
    sizes = (8, 64, 64, 3)
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("factor", [1.0, 1.005])
def test_kinks_near_the_point_hide_nothing(factor):
    scaled = function(lambda x: 1 * x, lambda x, g: factor * g)
    for seed in range(3):
        net = relu_network(seed).double()
        verdict = verify(lambda x, net=net: scaled(net(x)), wanted(16, 8, seed=seed)).verdict
        assert verdict is (Verdict.CORRECT if factor == 1 else Verdict.WRONG)


def test_linear_in_single_precision_is_correct_for_every_draw():
    for seed in range(5):
        torch.manual_seed(seed)
        report = verify(nn.Linear(2, 1), wanted(1, 2, seed=seed, dtype=S))
        assert report.verdict is Verdict.CORRECT
        assert report.detectable < 1e-3


def test_a_gradient_that_is_zero_but_for_rounding_is_correct_and_a_wrong_one_is_not():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)).double()
    assert verify(net, wanted(6, 4)).verdict is Verdict.CORRECT
    # The bias has no effect; a gradient that says otherwise is wrong.
    leak = function(lambda b: 1 * b, lambda b, g: g + 1e-3)
    bias = net[0].bias
    wrong = verify(lambda x: net[1](x @ net[0].weight.mT + leak(bias)), wanted(6, 4))
    assert wrong["output", "captured bias"].verdict is Verdict.WRONG


def test_entries_of_twelve_decades_have_steps_of_their_own():
    x = torch.tensor([1e-6, 1e-3, 1.0, 1e6], dtype=D)
    assert verify(torch.log, x.clone().requires_grad_()).verdict is Verdict.CORRECT

    def backward(x, g):
        gradient = g / x
        gradient[0] *= 1.01
        return gradient

    finding = verify(function(torch.log, backward), x.requires_grad_())["output", "input 0"]
    assert finding.verdict is Verdict.WRONG
    assert finding.worst.index == (0,)


def test_the_number_of_calls_does_not_grow_with_the_number_of_parameters():
    def chain(count):
        ws = [torch.eye(3, dtype=D).mul_(0.5).requires_grad_() for _ in range(count)]

        def layer(x):
            for w in ws:
                x = torch.sin(x @ w) + 0.5 * x
            return x

        return layer

    few, many = (verify(chain(count), wanted(2, 3)) for count in (2, 60))
    assert many.verdict is Verdict.CORRECT
    assert len(many.findings) == 61
    assert many.calls == few.calls


def test_one_wrong_parameter_of_many_is_found_by_name():
    doubled = function(lambda w: 1 * w, lambda w, g: 1.01 * g)
    ws = [torch.eye(3, dtype=D).mul_(0.5).requires_grad_() for _ in range(12)]

    def layer(x):
        for i, w in enumerate(ws):
            x = torch.tanh(x @ (doubled(w) if i == 7 else w)) + x
        return x

    report = verify(layer, wanted(2, 3))
    wrong = [f.input for f in report.findings if f.verdict is Verdict.WRONG]
    assert wrong == ["captured ws.7"]


# --- Complex, sparse, structured -------------------------------------------------------------------


def complex_input(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, dtype=torch.complex128, generator=generator).requires_grad_()


def test_a_complex_layer_has_the_gradient_of_its_real_and_imaginary_parts():
    z = complex_input(3, 4)
    assert verify(lambda z: z.exp() * z.conj(), z, effort="full").verdict is Verdict.CORRECT
    # Without the conjugate of the derivative, as gradcheck has it too.
    wrong = function(torch.exp, lambda z, g: g * z.exp())
    finding = verify(wrong, z)["output", "input 0"]
    assert finding.verdict is Verdict.WRONG
    assert finding.worst.index[:1] != ()


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_a_sparse_input_is_examined_in_the_entries_that_it_specifies(layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch calls its CSR tensors a beta.
        A = getattr(torch.randn(4, 4, dtype=D).relu(), layout)().requires_grad_()
    report = verify(lambda A, x: A @ x, (A, wanted(4, 2)))
    assert report.verdict is Verdict.CORRECT
    assert report["output", "input 0"].detectable < 1e-6


def test_fields_of_a_dataclass_are_outputs():
    @dataclasses.dataclass
    class Result:
        value: torch.Tensor
        parts: list

    report = verify(lambda x: Result(x.sin(), [x.cos()]), wanted(3))
    assert report.verdict is Verdict.CORRECT
    assert len(report.findings) == 2


def product_with_tangent(factor):
    """`x w` as an autograd function, whose tangent along `w` is `factor` times too large."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(x, w):
            return x * w

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return g * w, g * x

        @staticmethod
        def jvp(ctx, dx, dw):
            x, w = ctx.saved_tensors
            return dx * w + factor * dw * x

    return Product.apply


def test_forward_mode_of_captured_tensors_is_examined():
    w, product = wanted(3, seed=1), product_with_tangent(1.02)
    report = verify(lambda x: product(x, w), wanted(3))
    assert report["output", "captured w"].verdict is Verdict.WRONG
    assert report["output", "input 0"].verdict is Verdict.CORRECT


def test_forward_mode_reaches_a_captured_tensor_inside_of_an_autograd_function():
    w, product = wanted(3, seed=1), product_with_tangent(1.0)
    report = verify(lambda x: product(x, w), wanted(3))
    assert report.verdict is Verdict.CORRECT
    assert "forward against reverse mode" in report.checks


@pytest.mark.parametrize("layer", [torch.relu, torch.abs, nn.functional.hardshrink])
@pytest.mark.parametrize("dtype", [D, S])
def test_a_point_with_a_kink_in_every_entry_is_not_wrong_with_full_effort(layer, dtype):
    x = torch.zeros(3, 2, dtype=dtype) + (0.5 if layer is nn.functional.hardshrink else 0.0)
    assert verify(layer, x.requires_grad_(), effort="full").verdict is not Verdict.WRONG
