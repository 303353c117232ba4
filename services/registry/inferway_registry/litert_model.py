"""Reads from a LiteRT model what it can be asked, without LiteRT.

The file is one FlatBuffer (https://flatbuffers.dev/internals), of which a few tables are read. Fields are found by
their number in LiteRT's `schema.fbs`, which never changes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, error

from inferway.datatypes import Datatype
from inferway_registry.manifest import LITERT_MODEL
from inferway_registry.resources import Signature, TensorSpec
from inferway_registry.signatures import MAX_SIGNATURES, Reading

SIGNATURE = "serving_default"
"""Name of the signature of a model that has none."""
_FILE = Reading(LITERT_MODEL)
_IDENTIFIER = b"TFL3"
_MODEL_SUBGRAPHS, _MODEL_SIGNATURES = 2, 7
_SUBGRAPH_TENSORS, _SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS = 0, 1, 2
_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS, _SIGNATURE_KEY, _SIGNATURE_SUBGRAPH = 0, 1, 2, 4
_NAMED_NAME, _NAMED_TENSOR = 0, 1
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_OPEN_SHAPE = 0, 1, 3, 7
_DATATYPES: dict[int, Datatype] = {
    0: Datatype.FP32,
    1: Datatype.FP16,
    2: Datatype.INT32,
    3: Datatype.UINT8,
    4: Datatype.INT64,
    5: Datatype.BYTES,
    6: Datatype.BOOL,
    7: Datatype.INT16,
    9: Datatype.INT8,
    10: Datatype.FP64,
    12: Datatype.UINT64,
    15: Datatype.UINT32,
    16: Datatype.UINT16,
    18: Datatype.BF16,
}
"""LiteRT's TensorType numbers that a request can carry."""


_MAX_ELEMENTS = 10_000
_INT8, _UINT16, _INT32, _UINT32 = (Struct(kind) for kind in ("<b", "<H", "<i", "<I"))


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the file, and its fields by number; raises struct.error or IndexError where the file is damaged."""

    data: bytes
    position: int

    def number(self, field: int, kind: Struct = _UINT32) -> int:
        """A field of numbers; 0 if it is not set."""
        place = self._place(field)
        return self._read(place, kind) if place else 0

    def numbers(self, field: int) -> list[int]:
        """A short vector of 32-bit integers; empty if it is not set."""
        return [self._read(place, _INT32) for place in self._few(field)]

    def tables(self, field: int) -> list[_Table]:
        """A short vector of tables; empty if it is not set."""
        return [_Table(self.data, place + self._read(place)) for place in self._few(field)]

    def table(self, field: int, index: int) -> _Table:
        """One table of a vector of any length."""
        place = self._elements(field, 4)[index]
        return _Table(self.data, place + self._read(place))

    def text(self, field: int) -> str:
        """A string; empty if it is not set. Raises UnicodeDecodeError as well."""
        places = self._elements(field, 1)
        return self.data[places.start : places.stop].decode()

    def _place(self, field: int) -> int:
        """Where the content of a field begins; 0 if it is not set. Offsets of all fields are in a table before it."""
        offsets = self.position - self._read(self.position, _INT32)
        entry = 4 + 2 * field
        offset = self._read(offsets + entry, _UINT16) if entry < self._read(offsets, _UINT16) else 0
        return offset and self.position + offset

    def _elements(self, field: int, size: int) -> range:
        """Where the elements of a vector begin, each of `size` bytes."""
        place = self._place(field)
        if not place:
            return range(0)
        count = place + self._read(place)
        places = range(count + 4, count + 4 + size * self._read(count), size)
        if places.stop > len(self.data):
            raise IndexError
        return places

    def _few(self, field: int) -> range:
        """As many elements as a publisher may make the registry keep in memory."""
        places = self._elements(field, 4)
        if len(places) > _MAX_ELEMENTS:
            raise IndexError
        return places

    def _read(self, place: int, kind: Struct = _UINT32) -> int:
        if place < 0:
            raise IndexError
        value: int = kind.unpack_from(self.data, place)[0]
        return value


def read_signatures(model: bytes) -> tuple[Signature, ...]:
    """Returns the signatures of `model.tflite` by name, or one of its tensors' names; raises CorruptArtifact."""
    if model[4:8] != _IDENTIFIER:
        raise _FILE.corrupt("it is no LiteRT model: its identifier is not TFL3")
    try:
        root = _Table(model, _UINT32.unpack_from(model)[0])
        signatures = tuple(sorted(_signatures(root), key=lambda signature: signature.name))
    except (error, IndexError, UnicodeDecodeError) as cause:
        raise _FILE.corrupt("it is damaged") from cause
    if len({signature.name for signature in signatures}) < len(signatures):
        raise _FILE.corrupt("two signatures have the same name")
    return signatures


def _signatures(model: _Table) -> Iterator[Signature]:
    described = model.tables(_MODEL_SIGNATURES)
    if len(described) > MAX_SIGNATURES:
        raise _FILE.corrupt(f"it has {len(described)} signatures; at most {MAX_SIGNATURES} are permitted")
    for signature in described:
        name = signature.text(_SIGNATURE_KEY)
        _FILE.check_name(name, "a signature")
        subgraph = model.table(_MODEL_SUBGRAPHS, signature.number(_SIGNATURE_SUBGRAPH))
        sides = (_named(signature, side, subgraph) for side in (_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS))
        yield Signature(name, *(_specs(side, f"signature {name!r}") for side in sides))
    if not described:
        subgraph = model.table(_MODEL_SUBGRAPHS, 0)
        sides = (_listed(subgraph, side) for side in (_SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS))
        yield Signature(SIGNATURE, *(_specs(side, "the model") for side in sides))


_Tensors = list[tuple[str, _Table]]


def _named(signature: _Table, side: int, subgraph: _Table) -> _Tensors:
    return [
        (one.text(_NAMED_NAME), subgraph.table(_SUBGRAPH_TENSORS, one.number(_NAMED_TENSOR)))
        for one in signature.tables(side)
    ]


def _listed(subgraph: _Table, side: int) -> _Tensors:
    tensors = [subgraph.table(_SUBGRAPH_TENSORS, index) for index in subgraph.numbers(side)]
    return [(tensor.text(_TENSOR_NAME), tensor) for tensor in tensors]


def _specs(tensors: _Tensors, where: str) -> tuple[TensorSpec, ...]:
    _FILE.check_count(len(tensors), where)
    specs = {name: _spec(name, tensor, where) for name, tensor in tensors}
    if len(specs) < len(tensors):
        raise _FILE.corrupt(f"two tensors of {where} have the same name")
    return tuple(specs[name] for name in sorted(specs))


def _spec(name: str, tensor: _Table, where: str) -> TensorSpec:
    kind = tensor.number(_TENSOR_TYPE, _INT8)
    datatype = _DATATYPES.get(kind)
    if datatype is None:
        _FILE.check_name(name, f"a tensor of {where}")
        raise _FILE.corrupt(
            f"tensor {name!r} of {where} has LiteRT's type number {kind}, which no request can carry; convert the "
            "model with plain number or string tensors"
        )
    shape = tensor.numbers(_TENSOR_OPEN_SHAPE) or tensor.numbers(_TENSOR_SHAPE)
    return _FILE.spec(name, datatype, shape, where)
