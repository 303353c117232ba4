"""The JSON column of rollouts, written and read by the annotations of its values: what they gain is stored, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from inferway_registry.rollouts.rollout import Rollout

_CLASS = "class"
"""Key of a dataclass's name; it tells strategies apart."""


def rollout_to_json(rollout: Rollout) -> Any:
    """Every field under its name, enums by name, times in ISO 8601."""
    return _plain(rollout)


def rollout_from_json(value: Any) -> Rollout:
    """Inverse of `rollout_to_json`; fields that an older registry did not know have their defaults."""
    rollout: Rollout = _typed(Rollout, value)
    return rollout


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        named = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {_CLASS: type(value).__name__, **named}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return list(map(_plain, value))
    if isinstance(value, Enum):
        return value.name
    return value.isoformat() if isinstance(value, datetime) else value


def _typed(kind: Any, value: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _typed(_chosen(arguments, value), value)
    if origin is tuple:
        kinds = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(map(_typed, kinds, value))
    if origin is Mapping:
        return {key: _typed(arguments[1], each) for key, each in value.items()}
    if hasattr(kind, "__dataclass_fields__"):
        hints = _hints(kind)
        return kind(**{name: _typed(hints[name], each) for name, each in value.items() if name != _CLASS})
    if issubclass(kind, Enum):
        return kind[value]
    return datetime.fromisoformat(value) if kind is datetime else value


def _chosen(kinds: tuple[Any, ...], value: Any) -> Any:
    """The member of a union that a value is of: the only one that may be, or the dataclass that it names."""
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    return kinds[0] if len(kinds) == 1 else next(kind for kind in kinds if kind.__name__ == value[_CLASS])


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
