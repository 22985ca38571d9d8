"""Plan of a study: the cells that it consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Plan:
    """Plan of a study.

    Attributes:
        study: Its name.
        keys: Keys of its cells, in the order in which they were planned.
        configuration: The text of its configuration.
        environment: Machine and versions, by name.
        created: Time of planning in UTC, ISO 8601.

    Examples:
        >>> Plan("tiny", ("a", "b"), "solvers: [newton]", {}).study
        'tiny'
    """

    study: str
    keys: tuple[str, ...]
    configuration: str
    environment: dict[str, Any] = field(default_factory=dict)
    created: str = ""
