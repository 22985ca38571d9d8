"""Import of a module by its dotted name or by its file."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def import_source(source: str) -> ModuleType:
    """Run and return a module; one in a file sees the modules beside it.

    Args:
        source: `package.module`, or a path that ends in `.py`.

    Raises:
        ImportError: There is no such module or file. Else whatever the module raises.

    Examples:
        >>> import_source("json").dumps([1])
        '[1]'
    """
    return _of_file(Path(source)) if source.endswith(".py") else import_module(source)


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ImportError(f"there is no file {str(path)!r}")
    sys.path.insert(0, str(path.resolve().parent))
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{str(path)!r} is no Python file")
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # Classes look their module up by its name.
    spec.loader.exec_module(module)
    return module
