"""States of recent tokens as starts of later solves."""

from dataclasses import replace

import pytest
import torch
from implicitly import PrefixAnderson, Stopping
from implicitly.models import RecentStates

from .small import MAKERS, TIGHT, make, tokens


def by_dictionaries(passes, asked, most):
    """The same by a dictionary of n-grams for each n."""
    kept = {}
    for seen, states in passes:
        for row, of_row in zip(seen.tolist(), states, strict=True):
            for t, state in enumerate(of_row):
                for n in range(1, min(most, t + 1) + 1):
                    kept[tuple(row[t - n + 1 : t + 1])] = state
    start = torch.zeros(*asked.shape, passes[0][1].shape[2], dtype=passes[0][1].dtype)
    for b, row in enumerate(asked.tolist()):
        for t in range(len(row)):
            for n in range(1, min(most, t + 1) + 1):
                start[b, t] = kept.get(tuple(row[t - n + 1 : t + 1]), start[b, t])
    return start


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_starts_are_the_last_states_of_the_longest_tokens_seen(most):
    passes = [(tokens(4, 30, seed), torch.randn(4, 30, 2)) for seed in range(3)]
    recent = RecentStates(tokens=most, entries=1_000_003)
    assert recent.start(tokens(2, 40, 9)) is None
    for one in passes:
        recent.keep(*one)
    asked = tokens(2, 40, 9)
    assert torch.equal(recent.start(asked), by_dictionaries(passes, asked, most))


def test_a_place_of_two_holds_one_and_is_taken_for_no_other():
    recent = RecentStates(tokens=2, entries=2)
    seen, states = tokens(4, 30), torch.randn(4, 30, 2) + 10
    recent.keep(seen, states)
    found = recent.start(seen)
    for b in range(4):
        for t in range(30):
            of_same = states[seen == seen[b, t]]
            zero = bool((found[b, t] == 0).all())
            assert zero or bool((of_same == found[b, t]).all(dim=1).any())


@pytest.mark.parametrize("maker", MAKERS)
def test_a_solve_from_its_own_states_has_nothing_left_to_do_and_no_future(maker):
    model = make(maker, replace(TIGHT, solver=PrefixAnderson(), stopping=Stopping(rtol=1e-8)))
    given = torch.arange(8).repeat(2, 1)
    with torch.no_grad():
        first = model(given)
        recent = RecentStates(tokens=8)
        recent.keep(given, first.states)
        again = model(given, start=recent.start(given))
    assert again.evaluations <= 3 < first.evaluations
    other = given.clone()
    other[:, 5:] = 3
    assert torch.equal(recent.start(given)[:, :5], recent.start(other)[:, :5])


@pytest.mark.parametrize("name", ["tokens", "entries"])
def test_options_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be an integer ≥ 1, got 0"):
        RecentStates(**{name: 0})
