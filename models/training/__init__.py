"""Training of sequence models on Lightning: configurations, runs, checkpoints, evaluation."""

try:
    import lightning  # noqa: F401
    import yaml  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"training needs {error.name}, which is not installed: pip install 'implicitly[models]'"
    ) from error

from .checkpoints import Restored, best, latest, restore
from .configuration import (
    JacobianSettings,
    RandomLimits,
    ShallowStart,
    TrainingConfiguration,
    changed,
    load,
    named,
)
from .data import (
    Batch,
    Batches,
    CopyMemoryTask,
    Data,
    HuggingFace,
    PermutationTask,
    StandardLibrary,
    TextFolder,
)
from .errors import CheckpointError, ConfigurationError, StorageError, TrainingDivergedError
from .evaluating import Evaluation, evaluate, sweep
from .generating import generate_text
from .optimisation import SGD, Adam, Constant, Cosine, Milestones
from .pretrained import find_model, from_pretrained, save_pretrained
from .records import records
from .running import Result, train

__all__ = [
    "SGD",
    "Adam",
    "Batch",
    "Batches",
    "CheckpointError",
    "ConfigurationError",
    "Constant",
    "CopyMemoryTask",
    "Cosine",
    "Data",
    "Evaluation",
    "HuggingFace",
    "JacobianSettings",
    "Milestones",
    "PermutationTask",
    "RandomLimits",
    "Restored",
    "Result",
    "ShallowStart",
    "StandardLibrary",
    "StorageError",
    "TextFolder",
    "TrainingConfiguration",
    "TrainingDivergedError",
    "best",
    "changed",
    "evaluate",
    "find_model",
    "from_pretrained",
    "generate_text",
    "latest",
    "load",
    "named",
    "records",
    "restore",
    "save_pretrained",
    "sweep",
    "train",
]
