"""Models to hand on: a folder with weights, configuration, symbols and a card.

Weights are in the safetensors format, everything else is JSON: nothing in such a folder is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...options.options import is_integer
from ...options.yaml_text import read_yaml
from .card import card
from .checkpoints import Restored, best, latest, restore, symbols_of
from .configuration import as_text, from_text
from .errors import CheckpointError, ConfigurationError
from .evaluating import Evaluation
from .storage import replace_bytes

CONFIGURATION, WEIGHTS, SYMBOLS, CARD = (
    "config.json", "model.safetensors", "symbols.json", "README.md",
)  # fmt: skip
_FORMAT = "implicitly"


def save_pretrained(
    restored: Restored, folder: str | Path, measured: Mapping[str, Evaluation] | None = None
) -> None:
    """Write a model to a folder: `config.json`, `model.safetensors`, `symbols.json`, and a card, `README.md`.

    Args:
        restored: A checkpoint or a model of another folder.
        folder: A folder that is new, empty, or of a model.
        measured: Evaluations for the card, by the part of the data.

    Raises:
        CheckpointError: The folder holds something else.
        ConfigurationError: The package safetensors is not installed.
        StorageError: A file cannot be written.

    Examples:
        >>> import tempfile
        >>> from implicitly.models.training import Restored, load
        >>> run = load("copy-memory", ["model.width=8", "model.heads=2"])
        >>> model = run.model_for(10)
        >>> folder = tempfile.mkdtemp()
        >>> save_pretrained(Restored(run, 10, 0, model.state_dict()), folder)
        >>> from_pretrained(folder).model().options.width
        8
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise CheckpointError(f"folder must be a folder, got {str(place)!r}")
    if place.is_dir() and any(place.iterdir()) and not is_pretrained(place):
        raise CheckpointError(
            f"{str(place)!r} holds something other than a model: give another folder"
        )
    weights = {name: value.detach().cpu().clone() for name, value in restored.weights.items()}
    described = {
        "format": _FORMAT,
        "configuration": read_yaml(as_text(restored.configuration)),
        "vocabulary": restored.vocabulary,
        "step": restored.step,
        "digests": dict(restored.digests),
        "recoded": restored.recoded,
        "measured": {part: asdict(found) for part, found in (measured or {}).items()},
    }
    symbols = restored.symbols
    content = _safetensors().save(weights, metadata={"format": "pt"})
    replace_bytes(place / WEIGHTS, content)
    if symbols is not None:
        listed = {"level": symbols.level, "symbols": list(symbols.symbols)}
        replace_bytes(place / SYMBOLS, _json(listed))
    else:
        (place / SYMBOLS).unlink(missing_ok=True)
    replace_bytes(place / CARD, card(restored, measured or {}).encode())
    replace_bytes(place / CONFIGURATION, _json(described))


def from_pretrained(folder: str | Path) -> Restored:
    """Read a model that `save_pretrained` has written; `.model()` makes it.

    Raises:
        CheckpointError: A file is missing or corrupt, or the model is of code that has not been imported.
        ConfigurationError: The package safetensors is not installed.

    Examples:
        >>> from_pretrained("nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        implicitly.models.training.errors.CheckpointError: 'nowhere/config.json' is ...
    """
    place = Path(folder)
    described = _read(place / CONFIGURATION)
    vocabulary: Any = described.get("vocabulary")
    step: Any = described.get("step")
    digests, fields = described.get("digests"), described.get("configuration")
    if not (
        described.get("format") == _FORMAT
        and isinstance(fields, dict)
        and isinstance(digests, dict)
        and all(isinstance(digest, str) for digest in digests.values())
        and all(is_integer(size, 0) for size in (vocabulary, step))
    ):
        raise CheckpointError(
            f"{str(place / CONFIGURATION)!r} does not describe a model of implicitly"
        )
    try:
        text = json.dumps(fields, ensure_ascii=False)
        configuration = from_text(text, f"the configuration in {str(place)!r}")
    except ConfigurationError as error:
        raise CheckpointError(str(error)) from error
    listed = _read(place / SYMBOLS) if (place / SYMBOLS).exists() else {}
    return Restored(
        configuration,
        int(vocabulary),
        int(step),
        _weights(place / WEIGHTS),
        digests,
        symbols_of(listed.get("symbols"), listed.get("level"), str(place / SYMBOLS)),
        described.get("recoded") is True,
    )


def is_pretrained(folder: Path) -> bool:
    """True if a folder holds a model that `save_pretrained` has written."""
    return (folder / CONFIGURATION).is_file() and (folder / WEIGHTS).is_file()


def find_model(place: str | Path) -> tuple[Path, Restored]:
    """The file or folder of a model, and its content.

    Args:
        place: A checkpoint; the folder of a run, whose best or else latest checkpoint is taken; or the folder
            of `save_pretrained`.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    place = Path(place)
    if not place.is_dir():
        return place, restore(place)
    if is_pretrained(place):
        return place, from_pretrained(place)
    found = best(place) or latest(place)
    if found is None:
        raise CheckpointError(f"{str(place)!r} holds no checkpoint")
    return found, restore(found)


def _weights(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise CheckpointError(f"{str(file)!r} is missing: it holds the weights")
    safetensors = _safetensors()
    try:
        weights: dict[str, torch.Tensor] = safetensors.load_file(file)
    except Exception as error:  # The file may have been made to break its reader.
        raise CheckpointError(f"{str(file)!r} cannot be read ({type(error).__name__})") from error
    return weights


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(f"{str(file)!r} is missing: the folder is not one of save_pretrained")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{str(file)!r} cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(file)!r} must hold an object of JSON")
    return content


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode()


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ConfigurationError(
            "models are handed on in the format of safetensors, which is not installed: "
            "pip install 'implicitly[models]'"
        ) from error
    return safetensors.torch
