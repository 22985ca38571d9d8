"""Versions of libraries in rows."""

from __future__ import annotations

import json
from collections.abc import Iterable


def all_versions(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Every version of each library that occurs.

    Args:
        texts: Versions by library, in JSON; one for each row.

    Examples:
        >>> all_versions(('{"torch": "2.12"}', '{"torch": "2.13"}', '{"torch": "2.12"}'))
        {'torch': ('2.12', '2.13')}
    """
    found: dict[str, dict[str, None]] = {}
    for text in dict.fromkeys(texts):
        read = json.loads(text or "{}")
        for name, value in read.items():
            found.setdefault(name, {})[str(value)] = None
    return {name: tuple(sorted(values)) for name, values in found.items()}
