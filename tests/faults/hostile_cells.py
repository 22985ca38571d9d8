"""Cells that change their process in every way, each between two that say how they found theirs.

The status of an ordinary cell has its own name, and lists what is other than it should be.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
import warnings

import numpy as np
import torch
from implicitly.studies.methods import Attempt, StudyEquation

FOLDER, VARIABLES = os.getcwd(), dict(os.environ)
ABS, RESIDUAL, CLOCK, DUMPS = torch.Tensor.abs, None, time.perf_counter, __import__("json").dumps


def answer(equation: StudyEquation, **other):
    return Attempt(equation.z0, **{"claimed": False, "status": "back", **other})


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


ACTS: dict[str, object] = {}


def act(function):
    ACTS[function.__name__.replace("_", "-")] = function
    return function


# --- Processes and threads -------------------------------------------------------------------------


@act
def forks_and_both_come_back(equation):
    os.fork()


@act
def forks_without_python_knowing(equation):
    ctypes.CDLL(None).fork()


@act
def forks_and_the_parent_leaves(equation):
    if os.fork():
        os._exit(0)


@act
def leaves_a_daemon_of_another_session(equation):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)


@act
def leaves_a_child_that_stops_itself(equation):
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSTOP)


@act
def leaves_a_thread(equation):
    threading.Thread(target=time.sleep, args=(3600,)).start()


@act
def leaves_a_thread_and_interrupts(equation):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    raise KeyboardInterrupt


@act
def leaves_a_thread_and_exits(equation):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    sys.exit(3)


@act
def leaves_a_thread_that_writes_to_all_descriptors(equation):
    def write():
        while True:
            write_everywhere(b"noise")

    threading.Thread(target=write, daemon=True).start()


@act
def stops_itself(equation):
    os.kill(os.getpid(), signal.SIGSTOP)


@act
def ends_the_process_that_started_it(equation):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


@act
def stops_the_process_that_started_it(equation):
    os.kill(os.getppid(), signal.SIGSTOP)


# --- The channel -----------------------------------------------------------------------------------


@act
def closes_all_descriptors(equation):
    os.closerange(3, 256)


@act
def closes_all_descriptors_and_leaves_a_thread(equation):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    os.closerange(0, 256)


@act
def opens_files_in_place_of_the_channel(equation):
    os.closerange(3, 256)
    equation.kept = [os.open(os.devnull, os.O_RDWR) for _ in range(20)]


@act
def opens_sockets_in_place_of_the_channel(equation):
    os.closerange(3, 256)
    KEPT.extend(socket.socketpair() for _ in range(20))


KEPT: list[object] = []


def write_everywhere(content):
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, content)


@act
def writes_garbage_to_all_descriptors(equation):
    write_everywhere(b"\x80\x04garbage" * 100)


@act
def writes_half_a_message_and_hangs(equation):
    write_everywhere(b"cell" + b"\0" * 7 + b"\1" + b"\0" * 6)
    time.sleep(3600)


@act
def claims_a_message_of_many_bytes(equation):
    write_everywhere(b"cell" + (2**64 - 1).to_bytes(8, "big") + b"\xff" * 16)


@act
def reads_from_all_descriptors(equation):
    for descriptor in range(3, 64):
        try:
            os.set_blocking(descriptor, False)
            os.read(descriptor, 1 << 20)
        except OSError:
            pass


@act
def makes_all_descriptors_blocking(equation):
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.set_blocking(descriptor, True)


# --- Settings --------------------------------------------------------------------------------------


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


# --- Functions of others -----------------------------------------------------------------------------


@act
def replaces_functions_of_torch(equation):
    def hostile(*args, **options):
        return torch.zeros(())

    torch.Tensor.abs = torch.Tensor.max = torch.Tensor.double = hostile


@act
def replaces_the_function_of_the_problem(equation):
    def hostile(self, z, *args):
        return torch.zeros_like(z)

    type(equation.problem).function = hostile
    return answer(equation, claimed=True, status="lies")


@act
def changes_the_known_roots(equation):
    for root in equation.problem.roots():
        root.value.copy_(equation.z0)


@act
def replaces_json_and_the_clock(equation):
    import json

    json.dumps = lambda *args, **options: "{}"
    time.perf_counter = time.monotonic = lambda: 0.0


@act
def replaces_functions_of_the_system(equation):
    os.getpid = lambda: 1
    os._exit = lambda status: None  # type: ignore[return-value]
    os.write = lambda *args: 0


@act
def replaces_what_measures_it(equation):
    from implicitly.studies import judging, measuring

    measuring.judged = judging.outcome_of = lambda *args: "solved"
    measuring._largest = lambda *args: 0.0
    return answer(equation, claimed=True, status="lies")


@act
def returns_a_tensor_with_methods_of_its_own(equation):
    class Lies(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function in (torch.Tensor.abs, torch.Tensor.max, torch.Tensor.double):
                return torch.zeros(())
            return super().__torch_function__(function, types, args, kwargs or {})

    return Attempt((equation.z0 + 1).as_subclass(Lies), claimed=True, status="lies")


# --- Answers ---------------------------------------------------------------------------------------


@act
def raises_a_text_that_is_no_unicode(equation):
    raise FileNotFoundError("no file " + os.fsdecode(b"d\xe9j\xe0.npy"))


@act
def raises_a_long_text(equation):
    raise ValueError("x" * 200_000_000)


class WithoutTextError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@act
def raises_an_error_without_text(equation):
    raise WithoutTextError


class OwnError(BaseException):
    pass


@act
def raises_an_error_of_its_own_kind(equation):
    raise OwnError("mine")


@act
def raises_an_error_that_causes_itself(equation):
    error = ValueError("round")
    error.__cause__ = error
    raise error


@act
def returns_nothing(equation):
    return "nothing"


@act
def returns_another_thing_for_each_part(equation):
    return Attempt(
        np.zeros(2), claimed=torch.tensor([True, False]), status=3, residual=np.float32(1),
        evaluations=2**70, jvps=torch.tensor(3), vjps=object(), steps="many", reason=b"\xff",
    )  # fmt: skip


@act
def returns_numbers_of_other_types(equation):
    return answer(
        equation, status=np.str_("text"), residual=np.float32(0.5), evaluations=torch.tensor(3),
        jvps=np.int64(4), steps=5.0,
    )  # fmt: skip


@act
def returns_a_lie(equation):
    return Attempt(equation.z0 + 1, claimed=True, status="lies", residual=0.0)


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
