"""The JSON columns: manifests, signatures and the publisher's choices, to plain values and back."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import astuple
from typing import Any

from inferway.datatypes import Datatype
from inferway_registry.resources import (
    Artifact,
    Isolation,
    Manifest,
    MatchRule,
    ServingOptions,
    Signature,
    StateBinding,
    TensorSpec,
    VersionConfig,
    VersionPolicy,
)
from inferway_registry.rollouts.spec import HeaderMatch
from inferway_registry.split_check import ArmCount, Counts

Json = dict[str, Any]


def manifest_to_json(manifest: Manifest) -> Json:
    """One list for each file: most rows of most catalogues are made of these."""
    return {"digest": manifest.digest, "artifacts": [[a.path, a.size_bytes, a.sha256] for a in manifest.artifacts]}


def manifest_from_json(value: Json) -> Manifest:
    """Inverse of `manifest_to_json`."""
    return Manifest(tuple(Artifact(*entry) for entry in value["artifacts"]), value["digest"])


def signatures_to_json(signatures: Iterable[Signature]) -> list[Json]:
    """Datatypes by name, so that the column can be read."""
    return [
        {
            "name": s.name,
            "inputs": [_spec_to_json(i) for i in s.inputs],
            "outputs": [_spec_to_json(o) for o in s.outputs],
        }
        for s in signatures
    ]


def signatures_from_json(value: list[Json]) -> tuple[Signature, ...]:
    """Inverse of `signatures_to_json`."""
    return tuple(
        Signature(s["name"], tuple(map(_spec_from_json, s["inputs"])), tuple(map(_spec_from_json, s["outputs"])))
        for s in value
    )


def config_to_json(config: VersionConfig) -> Json:
    """Every field under its name."""
    return {
        "forbid_nan_inputs": list(config.forbid_nan_inputs),
        "idempotent": config.idempotent,
        "max_batch_rows": config.max_batch_rows,
        "description": config.description,
        "labels": dict(config.labels),
        "isolation": config.isolation.name,
        "memory_bytes": config.memory_bytes,
        "state": [_binding_to_json(binding) for binding in config.state],
    }


def config_from_json(value: Json) -> VersionConfig:
    """Inverse of `config_to_json`; fields that an older registry did not know have their defaults."""
    read = {
        "forbid_nan_inputs": tuple(value["forbid_nan_inputs"]),
        "isolation": Isolation[value.get("isolation", "UNSPECIFIED")],
        "state": tuple(map(_binding_from_json, value.get("state", ()))),
    }
    return VersionConfig(**{**value, **read})


def options_to_json(options: ServingOptions) -> Json:
    """Every bound under its name."""
    return {
        "max_batch_rows": options.max_batch_rows,
        "max_queue_delay_us": options.max_queue_delay_us,
        "buckets": list(options.buckets),
        "instances": options.instances,
    }


def options_from_json(value: Json) -> ServingOptions:
    """Inverse of `options_to_json`; an empty object stands for no bounds."""
    return ServingOptions(**{**value, "buckets": tuple(value.get("buckets", ()))})


def policy_to_json(policy: VersionPolicy) -> Json:
    """Every field under its name."""
    return {"latest": policy.latest, "every": policy.every, "specific": list(policy.specific)}


def policy_from_json(value: Json) -> VersionPolicy:
    """Inverse of `policy_to_json`; an empty object stands for no policy."""
    return VersionPolicy(**{**value, "specific": tuple(value.get("specific", ()))})


def rules_to_json(rules: Iterable[MatchRule]) -> list[Json]:
    """Flat: a header, what it must be, and the arm."""
    return [
        {"header": r.match.header, "value": r.match.value, "is_prefix": r.match.is_prefix, "arm": r.arm} for r in rules
    ]


def rules_from_json(value: list[Json]) -> tuple[MatchRule, ...]:
    """Inverse of `rules_to_json`."""
    return tuple(MatchRule(HeaderMatch(r["header"], r["value"], r["is_prefix"]), r["arm"]) for r in value)


def counts_to_json(counts: Counts) -> Json:
    """Numbers in the order of their fields, by arm."""
    return {arm: list(astuple(count)) for arm, count in counts.items()}


def counts_from_json(value: Json) -> Counts:
    """Inverse of `counts_to_json`."""
    return {arm: ArmCount(*count) for arm, count in value.items()}


def _binding_to_json(binding: StateBinding) -> Json:
    return {
        "signature": binding.signature,
        "input": binding.input,
        "output": binding.output,
        "shape": list(binding.shape),
        "initial": b64encode(binding.initial).decode(),
    }


def _binding_from_json(value: Json) -> StateBinding:
    return StateBinding(**{**value, "shape": tuple(value["shape"]), "initial": b64decode(value["initial"])})


def _spec_to_json(spec: TensorSpec) -> Json:
    shape = None if spec.shape is None else list(spec.shape)
    return {"name": spec.name, "datatype": spec.datatype.name, "shape": shape, "forbid_nan": spec.forbid_nan}


def _spec_from_json(value: Json) -> TensorSpec:
    shape = None if value["shape"] is None else tuple(value["shape"])
    return TensorSpec(value["name"], Datatype[value["datatype"]], shape, value["forbid_nan"])
