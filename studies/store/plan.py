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

    @staticmethod
    def of(read: Any) -> Plan:
        """The plan that was written as this JSON.

        Raises:
            ValueError: It is none.
        """
        plan = Plan(**{**read, "keys": tuple(read["keys"])})
        texts = (plan.study, plan.configuration, plan.created, *plan.keys)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("its names and keys must be text")
        if not isinstance(plan.environment, dict):
            raise ValueError(f"its environment must be a mapping, got {plan.environment!r}")
        return plan
