"""Checkpoints: finding them, reading them without running their content, and checks before continuing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from ...files.whole import PART
from ...options.options import is_integer
from ..data import Vocabulary
from ..sequence_model import SequenceModel
from .configuration import TrainingConfiguration, as_text, from_text
from .data import Batches
from .errors import CheckpointError, ConfigurationError
from .fields import as_fields
from .module import RECORD
from .storage import storage_errors

FOLDER = "checkpoints"
LATEST = "step"
KEPT = 2
"""Checkpoints of the latest steps that are kept."""
_OF_STEP = re.compile(rf"{LATEST}=(\d+)\.ckpt")


class Restored(NamedTuple):
    """Content of a checkpoint.

    Attributes:
        configuration: Configuration of the run.
        vocabulary: Number of tokens.
        step: Number of steps.
        weights: Weights of the model.
        digests: Digests of its data; see `Batches`.
        symbols: Symbols of its text; `None` if it is no text, or in checkpoints of earlier versions.
        recoded: True if these are the symbols of the weights that it began with, and not of its own text.
    """

    configuration: TrainingConfiguration
    vocabulary: int
    step: int
    weights: dict[str, torch.Tensor]
    digests: Mapping[str, str] = MappingProxyType({})
    symbols: Vocabulary | None = None
    recoded: bool = False

    def batches(self, configuration: TrainingConfiguration, batch: int | None = None) -> Batches:
        """The batches of a configuration, in the codes of these weights.

        Args:
            configuration: Configuration with the data.
            batch: Number of sequences; `None` for that of the configuration.

        Raises:
            CorpusError: Text is missing or empty.
        """
        opened = configuration.data.open(
            batch or configuration.batch, configuration.length, configuration.seed
        )
        return opened.recoded(self.symbols) if self.recoded and self.symbols else opened

    def model(self) -> SequenceModel:
        """The model with its weights.

        Raises:
            CheckpointError: The weights do not fit the configuration's model.
        """
        model = self.configuration.model_for(self.vocabulary)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the weights are not those of the configuration in the checkpoint: {error}"
            ) from error
        return model


def latest(folder: str | Path) -> Path | None:
    """The checkpoint of a run with the most steps, if there is one.

    Examples:
        >>> latest("no such folder") is None
        True
    """
    found = by_steps(folder)
    return found[-1][1] if found else None


def by_steps(folder: str | Path) -> list[tuple[int, Path]]:
    """The checkpoints of a run with their steps, in that order.

    Examples:
        >>> by_steps("no such folder")
        []
    """
    return sorted(
        (int(m[1]), file) for file in saved(folder) if (m := _OF_STEP.fullmatch(file.name))
    )


def saved(folder: str | Path) -> list[Path]:
    """All checkpoints of a run."""
    return sorted((Path(folder) / FOLDER).glob("*.ckpt"))


def clean(folder: str | Path) -> None:
    """Remove checkpoints that later ones have superseded, and parts that killed runs have left.

    The two with the most steps stay, and the best.
    """
    place = Path(folder) / FOLDER
    numbered = by_steps(folder)
    for file in [file for _, file in numbered[:-KEPT]] + sorted(place.glob(f"*{PART}")):
        with storage_errors(file):
            file.unlink(missing_ok=True)


def best(folder: str | Path) -> Path | None:
    """The checkpoint with the smallest loss on the validation part, if there is one."""
    found = Path(folder) / FOLDER / "best.ckpt"
    return found if found.exists() else None


def restore(file: str | Path) -> Restored:
    """Read a checkpoint.

    Raises:
        CheckpointError: The file is missing, corrupt, or not from a run of this package.
    """
    file = Path(file)
    if not file.is_file():  # A pipe would block its reader.
        kind = "is no file" if file.exists() else "does not exist"
        raise CheckpointError(f"there is no checkpoint {str(file)!r}: it {kind}")
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # The file may have been made to break its reader.
        others = [other.name for other in sorted(file.parent.glob("*.ckpt")) if other != file]
        hint = f"; beside it are {', '.join(others)}" if others else ""
        raise CheckpointError(
            f"{str(file)!r} cannot be read as a checkpoint ({type(error).__name__}){hint}"
        ) from error
    record = content.get(RECORD) if isinstance(content, dict) else None
    if not isinstance(record, dict) or "state_dict" not in content:
        raise CheckpointError(
            f"{str(file)!r} was not written by a run of implicitly: it has no record of its configuration"
        )
    given, text = content["state_dict"], record.get("configuration")
    vocabulary: Any = record.get("vocabulary")
    step: Any = content.get("global_step")
    if not (
        isinstance(given, dict)
        and all(isinstance(name, str) and isinstance(given[name], torch.Tensor) for name in given)
        and isinstance(text, str)
        and all(is_integer(size, 0) for size in (vocabulary, step))
    ):
        raise CheckpointError(f"{str(file)!r} has a record of its run that cannot be read")
    try:
        configuration = from_text(text, f"the configuration in {str(file)!r}")
    except ConfigurationError as error:
        raise CheckpointError(str(error)) from error
    weights = {name.removeprefix("model."): value for name, value in given.items()}
    digests = record.get("digests")
    return Restored(
        configuration,
        int(vocabulary),
        int(step),
        weights,
        digests if isinstance(digests, dict) else {},
        symbols_of(record.get("symbols"), record.get("level"), str(file)),
        record.get("recoded") is True,
    )


def symbols_of(symbols: Any, level: Any, called: str) -> Vocabulary | None:
    """The symbols in a record; `None` if it has none.

    Raises:
        CheckpointError: They are no symbols.
    """
    if symbols is None:
        return None
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise CheckpointError(f"{called!r} has symbols that cannot be read")
    try:
        return Vocabulary(tuple(symbols), level)
    except ValueError as error:
        raise CheckpointError(f"{called!r} has symbols that cannot be read: {error}") from error


def check_same_run(file: Path, there: Restored, wanted: TrainingConfiguration) -> None:
    """Raise a `CheckpointError` unless a checkpoint can be continued with a configuration.

    Model, data, seed, batch and length must be the same; other fields may change.
    """
    before, now = _comparable(there.configuration), _comparable(wanted)
    for name in ("model", "data", "seed", "batch", "length", "accumulate"):
        a, b = before.get(name), now.get(name)
        if a != b:
            raise CheckpointError(
                f"{str(file)!r} is of another run, its {_difference(name, a, b)}: resume it with its own "
                "configuration, or give another --output"
            )


def check_same_data(file: Path, there: Restored, batches: Batches, *names: str) -> None:
    """Raise a `CheckpointError` if a text is other than when a checkpoint was written.

    Args:
        file: The checkpoint.
        there: Its content.
        batches: The data.
        names: Names of the digests to compare; all by default.
    """
    if batches.vocabulary != there.vocabulary:
        raise CheckpointError(
            f"the checkpoint {str(file)!r} is of a vocabulary of {there.vocabulary}, but that of the data is "
            f"{batches.vocabulary}: give the text it was trained on (--set data.folder=…)"
        )
    for name in names or tuple(there.digests):
        before, now = there.digests.get(name), batches.digests.get(name)
        if before is not None and now is not None and before != now:
            raise CheckpointError(
                f"the {name} of the text have changed since {str(file)!r} was written: give the text it was "
                "trained on (--set data.folder=…), or begin a new run"
            )


def _comparable(configuration: TrainingConfiguration) -> dict[str, Any]:
    """Fields of a configuration as they are after writing and reading; the vocabulary is that of the data."""
    fields: dict[str, Any] = as_fields(from_text(as_text(configuration)))
    fields["model"].pop("vocabulary", None)
    return fields


def _difference(name: str, a: Any, b: Any) -> str:
    """The first field in which two values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in (*a, *(key for key in b if key not in a)):
            if a.get(key) != b.get(key):
                return _difference(f"{name}.{key}", a.get(key), b.get(key))

    def said(value: Any) -> str:
        return "its default" if value is None else repr(value)

    return f"{name} is {said(a)} and not {said(b)}"
