"""`inferway.yaml`: the publisher's choices that become part of a version.

description: Handwritten digits, 8x8 pixels
labels: {accuracy: "0.97", dataset: scikit-learn digits}
forbid_nan_inputs: [image]
idempotent: true
max_batch_rows: 256
isolation: process
memory_bytes: 500000000
state: [{output: next_state, input: state}]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from inferway.registry.v1 import resources_pb2
from inferway_cli.console import CommandError
from inferway_cli.state_config import read_state

FILE_NAME = "inferway.yaml"

Isolation = Literal["process", "group", "inline"]
"""Where workers run a version."""


def find_config(model_path: Path) -> Path | None:
    """Returns the `inferway.yaml` in the model's directory, else the one beside it, else None."""
    return next((path for path in (model_path / FILE_NAME, model_path.parent / FILE_NAME) if path.is_file()), None)


def read_config(path: Path) -> resources_pb2.VersionConfig:
    """Reads the file; raises CommandError for anything that is not one of its keys with a value of its type."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return resources_pb2.VersionConfig()
    if not isinstance(content, dict):
        raise CommandError(f"{path} must hold keys and values, such as `description: ...`")
    unknown = sorted(str(key) for key in content.keys() - _KEYS.keys())
    if unknown:
        raise CommandError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    checked = {key: _checked(path, key, value) for key, value in content.items()}
    isolation = isolation_value(checked.pop("isolation", None))
    state = read_state(checked.pop("state", []), f"{path}: state")
    return resources_pb2.VersionConfig(**checked, isolation=isolation, state=state)


def isolation_value(isolation: Isolation | None) -> resources_pb2.Isolation.ValueType:
    """The contract's value of a choice, or of none."""
    return resources_pb2.Isolation.Value(f"ISOLATION_{(isolation or 'unspecified').upper()}")


def _checked(path: Path, key: str, value: object) -> Any:
    right, wanted = _KEYS[key]
    if not right(value):
        raise CommandError(f"{path}: {key} must be {wanted}, not {value!r}")
    if isinstance(value, Mapping):
        return {name: str(text) for name, text in value.items()}
    return value


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_labels(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(text, str | int | float) for name, text in value.items()
    )


def _is_bindings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _is_count(value: object, limit: int = 2**31) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


_KEYS: dict[str, tuple[Callable[[object], bool], str]] = {
    "description": (lambda value: isinstance(value, str), "text"),
    "labels": (_is_labels, "names with texts or numbers"),
    "forbid_nan_inputs": (_is_names, "a list of input names"),
    "idempotent": (lambda value: isinstance(value, bool), "true or false"),
    "max_batch_rows": (_is_count, "a whole number from 0"),
    "isolation": (lambda value: value in get_args(Isolation), "process, group or inline"),
    "state": (_is_bindings, "a list of bindings, such as {output: next_state, input: state}"),
    "memory_bytes": (lambda value: _is_count(value, 2**63), "a whole number from 0"),
}
