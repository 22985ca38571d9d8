"""Base of the language models: embed, inject, find the states, predict, remember.

A model defines cells, a vocabulary and an injection. The base runs them to the equilibrium, in one piece or
in subsequences, or through a number of layers; the memory is the same in all cases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..options.options import check_integer
from .cell import Cell, Pass
from .checks import check_tokens
from .depth import Depth, number_of_cells
from .memory import Memory
from .output import Output
from .sampling import Sampling
from .states import Given, find
from .vocabulary import Vocabulary


class SequenceModel(nn.Module, ABC):
    """A language model with cells, a tied vocabulary and a memory.

    Args:
        depth: An equilibrium, or a number of layers.
        vocabulary: The vocabulary, which embeds and predicts tokens.
        cell: Makes a cell; it is called once, or as often as `depth` stacks.
    """

    def __init__(self, depth: Depth, vocabulary: Vocabulary, cell: Callable[[], Cell]) -> None:
        super().__init__()
        self.depth = depth
        self.vocabulary = vocabulary
        self.cells = nn.ModuleList(cell() for _ in range(number_of_cells(depth)))

    # --- Parts that a model defines --------------------------------------------------------------

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors of the tokens, with dropout."""

    @abstractmethod
    def inject(self, embedded: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The injection at each position, and the part of it that a memory keeps."""

    @abstractmethod
    def read_out(self, states: Tensor) -> Tensor:
        """Features for the vocabulary's predictions, with dropout."""

    @abstractmethod
    def empty_memory(self, batch: int) -> Memory:
        """The memory before the first token."""

    @abstractmethod
    def kept(self, keep: int | None) -> int:
        """Positions to keep in memory; `None` stands for those of the options. Invalid numbers raise."""

    @property
    @abstractmethod
    def most_kept(self) -> int:
        """Largest useful number of positions in memory."""

    def check_length(self, memory: int, length: int) -> None:
        """Raise a `ValueError` if the positions do not suffice."""

    # --- Parts that are common -------------------------------------------------------------------

    def forward(
        self,
        tokens: Tensor,
        memory: Memory | None = None,
        *,
        depth: int | None = None,
        start: Tensor | None = None,
        keep: int | None = None,
    ) -> Output:
        """The hidden features of all positions.

        Args:
            tokens: `(batch, time)`, integers.
            memory: The memory in the output for the preceding tokens; `None` at the beginning.
            depth: Number of applications of the cell, in place of that of the options: the unrolled network
                with the same parameters, for warming up. It is not for stacked layers.
            start: Start of the iteration, `(batch, time, state)`; `None` for zeros.
            keep: Positions to remember; `None` for those of the options.

        Raises:
            TypeError: `tokens` are not integers, or `memory` is not a `Memory`.
            ValueError: A token is out of range, the sequence is too long, or `memory` or `start`
                do not fit.
            SolveError: A system was not solved, with `on_failure="raise"`.
        """
        tokens = check_tokens("tokens", tokens, self.vocabulary.size)
        memory = self._checked_memory(tokens, memory)
        kept = self.kept(keep)
        embedded = self.embed(tokens)
        injection, remembered = self.inject(embedded, memory)
        passes = [Pass(cell, cell.weights(), cell.masks(injection)) for cell in self._cells()]
        z = self._start(start, tokens, embedded)
        found = find(self.depth, passes, z, Given(injection, remembered, memory), depth)
        return Output(
            hidden=self.read_out(found.states),
            memory=memory.extended(found.levels, remembered, kept),
            states=found.states,
            pieces=found.pieces,
        )

    def loss(
        self, tokens: Tensor, targets: Tensor, memory: Memory | None = None, **options: Any
    ) -> tuple[Tensor, Output]:
        """The mean negative log-probability of `targets`, with the output of the pass.

        Args:
            tokens: `(batch, time)`.
            targets: The tokens to predict, `(batch, time)`.
            memory: See `forward`.
            options: `depth`, `start` and `keep` of `forward`.
        """
        losses, output = self.losses(tokens, targets, memory, **options)
        return losses.mean(), output

    def losses(
        self, tokens: Tensor, targets: Tensor, memory: Memory | None = None, **options: Any
    ) -> tuple[Tensor, Output]:
        """The negative log-probability of each target, `(batch, time)`; see `loss`."""
        targets = check_tokens("targets", targets, self.vocabulary.size)
        if targets.shape != tokens.shape:
            raise ValueError(
                f"targets must have the shape of tokens, {tuple(tokens.shape)}, got "
                f"{tuple(targets.shape)}"
            )
        output = self(tokens, memory, **options)
        return self.vocabulary.losses(output.hidden, targets), output

    def log_probabilities(
        self, tokens: Tensor, memory: Memory | None = None, **options: Any
    ) -> tuple[Tensor, Output]:
        """Log-probabilities of each next token, `(batch, time, vocabulary)`; see `loss`."""
        output = self(tokens, memory, **options)
        return self.vocabulary.log_probabilities(output.hidden), output

    def generate(
        self,
        prompt: Tensor,
        steps: int,
        memory: Memory | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """Generate tokens after a prompt one by one; each solve starts from the last equilibrium.

        Dropout is off. The same seed of the generator gives the same tokens.

        Args:
            prompt: `(batch, time)`.
            steps: Number of tokens to generate.
            memory: Memory of the text before the prompt.
            temperature: See `Sampling`, as for `top_k` and `top_p`.
            top_k: Number of tokens to choose from.
            top_p: Least probability of the tokens to choose from.
            generator: Random generator for the tokens.
            keep: Positions to remember; `None` for as many as the positions or the context allow.

        Returns:
            The new tokens, `(batch, steps)`.

        Raises:
            ValueError: `steps`, or an option of the sampling, is out of range; else see `forward`.
        """
        check_integer("steps", steps, 1)
        sampling = Sampling(temperature, top_k, top_p)
        return torch.cat(
            [*islice(self.stream(prompt, memory, sampling, generator, keep), steps)], dim=1
        )

    def stream(
        self,
        prompt: Tensor,
        memory: Memory | None = None,
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        keep: int | None = None,
    ) -> Iterator[Tensor]:
        """Tokens after a prompt, `(batch, 1)` each, without end; see `generate`."""
        sampling, tokens, start = sampling or Sampling(), prompt, None
        kept = self.most_kept if keep is None else keep
        while True:
            was_training = self.training
            self.eval()
            try:
                with torch.no_grad():
                    scores, output = self.log_probabilities(tokens, memory, start=start, keep=kept)
            finally:
                self.train(was_training)
            tokens = sampling.choose(scores[:, -1], generator)
            yield tokens
            memory, start = output.memory.last(kept), output.states[:, -1:]

    # --- Parts of a forward pass -----------------------------------------------------------------

    def _cells(self) -> list[Cell]:
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    def _start(self, start: Tensor | None, tokens: Tensor, embedded: Tensor) -> Tensor:
        shape = (*tokens.shape, self._cells()[0].state)
        like = next(self.parameters())
        if start is None:
            # Zeros that take no memory.
            return torch.zeros((), dtype=like.dtype, device=embedded.device).expand(shape)
        if start.shape != shape:
            raise ValueError(f"start must have the shape {shape}, got {tuple(start.shape)}")
        return start.detach().to(like.dtype)

    def _checked_memory(self, tokens: Tensor, memory: Memory | None) -> Memory:
        batch, length = tokens.shape
        empty = self.empty_memory(batch)
        memory = empty if memory is None else memory
        if not isinstance(memory, Memory):
            raise TypeError(
                f"memory must be the memory of an output or None, got {type(memory).__name__}"
            )
        if memory.batch != batch:
            raise ValueError(
                f"memory is that of {memory.batch} sequences, but tokens have {batch}: start with "
                "memory=None, or take memory.rows(...)"
            )
        if len(memory.states) != len(empty.states):
            raise ValueError(
                f"memory has states of {len(memory.states)} layers, but the model has {len(empty.states)}"
            )
        for name, given, wanted in (
            ("states", memory.states[0], empty.states[0]),
            ("inputs", memory.inputs, empty.inputs),
        ):
            if given.shape[2] != wanted.shape[2]:
                raise ValueError(
                    f"memory.{name} have {given.shape[2]} features, but those of the model "
                    f"{wanted.shape[2]}"
                )
        self.check_length(memory.inputs.shape[1], length)
        # Detached, since a graph in the memory would grow from pass to pass.
        return memory.detach()
