"""Checks a request against the signature it names, and works out what the scheduler needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping

from inferway.errors import DeadlineExceeded, InvalidBatch, UnknownSignature
from inferway_inference.latency import curve_key
from inferway_inference.signatures import Signature
from inferway_inference.work import Request


def admit(request: Request, signatures: Mapping[str, Signature]) -> None:
    """Sets the lower part of `request`; raises InvalidRequest or DeadlineExceeded."""
    if request.deadline <= request.received_at:
        raise DeadlineExceeded("the deadline had passed when the request reached the worker", stage="worker")
    signature = signatures.get(request.signature_name)
    if signature is None:
        raise _unknown_signature(request, signatures)
    inputs = request.inputs
    rows = signature.check(inputs)
    if rows != request.claimed_rows:
        raise InvalidBatch.at("rows", f"the inputs have {rows} rows; the envelope says {request.claimed_rows}")
    request.signature = signature
    request.outputs = signature.output_indexes(request.output_names)
    request.rows = rows
    request.byte_count = sum([len(tensor.raw) for tensor in inputs])
    request.curve = curve_key(signature.name, [tensor.shape for tensor in inputs])
    request.key = (request.curve, request.parameters)


def _unknown_signature(request: Request, signatures: Mapping[str, Signature]) -> UnknownSignature:
    name = request.signature_name[:64]
    return UnknownSignature.at(
        "signature", f"{request.version} has no signature {name!r}; it has {', '.join(signatures)}", signature=name
    )
