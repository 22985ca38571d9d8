"""Exit statuses of commands; expected errors print one line in place of a traceback."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Concatenate, NamedTuple, ParamSpec

from rich.console import Console

from .extras import install_line, missing

_Arguments = ParamSpec("_Arguments")


class End(NamedTuple):
    """End of a command that an exception stops: its exit status, and the line that is printed."""

    status: int
    said: str = "Error: {}"
    style: str = "red"


FAULT = End(2)
MISSING = End(2, "{}")
DIVERGED = End(1, "Diverged: {}")
STOPPED = End(130, "Stopped; the rows so far are stored, and the same command goes on", style="")
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
INTERRUPTED = End(130, "Stopped; --resume goes on from the last checkpoint", style="")
# Keys are names of verdicts, since importing the verifier would import PyTorch for every command.
VERDICTS = {"CORRECT": 0, "WRONG": 1, "UNCONVERGED": 3, "UNRELIABLE": 4}


def model_command(
    command: Callable[Concatenate[Console, _Arguments], None],
) -> Callable[_Arguments, int]:
    """A command of models that returns its exit status."""
    return _with_exit_status(command, _ends_of_models, "models")


def study_command(
    command: Callable[Concatenate[Console, _Arguments], None],
) -> Callable[_Arguments, int]:
    """A command of studies that returns its exit status."""
    return _with_exit_status(command, _ends_of_studies, "studies")


def _ends_of_models() -> Mapping[type[BaseException], End]:
    # Imported here because it is an extra.
    from ..models.code import CodeError
    from ..models.data import CorpusError
    from ..models.training import (
        CheckpointError,
        ConfigurationError,
        StorageError,
        TrainingDivergedError,
    )

    return {
        TrainingDivergedError: DIVERGED,
        CheckpointError: FAULT,
        ConfigurationError: FAULT,
        StorageError: FAULT,
        CorpusError: FAULT,
        CodeError: FAULT,
        OSError: FAULT,
        KeyboardInterrupt: INTERRUPTED,
    }


def _ends_of_studies() -> Mapping[type[BaseException], End]:
    from ..studies import GuardError, StoreError, StudyError

    return {
        StudyError: FAULT,
        StoreError: FAULT,
        GuardError: FAULT,
        OSError: FAULT,
        KeyboardInterrupt: STOPPED,
    }


def _with_exit_status(
    command: Callable[Concatenate[Console, _Arguments], None],
    ends_by_exception: Callable[[], Mapping[type[BaseException], End]],
    extra: str,
) -> Callable[_Arguments, int]:
    @wraps(command)
    def carried_out(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> int:
        console = plain_console()
        ends: Mapping[type[BaseException], End] = {}
        try:
            ends = ends_by_exception()
            with ended_by_signals():
                command(console, *arguments, **options)
        except ImportError as error:
            if not missing(extra):
                raise
            return _ended(console, MISSING, _lacking(extra, error))
        except tuple(ends) as error:
            end = next(end for kind, end in ends.items() if isinstance(error, kind))
            return _ended(console, end, error)
        return 0

    return carried_out


def plain_console() -> Console:
    """A console that prints text as it is: brackets are no markup, and colons no emoji."""
    return Console(markup=False, emoji=False, highlight=False)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let the signal that ends a process interrupt the command, as Ctrl-C does, so that it tidies up.

    A process that ignores the signal, as after `nohup`, goes on ignoring it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _lacking(extra: str, error: ImportError) -> str:
    return (
        f"This command needs what the extra {extra!r} installs; {', '.join(missing(extra))} cannot be found "
        f"({error}). To install it:\n  {install_line(extra)}"
    )


def _ended(console: Console, end: End, error: BaseException | str) -> int:
    console.print(end.said.format(error), soft_wrap=True, style=end.style or None)
    return end.status
