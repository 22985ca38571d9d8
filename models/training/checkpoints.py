"""Checkpoints: finding them, reading them without running their content, and checks before continuing."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..sequence_model import SequenceModel
from .configuration import TrainingConfiguration, from_text
from .errors import CheckpointError
from .fields import as_fields
from .module import RECORD

FOLDER = "checkpoints"
LATEST = "step"
_OF_STEP = re.compile(rf"{LATEST}=(\d+)\.ckpt")


class Restored(NamedTuple):
    """Content of a checkpoint.

    Attributes:
        configuration: Configuration of the run.
        vocabulary: Number of tokens.
        step: Number of steps.
        weights: Weights of the model.
    """

    configuration: TrainingConfiguration
    vocabulary: int
    step: int
    weights: dict[str, torch.Tensor]

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
    found = [(int(m[1]), file) for file in saved(folder) if (m := _OF_STEP.fullmatch(file.name))]
    return max(found)[1] if found else None


def saved(folder: str | Path) -> list[Path]:
    """All checkpoints of a run."""
    return sorted((Path(folder) / FOLDER).glob("*.ckpt"))


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
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {str(file)!r}") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
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
    weights = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
    configuration = from_text(record["configuration"], f"the configuration in {str(file)!r}")
    return Restored(configuration, record["vocabulary"], content["global_step"], weights)


def check_same_run(file: Path, there: Restored, wanted: TrainingConfiguration) -> None:
    """Raise a `CheckpointError` unless a checkpoint can be continued with a configuration.

    Model, data, seed, batch and length must be the same; other fields may change.
    """
    before, now = as_fields(there.configuration), as_fields(wanted)
    for name in ("model", "data", "seed", "batch", "length", "accumulate"):
        a, b = before.get(name), now.get(name)
        if a != b:
            raise CheckpointError(
                f"{str(file)!r} is of another run, its {_difference(name, a, b)}: resume it with its own "
                "configuration, or give another --output"
            )


def _difference(name: str, a: Any, b: Any) -> str:
    """The first field in which two values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in (*a, *(key for key in b if key not in a)):
            if key not in ("vocabulary",) and a.get(key) != b.get(key):
                return _difference(f"{name}.{key}", a.get(key), b.get(key))

    def said(value: Any) -> str:
        return "its default" if value is None else repr(value)

    return f"{name} is {said(a)} and not {said(b)}"
