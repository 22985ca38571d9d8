"""Checks of how a layer behaves, and of how the verification leaves things behind."""

import warnings

import pytest
import torch
from implicitly.verification import Verdict, verify
from layers import function, wanted
from reports import wrong_checks
from torch import nn
from torch.utils.checkpoint import checkpoint

D = torch.float64


def backward_of(rule):
    """A sine with another backward pass."""
    return function(torch.sin, rule)


def contiguous_only(x, g):
    if g.untyped_storage().nbytes() >= g.numel() * g.element_size():
        g = g.as_strided(x.shape, torch.empty(x.shape).stride())
    return g * x.cos()


def in_blocks(x, g):
    gradient = g * x.cos()
    if len(gradient) > 4:
        gradient[len(gradient) // 4 * 4 :] = 0
    return gradient


class NeedsAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        factor = 1.0 if all(ctx.needs_input_grad) else 1.1
        return factor * g * w, factor * g * x


class WrongValueUnderVmap(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g

    @staticmethod
    def vmap(info, in_dims, x):
        return 1.01 * WrongValueUnderVmap.apply(x), in_dims[0]


HIDING = [
    (backward_of(contiguous_only), 1, "layout of the cotangent", "contiguous"),
    (backward_of(in_blocks), 1, "a larger batch", "block"),
    (function(lambda x: x**3, lambda x, g: 3 * g * x * x.abs()), 1, "opposite signs", ""),
    (NeedsAll.apply, 2, "one input alone", ""),
    (WrongValueUnderVmap.apply, 1, "vmap", "other values"),
]


@pytest.mark.parametrize(
    ("layer", "inputs", "check", "cause"), HIDING, ids=[check for _, _, check, _ in HIDING]
)
def test_a_bug_that_hides_is_found_by_the_check_for_it(layer, inputs, check, cause):
    given = tuple(
        (0.5 + wanted(4, 3, seed=i).detach().abs()).requires_grad_() for i in range(inputs)
    )
    assert verify(layer, given).verdict is Verdict.CORRECT
    report = verify(layer, given, effort="full")
    assert any(found.startswith(check) for found in wrong_checks(report))
    assert any(cause in finding.cause for finding in report.findings)


def test_a_backward_pass_that_writes_into_its_cotangent_is_named():
    report = verify(backward_of(lambda x, g: g.mul_(x.cos())), wanted(4, 3))
    assert report.verdict is Verdict.WRONG
    assert "writes into its cotangent" in report.findings[0].cause


def test_a_nondeterministic_backward_pass_is_named():
    generator = torch.Generator().manual_seed(1)

    def rule(x, g):
        return g * x.cos() * (1 + 0.1 * torch.rand(x.shape, generator=generator, dtype=D))

    report = verify(backward_of(rule), wanted(4, 3))
    assert report.verdict is Verdict.WRONG
    assert "nondeterministic" in report.findings[0].cause


def test_nan_gradients_are_shown_where_they_are():
    x = torch.tensor([-1.0, 0.5, 2.0], dtype=D, requires_grad=True)
    finding = verify(lambda x: torch.where(x > 0, x.sqrt(), 0 * x), x)["output", "input 0"]
    assert finding.verdict is Verdict.WRONG
    assert finding.worst.index == (0,)
    assert finding.worst.value != finding.worst.value
    assert finding.worst.reference == 0


@pytest.mark.parametrize(
    ("layer", "convention"),
    [
        (backward_of(lambda x, g: (g * x.cos()).clamp(-0.3, 0.3)), "clipped"),
        (function(torch.round, lambda x, g: g), "straight-through"),
        (lambda A: torch.linalg.cholesky(A), "symmetrised"),
    ],
    ids=["clipping", "straight-through", "symmetric argument"],
)
def test_conventions_are_named_as_such(layer, convention):
    x = wanted(3, 3).detach()
    x = (x @ x.mT + 3 * torch.eye(3, dtype=D)).requires_grad_()
    report = verify(layer, x)
    assert report.verdict is Verdict.WRONG
    assert "a convention" in report.findings[0].cause
    assert convention in report.findings[0].cause


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_are_examined(reentrant):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    report = verify(lambda x: checkpoint(net, x, use_reentrant=reentrant), wanted(2, 3))
    assert report.verdict is Verdict.CORRECT
    assert all(p.grad is None for p in net.parameters())


def test_opcheck_examines_custom_operators():
    @torch.library.custom_op("conduct::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    twice.register_autograd(lambda ctx, g: 2 * g)
    twice.register_fake(lambda x: x.new_empty(1))
    report = verify(lambda x: twice(x), wanted(3), effort="full")
    assert any("opcheck" in note and "faketensor" in note for note in report.notes)


def test_a_compiled_layer_is_compared_with_the_eager_one():
    report = verify(torch.compile(lambda x: x.sin() * 2, backend="eager"), wanted(3), effort="full")
    assert report.verdict is Verdict.CORRECT
    assert "compiled against eager" in report.checks


# --- Left behind -----------------------------------------------------------------------------------


def test_everything_that_the_layer_reaches_is_as_before():
    norm, cache, calls = nn.BatchNorm1d(4).double(), {}, []
    before = {name: t.clone() for name, t in norm.state_dict().items()}

    def layer(x, state):
        calls.append(1)
        cache["latest"] = x
        norm.latest = len(calls)
        state.add_(1)
        return norm(x)

    state = torch.zeros(2, dtype=D)
    assert verify(layer, (wanted(5, 4), state)).verdict is Verdict.CORRECT
    assert cache == {}
    assert calls == []
    assert not hasattr(norm, "latest")
    assert torch.equal(state, torch.zeros(2, dtype=D))
    assert all(torch.equal(t, before[name]) for name, t in norm.state_dict().items())


def test_an_input_that_the_layer_keeps_is_no_parameter():
    class Keeps(nn.Module):
        def forward(self, x):
            self.latest = x
            return x.sin()

    module = Keeps()
    report = verify(module, wanted(3), effort="full")
    assert report.verdict is Verdict.CORRECT
    assert {finding.input for finding in report.findings} == {"input 0"}
    assert not hasattr(module, "latest")


def test_warnings_never_become_errors():
    def layer(x):
        warnings.warn("deprecated", stacklevel=1)
        return x.sin()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = verify(layer, wanted(3), effort="full")
    assert report.verdict is Verdict.CORRECT
    assert "the layer warned: deprecated" in report.notes


def test_inference_mode_is_refused_with_a_way_out():
    with torch.inference_mode():
        made = torch.ones(2)
        with pytest.raises(RuntimeError, match="call it outside"):
            verify(torch.sin, made)
    with pytest.raises(RuntimeError, match=r"pass tensor.clone\(\)"):
        verify(torch.sin, made)


def test_values_too_large_for_their_squares_are_told():
    report = verify(lambda x: 1e200 * x, wanted(3))
    assert report.verdict is Verdict.UNRELIABLE
    assert "scale the output" in str(report)


def test_infinite_entries_that_a_layer_masks_stay_where_they_are():
    x = torch.tensor([1.0, float("inf")], dtype=D, requires_grad=True)
    report = verify(lambda x: torch.where(torch.isfinite(x), x, 0 * x.detach()).sin(), x)
    assert report.verdict is not Verdict.WRONG


def test_a_lazy_module_is_examined():
    assert verify(nn.LazyLinear(3, dtype=D), wanted(2, 4)).verdict is Verdict.CORRECT


def test_a_check_that_fails_is_reported_and_ends_nothing(monkeypatch):
    from implicitly.verification.checks import CORE

    def fails(session):
        raise IndexError("unforeseen")

    monkeypatch.setitem(CORE, "linearity in the cotangent", fails)
    report = verify(torch.sin, wanted(3))
    assert report.verdict is Verdict.CORRECT
    assert any("unforeseen" in note for note in report.notes)
