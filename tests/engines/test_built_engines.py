"""Engines of every encoder, really built: that they build at all, and what their own lists of layers say.

These are engines of TensorRT for RTX for desktop GPUs. No GPU has run them, and they say nothing about a Jetson's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgepin._errors import BundleError, EnvironmentFault
from edgepin._runtime import engine_builder as _engine_builder
from edgepin._runtime import tensorrt_api as _tensorrt_api
from edgepin._runtime.engine_builder import BuildSettings, InputRange, build_engine
from edgepin._runtime.tensorrt_api import BUILDER_ATTRIBUTES, OPTIONAL_ATTRIBUTES

COUNTS = Path(__file__).resolve().parent / "counts.json"
RECORD = "EDGEPIN_RECORD_ENGINES"
TARGETS = ("sm_86", "sm_89", "sm_120")
FORMS = [
    *((form, precision) for form in ("face", "voice") for precision in ("fp32", "fp16", "int8")),
    ("voice.portable", "fp32"),
]
# Batch and time are free, as `edgepin compile --max-batch 4` asks for.
INPUTS = {
    "face": InputRange("face", (1, 32, 32, 3), (1, 32, 32, 3), (4, 32, 32, 3)),
    "voice": InputRange("log_mel", (1, 48, 80), (1, 298, 80), (4, 998, 80)),
    "voice.portable": InputRange("pcm", (1, 8000), (1, 48000), (4, 160000)),
}
# What TensorRT for RTX does not have of the optional attributes, and why. It has them all.
ABSENT: dict[str, str] = {}


@pytest.fixture(scope="session")
def build(tensorrt, models):
    """Builds once for each form, precision and target."""
    built = {}

    def get(form, precision, target):
        key = form, precision, target
        if key not in built:
            settings = BuildSettings((INPUTS[form],), workspace_mib=256)
            built[key] = build_engine(models[form, precision], settings, target=target, tensorrt=tensorrt)
        return built[key]

    return get


def layers_of(report, node):
    """The convolutions of an engine that a node of the graph went into."""
    found = [layer for layer in report["layers"] if node in layer["nodes"] and is_convolution(layer)]
    assert found, f"no convolution of the engine is {node}"
    return found


def is_convolution(layer):
    return layer["kind"] == "correlation" or "Corr" in layer["operations"]


def convolutions(model):
    """Name -> the type that the graph gives its input: `int8`, `fp16` or `fp32`."""
    onnx = pytest.importorskip("onnx", reason="reading a graph needs onnx")
    graph = onnx.load_model_from_string(model).graph
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    names = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}
    return {
        node.name: names[constants[node.input[1]]] if node.input[1] in constants else "int8"
        for node in graph.node
        if node.op_type == "Conv"
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("form", "precision"), FORMS)
def test_every_encoder_builds_and_every_convolution_computes_on_what_the_graph_says(
    build, models, form, precision, target
):
    built = build(form, precision, target)
    assert len(built.engine) > 10_000
    assert built.report["source"] == "log"
    wanted = convolutions(models[form, precision])
    assert len(wanted) >= 13
    assert list(wanted.values()).count(precision) >= 0.9 * len(wanted)  # few layers are exempt
    wrong = {
        node: [layer["inputs"][0]["dtype"] for layer in layers_of(built.report, node)]
        for node, dtype in wanted.items()
        if any(layer["inputs"][0]["dtype"] != dtype for layer in layers_of(built.report, node))
    }
    assert wrong == {}
    assert built.report["counts"]["convolutions"] == len(wanted)
    assert built.report["counts"]["int8_convolutions"] == list(wanted.values()).count("int8")


def test_kernels_and_reformats_of_a_pass_have_not_grown(build, tensorrt):
    """The recorded counts are of the TensorRT that they name. EDGEPIN_RECORD_ENGINES=1 records them anew."""
    found = {
        f"{form} {precision} {target}": {
            name: build(form, precision, target).report["counts"][name] for name in ("kernels", "reformats")
        }
        for form, precision in FORMS
        for target in TARGETS
    }
    if os.environ.get(RECORD):
        COUNTS.write_text(json.dumps({"tensorrt": tensorrt.version, "counts": found}, indent=1) + "\n")
    recorded = json.loads(COUNTS.read_text())
    if recorded["tensorrt"] != tensorrt.version:
        pytest.skip(
            f"the counts are of TensorRT for RTX {recorded['tensorrt']}, and here is {tensorrt.version}"
        )
    assert recorded["counts"].keys() == found.keys()
    grown = {
        name: (recorded["counts"][name], counts)
        for name, counts in found.items()
        if any(counts[kind] > recorded["counts"][name][kind] for kind in counts)
    }
    assert grown == {}


def test_the_profile_of_the_engine_is_that_of_the_settings(tensorrt, models):
    with tensorrt.log.listen() as messages:
        build_engine(
            models["face", "fp32"],
            BuildSettings((INPUTS["face"],)),
            target="sm_86",
            tensorrt=tensorrt,
        )
    text = next(message.text for message in messages if message.text.startswith("Layers:"))
    assert "MinShape: [1,32,32,3], OptShape: [1,32,32,3], MaxShape: [4,32,32,3]" in text


def test_every_attribute_that_is_used_exists_or_is_known_to_be_absent(tensorrt):
    missing = [path for path in (*BUILDER_ATTRIBUTES, *OPTIONAL_ATTRIBUTES) if not tensorrt.has(path)]
    assert sorted(missing) == sorted(ABSENT)


def test_the_real_one_is_found_usable(tensorrt):
    assert _tensorrt_api._unusable(tensorrt.module, "tensorrt-rtx") is None
    assert set(TARGETS) <= set(tensorrt.capabilities)


def test_an_operator_that_it_does_not_know_is_refused_by_node_and_name(tensorrt):
    onnx = pytest.importorskip("onnx", reason="making a graph needs onnx")
    helper = onnx.helper
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Foo", ["face"], ["identity"], name="node_foo", domain="edgepin")],
        "g",
        [value("face", 1, [1, 4])],
        [value("identity", 1, [1, 4])],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("edgepin", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    with pytest.raises(EnvironmentFault, match=r"node 'node_foo' \(Foo\): .*Plugin not found"):
        build_engine(model, BuildSettings((INPUTS["face"],)), target="sm_86", tensorrt=tensorrt)


def test_bytes_that_are_no_model_are_refused(tensorrt):
    """Its parser takes some of them for an empty network."""
    for data in (b"\0garbage", b"", b"\xff" * 64):
        with pytest.raises((BundleError, EnvironmentFault)):
            build_engine(data, BuildSettings((INPUTS["face"],)), target="sm_86", tensorrt=tensorrt)


def test_no_engine_for_a_gpu_that_cannot_is_an_error_with_its_reason(tensorrt, models):
    with pytest.raises(EnvironmentFault, match=r"builds no engine of this model: .*Turing"):
        build_engine(
            models["face", "int8"], BuildSettings((INPUTS["face"],)), target="sm_75", tensorrt=tensorrt
        )


def test_an_interrupt_ends_a_real_build(tensorrt, models):
    def interrupt(*step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(
            models["face", "fp32"],
            BuildSettings((INPUTS["face"],)),
            target="sm_86",
            tensorrt=tensorrt,
            progress=interrupt,
        )


def test_no_flag_that_tensorrt_11_removed_is_used():
    """Precision comes from the graph: none of the names that TensorRT 11 removed is in the builder."""
    source = Path(_engine_builder.__file__).read_text("utf-8") + Path(_tensorrt_api.__file__).read_text(
        "utf-8"
    )
    removed = (
        "BuilderFlag.FP16",
        "BuilderFlag.INT8",
        "BuilderFlag.BF16",
        "int8_calibrator",
        "EXPLICIT_BATCH",
        "PREFER_PRECISION",
    )
    assert [name for name in removed if name in source] == []
