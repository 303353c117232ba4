"""Orders and reports as JSON, between front and runner."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from inferway.datatypes import Datatype
from inferway_inference.runner.base import LoadOrder
from inferway_inference.runtimes.base import Placement
from inferway_inference.signatures import Signature, TensorSpec


def describe_order(order: LoadOrder) -> dict[str, Any]:
    """JSON form of an order; `read_order` is its inverse."""
    return {**asdict(order), "path": str(order.path)}


def read_order(content: dict[str, Any]) -> LoadOrder:
    """Inverse of `describe_order`; other members are ignored."""
    own = {field.name: content[field.name] for field in fields(LoadOrder)}
    return LoadOrder(**{**own, "path": Path(content["path"]), "placement": Placement(**content["placement"])})


def describe_signature(signature: Signature) -> dict[str, Any]:
    """JSON form of a signature; `read_signature` is its inverse."""
    return {
        "name": signature.name,
        "inputs": [[spec.name, spec.datatype, spec.shape] for spec in signature.inputs],
        "outputs": [[spec.name, spec.datatype, spec.shape] for spec in signature.outputs],
    }


def read_signature(content: dict[str, Any]) -> Signature:
    """Inverse of `describe_signature`."""

    def specs(described: list[tuple[str, int, list[int] | None]]) -> list[TensorSpec]:
        return [
            TensorSpec(name, Datatype(datatype), None if shape is None else tuple(shape))
            for name, datatype, shape in described
        ]

    return Signature.of(content["name"], specs(content["inputs"]), specs(content["outputs"]))
