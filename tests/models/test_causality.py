"""Causality of the models, and sequences taken in pieces: segments, memory, generation."""

from dataclasses import replace

import pytest
import torch
from implicitly import (
    Anderson,
    Broyden,
    Exact,
    FixedPointIteration,
    PrefixAnderson,
    Stopping,
)
from implicitly.models import (
    Equilibrium,
    Memory,
    Stacked,
    TrellisNet,
    TrellisNetOptions,
    WeightTied,
    causal_newton,
)

from .small import MAKERS, TIGHT, VOCABULARY, make, tokens, transformer


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "solver",
    [FixedPointIteration(), Anderson(), Broyden(line_search=False), PrefixAnderson(plain=1)],
    ids=lambda solver: type(solver).__name__,
)
@pytest.mark.parametrize("limit", [1, 2, 5, 9, 30, 500])
def test_future_tokens_change_past_predictions_by_exactly_nothing(maker, solver, limit):
    stopping = Stopping(rtol=1e-6, max_steps=limit)
    depth = Equilibrium(solver=solver, stopping=stopping, on_failure="accept")
    model = make(maker, depth).eval()
    given, other = tokens(), tokens()
    other[:, 5:] = (other[:, 5:] + 3) % VOCABULARY
    with torch.no_grad():
        (first, _), (second, _) = model.log_probabilities(given), model.log_probabilities(other)
    assert torch.equal(first[:, :5], second[:, :5])
    assert not torch.equal(first[:, 5:], second[:, 5:])


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("records", [False, True])
def test_states_that_are_not_finite_leave_earlier_tokens_alone(maker, value, records):
    model = make(maker).eval()
    start = torch.zeros(*tokens().shape, next(iter(model.cells)).state, dtype=torch.float64)
    lost = start.clone()
    lost[1, 5:, 0] = value
    with torch.set_grad_enabled(records):
        first, second = (
            model.log_probabilities(tokens(), start=z, depth=3)[0].detach() for z in (start, lost)
        )
    assert torch.equal(first[:, :5], second[:, :5])
    assert torch.equal(first[[0, 2]], second[[0, 2]])
    assert not torch.equal(first[1, 5:], second[1, 5:])


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("solver", [FixedPointIteration(), PrefixAnderson(plain=1)])
def test_embeddings_that_are_not_finite_leave_earlier_tokens_alone(maker, solver):
    stopping = Stopping(rtol=1e-6, max_steps=9)
    model = make(maker, Equilibrium(solver=solver, stopping=stopping, on_failure="accept")).eval()
    given = tokens()
    given[given == 3] = 4
    found = []
    for last in (4, 3):
        given[:, 5:] = last
        with torch.no_grad():
            model.vocabulary.table[3] = torch.nan
            hidden = model(given).hidden
        found.append(hidden[:, :5])
    assert found[0].isfinite().all()
    assert torch.equal(*found)


@pytest.mark.parametrize("transform", ["vmap", "jvp", "none"])
def test_a_lost_token_makes_nan_of_those_that_see_it_alone(transform):
    cell = make(transformer, context=3).cells[0]
    weights, injection = cell.weights(), torch.randn(1, 8, 36, dtype=torch.float64)
    history = torch.zeros(1, 0, 12).double(), torch.zeros(1, 0, 36).double()
    inputs = cell.inputs(weights, cell.masks(injection), injection, *history)
    z = torch.randn(1, 8, 12, dtype=torch.float64)
    z[0, 4, 1] = torch.inf

    def f(z):
        return cell.map(z, weights, inputs)

    value = {
        "none": lambda: f(z),
        "vmap": lambda: torch.vmap(f)(z[None])[0],
        "jvp": lambda: torch.func.jvp(f, (z,), (z,))[0],
    }[transform]()
    assert value.isnan().any(dim=2).tolist() == [[False] * 4 + [True] * 3 + [False]]


def test_coefficients_of_a_whole_sequence_leak_the_future():
    depth = Equilibrium(
        solver=Anderson(), stopping=Stopping(rtol=0.0, max_steps=3), coefficients="sequence",
        on_failure="accept",
    )  # fmt: skip
    model = make(transformer, depth).eval()
    given, other = tokens(), tokens()
    other[:, 5:] = (other[:, 5:] + 3) % VOCABULARY
    first, second = (model.log_probabilities(t)[0] for t in (given, other))
    assert (first - second)[:, :5].abs().max() > 1e-3


def test_the_default_extrapolates_by_prefixes_forwards_and_in_the_adjoint():
    token, whole = Equilibrium(), Equilibrium(solver=Anderson(), coefficients="sequence")
    assert token.solver == token.derivative.solver == PrefixAnderson()
    assert whole.derivative.solver is None
    assert Equilibrium(gradient=Exact()).derivative == Exact()
    with pytest.raises(ValueError, match='needs coefficients="token"'):
        Equilibrium(coefficients="sequence")
    with pytest.raises(TypeError, match="gradient must be an instance of Gradient or None"):
        Equilibrium(gradient="exact")


@pytest.mark.parametrize("maker", MAKERS)
def test_prefixes_give_the_states_and_gradients_of_plain_iteration(maker):
    found = []
    for solver in (PrefixAnderson(), FixedPointIteration()):
        gradient = Exact(solver=solver, stopping=TIGHT.gradient.stopping)
        model = make(maker, replace(TIGHT, solver=solver, gradient=gradient))
        loss, output = model.loss(tokens(), tokens(seed=2))
        loss.backward()
        found.append([output.states.detach(), *(p.grad for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


def test_causal_newton_solves_a_trellisnet_without_a_trace_of_the_future():
    options = TrellisNetOptions(VOCABULARY, output=2, hidden=2, deviation=0.3)
    newton = make(lambda: TrellisNet(copy_with(options, causal_newton(options, rtol=1e-11))))
    plain = make(lambda: TrellisNet(copy_with(options, TIGHT)))
    given, other = tokens(), tokens()
    other[:, 5:] = (other[:, 5:] + 3) % VOCABULARY
    losses = []
    for model in (newton, plain):
        loss, output = model.loss(given, other)
        loss.backward()
        assert output.converged
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=0, atol=1e-9)
    for a, b in zip(newton.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-8)
    with torch.no_grad():
        assert torch.equal(newton(given).hidden[:, :5], newton(other).hidden[:, :5])


def copy_with(options, depth):
    return replace(options, depth=depth)


@pytest.mark.parametrize("maker", MAKERS)
def test_subsequences_give_the_states_and_gradients_of_the_whole(maker):
    found = []
    for size in (None, 3):
        model = make(maker, replace(TIGHT, subsequence=size))
        loss, output = model.loss(tokens(), tokens(seed=2))
        loss.backward()
        assert len(output.pieces) == (1 if size is None else 3)
        found.append([output.states.detach(), *(p.grad for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


@pytest.mark.parametrize("depth", [TIGHT, WeightTied(40), Stacked(3)])
def test_segments_with_their_memory_give_the_states_of_the_whole(depth):
    for maker in MAKERS:
        options = {"memory": 20} if maker is transformer else {}
        model = make(maker, depth, **options)
        whole = model(tokens())
        first = model(tokens()[:, :5])
        second = model(tokens()[:, 5:], first.memory)
        both = torch.cat((first.states, second.states), dim=1)
        if isinstance(depth, WeightTied):  # Its memory is that of the last layer: no such equality.
            assert not torch.equal(both, whole.states)
            continue
        torch.testing.assert_close(both, whole.states, rtol=0, atol=1e-8)


@pytest.mark.parametrize("maker", MAKERS)
def test_memory_is_a_constant_of_states_and_inputs_together(maker):
    model = make(maker, **({"memory": 4} if maker is transformer else {}))
    output = model(tokens())
    assert not output.memory.inputs.requires_grad
    assert not any(state.requires_grad for state in output.memory.states)
    assert output.memory.states[0].shape[1] == output.memory.inputs.shape[1]
    assert output.hidden.requires_grad
    given = Memory(
        (output.memory.states[0].requires_grad_(),), output.memory.inputs.requires_grad_()
    )
    model(tokens(), given).hidden.sum().backward()
    assert given.states[0].grad is None
    assert given.inputs.grad is None


@pytest.mark.parametrize("maker", MAKERS)
def test_generation_gives_the_predictions_of_the_whole_sequence(maker):
    model = make(maker, **({"memory": 20} if maker is transformer else {})).train()
    prompt = tokens(2, 4)
    new = model.generate(prompt, 5, temperature=0)
    assert new.shape == (2, 5)
    assert model.training
    whole, _ = model.log_probabilities(torch.cat((prompt, new), dim=1))
    assert torch.equal(whole[:, 3:-1].argmax(-1), new)


@pytest.mark.parametrize("maker", MAKERS)
def test_one_token_after_the_other_has_the_logits_of_the_whole(maker):
    model = make(maker, **({"memory": 20} if maker is transformer else {})).eval()
    whole, _ = model.log_probabilities(tokens())
    memory, start, parts = None, None, []
    for t in range(8):
        part, output = model.log_probabilities(tokens()[:, t : t + 1], memory, start=start)
        memory, start = output.memory, output.states
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-8)
