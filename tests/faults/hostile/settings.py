"""Cells that change the settings of their process."""

import os
import signal
import sys
import warnings

import numpy as np
import torch

from .registry import act


@act
def sets_the_default_dtype(equation):
    torch.set_default_dtype(torch.float16)


@act
def sets_the_default_device(equation):
    torch.set_default_device("meta")


@act
def leaves_modes_on(equation):
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Lies(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            return (
                torch.zeros(())
                if function is torch.Tensor.max
                else function(*args, **(kwargs or {}))
            )

    class Passes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    Lies().__enter__()
    Passes().__enter__()


@act
def leaves_inference_mode_on(equation):
    torch.inference_mode().__enter__()


@act
def leaves_autocast_on(equation):
    torch.autocast("cpu").__enter__()


@act
def flushes_denormal_numbers(equation):
    torch.set_flush_denormal(True)


@act
def changes_the_folder(equation):
    os.chdir("/")


@act
def removes_its_folder(equation):
    import tempfile

    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


@act
def changes_the_environment(equation):
    os.environ.clear()
    os.environ["OMP_NUM_THREADS"] = "many"


@act
def changes_limits_and_signals(equation):
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.umask(0o777)
    sys.setrecursionlimit(100)


@act
def changes_numpy_and_warnings(equation):
    np.seterr(all="raise")
    warnings.simplefilter("error")
    sys.path.insert(0, "/hostile")
