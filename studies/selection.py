"""Selection language of studies: names of problems, solvers and gradient modes.

```text
newton                         by name
scipy:*                        every name that matches the pattern
tag:classical                  every name with the tag
anderson[memory=3,10]          one for each value
anderson[memory=3,10; kind=I]  several options: every combination
newton[globalisation=line-search[max_trials=5]]   an option that is itself chosen by name
```
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..options.text import Value, nearest, parted, read_value, write_value
from .errors import StudyError

_PATTERN = "*?"


@dataclass(frozen=True)
class Choice:
    """A chosen name, with options in place of its defaults.

    Examples:
        >>> Choice("anderson", (("memory", 10),)).text
        'anderson[memory=10]'
    """

    name: str
    options: tuple[tuple[str, Value], ...] = ()

    @property
    def text(self) -> str:
        """The choice as a configuration writes it."""
        if not self.options:
            return self.name
        written = (f"{name}={write_value(value)}" for name, value in self.options)
        return f"{self.name}[{'; '.join(written)}]"


@dataclass(frozen=True)
class Names:
    """Names to choose from.

    Attributes:
        kind: Kind of the names, for error messages: `"solver"`.
        names: All names.
        tagged: Returns the names with a tag; raises a `ValueError` that lists the tags.
        listed: The command that lists all names, if there is one.
    """

    kind: str
    names: Sequence[str]
    tagged: Callable[[str], Sequence[str]]
    listed: str = ""


def chosen(selection: str, among: Names) -> list[Choice]:
    """All choices of a selection, in the order of `among`.

    Raises:
        StudyError: No such name or tag (the nearest is named), or the text cannot be read.

    Examples:
        >>> from implicitly.studies.selection import Names, chosen
        >>> names = Names("solver", ("anderson", "newton"), lambda tag: ())
        >>> [choice.text for choice in chosen("anderson[memory=3,10]", names)]
        ['anderson[memory=3]', 'anderson[memory=10]']
    """
    name, inside = _split(selection)
    return [
        Choice(found, options)
        for found in _names(name, among)
        for options in _grid(selection, inside)
    ]


def all_chosen(selections: Iterable[str], among: Names) -> list[Choice]:
    """All choices of several selections, each once, in the order of the selections."""
    return list(dict.fromkeys(itertools.chain(*(chosen(text, among) for text in selections))))


def single(text: str, among: Names) -> Choice:
    """The only choice of a selection.

    Raises:
        StudyError: As for `chosen`, or the selection has no or several choices.
    """
    found = chosen(text, among)
    if len(found) != 1:
        raise StudyError(f"{text!r} stands for {len(found)} {among.kind}s where one is needed")
    return found[0]


def not_called(kind: str, given: str, valid: Iterable[str]) -> str:
    """Message about an unknown name, with the nearest valid one."""
    return f"no {kind} is called {given!r}{nearest(given, valid)}"


def _names(name: str, among: Names) -> list[str]:
    if name.startswith("tag:"):
        try:
            return list(among.tagged(name[len("tag:") :]))
        except ValueError as error:
            raise StudyError(str(error)) from error
    if any(sign in name for sign in _PATTERN):
        found = [known for known in among.names if fnmatchcase(known, name)]
        if not found:
            raise StudyError(f"{name!r} fits no {among.kind}; there are: {', '.join(among.names)}")
        return found
    if name not in among.names:
        others = (
            f"`{among.listed}` names all"
            if among.listed
            else f"there are: {', '.join(among.names)}"
        )
        raise StudyError(f"{not_called(among.kind, name, among.names)}; {others}")
    return [name]


def _split(selection: str) -> tuple[str, str]:
    """The name of a selection, and the text in its brackets."""
    if not isinstance(selection, str) or not selection.strip():
        raise StudyError(f"a selection is a text such as 'anderson[memory=10]', got {selection!r}")
    text = selection.strip()
    name, bracket, rest = text.partition("[")
    if not bracket:
        return name.strip(), ""
    if not rest.endswith("]"):
        raise StudyError(
            f"{selection!r} has an opening bracket and does not end with a closing one"
        )
    return name.strip(), rest[:-1]


def _grid(selection: str, inside: str) -> list[tuple[tuple[str, Value], ...]]:
    """Every combination of the options in brackets."""
    axes: list[list[tuple[str, Value]]] = []
    for part in parted(inside, ";"):
        name, equals, values = part.partition("=")
        if not equals or not name.strip() or not values.strip():
            raise StudyError(
                f"{selection!r}: expected option=value or option=value,value between brackets, got {part!r}"
            )
        axes.append([(name.strip(), read_value(value)) for value in parted(values, ",")])
    names = [axis[0][0] for axis in axes]
    if len(set(names)) < len(names):
        raise StudyError(f"{selection!r} gives an option twice; its values are parted by commas")
    return list(itertools.product(*axes))
