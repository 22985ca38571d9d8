"""Choice of tokens: the distribution, its ends, and the same tokens for the same seed."""

import numpy as np
import pytest
import torch
from implicitly.models import Sampling

SCORES = torch.tensor([0.05, 0.4, 0.15, 0.3, 0.1], dtype=torch.float64).log()
DRAWS = 20_000


def reference(temperature=1.0, top_k=None, top_p=None):
    """Probabilities in the order of the tokens, by a loop over them."""
    p = np.exp(SCORES.numpy() / temperature)
    p /= p.sum()
    kept, total = [], 0.0
    for token in sorted(range(len(p)), key=lambda i: (-p[i], i)):
        if (top_k is not None and len(kept) == top_k) or (top_p is not None and total >= top_p):
            break
        kept.append(token)
        total += p[token]
    return np.array([p[i] / total if i in kept else 0.0 for i in range(len(p))])


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.6}, {"top_k": 3, "top_p": 0.95}],
    ids=str,
)
def test_tokens_have_the_probabilities_of_a_loop_over_them(options):
    drawn = Sampling(**options).choose(SCORES.expand(DRAWS, -1), torch.Generator().manual_seed(0))
    found = np.bincount(drawn.flatten().numpy(), minlength=5) / DRAWS
    wanted = reference(**options)
    # Four standard deviations of a binomial; tokens that are left out never come.
    assert (np.abs(found - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / DRAWS) + 1e-12).all()
    assert (found[wanted == 0] == 0).all()


def test_errors_of_rounding_do_not_change_the_tokens():
    generator = torch.Generator().manual_seed(1)
    # Scores in the middle between edges of rounding, many of them equal.
    scores = torch.randint(-20_000, 0, (500, 60), generator=generator).double() / 4096
    noise = 2e-5 * (torch.rand(500, 60, generator=generator, dtype=torch.float64) - 0.5)
    a, b = (
        Sampling(top_p=0.9).choose(s, torch.Generator().manual_seed(2))
        for s in (scores, (scores + noise).float())
    )
    assert torch.equal(a, b)


def test_temperature_0_takes_the_first_of_the_most_probable():
    scores = torch.tensor([[-2.0, -1.0, -1.0]])
    assert Sampling(temperature=0).choose(scores, None).tolist() == [[1]]


def test_scores_that_are_no_numbers_are_an_error():
    with pytest.raises(ValueError, match="NaN"):
        Sampling().choose(torch.tensor([[0.0, float("nan")]]), None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": -1.0}, "temperature must be"),
        ({"top_k": 0}, "top_k must be"),
        ({"top_p": 0.0}, "top_p must be"),
        ({"top_p": 1.5}, "top_p must be"),
    ],
)
def test_options_out_of_range_are_errors(options, says):
    with pytest.raises(ValueError, match=says):
        Sampling(**options)
