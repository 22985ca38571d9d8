"""The recurrent model beside PyTorch's cell and the loop over time."""

import pytest
import torch
from implicitly.models import EquilibriumRNN, RecurrentOptions, Stacked, WeightTied, by_scan
from implicitly.models.recurrent import GRUCell
from torch import nn

WIDTH, TOKENS = 5, 7


def make(depth=None) -> EquilibriumRNN:
    torch.manual_seed(0)
    depth = by_scan(WIDTH, rtol=1e-12) if depth is None else depth
    return EquilibriumRNN(RecurrentOptions(vocabulary=TOKENS, width=WIDTH, depth=depth)).double()


def loop_of(model: EquilibriumRNN) -> nn.GRUCell:
    """PyTorch's cell with the same parameters."""
    cell, own = nn.GRUCell(WIDTH, WIDTH).double(), model.cells[0]
    assert isinstance(own, GRUCell)
    cell.weight_ih, cell.bias_ih = model.injection.weight, model.injection.bias
    cell.weight_hh, cell.bias_hh = own.recurrent.weight, own.recurrent.bias
    return cell


def looped(model: EquilibriumRNN, tokens: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    cell, states = loop_of(model), []
    for x in model.vocabulary.embed(tokens).unbind(1):
        state = cell(x, state)
        states.append(state)
    return torch.stack(states, dim=1)


def test_states_and_gradients_are_those_of_the_loop():
    model = make()
    tokens, targets = torch.randint(0, TOKENS, (2, 3, 40))
    loss, output = model.loss(tokens, targets)
    loss.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    states = looped(model, tokens, torch.zeros(3, WIDTH).double())
    expected = model.vocabulary.losses(states, targets).mean()
    expected.backward()
    # Solves to 1e-12 of a recurrence that contracts.
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(
        output.memory.states[0][:, 0], states[:, -1].detach(), rtol=0, atol=1e-10
    )
    for a, p in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=0, atol=1e-10)


def test_a_sequence_may_be_read_in_pieces():
    model, tokens = make(), torch.randint(0, TOKENS, (2, 30))
    whole, first = model(tokens), model(tokens[:, :12])
    second = model(tokens[:, 12:], first.memory)
    torch.testing.assert_close(second.states, whole.states[:, 12:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("layers", [1, 4])
def test_so_many_layers_know_so_many_tokens(layers):
    model, tokens = make(WeightTied(layers)), torch.randint(0, TOKENS, (2, 20))
    states = model(tokens).states
    for t in (layers, 19):
        seen = tokens[:, t + 1 - layers : t + 1]
        alone = looped(model, seen, torch.zeros(2, WIDTH).double())[:, -1]
        torch.testing.assert_close(states[:, t], alone, rtol=0, atol=1e-14)


def test_stacked_layers_have_weights_of_their_own():
    model = make(Stacked(3))
    assert len({id(cell.recurrent.weight) for cell in model.cells}) == 3
    assert model(torch.randint(0, TOKENS, (2, 9))).states.shape == (2, 9, WIDTH)


def test_what_does_not_fit_is_named():
    with pytest.raises(TypeError, match="depth must be Equilibrium"):
        RecurrentOptions(vocabulary=7, depth=3)
    with pytest.raises(ValueError, match="remembers one state"):
        make()(torch.zeros(1, 4).long(), keep=2)
