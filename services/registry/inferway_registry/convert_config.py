"""The publisher's choices between messages and values, both ways. Checks the form of what comes in."""

from __future__ import annotations

from collections.abc import Sequence

from inferway.errors import InvalidField
from inferway.registry.v1 import resources_pb2 as pb
from inferway_registry.resources import Isolation, StateBinding, VersionConfig
from inferway_registry.serving import MAX_BATCH_ROWS
from inferway_registry.state_bindings import MAX_BINDINGS, MAX_INITIAL_BYTES
from inferway_registry.wording import has_control_characters

MAX_TEXT_CHARACTERS = 4_096
MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 256
MAX_MEMORY_BYTES = 1 << 50
_ISOLATIONS = frozenset(map(int, Isolation))


def version_config(config: pb.VersionConfig) -> VersionConfig:
    """The choices, as far as they can be checked without the model; raises InvalidField."""
    if any(len(name) > MAX_LABEL_CHARACTERS for name in config.forbid_nan_inputs):
        raise InvalidField.at("config.forbid_nan_inputs", f"names have at most {MAX_LABEL_CHARACTERS} characters")
    if not 0 <= config.max_batch_rows <= MAX_BATCH_ROWS:
        raise InvalidField.at("config.max_batch_rows", f"expected 0 to {MAX_BATCH_ROWS}")
    if len(config.description) > MAX_TEXT_CHARACTERS:
        raise InvalidField.at("config.description", f"longer than {MAX_TEXT_CHARACTERS} characters")
    if has_control_characters(config.description.replace("\n", "")):
        raise InvalidField.at("config.description", "control characters other than line ends are not permitted")
    if config.isolation not in _ISOLATIONS:
        raise InvalidField.at("config.isolation", "expected ISOLATION_PROCESS, ISOLATION_GROUP or ISOLATION_INLINE")
    if not 0 <= config.memory_bytes <= MAX_MEMORY_BYTES:
        raise InvalidField.at("config.memory_bytes", f"expected 0 to {MAX_MEMORY_BYTES}")
    return VersionConfig(
        forbid_nan_inputs=tuple(config.forbid_nan_inputs),
        idempotent=config.idempotent if config.HasField("idempotent") else None,
        max_batch_rows=config.max_batch_rows,
        description=config.description,
        labels=read_labels(dict(config.labels), "config.labels"),
        isolation=Isolation(config.isolation),
        memory_bytes=config.memory_bytes,
        state=_state(config.state),
    )


def _state(bindings: Sequence[pb.StateBinding]) -> tuple[StateBinding, ...]:
    """What is bound to what; whether it may be, the model says when it is published."""
    if len(bindings) > MAX_BINDINGS:
        raise InvalidField.at("config.state", f"{len(bindings)} bindings; at most {MAX_BINDINGS} are permitted")
    if sum(len(binding.initial) for binding in bindings) > MAX_INITIAL_BYTES:
        raise InvalidField.at("config.state", f"initial values take more than {MAX_INITIAL_BYTES} bytes in all")
    return tuple(
        StateBinding(binding.signature, binding.input, binding.output, tuple(binding.shape), binding.initial)
        for binding in bindings
    )


def read_labels(labels: dict[str, str], field: str) -> dict[str, str]:
    """The labels, if they may be shown and kept; raises InvalidField at `field`."""
    if len(labels) > MAX_LABELS:
        raise InvalidField.at(field, f"{len(labels)} labels; at most {MAX_LABELS} are permitted")
    if any(not key or len(key) > MAX_LABEL_CHARACTERS for key in labels):
        raise InvalidField.at(field, f"keys have 1 to {MAX_LABEL_CHARACTERS} characters")
    if any(len(value) > MAX_LABEL_CHARACTERS for value in labels.values()):
        raise InvalidField.at(field, f"values have at most {MAX_LABEL_CHARACTERS} characters")
    if any(map(has_control_characters, (*labels, *labels.values()))):
        raise InvalidField.at(field, "control characters are not permitted")
    return labels


def version_config_message(config: VersionConfig) -> pb.VersionConfig:
    """The choices of a version or an upload."""
    return pb.VersionConfig(
        forbid_nan_inputs=config.forbid_nan_inputs,
        idempotent=config.idempotent,
        max_batch_rows=config.max_batch_rows,
        description=config.description,
        labels=config.labels,
        isolation=pb.Isolation.ValueType(config.isolation),
        memory_bytes=config.memory_bytes,
        state=[
            pb.StateBinding(
                signature=binding.signature,
                input=binding.input,
                output=binding.output,
                shape=binding.shape,
                initial=binding.initial,
            )
            for binding in config.state
        ],
    )
