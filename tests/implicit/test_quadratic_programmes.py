"""Random quadratic programmes against a dense active-set method of their own."""

from __future__ import annotations

import implicitly as im
import numpy as np
import pytest
import torch

D = torch.float64
Array = np.ndarray


def random_programme(n: int, m: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """A strictly convex objective and inequalities that hold at zero with room to spare."""
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((n, n))
    Q, q = root @ root.T / n + 0.1 * np.eye(n), generator.standard_normal(n)
    return Q, q, generator.standard_normal((m, n)), 0.05 + 0.5 * generator.random(m)


def active_set(Q: Array, q: Array, G: Array, h: Array) -> tuple[Array, Array]:
    """The minimiser and its multipliers from the feasible start zero.

    Source: Nocedal & Wright 2006, algorithm 16.3.
    """
    z, working = np.zeros(len(q)), list[int]()
    for _ in range(50 * (len(q) + len(h))):
        rows = G[working]
        matrix = np.block([[Q, rows.T], [rows, np.zeros((len(working), len(working)))]])
        right = np.concatenate((-Q @ z - q, np.zeros(len(working))))
        step = np.linalg.solve(matrix, right)
        move, held = step[: len(q)], step[len(q) :]
        if np.abs(move).max() <= 1e-12 * max(1.0, np.abs(z).max()):
            if len(held) == 0 or held.min() >= 0:
                multipliers = np.zeros(len(h))
                multipliers[working] = held
                return z, multipliers
            del working[int(held.argmin())]
            continue
        slopes = G @ move
        ahead = [i for i in range(len(h)) if i not in working and slopes[i] > 1e-14]
        lengths = [(h[i] - G[i] @ z) / slopes[i] for i in ahead]
        shortest = min(lengths, default=np.inf)
        z = z + min(1.0, shortest) * move
        if shortest < 1.0:
            working.append(ahead[int(np.argmin(lengths))])
    raise AssertionError("the active set did not settle")


@pytest.mark.parametrize(("n", "m"), [(2, 5), (10, 20), (30, 20), (50, 20)])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_programmes_have_the_minimiser_of_an_active_set_method(
    n: int, m: int, seed: int
) -> None:
    data = random_programme(n, m, seed)
    z, multipliers = active_set(*data)
    Q, q, G, h = map(torch.from_numpy, data)
    found = im.quadratic_programme(Q, q, G=G, h=h).value
    np.testing.assert_allclose(found.z, z, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.inequality, multipliers, rtol=0, atol=1e-8)
    assert (multipliers > 1e-6).any()  # An inequality binds.
