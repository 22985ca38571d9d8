"""Numbers and names as words of a sentence."""

from __future__ import annotations

_MOST_NAMED = 4


def listed(names: tuple[str, ...]) -> str:
    """Names as a list in a sentence; many names are cut short.

    Examples:
        >>> listed(("a", "b", "c"))
        'a, b and c'
    """
    if len(names) > _MOST_NAMED + 1:
        return ", ".join(names[:_MOST_NAMED]) + f" and {len(names) - _MOST_NAMED} others"
    if len(names) > 1:
        return ", ".join(names[:-1]) + " and " + names[-1]
    return names[0]


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun, such as `"2 problems"`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
