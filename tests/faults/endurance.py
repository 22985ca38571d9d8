"""Many calls, many threads, clusters whose workers die, and clocks that go back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from implicitly import Exact, ImplicitLayer, Newton, SolveError, Stopping, fixed_point, root
from implicitly.studies import Store
from torch import Tensor, nn

from .campaign import NOT_TRIED, Trial, fault
from .machine import start

_GROWTH = 24 << 20
"""Bytes by which a process may have grown: allocators keep some of what threads give back."""


class OwnError(Exception):
    """An error of a user's function."""


class Cell(nn.Module):
    """A contraction with parameters, which fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        with torch.no_grad():
            self.linear.weight.mul_(0.3)
        self.fails = False

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        if x[0, 0].item() > 1e3:
            raise OwnError
        return torch.tanh(self.linear(z) + x)


def _call(layer: ImplicitLayer, draw: random.Random, seed: int) -> str:
    """One call forward and backward, or one that fails; empty if it ends as it must."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, generator=generator, requires_grad=True)
    kind = draw.choice(("right", "right", "right", "raises", "not finite", "unsolvable", "scalar"))
    if kind == "raises":
        try:
            layer(torch.full((2, 4), 1e4))
        except OwnError:
            return ""
        return "an error of the function was lost"
    if kind == "not finite":
        try:
            layer(torch.full((2, 4), float("nan")))
        except SolveError:
            return ""
        return "a value that is not finite was accepted"
    if kind == "unsolvable":
        try:
            start_at = torch.full((1,), draw.uniform(0.5, 2.0))
            root(lambda z: z * z + 1, start_at, solver=Newton(), stopping=Stopping(max_steps=8))
        except SolveError:
            return ""
        return "an equation without a root was solved"
    if kind == "scalar":
        a = torch.tensor(draw.uniform(0.1, 1.0), dtype=torch.float64, requires_grad=True)
        if seed % 2:
            z = fixed_point(torch.cos, a).value
            return "" if abs(z.item() - 0.7390851332151607) < 1e-6 else f"cos: {z.item()}"
        root(lambda z, a: z * z * z - a, a.detach(), a, solver=Newton()).value.backward()
        expected = a.item() ** (-2 / 3) / 3
        return "" if abs(float(a.grad or 0.0) - expected) < 1e-5 * expected else "another gradient"
    value = layer(x)
    value.square().sum().backward()
    cell: Any = layer.f
    error = float((torch.tanh(cell.linear(value) + x) - value).abs().max().detach())
    slope = x.grad
    if slope is None or not bool(slope.isfinite().all()):
        return "a gradient is missing"
    return "" if error < 1e-3 else f"a residual of {error:.1e}"


def _soak(calls: int, threads: int, draw: random.Random) -> Iterator[Trial]:
    torch.manual_seed(0)
    stopping = Stopping(rtol=1e-5)
    layer = ImplicitLayer(Cell(), stopping=stopping, gradient=Exact(stopping=stopping))
    before = _state()
    wrong: list[str] = []
    sizes: list[int] = []

    def work(which: int, own: random.Random, count: int) -> None:
        for number in range(count):
            try:
                said = _call(layer, own, 1000 * which + number)
            except Exception as error:  # Of any kind.
                said = f"{type(error).__name__}: {error}"
            if said:
                wrong.append(said)

    for part in range(4):
        running = [
            threading.Thread(
                target=work, args=(which, random.Random(draw.random()), calls // threads // 4)
            )
            for which in range(threads)
        ]
        for one in running:
            one.start()
        for one in running:
            one.join(600)
        sizes.append(psutil.Process().memory_info().rss)
        yield f"part {part}: right results", "; ".join(dict.fromkeys(wrong))[:200]
        alive = sum(one.is_alive() for one in running)
        yield f"part {part}: no thread is stuck", f"{alive} are" if alive else ""
        wrong.clear()
    growth = sizes[-1] - sizes[1]  # After the first half, caches are full.
    yield "no growth of memory", "" if growth < _GROWTH else f"{growth >> 20} MB, {sizes}"
    after = _state()
    yield "the state of the process", "" if after == before else f"{before} became {after}"


def _state() -> tuple[object, ...]:
    return (
        threading.active_count(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch.is_autocast_enabled("cpu"),
        len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0,
    )


@fault()
def some_calls_of_two_threads(folder: Path, draw: random.Random) -> Iterator[Trial]:
    yield from _soak(160, 2, draw)


@fault(short=False)
def ten_thousand_calls_of_eight_threads(folder: Path, draw: random.Random) -> Iterator[Trial]:
    yield from _soak(10_000, 8, draw)


CLUSTER = """
import os, signal, sys, threading, time
from dask.distributed import Client, LocalCluster
from implicitly import studies

if __name__ == "__main__":
    seen = 0
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            def kill(*row):
                global seen
                seen += 1
                if seen in (2, 6):
                    pids = list(client.run(os.getpid).values())
                    os.kill(pids[0], signal.SIGKILL)
            summary = studies.run(sys.argv[1], sys.argv[2], jobs=2, backend="dask", on_row=kill)
    print(summary.outcomes)
"""
OWN = """
import time
from implicitly.studies.methods import Attempt
class Slow:
    family, packages = "peer", ()
    def __init__(self, label): self.label = label
    def solve(self, equation):
        time.sleep(0.3)
        return Attempt(equation.z0, claimed=False, status="answer of " + self.label)
solvers = {f"s{i}": Slow(f"s{i}") for i in range(12)}
configuration = {"name": "s", "problems": ["boggs"], "solvers": list(solvers), "time_limit": 60}
"""


@fault(short=False)
def workers_of_a_cluster_that_die(folder: Path, draw: random.Random) -> Iterator[Trial]:
    try:
        import distributed  # noqa: F401
    except ImportError:
        yield "a cluster", f"{NOT_TRIED}dask is not installed"
        return
    own, script = folder / "own_cluster.py", folder / "cluster_script.py"
    own.write_text(OWN)
    script.write_text(CLUSTER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(own), str(folder / "store")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    output, errors = process.communicate(timeout=300)
    yield "the study ends", "" if process.returncode == 0 else errors[-300:]
    rows = Store(folder / "store").rows("s")
    wrong = int((rows["status"] != "answer of " + rows["solver"]).sum())
    whole = len(rows) == 12 and rows["key"].is_unique and not wrong
    yield (
        "every row, once and its own",
        "" if whole else f"{len(rows)} rows, {wrong} wrong: {output}",
    )


BACKWARDS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <sys/time.h>
/* The clock of the wall goes back by a minute at each look; that of the machine goes on. */
static int (*real)(clockid_t, struct timespec *);
static long looks;
int clock_gettime(clockid_t id, struct timespec *at) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int ended = real(id, at);
    if (id == CLOCK_REALTIME) at->tv_sec -= 60 * ++looks;
    return ended;
}
"""
TIMES = """
import sys, time
first, second = time.time(), time.time()
assert second < first, "the clock does not go back"
from implicitly import studies
studies.run(sys.argv[1], sys.argv[2])
"""


@fault(short=False)
def a_clock_that_goes_back(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """The clock is one of a library that the system loads before its own."""
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(BACKWARDS)
    try:
        command = ["cc", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield "a clock", f"{NOT_TRIED}no compiler for the clock"
        return
    own = folder / "own_clock.py"
    own.write_text(OWN)
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    runs = [start(TIMES, own, folder / "store", env=environment) for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in runs]
    failed = [
        errors[-300:] for process, (_, errors) in zip(runs, ends, strict=True) if process.returncode
    ]
    yield "two runs end", str(failed) if failed else ""
    rows = Store(folder / "store").rows("s")
    wrong = int((rows["status"] != "answer of " + rows["solver"]).sum())
    yield (
        "every row once",
        "" if len(rows) == 12 and not wrong else f"{len(rows)} rows, {wrong} wrong",
    )
    backwards = int((rows["ended"] <= rows["started"]).sum())
    yield "no cell ends before it starts", f"{backwards} do" if backwards else ""
