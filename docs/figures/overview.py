"""The three figures of the documentation side by side, for the README: writes overview.png."""

from pathlib import Path

import gradient_error
import matplotlib.pyplot as plt
import memory
import residuals

HERE = Path(__file__).parent

if __name__ == "__main__":
    plt.style.use(HERE / "implicitly.mplstyle")
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6))
    residuals.draw(left)
    gradient_error.draw(middle)
    memory.draw(right)
    figure.savefig(HERE / "overview.png")
