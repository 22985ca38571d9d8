"""Versions of libraries in rows."""

from __future__ import annotations

import json
from collections.abc import Iterable

_SHOWN = 40


def all_versions(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Every version of each library that occurs.

    Args:
        texts: Versions by library, in JSON; one for each row. Another text counts as a version of
            `unreadable`.

    Examples:
        >>> all_versions(('{"torch": "2.12"}', '{"torch": "2.13"}', '{"torch": "2.12"}'))
        {'torch': ('2.12', '2.13')}
    """
    found: dict[str, dict[str, None]] = {}
    for text in dict.fromkeys(texts):
        for name, value in _read(text).items():
            found.setdefault(name, {})[str(value)] = None
    return {name: tuple(sorted(values)) for name, values in found.items()}


def _read(text: str) -> dict[str, object]:
    try:
        read = json.loads(text or "{}")
    except (ValueError, RecursionError):
        read = None
    return read if isinstance(read, dict) else {"unreadable": text[:_SHOWN]}
