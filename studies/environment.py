"""Environment of a study: machine and versions."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ALWAYS = ("numpy", "torch")
_DEFINE_RESULTS = ("implicit", "problems", "solvers")
_DIGITS = 12


def versions(packages: tuple[str, ...] = ()) -> dict[str, str]:
    """Versions of Python, this package, torch, NumPy and further distributions.

    The version of this package has a digest of its solvers, problems and derivative rule. So results of a
    changed solver differ from those of the old one.

    Examples:
        >>> sorted(versions(("scipy",)))
        ['implicitly', 'numpy', 'python', 'scipy', 'torch']
    """
    found = {name: _version(name) for name in (*_ALWAYS, *packages)}
    return {"python": platform.python_version(), "implicitly": _own_version(), **found}


def environment() -> dict[str, Any]:
    """The machine, by name.

    Examples:
        >>> sorted(environment())[:3]
        ['cores', 'machine', 'memory']
    """
    import psutil

    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "python": sys.version.split()[0],
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # Not Linux.
        pass
    return platform.processor()


@lru_cache(maxsize=64)
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@lru_cache(maxsize=1)
def _own_version() -> str:
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for folder in _DEFINE_RESULTS:
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode())
            digest.update(file.read_bytes())
    return f"{_version('implicitly')}+{digest.hexdigest()[:_DIGITS]}"
