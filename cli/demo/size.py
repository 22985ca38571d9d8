"""Size of the demonstration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Numbers that determine the duration of the demonstration.

    Attributes:
        characters: Approximate number of characters of the standard library.
        context: Characters that the network sees.
        embedding: Size of a character's embedding.
        state: Size of the unknown `z`.
        batch: Windows in a training step.
        training_steps: Steps of Adam.
        learning_rate: Largest learning rate of Adam.
        contraction: Limit on the norm of the cell's weights.
        validation: Held-out windows for the loss.
        checked: Held-out windows for the checks.
        depths: Layers of the unrolled networks.
        directions: Random directions for finite differences.
        repeats: Timed solves.
        trained: Changes to the configuration `demo` of the sequence models.
        studied: Problems of the study.
        beats_pairs: True if the network must beat counting pairs, and the sequence models counting
            characters. Otherwise they must beat counting characters, and chance.
    """

    characters: int = 1_500_000
    context: int = 12
    embedding: int = 16
    state: int = 96
    batch: int = 256
    training_steps: int = 1000
    learning_rate: float = 1e-2
    contraction: float = 0.9
    validation: int = 8000
    checked: int = 32
    depths: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40, 48, 64)
    directions: int = 6
    repeats: int = 7
    trained: tuple[str, ...] = ()
    studied: tuple[str, ...] = ("tag:classical",)
    beats_pairs: bool = True


FULL = Size()
FAST = Size(
    characters=200_000,
    context=6,
    embedding=8,
    state=24,
    batch=128,
    training_steps=80,
    learning_rate=2e-2,
    validation=1000,
    checked=6,
    depths=(1, 2, 4, 8, 16, 32, 64),
    directions=2,
    repeats=1,
    trained=("steps=20", "model.width=16", "shallow={steps: 10, residual: 0.1}", "validate=20"),
    studied=("boggs", "wood"),
    beats_pairs=False,
)
