"""The look into ONNX bytes: external data is found wherever it hides, and what is no protobuf is refused."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from edgepin._bundle import onnx_scan as _onnx_scan
from edgepin._bundle.onnx_operators import OPERATORS
from edgepin._bundle.onnx_scan import DeclaredValue, check_self_contained, scan_model
from edgepin._errors import BundleError
from edgepin_kernels import LogMelSpec, log_mel_onnx

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
        value = model(onnx.helper.make_node("Constant", [], ["k"], values=[tensor(), tensor(external)]))
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


def test_the_field_numbers_are_those_of_the_onnx_package() -> None:
    def numbers(message: Any, *names: str) -> dict[str, int]:
        return {name: message.DESCRIPTOR.fields_by_name[name].number for name in names}

    assert {
        ("name" if name == "op_type" else name): number
        for name, number in numbers(onnx.NodeProto, "domain", "op_type", "overload").items()
    } == _onnx_scan._NODE_NAME
    assert numbers(onnx.FunctionProto, "domain", "name", "overload") == _onnx_scan._FUNCTION_NAME
    assert numbers(onnx.ModelProto, "graph", "metadata_props", "functions") == {
        "graph": _onnx_scan._MODEL_GRAPH,
        "metadata_props": _onnx_scan._MODEL_METADATA,
        "functions": _onnx_scan._MODEL_FUNCTION,
    }
    assert numbers(onnx.GraphProto, "input", "output") == {
        "input": _onnx_scan._GRAPH_INPUT,
        "output": _onnx_scan._GRAPH_OUTPUT,
    }
    assert numbers(onnx.TensorProto, "dims", "external_data", "data_location") == {
        "dims": _onnx_scan._TENSOR_DIMS,
        "external_data": _onnx_scan._TENSOR_EXTERNAL_DATA,
        "data_location": _onnx_scan._TENSOR_DATA_LOCATION,
    }
    assert numbers(onnx.TypeProto, "tensor_type", "denotation") == {
        "tensor_type": _onnx_scan._TYPE_TENSOR,
        "denotation": _onnx_scan._TYPE_DENOTATION,
    }


def test_every_operator_of_onnx_is_known_as_its_own() -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert names - OPERATORS == set()
    assert OPERATORS - names == set() or onnx.defs.onnx_opset_version() < 28


def test_inputs_and_outputs_are_read_as_the_onnx_package_writes_them() -> None:
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [],
        "g",
        [make("face", onnx.TensorProto.UINT8, ["N", 64, 64, 3]), make("a", onnx.TensorProto.FLOAT, None)],
        [
            make("scalar", onnx.TensorProto.INT64, []),
            make("free", onnx.TensorProto.FLOAT, [None, 256]),
            onnx.helper.make_tensor_sequence_value_info("list", onnx.TensorProto.FLOAT, [1]),
        ],
    )
    declared = scan_model(onnx.helper.make_model(graph).SerializeToString(), "m")
    assert declared.inputs == (DeclaredValue("face", 2, (None, 64, 64, 3)), DeclaredValue("a", 1, None))
    assert declared.outputs == (
        DeclaredValue("scalar", 7, ()),
        DeclaredValue("free", 1, (None, 256)),
        DeclaredValue("list", 0, None),
    )


def test_the_log_mel_is_taken_with_its_function_or_written_out_and_not_as_a_bare_node() -> None:
    for form in ("function", "inlined"):
        check_self_contained(log_mel_onnx(LogMelSpec(), form=form).SerializeToString(), "m")
    with pytest.raises(BundleError, match=r"needs the operator edgepin\.LogMel"):
        check_self_contained(log_mel_onnx(LogMelSpec(), form="node").SerializeToString(), "m")


def functions(calls: dict[str, list[str]]) -> bytes:
    """A model that calls `f0`, of functions that each call others one after the other."""
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("d", 1)]

    def nodes(called: list[str]) -> list[Any]:
        names = ["x", *(f"t{number}" for number in range(len(called) - 1)), "y"]
        return [
            onnx.helper.make_node(name, [names[at]], [names[at + 1]], domain="" if name == "Neg" else "d")
            for at, name in enumerate(called)
        ]

    made = [
        onnx.helper.make_function("d", name, ["x"], ["y"], nodes(called), opsets)
        for name, called in calls.items()
    ]
    return bytes(model(*nodes(["f0"]), functions=tuple(made)).SerializeToString())


def test_functions_are_counted_where_they_are_called_and_not_where_they_stand() -> None:
    check_self_contained(functions({"f0": ["f1", "f1"], "f1": ["Neg"] * 20, "unused": ["unused"]}), "m")
    # 10 * 10 * 10 * 10 * 6 nodes, and the calls
    wide = {f"f{number}": [f"f{number + 1}"] * 10 for number in range(4)}
    check_self_contained(functions({**wide, "f4": ["Neg"] * 3}), "m")
    with pytest.raises(BundleError, match="more than 50,000 nodes"):
        check_self_contained(functions({**wide, "f4": ["Neg"] * 6}), "m")


def test_a_long_chain_of_functions_is_refused_without_a_crash() -> None:
    chain = {f"f{number}": [f"f{number + 1}"] for number in range(5000)}
    with pytest.raises(BundleError, match="nested too deep"):
        check_self_contained(functions({**chain, "f5000": ["Neg"]}), "m")


def test_a_function_that_is_called_from_a_branch_counts() -> None:
    call = branch(onnx.helper.make_node("gone", ["x"], ["z"], domain="d"))
    with pytest.raises(BundleError, match=r"needs the operator d\.gone"):
        check_self_contained(model(call).SerializeToString(), "m")


def test_an_overload_is_another_function() -> None:
    value = model(onnx.helper.make_node("f", ["x"], ["z"], domain="d", overload="b"))
    opsets = [onnx.helper.make_opsetid("", 18)]
    function = onnx.helper.make_function(
        "d", "f", ["x"], ["y"], [onnx.helper.make_node("Neg", ["x"], ["y"])], opsets
    )
    value.functions.append(function)
    with pytest.raises(BundleError, match=r"needs the operator d\.f\.b"):
        check_self_contained(value.SerializeToString(), "m")
    value.functions[0].overload = "b"
    check_self_contained(value.SerializeToString(), "m")


def test_a_weight_holds_as_many_values_as_it_says() -> None:
    import numpy as np

    for array in (np.zeros((3, 0), np.float32), np.zeros((), np.float32), np.ones((2, 3), np.float16)):
        check_self_contained(
            model(initializers=(onnx.numpy_helper.from_array(array, "w"),)).SerializeToString(), "m"
        )
    for kind in ("INT4", "UINT4", "BOOL", "STRING", "DOUBLE", "INT32"):
        values = [b"s"] * 9 if kind == "STRING" else [1] * 9
        weight = onnx.helper.make_tensor("w", getattr(onnx.TensorProto, kind), [9], values)
        check_self_contained(model(initializers=(weight,)).SerializeToString(), "m")
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [9], [1.0] * 9)
    weight.dims[0] = 10_000
    with pytest.raises(BundleError, match="larger than the values"):
        check_self_contained(model(initializers=(weight,)).SerializeToString(), "m")


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
