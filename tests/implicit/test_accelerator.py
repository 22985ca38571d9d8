"""On an accelerator: the same answers, and no waiting for it but at the checks."""

import pytest
import torch
from implicitly import (
    LSMR,
    Anderson,
    Broyden,
    Exact,
    FixedPointIteration,
    NewtonKrylov,
    ScipyRoot,
    SteadyState,
    Stopping,
    fixed_point,
)
from oracle import tanh_map

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def problem(device: str):
    generator = torch.Generator().manual_seed(0)
    w = torch.linalg.qr(torch.randn(32, 32, generator=generator, dtype=torch.float64))[0] * 0.8
    x = torch.randn(16, 32, generator=generator, dtype=torch.float64)
    return w.to(device).requires_grad_(), x.to(device).requires_grad_()


@pytest.mark.parametrize(
    "solver",
    [FixedPointIteration(), Anderson(), Broyden(), NewtonKrylov(), ScipyRoot(), SteadyState()],
    ids=lambda s: type(s).__name__,
)
def test_values_and_gradients_are_those_of_the_processor(solver):
    results = []
    for device in ("cpu", "cuda"):
        w, x = problem(device)
        z = fixed_point(tanh_map, torch.zeros_like(x), w, x, solver=solver, batch_dims=1).value
        assert z.device.type == device
        results.append([t.cpu() for t in (z.detach(), *torch.autograd.grad(z.sum(), (w, x)))])
    for a, b in zip(*results, strict=True):
        # Each within the default tolerance 1e-10 times the condition number 1/(1 − 0.8).
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("adjoint", [LSMR(), ScipyRoot(), SteadyState("euler")], ids=str)
def test_adjoints_of_other_kinds_are_those_of_the_processor(adjoint):
    gradients = []
    for device in ("cpu", "cuda"):
        w, x = problem(device)
        z = fixed_point(
            tanh_map, torch.zeros_like(x), w, x, gradient=Exact(solver=adjoint), batch_dims=1
        )
        gradients.append([t.cpu() for t in torch.autograd.grad(z.value.sum(), (w, x))])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", [Anderson(), Broyden()], ids=lambda s: type(s).__name__)
def test_the_host_waits_only_at_checks(solver):
    w, x = problem("cuda")
    waits = []

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (
                torch.ops.aten._local_scalar_dense.default,
                torch.ops.aten.nonzero.default,
            ) or (
                func is torch.ops.aten._to_copy.default
                and kwargs.get("device") == torch.device("cpu")
            ):
                waits.append(func)
            return func(*args, **(kwargs or {}))

    stopping = Stopping(rtol=0.0, atol=0.0, max_steps=40, check_every=10)
    with torch.no_grad(), Watched():
        fixed_point(
            tanh_map, torch.zeros_like(x), w, x, solver=solver, batch_dims=1,
            stopping=stopping, on_failure="accept",
        )  # fmt: skip
    # One for each check at steps 0, 10, 20, 30 and 40, and what the results take once.
    assert len(waits) <= 5 + 3
