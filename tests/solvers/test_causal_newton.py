"""Causal-scan Newton against the sequential loop and dense linear algebra.

It is not among the solvers of `references.py`: their equations couple every unknown to every other,
and it solves those with a bidiagonal Jacobian only. The same properties are shown here on such.
"""

import numpy as np
import pytest
import torch
from implicitly import CausalNewton, Exact, SolveError, Stopping, fixed_point, recurrence, root
from implicitly.solvers import Problem, Status
from implicitly.solvers.causal.bidiagonal import Bidiagonal, StructureError, TimeAxis, assemble
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


# --- The properties of every solver --------------------------------------------------------------------


@pytest.mark.parametrize("equation_scale", [1e-6, 1e6])
@pytest.mark.parametrize("unknown_scale", [1e-6, 1e6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scaling_changes_no_count(equation_scale, unknown_scale, dtype):
    injection, history, W = (t.to(dtype) for t in trellis_inputs())
    z0 = torch.zeros(2, 6, injection.shape[2], dtype=dtype)
    solver = CausalNewton(block=6, time="last")

    def steps(a: float, b: float) -> list[int]:
        def F(z):
            return a * (z / b - trellis(z / b, injection, history, W))

        return root(F, z0, solver=solver, batch_dims=1, stopping=Stopping(rtol=1e-5)).steps.tolist()

    assert steps(equation_scale, unknown_scale) == steps(1.0, 1.0)


def test_no_system_depends_on_another():
    W, V, xs, s0 = gated_inputs(batch=4, gain=1.5)
    xs[1] *= 1e3
    s0[2] = 1e3
    xs[3] *= 0
    together = recurrence(gated, s0, xs, W, V)
    assert len(set(together.steps.tolist())) > 1
    for i in range(4):
        alone = recurrence(gated, s0[i : i + 1], xs[i : i + 1], W, V)
        assert alone.steps.item() == together.steps[i].item()
        # Products of matrices of other shapes are rounded differently.
        torch.testing.assert_close(together.value[i], alone.value[0], rtol=1e-12, atol=1e-12)


def test_a_system_that_is_not_finite_fails_alone():
    W, V, xs, s0 = gated_inputs(batch=3)
    xs[1, 30] = torch.nan
    solution = recurrence(gated, s0, xs, W, V, on_failure="accept")
    assert solution.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    expected = loop(gated, s0, xs, W, V)
    torch.testing.assert_close(solution.value[::2], expected[::2], rtol=0, atol=1e-8)


def test_states_in_float32_are_solved_in_float32():
    W, V, xs, s0 = (t.float() for t in gated_inputs(length=2000))
    solution = recurrence(gated, s0, xs, W, V)
    assert solution.value.dtype == torch.float32
    torch.testing.assert_close(solution.value, loop(gated, s0, xs, W, V), rtol=0, atol=1e-4)


def test_steps_are_counted_and_limited():
    W, V, xs, s0 = gated_inputs()
    solution = recurrence(
        gated, s0, xs, W, V, stopping=Stopping(rtol=1e-12, max_steps=1), on_failure="accept"
    )
    assert solution.status.tolist() == [Status.MAX_STEPS] * 2
    assert solution.steps.tolist() == [1, 1]
    # Per linearisation 3 probes and two products for each of the 3 unknowns of a state.
    assert (solution.counts.vjps, solution.counts.jvps) == (9, 0)


# --- Failure ----------------------------------------------------------------------------------------


def test_a_singular_block_is_a_failed_linear_solve():
    def F(z):
        return torch.cat((z[:, :1] - 1, 0 * z[:, 1:2] + z[:, :1] - 3, z[:, 2:] - z[:, 1:-1]), dim=1)

    z0 = torch.zeros(1, 4, dtype=torch.float64)
    solution = root(F, z0, solver=CausalNewton(block=1), batch_dims=1, on_failure="accept")
    assert solution.status.tolist() == [Status.LINEAR_SOLVE_FAILED]


def test_a_linear_recurrence_beyond_the_range_of_the_dtype_is_not_called_solved():
    xs, s0 = torch.ones(1, 5000, 1), torch.ones(1, 1)
    with pytest.raises(SolveError, match="did not solve"):
        recurrence(lambda s, x: 1.5 * s + x, s0, xs)


def test_an_expanding_linear_recurrence_is_solved_by_one_scan():
    length = 1000
    xs, s0 = draw(1, length, 2), draw(1, 2, seed=1)
    A = 1.1 * torch.linalg.qr(draw(2, 2, seed=2)).Q
    solution = recurrence(lambda s, x: s @ A + x, s0, xs)
    # One scan, and one or two more to mend its rounding errors.
    assert int(solution.steps.max()) <= 3
    expected = loop(lambda s, x: s @ A + x, s0, xs)
    # Rounding errors grow as the states do: they are relative to the state of their time.
    size = torch.linalg.vector_norm(expected, dim=2)
    error = torch.linalg.vector_norm(solution.value - expected, dim=2)
    assert float((error / size).max()) < 100 * length * EPS


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("second order", lambda z: 0.5 * moved(1, z) + 0.3 * moved(2, z) + 1),
        ("both sides", lambda z: 0.4 * moved(1, z) + 0.4 * moved(-1, z) + 1),
        ("three back", lambda z: 0.5 * moved(3, z) + 1),
        ("six back", lambda z: 0.5 * moved(6, z) + 1),
        ("the mean", lambda z: 0.5 * z.mean(1, keepdim=True).expand_as(z) + 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_another_structure_is_an_error_that_says_so(name, f, jacobian):
    z0 = torch.zeros(1, 12, dtype=torch.float64)
    solver = CausalNewton(block=1, jacobian=jacobian)
    with pytest.raises(StructureError, match=r"block=1, time='first'.*NewtonKrylov"):
        fixed_point(f, z0, solver=solver, batch_dims=1)


def moved(k: int, z: Tensor) -> Tensor:
    """The values `k` times before, zero where there are none."""
    times = torch.arange(z.shape[1])
    there = (times >= k) & (times < z.shape[1] + k)
    return z.roll(k, 1) * there.to(z.dtype)


def test_a_wrong_layout_is_an_error():
    W, V, xs, s0 = gated_inputs()
    for solver in (CausalNewton(block=3, time="last"), CausalNewton(block=2)):
        with pytest.raises(StructureError, match="Check that block is the number of unknowns"):
            recurrence(gated, s0, xs, W, V, solver=solver)
    with pytest.raises(ValueError, match=r"multiple of block, got 180"):
        recurrence(gated, s0, xs, W, V, solver=CausalNewton(block=7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 0}, "block must be an integer ≥ 1, got 0"),
        ({"block": 1, "time": "middle"}, "time must be one of 'first', 'last'"),
        ({"block": 1, "jacobian": "dense"}, "jacobian must be one of"),
        ({"block": 1, "damping": 1.5}, r"damping must be in \[0, 1\], got 1.5"),
    ],
)
def test_impossible_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        CausalNewton(**options)


def test_states_and_inputs_that_do_not_fit_are_errors():
    with pytest.raises(
        ValueError, match=r"s0.*xs.*must agree in their first axis.*\(2, 3\).*\(1, 5, 1\)"
    ):
        recurrence(torch.add, torch.zeros(2, 3), torch.zeros(1, 5, 1))
    with pytest.raises(TypeError, match="xs must be a tensor, got int"):
        recurrence(torch.add, torch.zeros(2, 3), 3)
    with pytest.raises(ValueError, match=r"must return the shape of its unknown"):
        recurrence(lambda s, x: s[:, :1], torch.zeros(2, 3), torch.zeros(2, 5, 1))


# --- The blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("time", ["first", "last"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_the_blocks_found_are_those_of_the_dense_matrix(length, time, upper):
    d, generator = 2, np.random.default_rng(0)
    dense = np.zeros((length, d, length, d))
    for t in range(length):
        dense[t, :, t] = generator.standard_normal((d, d))
        near = t + 1 if upper else t - 1
        if 0 <= near < length:
            dense[t, :, near] = generator.standard_normal((d, d))
    ordered = dense if time == "first" else dense.transpose(1, 0, 3, 2)
    matrix = torch.from_numpy(ordered.reshape(length * d, length * d).copy())
    products = 0

    def product(v: Tensor) -> Tensor:
        nonlocal products
        products += 1
        return v @ matrix.mT

    axis = TimeAxis(d, time)
    like = torch.zeros(1, length * d, dtype=torch.float64)
    found = assemble(product, like, axis, eps=EPS, described="it")
    assert products == 2 * d + 3
    assert np.array_equal(dense_of(found, length, d), dense)
    assert np.array_equal(dense_of(found.transposed, length, d), dense.transpose(2, 3, 0, 1))
    diagonals = assemble(product, like, axis, full=False, eps=EPS, described="it")
    assert torch.equal(diagonals.diagonal, found.diagonal.diagonal(dim1=2, dim2=3))
    assert torch.equal(diagonals.neighbour, found.neighbour.diagonal(dim1=2, dim2=3))


def dense_of(found: Bidiagonal, length: int, d: int):
    dense = np.zeros((length, d, length, d))
    for t in range(length):
        dense[t, :, t] = found.diagonal[0, t]
        near = t + 1 if found.upper else t - 1
        if 0 <= near < length:
            dense[t, :, near] = found.neighbour[0, t]
        elif length > 1:
            assert not found.neighbour[0, t].any()
    return dense


def test_the_solver_stands_alone():
    from implicitly.solvers import solve

    def function(v: Tensor) -> Tensor:
        return torch.cat((0 * v[:, :1], 0.5 * v[:, :-1]), dim=1)

    problem = Problem(lambda z: function(z) + 1, operator=function)
    result = solve(problem, CausalNewton(block=1), torch.zeros(1, 4, dtype=torch.float64))
    assert result.z.flatten().tolist() == [1.0, 1.5, 1.75, 1.875]
