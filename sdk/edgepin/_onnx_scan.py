"""Refuses an ONNX model that reaches outside its own bytes, before a runtime sees it.

A tensor may name a file (or, in ONNX Runtime, an address in memory) instead of holding its values, and a node
may name a compiled context. Devices do not have the `onnx` package, and none is needed: this walks protobuf's
wire format through the few messages that lead to a tensor. Field numbers: onnx.proto3 of ONNX 1.18 (tests
hold them against the `onnx` package).
"""

from __future__ import annotations

from ._errors import BundleError

_MAX_DEPTH = 100  # protobuf's own limit
_MAX_TAG = (1 << 32) - 1

# message -> field -> the message in it. Only what can lead to a tensor is here.
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_NODE_OP_TYPE = 4
_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14
_MODEL_GRAPH = 7

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_self_contained(data: bytes | memoryview, name: str) -> None:
    """Raises `BundleError`, naming the member `name`, unless `data` is a well-formed ONNX model that holds
    all its values."""
    # ONNX Runtime takes bytes with this mark for its own flat format, which no check here covers.
    if bytes(data[4:8]) == b"ORTM":
        raise BundleError(f"{name} is not ONNX: it is a model in ONNX Runtime's own format")
    try:
        has_graph = _walk(data, 0, len(data), "Model", 0, name)
    except _MalformedError as error:
        raise BundleError(f"{name} is not ONNX: {error}") from None
    if not has_graph:
        raise BundleError(f"{name} is not ONNX: it has no graph")


class _MalformedError(Exception):
    """The bytes are not protobuf."""


def _walk(data: bytes | memoryview, offset: int, end: int, message: str, depth: int, name: str) -> bool:
    """Walks one message in `data[offset:end]`. True if it has a field 7 that is a message: for a model, the
    graph."""
    if depth > _MAX_DEPTH:
        raise _MalformedError("it is nested too deep")
    children = _CHILDREN[message]
    has_graph = False
    while offset < end:
        tag, offset = _varint(data, offset, end)
        field, wire = tag >> 3, tag & 7
        if tag > _MAX_TAG or field == 0:
            raise _MalformedError("a field has an impossible number")
        value = length = 0
        if wire == _VARINT:
            value, offset = _varint(data, offset, end)
        elif wire == _BYTES:
            length, offset = _varint(data, offset, end)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _MalformedError(f"a field has the unknown wire type {wire}")
        if length > end - offset:
            raise _MalformedError("it is cut short")
        if field in children:
            if wire != _BYTES:
                raise _MalformedError("a field has the wrong wire type")
            _walk(data, offset, offset + length, children[field], depth + 1, name)
            has_graph = has_graph or field == _MODEL_GRAPH
        elif message == "Tensor" and (
            field == _TENSOR_EXTERNAL_DATA or (field == _TENSOR_DATA_LOCATION and (value or length))
        ):
            raise BundleError(
                f"{name} keeps values outside itself (external data)",
                hint="export the model with its weights inside",
            )
        elif (
            message == "Node"
            and field == _NODE_OP_TYPE
            and bytes(data[offset : offset + length]) == b"EPContext"
        ):
            raise BundleError(
                f"{name} refers to a compiled context (EPContext)", hint="engines are never in a bundle"
            )
        offset += length
    return has_graph


def _varint(data: bytes | memoryview, offset: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while offset < end:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
        shift += 7
        if shift > 63:
            raise _MalformedError("a number is too long")
    raise _MalformedError("it is cut short")
