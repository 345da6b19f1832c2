"""Bundles with hostile models: what would reach outside itself, swell, or not be the encoder that the manifest says."""

from __future__ import annotations

import struct

from edgepin._bundle.protobuf import MAX_FIELDS

from ..sdk.tiny_onnx import (
    FLOAT,
    INPUTS,
    INT64,
    OUTPUTS,
    body,
    encoder,
    field,
    function,
    graph,
    integer,
    model,
    node,
    tensor,
    value,
    varint,
)
from .forge import attack, bundle

SECRET = field(13, field(1, "location") + field(2, "/etc/passwd")) + field(14, 1)


def face(
    nodes: list[bytes] = [],  # noqa: B006
    tensors: list[bytes] = [],  # noqa: B006
    functions: list[bytes] = [],  # noqa: B006
    *,
    inputs: list[bytes] = [INPUTS["face"]],  # noqa: B006
    outputs: list[bytes] = OUTPUTS,
    after: bytes = b"",
) -> bytes:
    """A bundle whose face encoder has something more, or other ends."""
    own_nodes, own_tensors = body("face", 1)
    content = graph([*own_nodes, *nodes], [*own_tensors, *tensors], inputs, outputs)
    domains = ["d"] if functions else []
    return bundle(face_fp32_onnx=model(content, functions, domains) + after)


def subgraph(nodes: list[bytes]) -> bytes:
    """An `If` that holds `nodes` in its branch."""
    return node(
        "If", ["c"], ["z"], field(1, "then_branch") + field(6, graph(nodes, [], [], [])) + field(20, 5)
    )


def constant(content: bytes) -> bytes:
    return node("Constant", [], ["k"], field(1, "value") + field(5, content) + field(20, 4))


# --- Reaching outside


@attack("model", "a weight that is a file of the device", "keeps values outside itself")
def external_data() -> bytes:
    return face(tensors=[tensor("w", FLOAT, [1], b"") + SECRET])


@attack("model", "the same in a constant, within a branch of a branch", "keeps values outside itself")
def external_data_in_subgraph() -> bytes:
    return face([subgraph([subgraph([constant(SECRET)])])])


@attack("model", "the same in a function", "keeps values outside itself")
def external_data_in_function() -> bytes:
    return face(functions=[function("d", "f", [constant(SECRET)], [], ["k"])])


@attack("model", "a weight at an address in the runtime's memory", "keeps values outside itself")
def memory_address() -> bytes:
    address = field(13, field(1, "location") + field(2, "*/_ORT_MEM_ADDR_/*")) + field(14, 1)
    return face(tensors=[tensor("w", FLOAT, [1], b"") + address])


@attack("model", "a compiled context, which a provider loads as code", "refers to a compiled context")
def compiled_context() -> bytes:
    return face([node("EPContext", [], ["k"], domain="com.microsoft")])


@attack("model", "ONNX Runtime's own format, which the checks do not read", "ONNX Runtime's own format")
def runtime_format() -> bytes:
    return bundle(face_fp32_onnx=b"\x18\0\0\0ORTM" + bytes(64))


@attack("model", "settings for the runtime, such as to write a profile", "carries settings for ONNX Runtime")
def runtime_settings() -> bytes:
    settings = '{"session_options": {"enable_profiling": 1}}'
    return face(after=field(14, field(1, "ort_config") + field(2, settings)))


@attack("model", "an operator that calls Python", "needs the operator ai.onnx.contrib.PyOp")
def python_operator() -> bytes:
    return face([node("PyOp", ["face"], ["k"], domain="ai.onnx.contrib")])


@attack(
    "model", "an operator that only a plugin on the device would bring", "needs the operator edgepin.LogMel"
)
def plugin_operator() -> bytes:
    return face([node("LogMel", ["face"], ["k"], domain="edgepin")])


@attack(
    "model",
    "an operator that ONNX does not have, for which TensorRT's parser looks among the plugins",
    "needs the operator EfficientNMS_TRT, which is not ONNX's own",
)
def plugin_by_name() -> bytes:
    return face([node("EfficientNMS_TRT", ["real"], ["k"])])


@attack("model", "a node of two names, of which readers take the last", "a node is named twice")
def two_operators() -> bytes:
    return face([node("Relu", ["face"], ["k"]) + field(4, "EPContext")])


# --- Swelling


@attack("model", "a function that calls itself", "has a function that calls itself: d.f")
def recursion() -> bytes:
    return face([node("f", ["real"], ["k"], domain="d")], functions=[doubling("f", "f")])


@attack("model", "two functions that call each other", "has a function that calls itself: d.f")
def mutual_recursion() -> bytes:
    return face([node("f", ["real"], ["k"], domain="d")], functions=[doubling("f", "g"), doubling("g", "f")])


@attack("model", "thirty functions, each calling the next twice: a billion nodes", "more than 50,000 nodes")
def doubling_functions() -> bytes:
    chain = [doubling(f"f{number}", f"f{number + 1}") for number in range(30)]
    last = function("d", "f30", [node("Neg", ["x"], ["y"])], ["x"], ["y"])
    return face([node("f0", ["real"], ["k"], domain="d")], functions=[*chain, last])


def doubling(name: str, callee: str) -> bytes:
    calls = [node(callee, ["x"], ["t"], domain="d"), node(callee, ["t"], ["y"], domain="d")]
    return function("d", name, calls, ["x"], ["y"])


@attack("model", "a function in place of one of ONNX's operators", "redefines ONNX's own operator Neg")
def redefined_operator() -> bytes:
    return face(functions=[function("", "Neg", [node("Abs", ["x"], ["y"])], ["x"], ["y"])])


@attack("model", "one function twice", "defines d.f twice")
def two_functions() -> bytes:
    return face(functions=[function("d", "f", [], [], []), function("d", "f", [], [], [])])


@attack("model", "branches within branches, until a reader's stack ends", "nested too deep")
def deep_nesting() -> bytes:
    inner = node("Neg", ["real"], ["k"])
    for _ in range(200):
        inner = subgraph([inner])
    return face([inner])


@attack("model", "a weight of a terabyte that holds four bytes", "larger than the values that it holds")
def huge_weight() -> bytes:
    return face(tensors=[tensor("w", FLOAT, [1 << 19, 1 << 19], b"1234")])


@attack("model", "a weight with a size that overflows to a small one", "larger than the values that it holds")
def overflowing_weight() -> bytes:
    return face(tensors=[tensor("w", FLOAT, [1 << 33, 1 << 31, 4], b"1234")])


@attack("model", "a weight of negative size", "a tensor has a negative size")
def negative_weight() -> bytes:
    return face(tensors=[tensor("w", FLOAT, [-1], b"1234")])


@attack("model", "a million empty fields, which take a reader's time", f"more than {MAX_FIELDS:,} fields")
def empty_fields() -> bytes:
    return face(after=field(99, 0) * (MAX_FIELDS + 1))


# --- Another message to another reader


@attack("model", "two graphs: some readers merge them, some take the last", "it has two graphs")
def two_graphs() -> bytes:
    return face(after=field(7, graph([], [], [], [])))


@attack("model", "a group, a field that most readers skip", "unknown wire type 3")
def group() -> bytes:
    return face(after=varint(7 << 3 | 3) + varint(7 << 3 | 4))


@attack("model", "cut off within a weight", "is not ONNX: it is cut short")
def cut_model() -> bytes:
    return bundle(face_fp32_onnx=encoder("face")[:-200])


@attack("model", "no graph at all", "is not ONNX: it has no graph")
def no_graph() -> bytes:
    return bundle(face_fp32_onnx=b"")


# --- Not the encoder that the manifest says


@attack("model", "the voice encoder in the place of the face's", "face.fp32.onnx takes log_mel, float32")
def swapped_encoders() -> bytes:
    return bundle(face_fp32_onnx=encoder("voice"), voice_fp32_onnx=encoder("face"))


@attack("model", "another crop size than the manifest's", "face.fp32.onnx takes face, uint8 (?, 64, 64, 3)")
def other_crop() -> bytes:
    return face(inputs=[value("face", 2, ["N", 64, 64, 3])])


@attack("model", "another number of mels", "voice.fp32.onnx takes log_mel, float32 (?, ?, 40)")
def other_mels() -> bytes:
    content = graph(*body("voice", 1), [value("log_mel", FLOAT, ["N", "T", 40])], OUTPUTS)
    return bundle(voice_fp32_onnx=model(content))


@attack("model", "another element type", "face.fp32.onnx takes face, float32 (?, 16, 16, 3)")
def other_type() -> bytes:
    return face(inputs=[value("face", FLOAT, ["N", 16, 16, 3])])


@attack("model", "a sequence instead of a tensor", "face.fp32.onnx takes face, no tensor")
def sequence_input() -> bytes:
    return face(inputs=[field(1, "face") + field(2, field(4, field(1, field(1, field(1, 2)))))])


@attack(
    "model",
    "a second input, which nobody would give",
    "face.fp32.onnx takes face, uint8 (?, 16, 16, 3) and door",
)
def second_input() -> bytes:
    return face(inputs=[INPUTS["face"], value("door", INT64, [1])])


@attack("model", "a fixed batch of a million", "face.fp32.onnx takes face, uint8 (1000000, 16, 16, 3)")
def huge_batch() -> bytes:
    return face(inputs=[value("face", 2, [1_000_000, 16, 16, 3])])


@attack("model", "no pin", "face.fp32.onnx gives identity, float32 (?, 256); it must give identity")
def missing_output() -> bytes:
    return face(outputs=OUTPUTS[:1])


@attack("model", "embeddings of another length", "face.fp32.onnx gives identity, float32 (?, 512)")
def other_embedding() -> bytes:
    return face(outputs=[value("identity", FLOAT, ["N", 512]), OUTPUTS[1]])


@attack("model", "a portable encoder that takes features", "voice.portable.onnx takes log_mel")
def portable_takes_features() -> bytes:
    return bundle(voice_portable_onnx=encoder("voice"))


@attack("model", "a node whose input nothing gives", "ONNX Runtime refuses the face encoder", stage="run")
def dangling_input() -> bytes:
    return face([node("Neg", ["nothing"], ["k"])])


@attack(
    "model",
    "NaN weights: every score would be NaN",
    "the face encoder gave values that are not finite",
    stage="run",
)
def nan_weights() -> bytes:
    nodes, tensors = body("face", 1)
    bad = tensor("bad", FLOAT, [1], struct.pack("<f", float("nan")))
    nodes[-2:-1] = [
        node("Mul", ["long", "bad"], ["spoilt"]),
        node("LpNormalization", ["spoilt"], ["identity"], integer("axis", 1), integer("p", 2)),
    ]
    content = graph(nodes, [*tensors, bad], [INPUTS["face"]], OUTPUTS)
    return bundle(face_fp32_onnx=model(content))


@attack("model", "embeddings that are not of unit length", "gave no unit vector", stage="run")
def long_embeddings() -> bytes:
    nodes, tensors = body("face", 1)
    nodes[-2] = node("Mul", ["long", "long"], ["identity"])
    return bundle(face_fp32_onnx=model(graph(nodes, tensors, [INPUTS["face"]], OUTPUTS)))
