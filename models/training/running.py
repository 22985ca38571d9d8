"""Runs on Lightning, from configuration to result."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader, IterableDataset

from .beginning import checkpoint_to_continue, load_weights, open_batches
from .callbacks import (
    JacobianRegularisation,
    RandomIterationLimits,
    ResidualRegularisation,
    SpectralRadiusMonitor,
    TrainingProgress,
)
from .checkpoints import (
    FOLDER,
    KEPT,
    LATEST,
    check_same_data,
    clean,
    latest,
    restore,
    saved,
)
from .configuration import TrainingConfiguration, as_text
from .data import Batch, Batches, Part
from .errors import CheckpointError, ConfigurationError, TrainingDivergedError
from .module import LanguageModelling
from .pretrained import find_model
from .storage import WholeCheckpoints, held, replace_bytes, storage_errors

Strategy = Literal["auto", "ddp", "fsdp"]


@dataclass(frozen=True)
class Result:
    """Result of a run.

    Attributes:
        folder: Folder with `checkpoints`, `csv` and `tensorboard`.
        steps: Total number of steps.
        module: The module at its end.
        metrics: The last logged value of each metric.
    """

    folder: Path
    steps: int
    module: LanguageModelling
    metrics: dict[str, float]


class _Numbered(IterableDataset[Batch]):
    """Rows of one process of all batches from a number on."""

    def __init__(self, batches: Iterator[Batch], process: int, processes: int) -> None:
        self._batches, self._process, self._processes = batches, process, processes

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield batch.rows(self._process, self._processes)


class _Data(LightningDataModule):
    """Batches of a run for Lightning; a resumed run continues with the next batch."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches, self._first = batches, 0

    def train_dataloader(self) -> Any:
        def endless() -> Iterator[Batch]:
            number = self._first
            while True:
                yield self._batches.training(number)
                number += 1

        return self._loader(endless())

    def val_dataloader(self) -> Any:
        return self._loader(_Again(self._batches, "valid"))

    def _loader(self, batches: Any) -> DataLoader[Batch]:
        assert self.trainer is not None  # for the type checker: Lightning has set it
        shared = _Numbered(batches, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(shared, batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None  # for the type checker: Lightning has set it
        return {"batches": self.trainer.fit_loop.total_batch_idx + 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._first = state_dict["batches"]


@dataclass(frozen=True)
class _Again:
    """The held-out batches, from the first one at each call."""

    batches: Batches
    part: Part

    def __iter__(self) -> Iterator[Batch]:
        return self.batches.held_out(self.part)


def train(
    configuration: TrainingConfiguration,
    folder: str | Path,
    *,
    resume: bool = False,
    weights: str | Path | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: Strategy = "auto",
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Train a model.

    Args:
        configuration: The configuration.
        folder: Folder for checkpoints and records.
        resume: True to continue from the latest checkpoint in `folder`, with the result of an
            uninterrupted run; without a checkpoint it starts anew.
        weights: A checkpoint, the folder of a run, or that of `save_pretrained`, whose weights and symbols
            the run begins with (fine-tuning); a run that is resumed has its own.
        accelerator: `"cpu"`, `"gpu"`, or `"auto"`.
        devices: Processes, or accelerators, of each machine.
        nodes: Machines.
        strategy: Strategy of Lightning for several devices: `"ddp"` or `"fsdp"`.
        progress: True to show a progress bar.
        callbacks: Further callbacks of Lightning.

    Raises:
        CheckpointError: `folder` holds a run and `resume` is false; or the checkpoint is corrupt, of another
            run, or of a text that has changed; or another process trains there.
        StorageError: The disk is full, or the folder cannot be written to; the last checkpoints stay.
        KeyboardInterrupt: The run was interrupted; resume it.
        ConfigurationError: The batch cannot be split among the processes, or there is no such accelerator.
        CorpusError: Text is missing or empty.
        TrainingDivergedError: The loss is too large or not finite; the last checkpoints stay.

    Examples:
        >>> import tempfile
        >>> from implicitly.models import TransformerOptions, WeightTied
        >>> from implicitly.models.training import TrainingConfiguration, CopyMemoryTask, train
        >>> sizes = TransformerOptions(10, width=8, heads=2, depth=WeightTied(2))
        >>> run = TrainingConfiguration("tiny", sizes, CopyMemoryTask(5, training=64, test=16), steps=2)
        >>> train(run, tempfile.mkdtemp(), accelerator="cpu").steps
        2
    """
    folder = Path(folder)
    if not resume and saved(folder):
        raise CheckpointError(
            f"{str(folder)!r} holds a run already: resume it (--resume), or give another --output"
        )
    with held(folder):
        start = checkpoint_to_continue(configuration, folder) if resume else None
        source = None if start is not None or weights is None else find_model(weights)[1]
        there = None if start is None else restore(start)
        symbols = source.symbols if source else there.symbols if there and there.recoded else None
        batches, recoded = open_batches(configuration, devices * nodes, symbols)
        if start is not None and there is not None:
            check_same_data(start, there, batches)
        module = LanguageModelling(configuration, batches, recoded)
        if source is not None:
            load_weights(module.model, source, batches)
        replace_bytes(folder / "configuration.yaml", as_text(configuration).encode())
        clean(folder)
        trainer = _trainer(
            configuration, folder, accelerator, devices, nodes, strategy, progress, callbacks
        )
        _fit(trainer, module, batches, folder, start)
        if trainer.is_global_zero:
            clean(folder)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Result(folder, trainer.global_step, module, metrics)


def _trainer(
    configuration: TrainingConfiguration,
    folder: Path,
    accelerator: str,
    devices: int,
    nodes: int,
    strategy: Strategy,
    progress: bool,
    callbacks: Sequence[Callback],
) -> Trainer:
    with _quiet(), storage_errors(folder):
        try:
            return Trainer(
                accelerator=accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy=strategy if devices * nodes > 1 or strategy != "auto" else "auto",
                precision=configuration.precision,
                max_steps=configuration.steps,
                max_epochs=-1,
                accumulate_grad_batches=configuration.accumulate,
                gradient_clip_val=configuration.clip,
                val_check_interval=configuration.validate * configuration.accumulate,
                check_val_every_n_epoch=None,
                num_sanity_val_steps=0,
                log_every_n_steps=configuration.log,
                logger=[
                    CSVLogger(folder, name="csv"),
                    TensorBoardLogger(folder, name="tensorboard"),
                ],
                callbacks=[*_callbacks(configuration, folder, progress), *callbacks],
                plugins=[WholeCheckpoints()],
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=folder,
            )
        except (ValueError, MisconfigurationException) as error:
            raise ConfigurationError(f"Lightning cannot run so: {error}") from error


def _fit(
    trainer: Trainer, module: LanguageModelling, batches: Batches, folder: Path, start: Path | None
) -> None:
    """Train, and turn the ends of Lightning into those that `train` documents."""
    stop = _StopBetweenSteps()
    trainer.callbacks.append(stop)  # type: ignore[attr-defined]
    with _quiet(), stop.listening(), storage_errors(folder):
        try:
            trainer.fit(module, _Data(batches), ckpt_path=start, weights_only=True)
        except TrainingDivergedError as error:
            kept = latest(folder)
            said = (
                f"the last good checkpoint is {str(kept)!r}"
                if kept
                else "there is no checkpoint yet"
            )
            raise TrainingDivergedError(f"{error}; {said}") from error
        except SystemExit as error:
            # Lightning leaves the interpreter when it is interrupted; a caller may want to go on.
            if trainer.interrupted:
                raise KeyboardInterrupt from error
            raise
    if trainer.interrupted:
        raise KeyboardInterrupt


class _StopBetweenSteps(Callback):
    """Callback that interrupts a run between two steps once a signal has asked for it.

    An exception that a signal raises within a step can leave the locks of loggers held, and the end of the
    run would then wait for them. A second signal interrupts at once.
    """

    def __init__(self) -> None:
        self._wanted = False

    def on_train_batch_end(self, *arguments: Any) -> None:
        if self._wanted:
            raise KeyboardInterrupt

    def on_validation_batch_end(self, *arguments: Any) -> None:
        if self._wanted:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: Any) -> None:
        if self._wanted:
            raise KeyboardInterrupt
        self._wanted = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over signals that interrupt; restore their handlers, which Lightning sets to ignore them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, self._ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _callbacks(
    configuration: TrainingConfiguration, folder: Path, progress: bool
) -> list[Callback]:
    run = configuration
    chosen: list[Callback] = [
        ModelCheckpoint(
            folder / FOLDER, filename=f"{LATEST}={{step}}", auto_insert_metric_name=False,
            every_n_train_steps=run.checkpoint, save_top_k=KEPT, monitor="step", mode="max",
            enable_version_counter=False,
        ),
        ModelCheckpoint(
            folder / FOLDER, filename="best", monitor="valid loss", save_top_k=1,
            enable_version_counter=False,
        ),
    ]  # fmt: skip
    if run.steps % run.checkpoint:
        chosen.append(_LastStep(folder))
    if run.shallow.residual:
        chosen.append(ResidualRegularisation(run.shallow))
    if run.jacobian.weight:
        chosen.append(JacobianRegularisation(run.jacobian, run.seed))
    if run.limits is not None:
        chosen.append(RandomIterationLimits(run.limits, run.seed))
    if run.monitor:
        chosen.append(SpectralRadiusMonitor(run.monitor, run.seed))
    if progress:
        chosen.append(TrainingProgress(run.title))
    return chosen


class _LastStep(Callback):
    """Callback that writes the checkpoint of the last step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        file = self._folder / FOLDER / f"{LATEST}={trainer.global_step}.ckpt"
        if trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint(file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence hints of Lightning that do not apply here, but not warnings of the solves."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        log.setLevel(level)
