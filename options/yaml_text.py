"""Reading of YAML that others have written: plain data alone, of a bounded size, every key once."""

from __future__ import annotations

from typing import Any

_LARGEST = 100_000
"""Values of a document, each counted as often as aliases repeat it."""
_DEEPEST = 100


def read_yaml(text: str) -> Any:
    r"""The content of a YAML text, without any tag of Python.

    Aliases can make a short text stand for more values than memory holds ("billion laughs"); such a text is
    refused, and so is one that gives a key twice, of which YAML would drop the first value.

    Raises:
        ValueError: It is no such text; the message has the reason in one line.

    Examples:
        >>> read_yaml("steps: 3")
        {'steps': 3}
        >>> read_yaml("steps: 3\nsteps: 4")
        Traceback (most recent call last):
        ValueError: the key 'steps' is given twice, in line 2
    """
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        _size(node, {}, 0)
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def _size(node: Any, known: dict[int, int], depth: int) -> int:
    """Values that a node stands for.

    Raises:
        ValueError: They are too many, too deep, or without end; or a key is given twice.
    """
    if depth > _DEEPEST:
        raise ValueError(f"values are nested more than {_DEEPEST} deep, or contain themselves")
    if id(node) in known:
        return known[id(node)]
    parts: list[Any] = []
    if isinstance(node.value, list):
        pairs = [part for part in node.value if isinstance(part, tuple)]
        _check_keys([key for key, _ in pairs])
        parts = [part for pair in pairs for part in pair] or node.value
    size = 1 + sum(_size(part, known, depth + 1) for part in parts)
    if size > _LARGEST:
        raise ValueError(f"aliases repeat values more than {_LARGEST} times")
    known[id(node)] = size
    return size


def _check_keys(keys: list[Any]) -> None:
    seen: set[tuple[str, str]] = set()
    for key in keys:
        if not isinstance(key.value, str):
            continue
        if (key.tag, key.value) in seen:
            line = key.start_mark.line + 1
            raise ValueError(f"the key {key.value!r} is given twice, in line {line}")
        seen.add((key.tag, key.value))
