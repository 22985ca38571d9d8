"""Cells that change their process in every way, each between two that say how they found theirs.

The status of an ordinary cell has its own name, and lists what is other than it should be.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

# The process of a cell knows this file alone.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from faults.hostile import ACTS, answer
from implicitly.studies.methods import Attempt, StudyEquation

FOLDER, VARIABLES = os.getcwd(), dict(os.environ)
ABS, RESIDUAL, CLOCK, DUMPS = torch.Tensor.abs, None, time.perf_counter, __import__("json").dumps


def changes(equation: StudyEquation) -> list[str]:
    """Names of what is other than at the start of a process."""
    import json

    found = {
        "folder": os.getcwd() != FOLDER,
        "environment": dict(os.environ) != VARIABLES,
        "threads": threading.active_count() != 1,
        "dtype": torch.get_default_dtype() != torch.float32,
        "device": str(torch.get_default_device()) != "cpu",
        "modes": torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack() > 0,
        "grad": not torch.is_grad_enabled() or torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "denormal": bool(torch.tensor(1e-310, dtype=torch.float64) * 1 == 0),
        "patched torch": torch.Tensor.abs is not ABS,
        "patched clock": time.perf_counter is not CLOCK,
        "patched json": json.dumps is not DUMPS,
        "patched problem": "hostile" in str(type(equation.problem).function),
        "descriptors": len(os.listdir("/proc/self/fd")) > 8,
        "signals": signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL,
        "umask": _umask() != _UMASK,
        "path": "/hostile" in sys.path,
        "numpy errors": np.geterr()["divide"] == "raise",
        "recursion": sys.getrecursionlimit() < 500,
    }
    return [name for name, changed in found.items() if changed]


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


_UMASK = _umask()


class Ordinary:
    family, packages = "peer", ()

    def __init__(self, number: int):
        self.label = f"ordinary-{number}"

    def solve(self, equation: StudyEquation) -> Attempt:
        return answer(equation, status=" ".join([self.label, *changes(equation)]))


class Hostile:
    family, packages = "peer", ()

    def __init__(self, label, act):
        self.label, self.act = label, act

    def solve(self, equation: StudyEquation) -> Attempt:
        return self.act(equation) or answer(equation)


solvers: dict[str, object] = {}
for _number, (_label, _function) in enumerate(ACTS.items()):
    solvers[_label] = Hostile(_label, _function)
    solvers[f"ordinary-{_number}"] = Ordinary(_number)

configuration = {
    "name": "hostile",
    "problems": ["boggs"],
    "solvers": list(solvers),
    "time_limit": 2,
    "memory_limit": 1024,
    "max_evaluations": 200,
}
