"""What every language model here does: embed, inject, find the states, predict, remember.

A model brings cells, a vocabulary and an injection. This module runs them: to the equilibrium, in one
piece or in subsequences, or through a number of layers, with the same memory in all cases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..implicit import Exact, Gradient, fixed_point
from ..implicit.surroundings.replay import Autocast
from ..solvers import Stopping
from .checks import check_tokens
from .depth import Depth, Equilibrium, Stacked, check_depth
from .output import Memory, Output, Piece
from .vocabulary import Vocabulary


class Cell(nn.Module, ABC):
    """A layer as a map of its states.

    Its weights and masks are formed once in a forward pass and handed to `map` as arguments, so that
    every iteration and its adjoint see the same, and parameters get their gradient once.

    Attributes:
        state: Features of a state.
    """

    state: int

    @abstractmethod
    def weights(self) -> Any:
        """The weights as they are applied: a pytree of tensors."""

    @abstractmethod
    def masks(self, injection: Tensor) -> Any:
        """Dropout masks for a pass over `injection`, `(batch, T, features)`."""

    @abstractmethod
    def inputs(
        self, weights: Any, masks: Any, injection: Tensor, history: Tensor, history_inputs: Tensor
    ) -> Any:
        """All else that `map` depends on, at positions after those of the history."""

    @abstractmethod
    def map(self, z: Tensor, weights: Any, inputs: Any) -> Tensor:
        """`f(z; x)`, `(batch, T, state)`, a function of its arguments alone."""


class _Pass(NamedTuple):
    """A cell with what is drawn and formed once in a forward pass."""

    cell: Cell
    weights: Any
    masks: Any

    def inputs(self, injection: Tensor, history: Tensor, history_inputs: Tensor) -> Any:
        return self.cell.inputs(self.weights, self.masks, injection, history, history_inputs)


class SequenceModel(nn.Module, ABC):
    """A language model with cells, a tied vocabulary and a memory.

    Args:
        depth: Whether states are an equilibrium or come from a number of layers.
        vocabulary: Embeds and predicts.
        cells: One, or as many as `depth` stacks.
    """

    def __init__(self, depth: Depth, vocabulary: Vocabulary, cells: Sequence[Cell]) -> None:
        super().__init__()
        self.depth = depth
        self.vocabulary = vocabulary
        self.cells = nn.ModuleList(cells)

    # --- What a model brings ---------------------------------------------------------------------

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors of the tokens, with dropout."""

    @abstractmethod
    def inject(self, embedded: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """What is injected at each position, and what a memory keeps of its input."""

    @abstractmethod
    def read_out(self, states: Tensor) -> Tensor:
        """What the vocabulary predicts from, with dropout."""

    @abstractmethod
    def empty_memory(self, batch: int) -> Memory:
        """The memory before the first token."""

    @abstractmethod
    def kept(self, keep: int | None) -> int:
        """Positions to keep in memory, `None` for those of the options; an error if not possible."""

    @property
    @abstractmethod
    def most_kept(self) -> int:
        """The most positions that can be of use in memory."""

    def check_length(self, memory: int, length: int) -> None:
        """Raise a `ValueError` if the positions do not suffice."""

    # --- What all do -----------------------------------------------------------------------------

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
            memory: That of the output for the tokens before; `None` at the beginning.
            depth: Apply the cell so often, in place of what the options say: the unrolled network
                with the same parameters, to warm up on. Not for stacked layers.
            start: Where the iteration begins, `(batch, time, state)`; `None` for zeros.
            keep: Positions to remember; `None` for what the options say.

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
        passes = [_Pass(cell, cell.weights(), cell.masks(injection)) for cell in self._cells()]
        z = self._start(start, tokens, embedded)
        if isinstance(self.depth, Stacked):
            states, levels = self._stack(passes, z, injection, memory, depth)
            pieces: tuple[Piece, ...] = ()
        elif isinstance(self.depth, Equilibrium) and depth is None:
            states, pieces = self._solve(passes[0], z, injection, memory, remembered)
            levels = [states]
        else:
            states, pieces = self._unroll(passes[0], z, injection, memory, depth)
            levels = [states]
        return Output(
            hidden=self.read_out(states),
            memory=_extended(memory, levels, remembered, kept),
            states=states,
            pieces=pieces,
        )

    def loss(
        self, tokens: Tensor, targets: Tensor, memory: Memory | None = None, **options: Any
    ) -> tuple[Tensor, Output]:
        """The mean negative log-probability of `targets`, and the output that it comes from.

        Args:
            tokens: `(batch, time)`.
            targets: The tokens to be predicted, `(batch, time)`.
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
        """Log-probabilities of the token after each, `(batch, time, vocabulary)`; see `loss`."""
        output = self(tokens, memory, **options)
        return self.vocabulary.log_probabilities(output.hidden), output

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        steps: int,
        memory: Memory | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Tokens that follow a prompt, one by one, each solve started from the equilibrium before.

        Dropout is off meanwhile. What is remembered is all that the positions or the context allow.

        Args:
            prompt: `(batch, time)`.
            steps: How many tokens to add.
            memory: Of what came before the prompt.
            temperature: Scores are divided by it; 0 takes the most probable token.
            generator: Draws the tokens.

        Returns:
            The new tokens, `(batch, steps)`.

        Raises:
            ValueError: `steps` or `temperature` is out of range; else see `forward`.
        """
        check_depth("steps", steps)
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number ≥ 0, got {temperature!r}")
        was_training, tokens, start = self.training, prompt, None
        self.eval()
        try:
            chosen = []
            for _ in range(steps):
                scores, output = self.log_probabilities(
                    tokens, memory, start=start, keep=self.most_kept
                )
                tokens = _choose(scores[:, -1], temperature, generator)
                chosen.append(tokens)
                memory, start = self._room_for_one(output.memory), output.states[:, -1:]
        finally:
            self.train(was_training)
        return torch.cat(chosen, dim=1)

    # --- Parts of a forward pass -----------------------------------------------------------------

    def _cells(self) -> list[Cell]:
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    def _room_for_one(self, memory: Memory) -> Memory:
        kept = self.most_kept
        states = tuple(state[:, max(state.shape[1] - kept, 0) :] for state in memory.states)
        return Memory(states, memory.inputs[:, max(memory.inputs.shape[1] - kept, 0) :])

    def _solve(
        self, part: _Pass, z: Tensor, injection: Tensor, memory: Memory, remembered: Tensor
    ) -> tuple[Tensor, tuple[Piece, ...]]:
        """The equilibrium, piece after piece; each is the history of the next."""
        assert isinstance(self.depth, Equilibrium)
        how, length = self.depth, injection.shape[1]
        size, token = how.subsequence or length, how.coefficients == "token"
        history, history_inputs = memory.states[0], memory.inputs
        pieces = []
        for start in range(0, length, size):
            piece = slice(start, min(start + size, length))
            inputs = part.inputs(injection[:, piece], history, history_inputs)
            solution = fixed_point(
                part.cell.map,
                z[:, piece],
                part.weights,
                inputs,
                solver=how.solver,
                stopping=floored(how.stopping, injection.dtype),
                gradient=_floored_gradient(how.gradient, injection.dtype),
                batch_dims=2 if token else 1,
                causal=token,
                on_failure=how.on_failure,
                trace=how.trace,
            )
            function = _filled(part.cell.map, part.weights, inputs, z.device)
            pieces.append(Piece(solution.value, function, solution.detach()))
            if piece.stop < length:
                history = torch.cat((history, solution.value), dim=1)
                history_inputs = torch.cat((history_inputs, remembered[:, piece]), dim=1)
        values = [piece.value for piece in pieces]
        return values[0] if len(values) == 1 else torch.cat(values, dim=1), tuple(pieces)

    def _unroll(
        self, part: _Pass, z: Tensor, injection: Tensor, memory: Memory, depth: int | None
    ) -> tuple[Tensor, tuple[Piece, ...]]:
        """The states after a number of layers that share their weights."""
        layers = getattr(self.depth, "depth", None) if depth is None else depth
        check_depth("depth", layers)
        inputs = part.inputs(injection, memory.states[0], memory.inputs)
        function = _filled(part.cell.map, part.weights, inputs, z.device)
        for _ in range(int(layers or 0)):
            z = function(z)
        return z, (Piece(z, function),)

    def _stack(
        self,
        passes: list[_Pass],
        z: Tensor,
        injection: Tensor,
        memory: Memory,
        depth: int | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The states after layers with weights of their own, and the input of each, for the memory."""
        if depth is not None:
            raise ValueError("stacked layers have a depth of their own: leave depth out")
        levels = []
        for part, history in zip(passes, memory.states, strict=True):
            levels.append(z)
            z = part.cell.map(z, part.weights, part.inputs(injection, history, memory.inputs))
        return z, levels

    def _start(self, start: Tensor | None, tokens: Tensor, embedded: Tensor) -> Tensor:
        shape = (*tokens.shape, self._cells()[0].state)
        like = next(self.parameters())
        if start is None:
            return torch.zeros(shape, dtype=like.dtype, device=embedded.device)
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
        # Constants: a memory which had a graph would grow from pass to pass.
        return memory.detach()


# Measured on cells of both models in bfloat16: iterated 100 times, no token is above 0.4 units.
_REACHABLE_UNITS = 1
# The adjoint's residual has the size of the solution, some times that of the cotangent it is relative to.
_ADJOINT_UNITS = 4


def floored(stopping: Stopping, dtype: torch.dtype, units: float = _REACHABLE_UNITS) -> Stopping:
    """`stopping` with a relative tolerance that a cell computed in half precision can reach.

    Examples:
        >>> floored(Stopping(rtol=1e-4), torch.bfloat16).rtol, floored(Stopping(), torch.float32).rtol
        (0.0078125, None)
    """
    if dtype not in (torch.bfloat16, torch.float16):
        return stopping
    return replace(stopping, rtol=max(stopping.rtol or 0.0, units * torch.finfo(dtype).eps))


def _floored_gradient(gradient: Gradient, dtype: torch.dtype) -> Gradient:
    if not isinstance(gradient, Exact) or gradient.stopping is None:
        return gradient
    return replace(gradient, stopping=floored(gradient.stopping, dtype, _ADJOINT_UNITS))


def _filled(
    function: Callable[..., Tensor], weights: Any, inputs: Any, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """`function` of its first argument, wherever it is called in the precision of this pass."""
    surroundings = Autocast.current(device.type)

    def filled(z: Tensor) -> Tensor:
        if Autocast.current(device.type) == surroundings:
            return function(z, weights, inputs)
        with surroundings.context():
            return function(z, weights, inputs)

    return filled


def _choose(scores: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return scores.argmax(dim=-1, keepdim=True)
    probabilities = (scores.float() / temperature).softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)


def _extended(memory: Memory, levels: list[Tensor], inputs: Tensor, kept: int) -> Memory:
    """The last `kept` positions of the memory followed by these, constant."""

    def last(before: Tensor, now: Tensor) -> Tensor:
        both = torch.cat((before, now.detach().to(before.dtype)), dim=1)
        return both[:, max(both.shape[1] - kept, 0) :]

    states = tuple(last(*pair) for pair in zip(memory.states, levels, strict=True))
    return Memory(states, last(memory.inputs, inputs))
