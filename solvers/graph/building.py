"""A loop traced and compiled ahead of time, to a library that runs without Python.

A library is found again by the text of its graph: equal equations share one, and a later process does not
compile it anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..interface.traced import Trace
from .cut import cut
from .loop import Asked, Loop, Report

# Libraries that stay loaded.
_MOST_LIBRARIES = 128
_LOCK = threading.RLock()
_LIBRARIES: OrderedDict[str, Any] = OrderedDict()


def loop_graph(make: Callable[[Any], Loop], trace: Trace) -> tuple[GraphModule, tuple[Tensor, ...]]:
    """The graph of a whole solve, and its inputs as tensors without values.

    Its inputs are the start, the residual there, the length of a first step, the numbers of an `Asked`, and
    the inputs of the equation; its outputs those of a `Report`.

    Args:
        make: Gives the loop from the equation, cut at its unknown.
        trace: The equation.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    z = trace.unknown
    with trace.mode, torch.no_grad():
        batch = z.shape[0]
        number = torch.empty(batch, dtype=torch.float64, device=z.device)
        asked = Asked(
            number, number.clone(), number.clone(), number.clone(),
            torch.empty(batch, dtype=torch.bool, device=z.device),
            torch.empty(6, dtype=torch.float64, device=z.device),
        )  # fmt: skip
        length = torch.empty(batch, 1, dtype=z.dtype, device=z.device)
        inputs = (z, torch.empty_like(z), length, *asked, *trace.inputs)
        graph = make_fx(make(cut(trace.graph)))(*inputs)
    return graph, inputs


def compiled(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Report]:
    """The graph as compiled code."""
    device = inputs[0].device
    text = graph.print_readable(print_output=False)
    name = _name(text, inputs)
    with _LOCK:
        runner = _LIBRARIES.get(name)
        if runner is None:
            runner = _LIBRARIES[name] = _runner(_library(name, text, graph, inputs), device)
        _LIBRARIES.move_to_end(name)
        while len(_LIBRARIES) > _MOST_LIBRARIES:
            _LIBRARIES.popitem(last=False)

    def run(*tensors: Tensor) -> Report:
        return Report(*runner.run(list(tensors)))

    return run


def clear_libraries() -> None:
    """Unload all compiled solves; their files stay."""
    with _LOCK:
        _LIBRARIES.clear()


def _options(text: str) -> dict[str, Any]:
    # In half precision each operation must round as it does one by one.
    return {"aot_inductor.package": False, "emulate_precision_casts": "f16[" in text}


def _name(text: str, inputs: Sequence[Tensor]) -> str:
    """A name for all that the compiled code depends on."""
    device = inputs[0].device
    surroundings = (
        torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(),
        torch.cuda.get_device_capability(device) if device.type == "cuda" else device.type,
        sorted(_options(text).items()),
        [(str(t.dtype), tuple(map(str, t.shape)), tuple(map(str, t.stride()))) for t in inputs],
    )  # fmt: skip
    return hashlib.sha256(f"{text}\n{surroundings!r}".encode()).hexdigest()


def _library(name: str, text: str, graph: GraphModule, inputs: Sequence[Tensor]) -> str:
    """The path of the compiled library, which is made if there is none."""
    from torch._inductor.compile_fx import compile_fx_aot
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    note = Path(cache_dir()) / "implicitly" / name
    with contextlib.suppress(OSError):
        known = note.read_text(encoding="utf-8")
        if os.path.exists(known):
            return known
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # The compiler's own.
        made: Any = compile_fx_aot(graph, list(inputs), config_patches=_options(text))
    path = made if isinstance(made, str) else next(p for p in made if str(p).endswith(".so"))
    with contextlib.suppress(OSError):  # Without the note it is only compiled again.
        note.parent.mkdir(parents=True, exist_ok=True)
        part = note.with_suffix(f".{os.getpid()}")
        part.write_text(str(path), encoding="utf-8")
        part.replace(note)
    return str(path)


def _runner(path: str, device: torch.device) -> Any:
    if device.type == "cpu":
        return torch._C._aoti.AOTIModelContainerRunnerCpu(path, 1)
    if device.type == "cuda":
        return torch._C._aoti.AOTIModelContainerRunnerCuda(path, 1, str(device))
    raise TypeError(f"Compiled(...) runs on a CPU or with CUDA, got a tensor on {device}")
