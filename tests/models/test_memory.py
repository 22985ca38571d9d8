"""Memory of a training step: checkpoints of layers, and adjoints whose vectors do not grow in number."""

from dataclasses import replace

import pytest
import torch
from implicitly import Exact, PrefixAnderson, Stopping
from implicitly.models import Equilibrium, WeightTied
from implicitly.verification.saved import saved_bytes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from .small import MAKERS, TIGHT, make, tokens, trellisnet

DEPTHS = {"equilibrium": TIGHT, "weight-tied": WeightTied(3)}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", DEPTHS)
def test_checkpointed_layers_have_the_loss_and_gradients_of_kept_ones(maker, name):
    found = []
    for kept in (True, False):
        model = make(maker, replace(DEPTHS[name], checkpoint=not kept)).train()
        torch.manual_seed(1)
        loss, _ = model.loss(tokens(), tokens(seed=2), depth=4)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_step_on_a_few_layers_keeps_one_state_for_each(maker):
    model = make(maker)
    state = tokens().numel() * next(iter(model.cells)).state * 8  # bytes of float64

    def kept(layers):
        def forward():
            return model.loss(tokens(), tokens(seed=2), depth=layers)[0]

        return saved_bytes(forward, model.parameters())

    assert kept(9) - kept(1) <= 8 * state
    model.depth = replace(model.depth, checkpoint=False)
    assert kept(9) - kept(1) > 16 * state


class LiveBytes(TorchDispatchMode):
    """The largest sum of the sizes of all storages made within that were alive at a time."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = WeakIdKeyDictionary(), 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage] = storage.nbytes()
        self.most = max(self.most, sum(self.alive.values()))
        return result


def peak(maker, forward=6, backward=6, **options):
    """The peak of a step with so many iterations in each pass, and the size of all states, in bytes."""
    rule = {"rtol": 0.0, "atol": 0.0, "patience": 10**6}
    depth = Equilibrium(
        stopping=Stopping(max_steps=forward, **rule),
        gradient=Exact(solver=PrefixAnderson(), stopping=Stopping(max_steps=backward, **rule)),
        on_failure="accept",
        **options,
    )
    model = make(maker, depth)
    with LiveBytes() as live:
        model.loss(tokens(8, 32), tokens(8, 32, seed=2))[0].backward()
    return live.most, 8 * 32 * next(iter(model.cells)).state * 8


@pytest.mark.parametrize("maker", MAKERS)
def test_the_peak_of_a_step_depends_on_the_iterations_of_neither_pass(maker):
    first, state = peak(maker)
    # Time steps that have converged keep their states beside the iterate of all.
    assert max(peak(maker, 6, 40)[0], peak(maker, 40, 6)[0]) <= first + state


def test_a_step_of_a_trellisnet_holds_23_states_at_most():
    # Injection, solution, cotangent, three moves with their changes, two iterates, the graph of one cell
    # and three gradients on their way through it.
    most, state = peak(trellisnet)
    assert most <= 23 * state


def test_a_step_in_pieces_holds_the_vectors_of_one_piece():
    assert peak(trellisnet, subsequence=8)[0] <= 0.7 * peak(trellisnet)[0]
