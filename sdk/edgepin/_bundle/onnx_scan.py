"""Refuses an ONNX model that reaches outside its own bytes, or would swell without bound, before a runtime sees it.

A tensor may name a file (or, in ONNX Runtime, an address in memory) instead of holding its values; a node may
name a compiled context, or an operator that some library or plugin would have to bring; a function may call
itself, or multiply into millions of nodes. Devices do not have the `onnx` package, and none is needed: this
walks protobuf's wire format through the few messages that lead to a tensor or a node. Field numbers: onnx.proto3
of ONNX 1.18 (tests hold them against the `onnx` package).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .._errors import BundleError
from .onnx_operators import OPERATORS
from .protobuf import VARINT, Field, MalformedError, Reader

MAX_NODES = 50_000
"""With every function written out. Our own encoders have fewer than a hundred."""

_MAX_DEPTH = 100  # protobuf's own limit
_STANDARD_DOMAINS = ("", "ai.onnx")

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
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTION = 7, 14, 25
_GRAPH_INPUT, _GRAPH_OUTPUT = 11, 12
# What an operator is called: by the node that calls it, and by the function that defines it.
_NODE_NAME = {"domain": 7, "name": 4, "overload": 8}
_FUNCTION_NAME = {"domain": 10, "name": 1, "overload": 13}
_TENSOR_DIMS, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 1, 13, 14
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TYPE_DENOTATION = 1, 6
_TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE = 1, 2
_SHAPE_DIM, _DIM_VALUE = 1, 1


@dataclass(frozen=True)
class DeclaredValue:
    """An input or output as the model declares it.

    `element_type` is ONNX's number (0 if it is no tensor); `shape` has a number for every fixed axis and None for
    every free one, and is None itself where the model states none.
    """

    name: str
    element_type: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class DeclaredModel:
    """What a model takes and gives."""

    inputs: tuple[DeclaredValue, ...]
    outputs: tuple[DeclaredValue, ...]


def scan_model(data: bytes | memoryview, name: str) -> DeclaredModel:
    """What the model in `data` declares.

    Raises `BundleError`, naming the member `name`, unless it is a well-formed ONNX model that holds all its values,
    is made of ONNX's own operators and of functions that it defines, and has at most `MAX_NODES` nodes.
    """
    # ONNX Runtime takes bytes with this mark for its own flat format, which no check here covers.
    if bytes(data[4:8]) == b"ORTM":
        raise BundleError(f"{name} is not ONNX: it is a model in ONNX Runtime's own format")
    try:
        return _Scan(data, name).model()
    except MalformedError as error:
        raise BundleError(f"{name} is not ONNX: {error}") from None


def check_self_contained(data: bytes | memoryview, name: str) -> None:
    """Raises as `scan_model` does."""
    scan_model(data, name)


Operator = tuple[str, str, str]  # domain, name, overload


class _Body:
    """What a function, or everything outside of them, is made of: its nodes, and how often it calls what."""

    def __init__(self) -> None:
        self.nodes = 0
        self.calls: Counter[Operator] = Counter()


class _Scan:
    def __init__(self, data: bytes | memoryview, name: str) -> None:
        self._reader, self._name = Reader(data), name
        self._functions: dict[Operator, _Body] = {}
        self._sizes: dict[Operator, int] = {}

    def model(self) -> DeclaredModel:
        top, graph = _Body(), None
        for field in self._reader.fields(0, len(self._reader.data)):
            if field.number == _MODEL_GRAPH:
                if graph is not None:  # parsers merge the two
                    raise MalformedError("it has two graphs")
                graph = field
            if field.number == _MODEL_METADATA:
                self._check_metadata(field)
            body = _Body() if field.number == _MODEL_FUNCTION else top
            self._child("Model", field, body, 0)
            if field.number == _MODEL_FUNCTION:
                self._define(field, body)
        if graph is None:
            raise MalformedError("it has no graph")
        self._size(top, ())
        return self._declared(graph)

    # --- Every message that leads to a tensor or a node

    def _walk(self, start: int, end: int, message: str, body: _Body, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise MalformedError("it is nested too deep")
        if message == "Node":
            self._node(start, end, body, depth)
            return
        if message == "Tensor":
            self._tensor(start, end)
            return
        for field in self._reader.fields(start, end):
            self._child(message, field, body, depth)

    def _child(self, message: str, field: Field, body: _Body, depth: int) -> None:
        child = _CHILDREN[message].get(field.number)
        if child is not None:
            start, end = self._reader.message(field)
            self._walk(start, end, child, body, depth + 1)

    def _node(self, start: int, end: int, body: _Body, depth: int) -> None:
        named: dict[int, Field] = {}
        for field in self._reader.fields(start, end):
            if field.number in _NODE_NAME.values():
                if field.number in named:  # parsers take the last: none may hide behind another
                    raise MalformedError("a node is named twice")
                named[field.number] = field
            self._child("Node", field, body, depth)
        operator = self._operator(named, _NODE_NAME)
        if operator[1] == "EPContext":
            raise BundleError(
                f"{self._name} refers to a compiled context (EPContext)", hint="engines are never in a bundle"
            )
        body.nodes += 1
        if operator[0] not in _STANDARD_DOMAINS or operator[1] not in OPERATORS:
            body.calls[operator] += 1

    def _tensor(self, start: int, end: int) -> None:
        values = 1
        for field in self._reader.fields(start, end):
            if field.number == _TENSOR_EXTERNAL_DATA or (
                field.number == _TENSOR_DATA_LOCATION and (field.value or field.wire != VARINT)
            ):
                raise BundleError(
                    f"{self._name} keeps values outside itself (external data)",
                    hint="export the model with its weights inside",
                )
            if field.number == _TENSOR_DIMS:
                for dim in self._reader.varints(field):
                    if dim < 0:
                        raise MalformedError("a tensor has a negative size")
                    # Held down, so that many dimensions do not make a number of a million digits.
                    values = min(values * dim, 1 << 62)
        # No element type has more than eight values in a byte, whatever field holds them.
        if values > 8 * (end - start):
            raise MalformedError("a tensor is larger than the values that it holds")

    def _check_metadata(self, field: Field) -> None:
        entry = self._reader.once(*self._reader.message(field))
        if 1 in entry and self._reader.text(entry[1]) == "ort_config":
            raise BundleError(f"{self._name} carries settings for ONNX Runtime (ort_config)")

    # --- Functions

    def _define(self, field: Field, body: _Body) -> None:
        named: dict[int, Field] = {}
        for part in self._reader.fields(*self._reader.message(field)):
            if part.number in _FUNCTION_NAME.values():
                if part.number in named:
                    raise MalformedError("a function is named twice")
                named[part.number] = part
        operator = self._operator(named, _FUNCTION_NAME)
        if operator[0] in _STANDARD_DOMAINS:
            raise BundleError(f"{self._name} redefines ONNX's own operator {ascii(operator[1])[1:-1]:.80}")
        if operator in self._functions:
            raise BundleError(f"{self._name} defines {_spelled(operator)} twice")
        self._functions[operator] = body

    def _operator(self, named: dict[int, Field], numbers: dict[str, int]) -> Operator:
        domain, name, overload = (
            self._reader.text(named[number]) if number in named else "" for number in numbers.values()
        )
        return domain, name, overload

    def _size(self, body: _Body, above: tuple[Operator, ...]) -> int:
        """How many nodes `body` is with every function in its place."""
        if len(above) > _MAX_DEPTH:
            raise MalformedError("its functions are nested too deep")
        size = body.nodes
        for operator, times in body.calls.items():
            if operator not in self._functions:
                raise BundleError(
                    f"{self._name} needs the operator {_spelled(operator)}, which is not ONNX's own",
                    hint="export the model with ONNX's standard operators, or with the function inside",
                )
            if operator in above:
                raise BundleError(f"{self._name} has a function that calls itself: {_spelled(operator)}")
            if operator not in self._sizes:
                self._sizes[operator] = self._size(self._functions[operator], (*above, operator))
            size += times * self._sizes[operator]
            if size > MAX_NODES:
                break
        if size > MAX_NODES:
            raise BundleError(
                f"{self._name} has more than {MAX_NODES:,} nodes, with its functions written out"
            )
        return size

    # --- Inputs and outputs

    def _declared(self, graph: Field) -> DeclaredModel:
        found: dict[int, list[DeclaredValue]] = {_GRAPH_INPUT: [], _GRAPH_OUTPUT: []}
        for field in self._reader.fields(graph.start, graph.end):
            if field.number in found:
                found[field.number].append(self._value(field))
        return DeclaredModel(tuple(found[_GRAPH_INPUT]), tuple(found[_GRAPH_OUTPUT]))

    def _value(self, field: Field) -> DeclaredValue:
        reader = self._reader
        parts: dict[int, Field] = {}
        for part in reader.fields(*reader.message(field)):
            if part.number in (_VALUE_NAME, _VALUE_TYPE):
                if part.number in parts:
                    raise MalformedError("an input or output is declared twice over")
                parts[part.number] = part
        name = reader.text(parts[_VALUE_NAME]) if _VALUE_NAME in parts else ""
        kind = reader.once(*reader.message(parts[_VALUE_TYPE])) if _VALUE_TYPE in parts else {}
        if kind.keys() - {_TYPE_DENOTATION} != {_TYPE_TENSOR}:
            return DeclaredValue(name, 0, None)
        tensor = reader.once(*reader.message(kind[_TYPE_TENSOR]))
        element_type = reader.integer(tensor[_TENSOR_TYPE_ELEMENT]) if _TENSOR_TYPE_ELEMENT in tensor else 0
        if _TENSOR_TYPE_SHAPE not in tensor:
            return DeclaredValue(name, element_type, None)
        dims: list[int | None] = []
        for part in reader.fields(*reader.message(tensor[_TENSOR_TYPE_SHAPE])):
            if part.number == _SHAPE_DIM:
                dim = reader.once(*reader.message(part))
                dims.append(reader.integer(dim[_DIM_VALUE]) if _DIM_VALUE in dim else None)
        return DeclaredValue(name, element_type, tuple(dims))


def _spelled(operator: Operator) -> str:
    return ascii(".".join(part for part in operator if part))[1:-1][:80]
