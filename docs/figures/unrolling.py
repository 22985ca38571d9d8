"""The unrolled network beside its equilibrium as the depth grows: writes unrolling.png."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from implicitly import ImplicitLayer, Stopping
from implicitly.verification import agreement

HERE = Path(__file__).parent
GAINS = (0.5, 0.8, 0.95)


def layer(gain):
    """A tanh layer of 32 units whose weight is a scaled rotation."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(32, 32, generator=generator, dtype=torch.float64)
    W = (gain * torch.linalg.qr(draw).Q).requires_grad_()
    stopping = Stopping(rtol=1e-12, max_steps=2000)
    return ImplicitLayer(lambda z, x: torch.tanh(z @ W.mT + x), stopping=stopping)


def main():
    """Draw the figure."""
    plt.style.use(HERE / "implicitly.mplstyle")
    figure, axes = plt.subplots(1, len(GAINS), sharey=True, figsize=(9, 3))
    generator = torch.Generator().manual_seed(1)
    x = 0.3 * torch.randn(4, 32, generator=generator, dtype=torch.float64)
    for one, gain in zip(axes, GAINS, strict=True):
        agreement(layer(gain), x.requires_grad_(), range(2, 62, 4)).plot(one)
        one.set_title(f"‖W‖ = {gain}")
    for one in axes[1:]:
        one.set_ylabel("")
    figure.tight_layout()
    figure.savefig(HERE / "unrolling.png", dpi=150)


if __name__ == "__main__":
    main()
