"""The look into ONNX bytes: external data is found wherever it hides, and what is no protobuf is refused."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from edgepin import _onnx_scan
from edgepin._errors import BundleError
from edgepin._onnx_scan import check_self_contained

onnx = pytest.importorskip("onnx")


def tensor(external: bool = False) -> Any:
    value = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    if external:
        value.data_location = onnx.TensorProto.EXTERNAL
        value.external_data.add(key="location", value="/etc/passwd")
    return value


def model(*nodes: Any, initializers: tuple[Any, ...] = (), functions: tuple[Any, ...] = ()) -> Any:
    identity = onnx.helper.make_node("Identity", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([*nodes, identity], "g", ends[:1], ends[1:], list(initializers))
    return onnx.helper.make_model(graph, functions=list(functions))


def branch(node: Any) -> Any:
    return onnx.helper.make_node(
        "If",
        ["c"],
        ["z"],
        then_branch=onnx.helper.make_graph([node], "t", [], []),
        else_branch=onnx.GraphProto(),
    )


def constant(external: bool) -> Any:
    return onnx.helper.make_node("Constant", [], ["k"], value=tensor(external))


def sparse(external: bool) -> Any:
    return onnx.helper.make_sparse_tensor(
        tensor(external), onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [2], [0, 1]), [4]
    )


def hidden(where: str, external: bool) -> bytes:
    if where == "initializer":
        value = model(initializers=(tensor(external),))
    elif where == "constant":
        value = model(constant(external))
    elif where == "subgraph":
        value = model(branch(constant(external)))
    elif where == "subgraph of a subgraph":
        value = model(branch(branch(constant(external))))
    elif where == "list attribute":
        value = model(onnx.helper.make_node("Custom", [], ["k"], values=[tensor(), tensor(external)]))
    elif where == "sparse initializer":
        value = model()
        value.graph.sparse_initializer.append(sparse(external))
    elif where == "sparse constant":
        value = model(onnx.helper.make_node("Constant", [], ["k"], sparse_value=sparse(external)))
    elif where == "function":
        opset = [onnx.helper.make_opsetid("", 18)]
        value = model(
            functions=(onnx.helper.make_function("d", "f", [], ["k"], [constant(external)], opset),)
        )
    else:
        value = model()
        value.training_info.add().initialization.initializer.append(tensor(external))
    return bytes(value.SerializeToString())


PLACES = [
    "initializer", "constant", "subgraph", "subgraph of a subgraph", "list attribute", "sparse initializer",
    "sparse constant", "function", "training",
]  # fmt: skip


@pytest.mark.parametrize("where", PLACES)
def test_external_data_is_found_wherever_it_hides(where: str) -> None:
    check_self_contained(hidden(where, external=False), "face.fp32.onnx")
    with pytest.raises(BundleError, match=r"face.fp32.onnx keeps values outside itself"):
        check_self_contained(hidden(where, external=True), "face.fp32.onnx")


def test_either_mark_of_external_data_is_enough() -> None:
    for field in ("data_location", "external_data"):
        value = tensor(external=True)
        value.ClearField(field)
        with pytest.raises(BundleError, match="outside itself"):
            check_self_contained(model(initializers=(value,)).SerializeToString(), "m")


def test_the_walk_knows_every_way_from_a_model_to_a_tensor() -> None:
    """Against the `onnx` package, so that a field added to the format does not go unseen."""

    def leads_to_tensor(message: Any, above: tuple[str, ...] = ()) -> bool:
        if message.name == "TensorProto":
            return True
        if message.name in above:
            return False
        return any(
            leads_to_tensor(field.message_type, (*above, message.name))
            for field in message.fields
            if field.message_type
        )

    seen: set[str] = set()
    queue = [onnx.ModelProto.DESCRIPTOR]
    while queue:
        message = queue.pop()
        if message.name in seen or message.name == "TensorProto":
            continue
        seen.add(message.name)
        expected = {
            field.number: field.message_type.name.removesuffix("Proto")
            for field in message.fields
            if field.message_type and leads_to_tensor(field.message_type)
        }
        assert _onnx_scan._CHILDREN[message.name.removesuffix("Proto")] == expected, message.name
        queue += [
            field.message_type
            for field in message.fields
            if field.message_type and leads_to_tensor(field.message_type)
        ]
    assert seen | {"TensorProto"} == {f"{name}Proto" for name in _onnx_scan._CHILDREN}


def test_models_that_reach_outside_in_other_ways_are_refused() -> None:
    context = model(
        onnx.helper.make_node("EPContext", [], ["k"], domain="com.microsoft", ep_cache_context="/x")
    )
    with pytest.raises(BundleError, match="EPContext"):
        check_self_contained(context.SerializeToString(), "m")
    with pytest.raises(BundleError, match="own format"):
        check_self_contained(b"\x12\x06\0\0ORTM", "m")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no graph"),
        (b"\x08\x0a", "no graph"),
        (b"\x3a", "cut short"),
        (b"\x3a\x05ab", "cut short"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "too long"),
        (b"\x00\x00", "impossible number"),
        (b"\xf8\xff\xff\xff\xff\x01\x00", "impossible number"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x38\x01", "wrong wire type"),
        (b"label enroll test\n", "not ONNX"),
    ],
)
def test_what_is_no_model_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        check_self_contained(data, "m")


def test_endless_nesting_is_refused_without_a_crash() -> None:
    data = b""
    for _ in range(3000):  # node -> attribute -> graph -> node ...
        for tag in (0x32, 0x2A, 0x0A):
            size, length = b"", len(data)
            while length > 0x7F:
                size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
            data = bytes([tag]) + size + bytes([length]) + data
    prefix, length = b"", len(data)
    while length > 0x7F:
        prefix, length = prefix + bytes([length & 0x7F | 0x80]), length >> 7
    with pytest.raises(BundleError, match="nested too deep"):
        check_self_contained(b"\x3a" + prefix + bytes([length]) + data, "m")


def test_random_damage_never_raises_anything_else() -> None:
    original, choose = hidden("subgraph of a subgraph", external=False), random.Random(3)
    for _ in range(3000):
        data = bytearray(original)
        for _ in range(choose.randrange(1, 4)):
            data[choose.randrange(len(data))] = choose.randrange(256)
        with contextlib.suppress(BundleError):
            check_self_contained(bytes(data[: choose.randrange(len(data) + 1)]), "m")
