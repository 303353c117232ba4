"""Resource names: how they are built, read and checked. One place, used at every border.

models/{model}            models/{model}/versions/{version}        endpoints/{endpoint}
workers/{worker}          uploads/{upload}
"""

from __future__ import annotations

import re

from inferway.errors import InvalidName

MAX_SEGMENT_CHARACTERS = 63
_SEGMENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,62}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def check_segment(segment: str, field: str) -> str:
    """Returns `segment` if it may name a model, endpoint, worker or upload; raises InvalidName at `field` otherwise."""
    if not _SEGMENT.fullmatch(segment) or ".." in segment:
        raise _invalid(
            field,
            segment,
            "1 to 63 lower-case letters, digits, '.', '_' or '-', the first a letter or digit, without '..'",
        )
    return segment


def check_alias(alias: str, field: str) -> str:
    """Returns `alias` if it may name an alias, which starts with a letter; raises InvalidName at `field` otherwise."""
    if not _ALIAS.fullmatch(alias) or ".." in alias:
        raise _invalid(
            field, alias, "1 to 63 lower-case letters, digits, '.', '_' or '-', the first a letter, without '..'"
        )
    return alias


def model_name(model: str) -> str:
    """`models/{model}`."""
    return f"models/{model}"


def version_name(model: str, version: int) -> str:
    """`models/{model}/versions/{version}`."""
    return f"models/{model}/versions/{version}"


def endpoint_name(endpoint: str) -> str:
    """`endpoints/{endpoint}`."""
    return f"endpoints/{endpoint}"


def worker_name(worker: str) -> str:
    """`workers/{worker}`."""
    return f"workers/{worker}"


def upload_name(upload: str) -> str:
    """`uploads/{upload}`."""
    return f"uploads/{upload}"


def parse(name: str, collection: str, field: str = "name") -> str:
    """Returns the segment of `{collection}/{segment}`; raises InvalidName at `field`."""
    prefix, _, segment = name.partition("/")
    if prefix != collection:
        raise _invalid(field, name, f"the form {collection}/{{name}}")
    return check_segment(segment, field)


def parse_version(name: str, field: str = "name") -> tuple[str, int]:
    """Returns model and number of `models/{model}/versions/{version}`; raises InvalidName at `field`."""
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != "models" or parts[2] != "versions" or not _NUMBER.fullmatch(parts[3]):  # noqa: PLR2004 - the form has four parts
        raise _invalid(field, name, "the form models/{model}/versions/{number}")
    return check_segment(parts[1], field), int(parts[3])


def rollout_name(endpoint: str, rollout: int) -> str:
    """`endpoints/{endpoint}/rollouts/{rollout}`."""
    return f"endpoints/{endpoint}/rollouts/{rollout}"


def parse_rollout(name: str, field: str = "name") -> tuple[str, int]:
    """Returns endpoint and number of `endpoints/{endpoint}/rollouts/{rollout}`, 0 for `-`; raises InvalidName."""
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != "endpoints" or parts[2] != "rollouts":  # noqa: PLR2004 - the form has four parts
        raise _invalid(field, name, "the form endpoints/{endpoint}/rollouts/{number}")
    if parts[3] != "-" and not _NUMBER.fullmatch(parts[3]):
        raise _invalid(field, name, "a number, or -, after rollouts/")
    return check_segment(parts[1], field), 0 if parts[3] == "-" else int(parts[3])


def _invalid(field: str, value: str, wanted: str) -> InvalidName:
    shown = (
        value
        if len(value) <= MAX_SEGMENT_CHARACTERS
        else f"{value[:MAX_SEGMENT_CHARACTERS]}… ({len(value)} characters)"
    )
    return InvalidName.at(field, f"{shown!r} is not permitted; expected {wanted}", resource=shown)
