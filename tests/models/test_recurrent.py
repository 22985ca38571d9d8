"""The recurrent model beside the loop over time."""

import torch
from implicitly.models import EquilibriumRNN, RNNOptions


def test_states_and_gradients_are_those_of_the_loop():
    torch.manual_seed(0)
    model = EquilibriumRNN(RNNOptions(vocabulary=7, width=5, rtol=1e-12)).double()
    tokens, targets = torch.randint(0, 7, (2, 3, 40))
    loss, memory, _ = model.loss(tokens, targets)
    loss.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    xs, state, states = model.vocabulary.embed(tokens), torch.zeros(3, 5).double(), []
    for t in range(40):
        state = model.cell(xs[:, t], state)
        states.append(state)
    looped = model.vocabulary.losses(torch.stack(states, dim=1), targets).mean()
    looped.backward()
    # Solves to 1e-12 of a recurrence that contracts.
    torch.testing.assert_close(loss, looped, rtol=0, atol=1e-11)
    torch.testing.assert_close(memory, state.detach(), rtol=0, atol=1e-10)
    for a, p in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=0, atol=1e-10)
