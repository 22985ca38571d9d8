"""Beginning of a run: the checkpoint to continue, the batches in the right codes, the first weights."""

from __future__ import annotations

from pathlib import Path

from ..data import CorpusError, Vocabulary
from ..sequence_model import SequenceModel
from .checkpoints import Restored, by_steps, check_same_run, restore
from .configuration import TrainingConfiguration
from .data import Batches
from .errors import CheckpointError, ConfigurationError
from .records import records


def checkpoint_to_continue(configuration: TrainingConfiguration, folder: Path) -> Path | None:
    """The checkpoint to continue from; `None` if there is none yet.

    The records of a step are written after its checkpoint. A run that was killed in between makes the steps
    since the checkpoint before again, so that none is missing.

    Raises:
        CheckpointError: It is of another run.
    """
    found = by_steps(folder)
    if not found:
        return None
    check_same_run(found[-1][1], restore(found[-1][1]), configuration)
    recorded = records(folder).get("train loss", {})
    every = configuration.log
    whole = [file for step, file in found if step < every or step // every * every - 1 in recorded]
    return whole[-1] if whole else found[-1][1]


def open_batches(
    configuration: TrainingConfiguration, processes: int, symbols: Vocabulary | None
) -> tuple[Batches, bool]:
    """The batches of a run, and whether they are in the codes of symbols other than those of its text.

    Args:
        configuration: Configuration of the run.
        processes: Number of processes that share a batch.
        symbols: Symbols of the weights to begin with; `None` for those of the text.

    Raises:
        CorpusError: Text is missing or empty.
        ConfigurationError: The data does not fit the configuration, or the symbols.
    """
    run = configuration
    try:
        batches = run.data.open(run.batch, run.length, run.seed)
        batches.training(0).rows(0, processes)
    except (CorpusError, ConfigurationError):
        raise
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if symbols is None or symbols == batches.symbols:
        return batches, False
    return batches.recoded(symbols), True


def load_weights(model: SequenceModel, source: Restored, batches: Batches) -> None:
    """Give a model the weights of another run.

    Raises:
        CheckpointError: They are of other sizes, or of unknown symbols.
    """
    if source.symbols is None and batches.symbols is not None:
        raise CheckpointError(
            "the weights to begin with have no symbols, so their tokens cannot be matched with those of the "
            "text: give weights that were trained on text"
        )
    try:
        model.load_state_dict(source.weights)
    except RuntimeError as error:
        raise CheckpointError(
            "the weights to begin with do not fit the model: give the configuration's model the sizes of "
            f"theirs ({error})"
        ) from error
