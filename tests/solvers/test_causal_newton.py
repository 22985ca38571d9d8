"""Causal-scan Newton against the sequential loop and dense linear algebra.

It is not among the solvers of `references.py`: their equations couple every unknown to every other,
and it solves those with a bidiagonal Jacobian only. The same properties are shown here on such.
"""

import pytest
import torch
from implicitly import CausalNewton, Exact, Stopping, fixed_point, recurrence, root
from layers import draw
from torch import Tensor

from .recurrences import (
    EPS,
    TIGHT,
    gated,
    gated_inputs,
    loop,
    trellis,
    trellis_by_hand,
    trellis_inputs,
)

# --- The answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
@pytest.mark.parametrize("damping", [0.0, 0.5, 1.0])
def test_the_states_are_those_of_the_loop(jacobian, damping):
    W, V, xs, s0 = gated_inputs()
    solver = CausalNewton(block=3, jacobian=jacobian, damping=damping)
    solution = recurrence(gated, s0, xs, W, V, solver=solver, stopping=TIGHT)
    expected = loop(gated, s0, xs, W, V)
    # The gate keeps at most σ(·) < 1 of an error: ‖(I − J)⁻¹‖ is below a few hundred here.
    torch.testing.assert_close(solution.value, expected, rtol=0, atol=1e-11)
    # Full damping exactly repeats the loop's progress, one time step a step, at worst.
    assert int(solution.steps.max()) <= xs.shape[1]


def test_ten_thousand_states_are_those_of_the_loop_to_rounding_and_so_are_their_gradients():
    length, d = 10_000, 4
    W, V, xs, s0 = (t.requires_grad_() for t in gated_inputs(1, length, d))
    solution = recurrence(gated, s0, xs, W, V, stopping=TIGHT)
    expected = loop(gated, s0, xs, W, V)
    assert int(solution.steps.max()) <= 8
    # The largest gain of an error over all later times, from the loop's own Jacobian at random.
    condition = memory_of_the_loop(*(t.detach() for t in (W, V, xs, s0)))
    # Each state is rounded a few times and its error is remembered for `condition` steps.
    allowed = 8 * (d + 2) * EPS * condition
    assert float((solution.value - expected).detach().abs().max()) < allowed
    cotangent = draw(1, length, d, seed=9)
    mine = torch.autograd.grad((solution.value * cotangent).sum(), (W, V, xs, s0))
    theirs = torch.autograd.grad((expected * cotangent).sum(), (W, V, xs, s0))
    assert solution.adjoints[0].steps.item() == 1
    for a, b in zip(mine, theirs, strict=True):
        # Sums over T terms; the states enter with their errors, twice amplified.
        assert float((a - b).norm() / b.norm()) < length**0.5 * condition * allowed


def memory_of_the_loop(W: Tensor, V: Tensor, xs: Tensor, s0: Tensor) -> float:
    """`max_t Σ_{s ≤ t} ‖A_t … A_{s+1}‖` by the recurrence `m ← 1 + ‖A_t‖ m`, or by products."""
    W, V, xs, s0 = (tensor.detach() for tensor in (W, V, xs, s0))
    with torch.no_grad():
        states = torch.cat((s0[:, None], loop(gated, s0, xs, W, V)[:, :-1]), dim=1)[0]
        step = torch.func.vmap(torch.func.jacrev(lambda s, x: gated(s[None], x[None], W, V)[0]))
        total, products = 1.0, torch.eye(W.shape[0], dtype=W.dtype)[None]
        for matrix in step(states, xs[0]):
            # Products over the last 60 times; older ones are below rounding for this recurrence.
            products = torch.cat((matrix @ products, torch.eye(len(matrix), dtype=W.dtype)[None]))[
                -60:
            ]
            total = max(total, float(torch.linalg.matrix_norm(products, 2).sum()))
        assert float(torch.linalg.matrix_norm(products[0], 2)) < 1e-3
    return total


@pytest.mark.parametrize("form", ["fixed_point", "root"])
def test_a_cell_of_trellisnet_is_solved_in_few_steps(form):
    injection, history, W = trellis_inputs()
    z0 = torch.zeros(2, 6, injection.shape[2], dtype=torch.float64)
    solver = CausalNewton(block=6, time="last")
    solve = fixed_point if form == "fixed_point" else root
    F = trellis if form == "fixed_point" else lambda z, *args: z - trellis(z, *args)
    solution = solve(F, z0, injection, history, W, solver=solver, batch_dims=1, stopping=TIGHT)
    expected = trellis_by_hand(injection, history, W)
    torch.testing.assert_close(solution.value, expected, rtol=0, atol=1e-12)
    assert int(solution.steps.max()) <= 8


def test_several_leaves_with_time_last_are_one_sequence():
    injection, history, W = trellis_inputs()

    def f(z, *args):
        value = trellis(torch.cat((z["h"], z["c"]), dim=1), *args)
        return {"h": value[:, :3], "c": value[:, 3:]}

    zero = torch.zeros(2, 3, injection.shape[2], dtype=torch.float64)
    solver = CausalNewton(block=6, time="last")
    solution = fixed_point(
        f,
        {"h": zero, "c": zero},
        injection,
        history,
        W,
        solver=solver,
        batch_dims=1,
        stopping=TIGHT,
    )
    expected = trellis_by_hand(injection, history, W)
    torch.testing.assert_close(solution.value["c"], expected[:, 3:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_dims", [0, 1])
def test_a_batch_may_be_one_system(batch_dims):
    W, V, xs, s0 = gated_inputs()

    def f(z):
        before = torch.cat((s0[:, None], z[:, :-1]), dim=1)
        return gated(before.flatten(0, 1), xs.flatten(0, 1), W, V).reshape(z.shape)

    z0 = torch.zeros(2, 60, 3, dtype=torch.float64)
    value = fixed_point(
        f, z0, solver=CausalNewton(block=3), batch_dims=batch_dims, stopping=TIGHT
    ).value
    torch.testing.assert_close(value, loop(gated, s0, xs, W, V), rtol=0, atol=1e-11)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_sequences_are_sequences(length):
    W, V, xs, s0 = gated_inputs(length=length)
    value = recurrence(gated, s0, xs, W, V, stopping=TIGHT).value
    torch.testing.assert_close(value, loop(gated, s0, xs, W, V), rtol=0, atol=1e-13)


def test_each_step_makes_one_more_state_exact_where_errors_are_amplified():
    # Nearby states part by a factor of up to 4 a step, more often than not by more than 2.
    def f(s, x):
        return torch.cos(4 * s + x)

    length = 30
    s0, xs = (
        torch.full((1, 1), 0.3, dtype=torch.float64),
        torch.zeros(1, length, 1, dtype=torch.float64),
    )
    solution = recurrence(f, s0, xs, stopping=Stopping(rtol=1e-13, patience=1000))
    assert int(solution.steps.max()) <= length
    # The tolerance of each step, and the errors of those before up to four times as large.
    difference = (solution.value - loop(f, s0, xs)).abs().flatten()
    assert bool((difference <= 2e-13 * 4.0 ** torch.arange(length)).all())


# --- Causality --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
@pytest.mark.parametrize("change", [1e-3, 10.0, 1e4])
def test_no_bit_of_the_past_depends_on_the_future(change, jacobian):
    W, V, xs, s0 = gated_inputs(batch=1, length=200, gain=1.5)
    solver = CausalNewton(block=3, jacobian=jacobian)
    value = recurrence(gated, s0, xs, W, V, solver=solver).value
    for cut in (1, 99, 150, 199):
        later = xs.clone()
        later[:, cut:] += change
        changed = recurrence(gated, s0, later, W, V, solver=solver).value
        assert torch.equal(changed[:, :cut], value[:, :cut])
        assert not torch.equal(changed[:, cut], value[:, cut])


@pytest.mark.parametrize("rtol", [1e-2, 1e-6, 1e-12])
def test_no_bit_of_the_past_of_a_trellisnet_depends_on_the_future(rtol):
    injection, history, W = trellis_inputs(length=100, gain=0.5)
    injection[:, :, :60] *= 0.01
    z0 = torch.zeros(2, 6, 100, dtype=torch.float64)
    options = {
        "solver": CausalNewton(block=6, time="last"),
        "batch_dims": 1,
        "stopping": Stopping(rtol=rtol),
    }
    solution = fixed_point(trellis, z0, injection, history, W, **options)
    steps = set()
    for size in (0.0, 3.0, 30.0, 1e3):
        later = injection.clone()
        later[:, :, 60:] = size * draw(2, 12, 40, seed=5)
        changed = fixed_point(trellis, z0, later, history, W, **options)
        steps.add(int(changed.steps.max()))
        assert torch.equal(changed.value[:, :, :60], solution.value[:, :, :60])
    assert len(steps) > 1, "the future must change the number of steps"


# --- Derivatives --------------------------------------------------------------------------------------


def test_derivatives_of_two_orders_agree_with_finite_differences():
    W, V, xs, s0 = (t.requires_grad_() for t in gated_inputs(batch=1, length=4, d=2, inputs=1))

    def states(*inputs):
        W, V, xs, s0 = inputs
        return recurrence(gated, s0, xs, W, V, stopping=TIGHT).value

    assert torch.autograd.gradcheck(states, (W, V, xs, s0))
    assert torch.autograd.gradgradcheck(states, (W, V, xs, s0))


def test_forward_mode_and_vmap_agree_with_the_loop():
    W, V, xs, s0 = gated_inputs(batch=2, length=7, d=2, inputs=1)

    def mine(xs):
        return recurrence(gated, s0, xs, W, V, stopping=TIGHT).value

    def theirs(xs):
        return loop(gated, s0, xs, W, V)

    for transform in (torch.func.jacfwd, torch.func.jacrev):
        torch.testing.assert_close(
            transform(mine)(xs), transform(theirs)(xs), rtol=1e-11, atol=1e-12
        )
    many = draw(3, 2, 7, 1, seed=4)
    torch.testing.assert_close(
        torch.vmap(mine)(many), torch.vmap(theirs)(many), rtol=1e-11, atol=1e-12
    )


def test_the_adjoint_of_a_trellisnet_is_one_scan_backwards():
    injection, history, W = (t.requires_grad_() for t in trellis_inputs(length=20))
    z0 = torch.zeros(2, 6, 20, dtype=torch.float64)
    solver = CausalNewton(block=6, time="last")
    solution = fixed_point(
        trellis, z0, injection, history, W, solver=solver, batch_dims=1, stopping=TIGHT,
        gradient=Exact(solver=solver),
    )  # fmt: skip
    cotangent = draw(2, 6, 20, seed=7)
    mine = torch.autograd.grad((solution.value * cotangent).sum(), (injection, history, W))
    assert solution.adjoints[0].steps.tolist() == [1, 1]
    expected = trellis_by_hand(injection, history, W)
    theirs = torch.autograd.grad((expected * cotangent).sum(), (injection, history, W))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
