"""State of a process that a cell could leave changed for the next one."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from typing import Any

import torch

_SMALLEST = 1e-310
"""A denormal number of float64, which is zero where these are flushed."""


@dataclass(frozen=True)
class Surroundings:
    """Surroundings of a cell in its process, for comparison before and after it.

    Attributes:
        folder: The working directory.
        variables: Environment variables.
        threads: Threads of Python that are running.
        children: True if the process has children.
        torch: State of PyTorch: default dtype and device, modes, denormal numbers, threads.

    Examples:
        >>> Surroundings.now() == Surroundings.now()
        True
    """

    folder: str
    variables: tuple[tuple[str, str], ...]
    threads: int
    children: bool
    torch: tuple[Any, ...]

    def kept_in(self, later: Surroundings) -> bool:
        """True if these surroundings are as they were; libraries may add variables when they are imported."""
        others = replace(later, variables=self.variables)
        return self == others and set(self.variables) <= set(later.variables)

    @staticmethod
    def now() -> Surroundings:
        """The surroundings as they are."""
        return Surroundings(
            folder=_folder(),
            variables=tuple(sorted(os.environ.items())),
            threads=threading.active_count(),
            children=_has_children(),
            torch=_of_torch(),
        )


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # It has been removed.
        return ""


def _has_children() -> bool:
    if not hasattr(os, "waitid"):  # On macOS before Python 3.13.
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _of_torch() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        str(torch.get_default_device()),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        bool(torch.tensor(_SMALLEST, dtype=torch.float64) * 1 > 0),
    )
