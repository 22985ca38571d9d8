"""Random numbers: one mask for a call, none taken from others, and no alarm for what others draw."""

import contextlib
import sys
import threading
import time

import implicitly as im
import pytest
import torch

D = torch.float64
CLOSE = 1e-8


def dropped(z, x):
    return 0.5 * torch.nn.functional.dropout(torch.tanh(z), 0.5) + x


def check_one_mask(solution, x):
    """`z = ½ m tanh(z) + x` with `m` 0 or 2, and its derivative for that `m`."""
    z = solution.value.detach()
    mask = (z - x) / (0.5 * torch.tanh(z))
    nearest = 2 * (mask > 1).to(D)
    assert torch.allclose(mask, nearest, atol=1e-6)
    (got,) = torch.autograd.grad(solution.value.sum(), x)
    want = 1 / (1 - 0.5 * nearest * (1 - torch.tanh(z) ** 2))
    assert torch.allclose(got, want, rtol=CLOSE)
    return nearest


@contextlib.contextmanager
def another_thread_draws():
    """A thread that draws all the time; the numbers that it drew are in the list."""
    numbers, ended = [], threading.Event()

    def draw():
        while not ended.is_set():
            numbers.append(float(torch.rand((), dtype=D)))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-3)
    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield numbers
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_another_thread_may_draw_random_numbers_meanwhile():
    x = torch.linspace(0.5, 1.0, 20, dtype=D).requires_grad_()
    plain = im.fixed_point(torch.cos, torch.zeros_like(x)).value
    with another_thread_draws() as numbers:
        for _ in range(3):
            assert torch.equal(im.fixed_point(torch.cos, torch.zeros_like(x)).value, plain)
            check_one_mask(im.fixed_point(dropped, x.detach() + 1, x), x)
        while len(numbers) < 300:
            time.sleep(0.01)
    assert len(set(numbers)) == len(numbers)


def test_masks_of_an_inner_call_while_another_thread_draws():
    x = torch.linspace(0.5, 1.0, 20, dtype=D)

    def outer(z, x):
        return 0.3 * im.fixed_point(dropped, x, z + 1).value + x

    with another_thread_draws():
        z = im.fixed_point(outer, torch.zeros_like(x), x).value
    inner = (z - x) / 0.3
    mask = (inner - z - 1) / (0.5 * torch.tanh(inner))
    assert torch.allclose(mask, 2 * (mask > 1).to(D), atol=1e-6)


def test_a_thread_that_only_waits_changes_no_mask():
    x = torch.linspace(0.5, 1.0, 20, dtype=D).requires_grad_()
    waits = threading.Event()
    thread = threading.Thread(target=waits.wait)
    thread.start()
    try:
        check_one_mask(im.fixed_point(dropped, x.detach() + 1, x), x)
    finally:
        waits.set()
        thread.join()


def test_a_callback_may_draw_random_numbers():
    x = torch.linspace(0.5, 1.0, 20, dtype=D)
    solution = im.fixed_point(
        lambda z, x: 0.5 * torch.tanh(z) + x,
        torch.zeros_like(x),
        x,
        callback=lambda step, norms: float(torch.rand(())) > 2,
    )
    assert bool(solution.converged)


def test_drawing_from_the_second_evaluation_on_is_an_error_with_threads_too():
    calls = []

    def later(z):
        calls.append(z)
        return 0.5 * torch.tanh(z) + (0.0 if len(calls) <= 3 else 0.001 * torch.rand(()))

    with another_thread_draws(), pytest.raises((RuntimeError, im.SolveError)):
        im.fixed_point(later, torch.ones(3), on_failure="accept")
