"""Lightning module: a step of training, its logs, and the state of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ..memory import Memory
from ..output import Output
from .configuration import TrainingConfiguration, as_text
from .data import Batch, Batches, generator_of, seed_of
from .errors import TrainingDivergedError
from .tally import backward_work, forward_work

Penalty = Callable[[Output], Tensor]
RECORD = "implicitly"
"""Key of this package's state in a checkpoint."""


class LanguageModelling(LightningModule):
    """A sequence model in training.

    Random numbers of a step (dropout, depth, noise) depend on the seed and the step's number alone. So a
    resumed run continues like an uninterrupted one.

    Args:
        configuration: Configuration of the run.
        batches: Its data, whose symbols and digests checkpoints keep.
        recoded: True if the symbols are those of other weights and not of its text.

    Attributes:
        model: The model.
        penalties: Terms added to the loss; callbacks append theirs.
        memory: Memory after the last batch.
        output: Output of the current step's forward pass.
    """

    def __init__(
        self,
        configuration: TrainingConfiguration,
        batches: Batches,
        recoded: bool = False,
    ) -> None:
        super().__init__()
        self.configuration = configuration
        self.vocabulary_size = batches.vocabulary
        self._digests, self._symbols = dict(batches.digests), batches.symbols
        self._recoded = recoded
        torch.manual_seed(seed_of(configuration.seed))
        self.model = configuration.model_for(batches.vocabulary)
        self.penalties: list[Penalty] = []
        self.memory: Memory | None = None
        self.output: Output | None = None
        self._held_out: Memory | None = None

    # --- A step ----------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """Number of the current micro-batch, from 0 on."""
        return self.trainer.fit_loop.total_batch_idx

    def layers(self, step: int) -> int | None:
        """Number of layers of the step; `None` for the model's own depth."""
        shallow = self.configuration.shallow
        if step >= shallow.within(self.configuration.steps):
            return None
        if step < shallow.alone or shallow.most is None:
            return shallow.least
        generator = generator_of(self.configuration.seed, 1, step)
        return int(torch.randint(shallow.least, shallow.deepest + 1, (), generator=generator))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(seed_of(self.configuration.seed, 2, self.number, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        memory = None if batch.first else self._mine(self.memory)
        loss, output = self.model.loss(
            batch.tokens, batch.targets, memory, depth=self.layers(self.global_step)
        )
        self._check(loss)
        self.memory, self.output = output.memory, output
        total = loss
        for penalty in self.penalties:
            total = total + penalty(output)
        self._record("train", loss.detach(), len(batch.tokens))
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = [p.grad for p in self.parameters() if p.grad is not None]
        self.log("gradient norm", torch.nn.utils.get_total_norm(parameters))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        assert self.output is not None  # for the type checker: a step has been made
        for name, value in (forward_work(self.output) | backward_work(self.output)).items():
            self.log(name, value)
        self.output = None

    def _mine(self, memory: Memory | None) -> Memory | None:
        """The memory on this device; after resuming, this process's rows of the gathered memory."""
        if memory is None:
            return None
        share = self.configuration.batch // self.trainer.world_size
        if memory.batch > share:
            start = self.global_rank * share
            memory = memory.rows(torch.arange(start, start + share))
        return Memory(
            tuple(state.to(self.device) for state in memory.states), memory.inputs.to(self.device)
        )

    def _check(self, loss: Tensor) -> None:
        value = float(loss.detach())
        if not value <= self.configuration.largest_loss:  # Also true for NaN.
            raise TrainingDivergedError(
                f"the loss of step {self.global_step} is {value:.3g}"
                f"{'' if math.isfinite(value) else ', not a finite number'}: give a smaller learning rate "
                "(optimiser.rate), a smaller clip, or regularise the Jacobian (jacobian.weight)"
            )

    def _record(self, part: str, loss: Tensor, count: int) -> None:
        held_out = part != "train"
        how: dict[str, Any] = {
            "batch_size": count, "on_step": not held_out,
            "on_epoch": held_out, "sync_dist": True,
        }  # fmt: skip
        self.log(f"{part} loss", loss, **how)
        if not held_out:
            self.log(f"{part} perplexity", loss.exp(), **how)

    # --- Held-out text ---------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        memory = None if batch.first else self._held_out
        loss, output = self.model.loss(batch.tokens, batch.targets, memory)
        self._held_out = output.memory
        self._record("valid", loss, batch.tokens.numel())

    def on_validation_epoch_end(self) -> None:
        self._held_out = None
        loss = self.trainer.callback_metrics.get("valid loss")
        if loss is not None:
            self.log("valid perplexity", loss.exp())

    # --- Hooks of Lightning ----------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        run = self.configuration
        optimiser = run.optimiser.make(self.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: run.schedule.factor(step, run.steps)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        memory: list[Tensor] = []
        if self.memory is not None:
            for part in (*self.memory.states, self.memory.inputs):
                gathered: Any = self.all_gather(part) if self.trainer.world_size > 1 else part
                memory.append(gathered.flatten(0, gathered.ndim - part.ndim).cpu())
        checkpoint[RECORD] = {
            "configuration": as_text(self.configuration),
            "vocabulary": self.vocabulary_size,
            "digests": self._digests,
            "symbols": None if self._symbols is None else list(self._symbols.symbols),
            "level": None if self._symbols is None else self._symbols.level,
            "recoded": self._recoded,
            "memory": memory,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        memory = checkpoint[RECORD]["memory"]
        self.memory = Memory(tuple(memory[:-1]), memory[-1]) if memory else None
