"""`verify` on implicit layers of other libraries; prints the table of docs/results/third-party.md.

    pip install -c constraints.txt -e '.[peers]'
    python docs/results/third_party.py

Theseus, whose package does not build in an isolated environment, is examined where it is installed:

    pip install --no-build-isolation --no-deps theseus-ai==0.2.3 torchlie torchkin lie-learn
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchdeq
import torchdiffeq
import torchopt
import xitorch.optimize
from implicitly.verification import Report, Verdict, verify
from torch import Tensor, nn

WIDTH, BATCH = 4, 3


def weight(gain: float = 0.8) -> Tensor:
    """A weight that is not symmetric."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    return (gain * torch.linalg.qr(draw).Q).requires_grad_()


def inputs() -> tuple[Tensor, Tensor]:
    """`x` and `W`."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, WIDTH, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), weight()


def f(z: Tensor, x: Tensor, W: Tensor) -> Tensor:
    """The fixed-point map of every layer here."""
    return torch.tanh(z @ W.mT + x)


def residual(z: Tensor, x: Tensor, W: Tensor) -> Tensor:
    """Zero at the output."""
    return z - f(z, x, W)


def iterated(z: Tensor, x: Tensor, W: Tensor) -> Tensor:
    """The fixed point, by plain iteration."""
    with torch.no_grad():
        for _ in range(400):
            z = f(z, x, W)
    return z


def torchopt_root(solve: Any) -> Callable[..., Tensor]:
    """TorchOpt's `custom_root` with a linear solver."""
    decorated = torchopt.diff.implicit.custom_root(residual, argnums=(1, 2), solve=solve)

    @decorated
    def solver(z: Tensor, x: Tensor, W: Tensor) -> Tensor:
        return iterated(z, x, W)

    return lambda x, W: solver(torch.zeros_like(x), x, W)


def torchdeq_layer(**options: Any) -> Callable[..., Tensor]:
    """TorchDEQ's layer, solved to 1e-12."""
    deq = torchdeq.get_deq(
        f_solver="fixed_point_iter", f_max_iter=400, f_tol=1e-12, f_stop_mode="rel",
        b_solver="fixed_point_iter", b_max_iter=400, b_tol=1e-12, b_stop_mode="rel", **options,
    )  # fmt: skip
    return lambda x, W: deq(lambda z: f(z, x, W), torch.zeros_like(x))[0][-1]


def theseus_layer(mode: str) -> Callable[..., Tensor]:
    """The least-squares layer of Theseus with `z − f(z, x)` as its cost, by Gauss-Newton."""
    import theseus as th

    def cost(optim_vars: Any, aux_vars: Any) -> Tensor:
        (z,), (x, W) = optim_vars, aux_vars
        return z.tensor - torch.tanh((W.tensor @ z.tensor.unsqueeze(-1)).squeeze(-1) + x.tensor)

    def layer(x: Tensor, W: Tensor) -> Tensor:
        batch, n = x.shape
        unknown, given = (th.Vector(n, name=name, dtype=x.dtype) for name in ("z", "x"))
        matrix = th.Variable(torch.zeros(1, n, n, dtype=x.dtype), name="W")
        weight = th.ScaleCostWeight(torch.ones(1, 1, dtype=x.dtype))
        objective = th.Objective(dtype=x.dtype)
        objective.add(
            th.AutoDiffCostFunction(
                [unknown], cost, n, aux_vars=[given, matrix], cost_weight=weight
            )
        )
        optimiser = th.GaussNewton(
            objective, linear_solver_cls=th.CholeskyDenseSolver, max_iterations=30,
            abs_err_tolerance=1e-28, rel_err_tolerance=0.0,
        )  # fmt: skip
        start = {"z": torch.zeros_like(x), "x": x, "W": W.expand(batch, n, n)}
        values, _ = th.TheseusLayer(optimiser).forward(
            start, optimizer_kwargs={"backward_mode": mode}
        )
        z: Tensor = values["z"]
        return z

    return layer


def xitorch_equilibrium(x: Tensor, W: Tensor) -> Tensor:
    """The `equilibrium` of xitorch with every tensor passed."""
    return xitorch.optimize.equilibrium(
        f, torch.zeros_like(x), params=(x, W), method="broyden1",
        f_rtol=1e-13, f_tol=1e-13, x_tol=1e-13, maxiter=1000,
        bck_options={"method": "exactsolve"},
    )  # fmt: skip


class Cell(nn.Module):
    """The map with its weight inside."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(weight().detach())

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return f(z, x, self.W)


CELL = Cell()


def xitorch_module() -> Callable[[Tensor], Tensor]:
    """The `equilibrium` of xitorch for a function that closes over a module."""

    def layer(x: Tensor) -> Tensor:
        return xitorch.optimize.equilibrium(
            lambda z, x: CELL(z, x), torch.zeros_like(x), params=(x,), method="broyden1",
            f_rtol=1e-13, f_tol=1e-13, x_tol=1e-13, maxiter=1000,
            bck_options={"method": "exactsolve"},
        )  # fmt: skip

    return layer


class Field(nn.Module):
    """`dz/dt = tanh(W z)`."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(weight().detach())

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(z @ self.W.mT)


def torchdiffeq_layer(integrate: Any, **options: Any) -> Callable[[Tensor], Tensor]:
    """The solution of an ordinary differential equation at time 1, fourth-order, 64 steps."""
    field = Field()
    times = torch.linspace(0, 1, 65, dtype=torch.float64)
    return lambda x: integrate(field, x, times, method="rk4", **options)[-1]


@dataclass(frozen=True)
class Case:
    """A layer of a library, and its equation if it has one."""

    name: str
    make: Callable[[], Callable[..., Tensor]]
    arguments: int = 2
    residual: Callable[..., Tensor] | None = residual


CG = torchopt.linear_solve.solve_cg(maxiter=400, rtol=1e-13)
NORMAL = torchopt.linear_solve.solve_normal_cg(maxiter=400, rtol=1e-13)
CASES = (
    Case("TorchOpt `custom_root`, `solve_cg`, not symmetric", lambda: torchopt_root(CG)),
    Case("TorchOpt `custom_root`, `solve_normal_cg`", lambda: torchopt_root(NORMAL)),
    Case("TorchDEQ, default gradient", lambda: torchdeq_layer()),
    Case("TorchDEQ, `ift=True`", lambda: torchdeq_layer(ift=True)),
    Case("xitorch `equilibrium`", lambda: xitorch_equilibrium),
    Case("xitorch `equilibrium`, module in a closure", xitorch_module, 1,
         lambda z, x: z - CELL(z, x)),
    Case("torchdiffeq `odeint`", lambda: torchdiffeq_layer(torchdiffeq.odeint), 1, None),
    Case("torchdiffeq `odeint_adjoint`",
         lambda: torchdiffeq_layer(torchdiffeq.odeint_adjoint), 1, None),
    *(
        Case(f"Theseus, `backward_mode=\"{mode}\"`", lambda mode=mode: theseus_layer(mode))
        for mode in ("implicit", "unroll")
        if importlib.util.find_spec("theseus")
    ),
)  # fmt: skip


def summary(report: Report, second: bool) -> str:
    """The verdict on derivatives of one order, with the largest error and the causes."""
    found = [f for f in report.findings if f.output.endswith("second order") is second]
    if not found:
        reasons = dict(report.not_exercised)
        return f"not exercised: {reasons.get('second order', '; '.join(report.notes))}"
    verdict = Verdict.worst(f.verdict for f in found)
    text = verdict.name
    if verdict is not Verdict.CORRECT:
        worst = max((f for f in found if f.verdict is verdict), key=lambda f: f.error)
        text += f", {worst.input} by {worst.error:.1e}"
        causes = sorted({f.cause for f in found if f.cause})
        text += f" ({'; '.join(causes)})" if causes else ""
    return text


def examined(case: Case) -> Report:
    """The report on a case."""
    given = inputs()[: case.arguments]
    return verify(case.make(), given, residual=case.residual, effort="full")


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    print("| layer | first derivatives | second derivatives |")
    print("|---|---|---|")
    for case in CASES:
        report = examined(case)
        print(f"| {case.name} | {summary(report, False)} | {summary(report, True)} |", flush=True)


if __name__ == "__main__":
    main()
