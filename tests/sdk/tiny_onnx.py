"""Writes tiny ONNX models byte by byte, so that golden files depend on no version of the `onnx` package.

Field numbers: onnx.proto3 of ONNX 1.18. Fields are written in the order of the arguments, and hostile models are as
easy to write as right ones. `encoder` is a model that runs: it is no good at recognizing anyone.
"""

from __future__ import annotations

FLOAT, UINT8, INT8, INT16, INT64 = 1, 2, 3, 5, 7
DIM = 256
Axis = int | str | None


def varint(value: int) -> bytes:
    """An unsigned or, as 64 bits, a negative number."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    """A number, or a string or message with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, element_type: int, dims: list[int], raw: bytes) -> bytes:
    return b"".join(field(1, dim) for dim in dims) + field(2, element_type) + field(8, name) + field(9, raw)


def integer(name: str, value: int) -> bytes:
    """An attribute."""
    return field(1, name) + field(3, value) + field(20, 2)


def integers(name: str, values: list[int]) -> bytes:
    """An attribute."""
    return field(1, name) + b"".join(field(8, value) for value in values) + field(20, 7)


def node(op: str, inputs: list[str], outputs: list[str], *attributes: bytes, domain: str = "") -> bytes:
    return (
        b"".join(field(1, name) for name in inputs)
        + b"".join(field(2, name) for name in outputs)
        + field(4, op)
        + b"".join(field(5, attribute) for attribute in attributes)
        + (field(7, domain) if domain else b"")
    )


def value(name: str, element_type: int, shape: list[Axis] | None) -> bytes:
    """An input or output: fixed axes as numbers, free ones as names; a shape of None is not stated."""
    kind = field(1, element_type)
    if shape is not None:
        dims = (b"" if axis is None else field(1 if isinstance(axis, int) else 2, axis) for axis in shape)
        kind += field(2, b"".join(field(1, dim) for dim in dims))
    return field(1, name) + field(2, field(1, kind))


def graph(nodes: list[bytes], tensors: list[bytes], inputs: list[bytes], outputs: list[bytes]) -> bytes:
    return (
        b"".join(field(1, item) for item in nodes)
        + field(2, "g")
        + b"".join(field(5, item) for item in tensors)
        + b"".join(field(11, item) for item in inputs)
        + b"".join(field(12, item) for item in outputs)
    )


def function(domain: str, name: str, nodes: list[bytes], inputs: list[str], outputs: list[str]) -> bytes:
    return (
        field(1, name)
        + b"".join(field(4, item) for item in inputs)
        + b"".join(field(5, item) for item in outputs)
        + b"".join(field(7, item) for item in nodes)
        + field(9, field(2, 17))
        + field(10, domain)
    )


def model(content: bytes, functions: list[bytes] = [], domains: list[str] = []) -> bytes:  # noqa: B006
    """IR version 8 and opset 17, which every runtime that the device allows reads."""
    return (
        field(1, 8)
        + field(7, content)
        + field(8, field(2, 17))
        + b"".join(field(8, field(1, domain) + field(2, 1)) for domain in domains)
        + b"".join(field(25, item) for item in functions)
    )


INPUTS = {
    "face": value("face", UINT8, ["N", 16, 16, 3]),
    "voice": value("log_mel", FLOAT, ["N", "T", 80]),
    "portable": value("pcm", FLOAT, ["N", "S"]),
}
OUTPUTS = [value(name, FLOAT, ["N", DIM]) for name in ("identity", "pin")]


def body(kind: str, seed: int) -> tuple[list[bytes], list[bytes]]:
    """Nodes and tensors: a few means of the capture, times a fixed matrix, at unit length."""
    source, axes, features = {
        "face": ("face", [1, 2], 3),  # the mean color
        "voice": ("log_mel", [1], 2),  # the mean over time of the lower and of the upper mels
        "portable": ("pcm", [1], 1),
    }[kind]
    tensors = [tensor("matrix", INT8, [features, DIM], _noise(features * DIM, seed))]
    nodes = [
        node("Cast", [source], ["real"], integer("to", FLOAT)),
        node(
            "ReduceMean", ["real"], ["mean"], integers("axes", axes), integer("keepdims", kind == "portable")
        ),
    ]
    if kind == "voice":
        tensors.append(tensor("halves", INT64, [3], b"".join(n.to_bytes(8, "little") for n in (0, 2, 40))))
        nodes += [
            node("Reshape", ["mean", "halves"], ["parts"]),
            node("ReduceMean", ["parts"], ["features"], integers("axes", [2]), integer("keepdims", 0)),
        ]
    nodes += [
        node("Cast", ["matrix"], ["weights"], integer("to", FLOAT)),
        node("MatMul", ["features" if kind == "voice" else "mean", "weights"], ["long"]),
        node("LpNormalization", ["long"], ["identity"], integer("axis", 1), integer("p", 2)),
        node("Neg", ["identity"], ["pin"]),
    ]
    return nodes, tensors


def _noise(count: int, state: int) -> bytes:
    """Bytes of a linear congruential generator (the constants of Numerical Recipes): the same everywhere."""
    out = bytearray()
    for _ in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        out.append(state >> 24)
    return bytes(out)


def encoder(kind: str, seed: int = 1) -> bytes:
    """A whole encoder; kind is `face` (crops of 16 px), `voice` (80 mels) or `portable`."""
    nodes, tensors = body(kind, seed)
    return model(graph(nodes, tensors, [INPUTS[kind]], OUTPUTS))
