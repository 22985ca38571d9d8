"""Parts that measurements are made of: jumps and kinks, lengths of steps, rounding, float64 copies."""

import numpy as np
import pytest
import torch
from implicitly.verification import Evidence, Verdict
from implicitly.verification.differences import jump_near, slope
from implicitly.verification.evidence import combine
from implicitly.verification.float64_copy import float64_copy
from implicitly.verification.lengths import lengths_of
from implicitly.verification.real import inner, real
from implicitly.verification.subject import Subject
from layers import draw, wanted
from torch import nn

ONE = np.ones(1)


def of(function):
    return slope(lambda t: np.array([function(t)]), 1.0, 1e-9 * ONE, ONE)


@pytest.mark.parametrize("where", [3e-2, 1e-2, 3e-4, 1e-5])
def test_narrow_spacings_see_past_a_kink(where):
    found = of(lambda t: np.sin(t) + abs(t - where))
    assert abs(found.value[0] - 0.0) <= 4 * found.error[0] + 1e-15
    # Rounding over the narrow spacing that lies within the kink.
    assert found.error[0] < 1e-6
    assert found.reach[0] < where
    assert found.jump[0] == 0


@pytest.mark.parametrize("curvature", [0.0, 3.0])
def test_a_jump_is_told_from_a_kink(curvature):
    def at(function):
        return jump_near(lambda t: np.array([curvature * t**2 + function(t)]), 1e-2, ONE)

    assert at(lambda t: abs(t - 0.013)) == 0
    assert at(lambda t: 1e-4 * float(t > 0.013)) == pytest.approx(1e-4, rel=1e-2)


def test_a_derivative_that_no_other_spacing_confirms_is_doubtful():
    rng = np.random.default_rng(0)
    found = of(lambda t: np.sin(t) + 1e-3 * rng.standard_normal())
    assert found.doubt[0] > 1e-3


def test_only_tensors_of_many_scales_have_steps_entry_by_entry():
    assert lengths_of(draw(50)) is None
    assert lengths_of(torch.zeros(3)) is None
    values = torch.tensor([1e-6, 0.0, 1e6], dtype=torch.float64)
    # The median of the present sizes for a zero.
    assert lengths_of(values).tolist() == [1e-6, 1e-6, 1e6]


def test_complex_numbers_are_pairs_and_sparse_tensors_have_their_zeros():
    z = torch.tensor([1 + 2j, 3 - 1j])
    w = torch.tensor([2 - 1j, 1 + 1j])
    assert inner(z, w) == pytest.approx(float((z.conj() * w).sum().real))
    assert real(torch.eye(2).to_sparse()).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("layer", "same"),
    [
        (nn.Linear(4, 3), True),
        (lambda x: x.float().sin() + torch.zeros(4), True),
        (lambda x: torch.dropout(x, 0.5, True), True),
        (lambda x: x + torch.randn_like(x), True),
        (lambda x: {torch.float32: x.sin}[x.dtype](), False),
        (lambda x: x.sin() if x.dtype == torch.float32 else x.cos(), False),
    ],
    ids=["module", "conversion", "dropout", "noise", "one dtype alone", "another function"],
)
def test_a_float64_copy_is_the_same_function_or_none(layer, same):
    x = wanted(5, 4, dtype=torch.float32)
    subject = Subject(layer, x)
    tape = subject.discover()
    found = float64_copy(subject, tape, torch.finfo(torch.float32).eps)
    assert (found is not None) is same
    if found is not None:
        (value,) = found[1].values
        assert value.dtype == torch.float64
        assert float((value - tape.values[0]).norm()) <= 1e-6 * float(value.norm())


def test_doubt_counts_in_the_smallest_error_that_is_seen():
    doubtful = Evidence("differences", "output", "input 0", 0.0, 1.0, 1e-9, doubt=0.5)
    assert doubtful.verdict is Verdict.UNRELIABLE
    fine = Evidence("differences", "output", "input 0", 0.0, 1.0, 1e-9)
    # One direction that is too rough takes nothing from one that is fine enough.
    assert combine([doubtful, fine])[0] is Verdict.CORRECT
    assert combine([doubtful])[0] is Verdict.UNRELIABLE


def test_a_fault_is_wrong_whatever_the_value():
    fault = Evidence(
        "side effects", "output", "input 0", 0.0, 0.0, 0.0, reference=False, fault="writes"
    )
    assert fault.verdict is Verdict.WRONG
