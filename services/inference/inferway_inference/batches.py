"""The bytes of batches: joins the rows of requests into inputs, cuts outputs into answers, and joins those of parts."""

from __future__ import annotations

from collections.abc import Sequence

from inferway.datatypes import Datatype
from inferway.errors import ModelFailed
from inferway_inference.signatures import TensorSpec
from inferway_inference.tensors import Array, Buffer, Tensor, cut_rows
from inferway_inference.work import Batch, Part, Request


def join_inputs(batch: Batch) -> list[Array]:
    """The inputs of a batch: rows one after the other, in the order of its parts, the last one again as padding.

    Nothing is copied but padding, and rows of requests in several parts if they are byte strings.
    """
    parts, specs = batch.parts, batch.signature.inputs
    first = parts[0].payload
    if len(parts) == 1 and len(first.parts) == 1 and batch.padded_rows == batch.rows:
        return [
            Array(spec.datatype, tensor.shape, (tensor.raw,)) for spec, tensor in zip(specs, first.inputs, strict=True)
        ]
    padding = batch.padded_rows - batch.rows
    return [
        Array(
            spec.datatype,
            (batch.padded_rows, *first.inputs[index].shape[1:]),
            _padded(spec, [_rows_of(part, spec, index) for part in parts], parts[-1], padding, index),
        )
        for index, spec in enumerate(specs)
    ]


def split_outputs(batch: Batch, outputs: Sequence[Array]) -> list[list[Tensor]]:
    """For each part of a batch its own rows of the outputs that its request wants."""
    specs, parts = batch.signature.outputs, batch.parts
    shares: list[list[Tensor]] = [[] for _ in parts]
    rows = [part.rows for part in parts]
    whole = len(parts) == 1 and batch.padded_rows == batch.rows
    for index, array in zip(batch.outputs, outputs, strict=True):
        spec = specs[index]
        pieces = [bytes(array.parts[0])] if whole else cut_rows(array, rows)
        for part, share, piece in zip(parts, shares, pieces, strict=True):
            if index in part.payload.outputs:
                shape = array.shape if whole else (part.rows, *array.shape[1:])
                share.append(Tensor(spec.name, spec.datatype, shape, piece))
    return shares


def join_pieces(request: Request, part: Part, piece: list[Tensor]) -> list[Tensor] | None:
    """The outputs of a request in several parts, once the last of them is there; None before."""
    pieces = request.pieces = request.pieces or {}
    pieces[part.start] = piece
    if len(pieces) < len(request.parts):
        return None
    ordered = [pieces[start] for start in sorted(pieces)]
    return [
        Tensor(
            tensor.name,
            tensor.datatype,
            (sum([each[index].shape[0] for each in ordered]), *tensor.shape[1:]),
            b"".join([each[index].raw for each in ordered]),
        )
        for index, tensor in enumerate(ordered[0])
    ]


def wrong_rows(batch: Batch, outputs: Sequence[Array]) -> ModelFailed | None:
    """The error of a model that does not answer each row of a batch with a row."""
    if not batch.signature.batchable:
        return None
    for index, array in zip(batch.outputs, outputs, strict=True):
        if array.shape[:1] != (batch.padded_rows,):
            name, shape = batch.signature.outputs[index].name, list(array.shape)
            return ModelFailed(
                f"the model answered {batch.padded_rows} rows with {name!r} of shape {shape}",
                cause="rows lost or added",
            )
    return None


def rows_by_tenant(batch: Batch) -> dict[str, int]:
    """How many rows of the batch each tenant has: nobody learns how busy the others are."""
    rows: dict[str, int] = {}
    for part in batch.parts:
        rows[part.tenant] = rows.get(part.tenant, 0) + part.rows
    return rows


def _rows_of(part: Part, spec: TensorSpec, index: int) -> Buffer:
    request = part.payload
    return request.inputs[index].raw if part.rows == request.rows else _cut(request, spec, index, part.start, part.rows)


def _padded(spec: TensorSpec, rows: list[Buffer], last: Part, padding: int, index: int) -> list[Buffer]:
    if padding:
        row = _cut(last.payload, spec, index, last.start + last.rows - 1, 1)
        rows += [row] * padding
    return rows


def _cut(request: Request, spec: TensorSpec, index: int, start: int, rows: int) -> Buffer:
    tensor = request.inputs[index]
    if spec.datatype is Datatype.BYTES:
        return cut_rows(Array(spec.datatype, tensor.shape, (tensor.raw,)), [start, rows])[1]
    row_bytes = len(tensor.raw) // request.rows
    return memoryview(tensor.raw)[start * row_bytes : (start + rows) * row_bytes]
