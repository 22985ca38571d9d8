"""Commands of models: faults are said in one line, with an exit status."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from rich.console import Console

DIVERGED, FAULT, INTERRUPTED = 1, 2, 130

_Arguments = ParamSpec("_Arguments")


def with_exit_status(
    command: Callable[Concatenate[Console, _Arguments], None],
) -> Callable[_Arguments, int]:
    """A command that gives its exit status, and says what the user can mend without a traceback."""

    @wraps(command)
    def carried_out(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> int:
        console = Console()
        try:
            from ..models.data import CorpusError
            from ..models.training import (
                CheckpointError,
                ConfigurationError,
                TrainingDivergedError,
            )
        except ImportError as error:
            console.print(f"Error: {error}", markup=False, soft_wrap=True, style="red")
            return FAULT
        try:
            command(console, *arguments, **options)
        except TrainingDivergedError as error:
            console.print(f"Diverged: {error}", markup=False, soft_wrap=True, style="red")
            return DIVERGED
        except (CheckpointError, ConfigurationError, CorpusError) as error:
            console.print(f"Error: {error}", markup=False, soft_wrap=True, style="red")
            return FAULT
        except KeyboardInterrupt:
            console.print("Stopped; --resume goes on from the last checkpoint")
            return INTERRUPTED
        return 0

    return carried_out
