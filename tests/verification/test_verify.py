"""The verdicts of `verify` on layers that are right, wrong, unconverged, or beyond telling."""

import implicitly
import pytest
import torch
from implicitly import ImplicitLayer, Stopping
from implicitly.verification import Verdict, verify
from layers import draw, function, wanted, weight

from .implicit_layers import tanh_layer

# --- Right -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [torch.sin, lambda x: x.exp().cumsum(-1), lambda x: (x @ x.mT, {"sum": x.sum()}), torch.sort],
    ids=["sin", "cumsum", "several outputs", "an integer output"],
)
def test_a_function_of_torch_is_correct(layer):
    report = verify(layer, wanted(3, 4))
    assert report.verdict is Verdict.CORRECT
    assert report.detectable < 1e-7


def test_a_module_is_correct_in_its_input_and_every_parameter():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    report = verify(module.double(), wanted(3, 4))
    assert report.verdict is Verdict.CORRECT
    assert [f.input for f in report.findings] == [
        "input 0", "parameter 0.weight", "parameter 0.bias", "parameter 2.weight",
        "parameter 2.bias",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "solver", [implicitly.Anderson(), implicitly.Broyden(), implicitly.Newton()]
)
def test_an_implicit_layer_is_correct_and_its_captured_weight_too(solver):
    report = verify(tanh_layer(weight(4), solver=solver), wanted(3, 4))
    assert report.verdict is Verdict.CORRECT
    assert [f.input for f in report.findings] == ["input 0", "captured f.W"]
    assert report.detectable < 1e-7


def test_an_implicit_layer_in_single_precision_is_correct_to_single_precision():
    W = weight(4, dtype=torch.float32)
    report = verify(tanh_layer(W), wanted(3, 4, dtype=torch.float32))
    assert report.verdict is Verdict.CORRECT
    assert report.detectable < 1e-3


def test_a_root_with_unknowns_in_a_dictionary_is_correct():
    def F(z, x):
        return {"a": z["a"] ** 3 + z["b"] - x, "b": z["b"] - 0.1 * z["a"].sin()}

    layer = ImplicitLayer(F, "root", init=lambda x: {"a": x.detach().clone(), "b": 0 * x.detach()})
    x = (1 + draw(3, 2).abs()).requires_grad_()
    report = verify(layer, x)
    assert report.verdict is Verdict.CORRECT
    assert {f.output for f in report.findings} == {"output a", "output b"}


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_the_input_does_not_matter(scale):
    x = (scale * draw(3, 4)).requires_grad_()
    assert verify(lambda x: scale * torch.tanh(x / scale), x).verdict is Verdict.CORRECT


def test_a_layer_with_dropout_sees_one_mask():
    report = verify(torch.nn.Dropout(0.5), wanted(6, 4))
    assert report.verdict is Verdict.CORRECT


# --- Wrong -----------------------------------------------------------------------------------------


def test_one_entry_off_by_a_twentieth_of_a_percent_is_wrong_and_named():
    def backward(x, g):
        gradient = g * x.cos()
        gradient[1, 2] *= 1.0005
        return gradient

    finding = verify(function(torch.sin, backward), wanted(3, 4))["output", "input 0"]
    assert finding.verdict is Verdict.WRONG
    assert finding.worst.index == (1, 2)
    assert finding.worst.row == 1
    assert finding.worst.value / finding.worst.reference == pytest.approx(1.0005, abs=1e-6)


def test_the_number_of_calls_does_not_grow_with_the_dimension():
    layer = function(torch.sin, lambda x, g: 1.001 * g * x.cos())
    # Localisation takes one directional derivative for each halving: eight halvings more.
    small, large = (verify(layer, wanted(2, n)).calls for n in (8, 2048))
    right = [verify(torch.sin, wanted(2, n)).calls for n in (8, 2048)]
    assert right[0] == right[1]
    assert large - small <= 8 * 40


def test_the_number_of_calls_of_a_full_verification_does_not_grow_either():
    layer = function(torch.sin, lambda x, g: g * x.cos())
    few, many = (verify(layer, wanted(2, n), effort="full").calls for n in (8, 512))
    assert few == many


def test_a_lost_gradient_counts_as_zero():
    W = weight(4)
    layer = tanh_layer(W)
    report = verify(lambda x: layer(x).detach(), wanted(3, 4))
    assert [f.verdict for f in report.findings] == [Verdict.WRONG] * 2
    assert "no output has a gradient graph" in str(report)


def test_a_parameter_whose_gradient_is_lost_is_found_though_the_graph_does_not_show_it():
    W = weight(4)
    report = verify(lambda x: torch.tanh(x @ W.detach().mT), wanted(3, 4))
    assert report["output", "input 0"].verdict is Verdict.CORRECT
    assert report["output", "captured W"].verdict is Verdict.WRONG


GLOBAL = weight(4)


def test_a_lost_global_is_found_inside_a_function_that_the_layer_makes():
    def layer(x):
        return (lambda: torch.tanh(x @ GLOBAL.detach().mT))()

    assert verify(layer, wanted(3, 4))["output", "captured GLOBAL"].verdict is Verdict.WRONG


def test_a_tensor_that_only_the_equation_reaches_counts_as_the_layers():
    hidden = weight(4)
    values = [hidden]

    def layer(x):
        # What the search for tensors cannot see: a lookup at run time.
        W = globals()["RUNTIME"].detach()
        z = torch.zeros_like(x)
        for _ in range(100):
            z = torch.tanh(z @ W.mT + x)
        return z

    globals()["RUNTIME"] = hidden
    report = verify(layer, wanted(3, 4), residual=lambda z, x: z - torch.tanh(z @ values[0].mT + x))
    assert report["output", "captured values.0"].verdict is Verdict.WRONG


@pytest.mark.parametrize("gradient", [implicitly.JacobianFree(), implicitly.Neumann(3)])
def test_an_approximate_gradient_is_wrong(gradient):
    report = verify(tanh_layer(weight(4), gradient=gradient), wanted(3, 4))
    assert report.verdict is Verdict.WRONG
    # With the equation known the component needs no search.
    assert report.calls < 10


def test_an_equation_whose_own_derivative_is_wrong_is_told_from_a_wrong_layer():
    sine = function(torch.sin, lambda x, g: 1.01 * g * x.cos())
    layer = ImplicitLayer(lambda z, x: 0.5 * sine(z) + x)
    report = verify(layer, wanted(3, 4))
    assert report.verdict is Verdict.WRONG
    assert "derivative that autograd gives of the equation" in str(report)


def test_a_gradient_that_is_not_linear_is_wrong():
    layer = function(torch.sin, lambda x, g: (g * x.cos()).clamp(-1e3, 1e3) + 1e-9)
    report = verify(layer, wanted(3, 4))
    assert report.verdict is Verdict.WRONG
    assert any(
        e.check == "linearity in the cotangent" and e.verdict is Verdict.WRONG
        for e in report.findings[0].evidence
    )


def test_a_gradient_that_is_clipped_only_where_it_is_large_is_wrong():
    layer = function(torch.sin, lambda x, g: g.clamp(-1e3, 1e3) * x.cos())
    finding = verify(layer, wanted(3, 4))["output", "input 0"]
    assert finding.verdict is Verdict.WRONG
    assert "linearity in the cotangent" in finding.reason


def test_relations_of_explicit_functions_hold_to_rounding():
    # ⟨w, J v⟩ = ⟨Jᵀ w, v⟩ and linearity: sums of twelve products, each off by some roundings.
    report = verify(lambda x: (x.sin() @ x.cos().mT).exp(), wanted(3, 4), effort="full")
    for piece in report["output", "input 0"].evidence:
        if piece.check.startswith(("linearity", "forward against", "second backward")):
            assert piece.error <= 1e-12 * piece.scale


def test_a_forward_mode_that_differs_is_wrong():
    class Crossed(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.sin()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0].cos()

        @staticmethod
        def jvp(ctx, t):
            return -t * ctx.saved_tensors[0].cos()

    report = verify(Crossed.apply, wanted(3, 4))
    assert report.verdict is Verdict.WRONG
    assert "forward against reverse mode" in str(report)


# --- Unconverged -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-4, 1e-6])
def test_a_loose_solve_is_unconverged_and_not_wrong(rtol):
    # The spectral radius is near 0.9: the error of z is ten times its tolerance.
    layer = tanh_layer(weight(4, norm=0.9), solver=implicitly.FixedPointIteration(),
                       stopping=Stopping(rtol=rtol))  # fmt: skip
    report = verify(layer, wanted(3, 4))
    assert report.verdict is Verdict.UNCONVERGED
    finding = report["output", "input 0"]
    assert 1e-3 * rtol < finding.slack < 100 * rtol
    # The adjoint was solved to 1e-10: what is left is the solver's part alone.
    for piece in finding.evidence:
        if piece.check == "implicit reference":
            assert piece.error <= 1.001 * piece.slack + piece.floor


def test_a_loose_solve_does_not_excuse_a_wrong_gradient():
    layer = tanh_layer(weight(4), stopping=Stopping(rtol=1e-4), gradient=implicitly.JacobianFree())
    assert verify(layer, wanted(3, 4)).verdict is Verdict.WRONG


def test_an_unrolled_layer_of_a_third_party_is_unconverged_when_its_equation_is_given():
    W = weight(4)

    def unrolled(x):
        z = torch.zeros_like(x)
        for _ in range(10):
            z = torch.tanh(z @ W.mT + x)
        return z

    report = verify(unrolled, wanted(3, 4), residual=lambda z, x: z - torch.tanh(z @ W.mT + x))
    assert report.verdict is Verdict.UNCONVERGED


# --- Unreliable ------------------------------------------------------------------------------------


def test_a_loose_solve_inside_a_function_is_unconverged():
    # In the larger steps of the differences the number of iterations changes.
    layer = tanh_layer(weight(8, norm=0.95), solver=implicitly.FixedPointIteration(),
                       stopping=Stopping(rtol=1e-3))  # fmt: skip
    report = verify(lambda x: layer(x), wanted(8, 8))
    assert report["output", "input 0"].verdict is Verdict.UNCONVERGED


def test_a_kink_at_the_point_cannot_be_told():
    x = draw(3, 4)
    x[1, 1] = 0.0
    finding = verify(torch.relu, x.requires_grad_())["output", "input 0"]
    assert finding.verdict is Verdict.UNRELIABLE
    assert "kink" in finding.reason


def test_a_singular_equation_cannot_be_told():
    # The cube root at 0.
    layer = ImplicitLayer(lambda z, x: z**3 - x, "root", on_failure="accept")
    report = verify(layer, torch.zeros(2, 2, dtype=torch.float64, requires_grad=True))
    assert report.verdict is Verdict.UNRELIABLE
    assert "singular" in str(report)
