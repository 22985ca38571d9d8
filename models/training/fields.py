"""Conversion of frozen options from and to the fields of a YAML file.

A class of options is a mapping of its fields. If a field may be of several classes, `name` selects one in
lower case (`name: newton-krylov`); the name alone stands for the defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ... import solvers
from ...implicit import gradients
from ...implicit.gradients import Gradient
from ...options.naming import public_kinds
from ...options.options import did_you_mean
from ...options.text import alternatives, changed, fields_of, made, takes
from ..model_options import ModelOptions
from ..registry import DATA, MODELS, name_of
from .data import Data
from .errors import ConfigurationError

_FAMILIES: dict[type, dict[str, type]] = {
    solvers.Solver: public_kinds(solvers, solvers.Solver),
    solvers.Globalisation: public_kinds(solvers, solvers.Globalisation),
    Gradient: public_kinds(gradients, Gradient),
    ModelOptions: MODELS,
    Data: DATA,
}


def build(
    kind: Any,
    given: object,
    place: str,
    *,
    within: bool = True,
    otherwise: Any = None,
    **fixed: object,
) -> Any:
    """An instance for a type hint, built from the content of YAML.

    Args:
        kind: A class of options, a base of solvers or of gradient modes, or a union of such.
        given: A mapping of fields, or the name of a kind.
        place: Its place in the configuration, for error messages.
        within: True if the places of its fields begin with its own.
        otherwise: The class of the default, for fields without a name.
        fixed: Fields that do not come from the configuration.

    Raises:
        ConfigurationError: A kind or field is unknown (the nearest is named), missing or out of range.

    Examples:
        >>> from implicitly import Broyden, Solver
        >>> build(Solver, {"name": "anderson", "memory": 3}, "solver").memory
        3
        >>> build(Solver, "broyden", "solver") == Broyden()
        True
    """
    kinds = _kinds(kind)
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{place} must be a mapping of fields, got {given!r}")
    fields = dict(given)
    chosen = _chosen(kinds, fields, place, otherwise)
    known = fields_of(chosen)
    valid = [name for name in known if name not in fixed]
    for name in fields:
        if name not in valid:
            near = did_you_mean(str(name), list(known))
            raise ConfigurationError(
                f"{place}: there is no field {name!r}{near} "
                f"Fields of {name_of(chosen)}: {', '.join(valid) or 'none'}"
            )
    missing = [name for name in valid if known[name].required and name not in fields]
    if missing:
        raise ConfigurationError(f"{place}: {', '.join(missing)} must be given")
    values = {
        name: _value(
            field.hint,
            fields[name],
            f"{place}.{name}" if within else name,
            None if field.required else type(field.default),
        )
        for name, field in known.items()
        if name in fields
    }
    return made(chosen, {**values, **fixed}, lambda text: ConfigurationError(f"{place}: {text}"))


def as_fields(options: Any, hint: Any = None, leave_out: tuple[str, ...] = ()) -> Any:
    """Fields from which `build` makes the same options: those that differ from their defaults.

    Examples:
        >>> from implicitly import Anderson, Solver
        >>> as_fields(Anderson(memory=3), Solver)
        {'name': 'anderson', 'memory': 3}
    """
    if isinstance(options, (list, tuple)):
        return [as_fields(one) for one in options]
    if not dataclasses.is_dataclass(options):
        return options
    several = len(_kinds(hint if hint is not None else type(options))) > 1
    fields: dict[str, Any] = {"name": name_of(type(options))} if several else {}
    known = fields_of(type(options))
    for name, value in changed(options).items():
        if name not in leave_out:
            fields[name] = as_fields(value, known[name].hint)
    return fields


def _chosen(kinds: Mapping[str, type], fields: dict[str, Any], place: str, otherwise: Any) -> Any:
    """The class of `name`, or of the default, or the only one."""
    alone = next(iter(kinds.values())) if len(kinds) == 1 else None
    # The name of a single class is optional, unless the class has a field `name`.
    if alone is not None and ("name" not in fields or "name" in fields_of(alone)):
        return alone
    listed = ", ".join(kinds)
    if "name" not in fields and otherwise in kinds.values():
        return otherwise
    if "name" not in fields:
        raise ConfigurationError(f"{place}: name must be given, one of {listed}")
    name = fields.pop("name")
    if name not in kinds:
        raise ConfigurationError(
            f"{place}: nothing is called {name!r}{did_you_mean(str(name), list(kinds))} "
            f"Names: {listed}"
        )
    return kinds[name]


def _value(hint: Any, given: object, place: str, otherwise: Any) -> Any:
    kinds = _kinds(hint)
    if kinds and (isinstance(given, Mapping) or given in kinds):
        return build(hint, given, place, otherwise=otherwise)
    if kinds and isinstance(given, str) and not takes(hint, str):
        return build(hint, given, place, otherwise=otherwise)
    if isinstance(given, list):
        return tuple(_value(Any, one, place, None) for one in given)
    # YAML reads 1e-3 as text, since it has no decimal point.
    if isinstance(given, str) and takes(hint, float) and not takes(hint, str):
        try:
            return float(given)
        except ValueError:
            raise ConfigurationError(f"{place} must be a number, got {given!r}") from None
    return given


def _kinds(hint: Any) -> dict[str, type]:
    """The classes of options that a hint allows, by name."""
    found: dict[str, type] = {}
    for part in alternatives(hint):
        if not isinstance(part, type):
            continue
        if part in _FAMILIES:
            found |= _FAMILIES[part]
        elif dataclasses.is_dataclass(part):
            found[name_of(part)] = part
    return found
