"""Extras of the package: the modules that each needs, and the line that installs it."""

from __future__ import annotations

from importlib.util import find_spec

# Names under which the packages of pyproject.toml are imported.
MODULES: dict[str, tuple[str, ...]] = {
    "figures": ("matplotlib",),
    "models": ("lightning", "matplotlib", "yaml", "safetensors", "tensorboard"),
    "studies": (
        "joblib",
        "matplotlib",
        "pandas",
        "plotly",
        "psutil",
        "pyarrow",
        "pydantic",
        "yaml",
    ),
}


def missing(extra: str) -> list[str]:
    """Modules of an extra that are not installed.

    Examples:
        >>> missing("figures")
        []
    """
    return [name for name in MODULES[extra] if find_spec(name) is None]


def install_line(extra: str) -> str:
    """The command that installs an extra.

    Examples:
        >>> install_line("studies")
        "pip install 'implicitly[studies]'"
    """
    return f"pip install 'implicitly[{extra}]'"
