"""Memory that a training step keeps for its backward pass, against iterations: writes memory.png.

Counted are the bytes of all distinct tensors that autograd saves in the forward pass, for an
equilibrium layer with 64 × 256 unknowns whose solver is stopped after a given number of steps.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from implicitly import (
    Anderson,
    Exact,
    FixedPointIteration,
    ImplicitLayer,
    Phantom,
    Stopping,
    Unrolled,
)

HERE = Path(__file__).parent
BATCH, SIZE = 64, 256
STEPS = [5, 10, 20, 50, 100, 200]
CASES = {
    "Unrolled(), Anderson()": (Anderson(), Unrolled()),
    "Unrolled(), FixedPointIteration()": (FixedPointIteration(), Unrolled()),
    "Phantom(steps=5)": (Anderson(), Phantom(steps=5)),
    "Exact()": (Anderson(), Exact()),
}


def saved_bytes(solver, gradient, steps):
    """Bytes of the storages that autograd holds after a forward pass, parameters aside."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(SIZE, SIZE) / SIZE**0.5)
    layer = ImplicitLayer(
        lambda z, x, W: torch.tanh(z @ W.mT + x),
        solver=solver,
        gradient=gradient,
        # Never converged: exactly `steps` steps are made.
        stopping=Stopping(rtol=0.0, atol=0.0, max_steps=steps, patience=10**6),
        on_failure="accept",
    )
    held = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage
        return tensor

    x = torch.randn(BATCH, SIZE)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        z = layer(x, weight)
    assert int(layer.solution.steps.max()) == steps
    held.pop(weight.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in held.values()), z


def draw(axes):
    """Draw the curves and print their numbers."""
    for name, (solver, gradient) in CASES.items():
        mebibytes = [saved_bytes(solver, gradient, steps)[0] / 2**20 for steps in STEPS]
        axes.loglog(STEPS, mebibytes, marker="o", label=name)
        print(f"{name:34s}" + "".join(f"{value:10.2f}" for value in mebibytes))
    axes.set(
        xlabel="iterations of the solver",
        ylabel="MiB held for the backward pass",
        title="Memory of a training step",
    )
    axes.legend()


if __name__ == "__main__":
    plt.style.use(HERE / "implicitly.mplstyle")
    figure, axes = plt.subplots(figsize=(5, 3.6))
    draw(axes)
    figure.savefig(HERE / "memory.png")
