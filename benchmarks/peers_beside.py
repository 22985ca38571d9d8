"""Contenders of other libraries, for `side_by_side.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cells import TOLERANCE, Case, Contender, weights_of
from torch import Tensor


def torchdeq(case: Case) -> Contender:
    from torchdeq import get_deq

    deq = get_deq(
        f_solver="fixed_point_iter", f_max_iter=200, f_tol=TOLERANCE, b_solver="fixed_point_iter",
        b_max_iter=200, b_tol=TOLERANCE, ift=True,
    )  # fmt: skip
    leaf = case.x.clone().requires_grad_()

    def solve() -> Tensor:
        with torch.no_grad():
            return deq(lambda z: case.cell(z, case.x), torch.zeros_like(case.x))[0][-1]

    def gradient() -> Tensor:
        z = deq(lambda z: case.cell(z, leaf), torch.zeros_like(case.x))[0][-1]
        torch.autograd.grad(z.square().sum(), [leaf, *weights_of(case.cell)])
        return z

    return Contender("TorchDEQ, plain", solve, gradient)


def jax_loop(case: Case) -> Contender:
    """`lax.while_loop` in both passes, with a tolerance for each system, under `jit`."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    f, x = case.jax, jnp.asarray(case.x.numpy())
    weights = [jnp.asarray(w.detach().numpy()) for w in weights_of(case.cell)]
    assert f is not None

    def norms(rows: Any) -> Any:
        return jnp.linalg.norm(rows.reshape(rows.shape[0], -1), axis=1)

    def iterate(g: Any, start: Any, size: Any) -> Any:
        def goes_on(carry: Any) -> Any:
            z, following, _ = carry
            return jnp.any(norms(following - z) > TOLERANCE * size(z))

        def body(carry: Any) -> Any:
            _, z, step = carry
            return z, g(z), step + 1

        return lax.while_loop(goes_on, body, (start, g(start), 0))[0]

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def fixed(weights: Any, x: Any) -> Any:
        return iterate(lambda z: f(z, x, weights, jnp), jnp.zeros_like(x), norms)

    def forward(weights: Any, x: Any) -> Any:
        z = fixed(weights, x)
        return z, (weights, x, z)

    def backward(saved: Any, cotangent: Any) -> Any:
        weights, x, z = saved
        pull = jax.vjp(lambda z: f(z, x, weights, jnp), z)[1]
        size = norms(cotangent)
        u = iterate(lambda u: pull(u)[0] + cotangent, cotangent, lambda _: size)
        return jax.vjp(lambda w, x: f(z, x, w, jnp), weights, x)[1](u)

    fixed.defvjp(forward, backward)
    solve = jax.jit(fixed)
    gradient = jax.jit(
        jax.value_and_grad(lambda w, x: (jnp.sum((z := fixed(w, x)) ** 2), z), (0, 1), has_aux=True)
    )

    def solved() -> Any:
        return jax.block_until_ready(solve(weights, x))

    def differentiated() -> Any:
        return jax.block_until_ready(gradient(weights, x))[0][1]

    return Contender("JAX, while_loop", solved, differentiated)


def jaxopt(case: Case) -> Contender:
    import jax
    import jax.numpy as jnp
    from jaxopt import FixedPointIteration as Plain
    from jaxopt import linear_solve

    f, x = case.jax, jnp.asarray(case.x.numpy())
    weights = [jnp.asarray(w.detach().numpy()) for w in weights_of(case.cell)]
    assert f is not None
    # Its tolerance is on the norm of the whole batch, and absolute.
    tolerance = TOLERANCE * float(np.linalg.norm(case.x.numpy()))
    plain = Plain(
        lambda z, w, x: f(z, x, w, jnp), maxiter=500, tol=tolerance, implicit_diff=True,
        implicit_diff_solve=linear_solve.solve_bicgstab,
    )  # fmt: skip

    def fixed(weights: Any, x: Any) -> Any:
        return plain.run(jnp.zeros_like(x), weights, x).params

    solve = jax.jit(fixed)
    gradient = jax.jit(
        jax.value_and_grad(lambda w, x: (jnp.sum((z := fixed(w, x)) ** 2), z), (0, 1), has_aux=True)
    )
    return Contender(
        "JAXopt, BiCGStab",
        lambda: jax.block_until_ready(solve(weights, x)),
        lambda: jax.block_until_ready(gradient(weights, x))[0][1],
    )


def optimistix(case: Case) -> Contender:
    import jax
    import jax.numpy as jnp
    import optimistix as optx

    f, x = case.jax, jnp.asarray(case.x.numpy())
    weights = [jnp.asarray(w.detach().numpy()) for w in weights_of(case.cell)]
    assert f is not None
    solver = optx.FixedPointIteration(rtol=TOLERANCE, atol=TOLERANCE)

    def fixed(weights: Any, x: Any) -> Any:
        return optx.fixed_point(
            lambda z, args: f(z, args[1], args[0], jnp),
            solver,
            jnp.zeros_like(x),
            (weights, x),
            max_steps=500,
        ).value

    solve = jax.jit(fixed)
    gradient = jax.jit(
        jax.value_and_grad(lambda w, x: (jnp.sum((z := fixed(w, x)) ** 2), z), (0, 1), has_aux=True)
    )
    small = case.x.numel() <= 256  # Its adjoint forms the matrix of the whole batch.
    return Contender(
        "Optimistix",
        lambda: jax.block_until_ready(solve(weights, x)),
        (lambda: jax.block_until_ready(gradient(weights, x))[0][1]) if small else None,
    )
