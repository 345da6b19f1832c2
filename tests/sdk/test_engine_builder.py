"""What the builder asks of TensorRT, on imitations of each generation, and what becomes of TensorRT's refusals."""

from __future__ import annotations

import json

import pytest

from edgepin._errors import BundleError, EnvironmentFault, UsageError
from edgepin._runtime.engine_builder import BuildSettings, InputRange, build_engine

from .engine_fakes import FakeTensorRT

FACE = InputRange("face", (1, 8, 8, 3), (1, 8, 8, 3), (4, 8, 8, 3))
FIXED = InputRange("face", (1, 8, 8, 3), (1, 8, 8, 3), (1, 8, 8, 3))
SETTINGS = BuildSettings((FACE,))


def build(fake, settings=SETTINGS, **options):
    return build_engine(b"model", settings, tensorrt=fake.tensorrt(), **options)


GENERATIONS = {
    "10.3": {"version": "10.3.0"},
    "10.16": {"version": "10.16.2"},
    "11 with the flag": {"version": "11.4.1"},
    "11 without the flag": {"version": "11.4.1", "typed_flag": False},
}


@pytest.mark.parametrize("name", GENERATIONS)
def test_every_generation_builds_strongly_typed_in_one_way(name):
    fake = FakeTensorRT(**GENERATIONS[name])
    built = build(fake)
    assert built.engine == b"engine"
    assert fake.called("create_network") == [(0 if "without" in name else 0b10,)]
    assert fake.called("clear_flag") == [(fake.module.BuilderFlag.TF32,)]
    assert fake.called("set_flag") == []
    assert fake.called("profiling_verbosity") == [(fake.module.ProfilingVerbosity.DETAILED,)]
    assert fake.called("set_memory_pool_limit") == [(fake.module.MemoryPoolType.WORKSPACE, 512 << 20)]
    assert fake.called("set_shape") == [("face", FACE.minimum, FACE.optimum, FACE.maximum)]


def test_a_fixed_input_gets_no_profile():
    fake = FakeTensorRT(inputs={"face": (1, 8, 8, 3)})
    build(fake, BuildSettings((FIXED,)))
    assert fake.called("set_shape") == []


def test_the_layers_come_from_the_inspector_of_a_loaded_engine():
    report = build(FakeTensorRT()).report
    assert report["source"] == "inspector"
    assert report["counts"] == {
        "layers": 2,
        "kernels": 2,
        "reformats": 1,
        "convolutions": 1,
        "int8_convolutions": 1,
    }
    convolution = report["layers"][1]
    assert convolution["nodes"] == ["node_conv2d", "node_relu"]
    assert [tensor["dtype"] for tensor in convolution["inputs"] + convolution["outputs"]] == ["int8", "fp16"]
    assert json.loads(json.dumps(report)) == report


def test_an_engine_that_does_not_load_is_no_engine():
    with pytest.raises(EnvironmentFault, match="does not load the engine that it built"):
        build(FakeTensorRT(loads=False))


def test_the_parsers_refusal_names_the_node_and_its_operator():
    fake = FakeTensorRT(parser_errors=(("my_foo", "Foo", "Plugin not found"), ("", "", "another")))
    with pytest.raises(
        EnvironmentFault, match=r"node 'my_foo' \(Foo\): Plugin not found; another"
    ) as refusal:
        build(fake)
    assert "operator" in refusal.value.hint
    assert not fake.called("build")


def test_a_parser_that_cannot_name_nodes_still_tells_why():
    fake = FakeTensorRT(parser_errors=(("my_foo", "Foo", "Unsupported"),))
    for name in ("node_name", "node_operator"):
        delattr(fake.module.ParserError, name)
    with pytest.raises(EnvironmentFault, match="does not read this model: Unsupported"):
        build(fake)


@pytest.mark.parametrize(
    ("says", "hint"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)", "memory"),
        ("Error Code 10: Could not find any implementation. Insufficient workspace", "--workspace"),
        ("Cannot compile operation for Turing (SM75)", "does not serve this GPU"),
        ("something else", None),
    ],
)
def test_no_engine_is_an_error_with_tensorrts_reason_and_what_to_do(says, hint):
    fake = FakeTensorRT(engine=None, says=(("INFO", "ignored"), ("ERROR", says)))
    with pytest.raises(EnvironmentFault, match="builds no engine of this model") as refusal:
        build(fake)
    assert says in str(refusal.value)
    assert "ignored" not in str(refusal.value)
    assert (refusal.value.hint is None) if hint is None else (hint in refusal.value.hint)


def test_no_engine_and_no_reason_is_an_error_too():
    with pytest.raises(EnvironmentFault, match="it gave no reason"):
        build(FakeTensorRT(engine=None))


def test_errors_of_an_earlier_build_are_not_told_again():
    fake = FakeTensorRT(engine=None, says=(("ERROR", "first"),))
    tensorrt = fake.tensorrt()
    with pytest.raises(EnvironmentFault, match="first"):
        build_engine(b"model", SETTINGS, tensorrt=tensorrt)
    fake.says = (("ERROR", "second"),)
    with pytest.raises(EnvironmentFault) as refusal:
        build_engine(b"model", SETTINGS, tensorrt=tensorrt)
    assert "first" not in str(refusal.value)


@pytest.mark.parametrize("outputs", [(), ("identity",), ("identity", "pin", "more")])
def test_a_model_without_the_outputs_of_an_encoder_is_refused(outputs):
    fake = FakeTensorRT(outputs=outputs)
    with pytest.raises(BundleError, match="not identity and pin"):
        build(fake)
    assert not fake.called("build")


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"log_mel": (-1, -1, 80)}, "takes log_mel, not face"),
        ({"face": (-1, 16, 16, 3)}, "does not fit"),
        ({"face": (2, 8, 8, 3)}, "does not fit"),
        ({"face": (-1, 8, 8)}, "does not fit"),
    ],
)
def test_inputs_that_are_not_those_of_the_settings_are_refused(inputs, match):
    with pytest.raises(BundleError, match=match):
        build(FakeTensorRT(inputs=inputs))


def test_warnings_are_told_and_kept():
    lines = []
    built = build(FakeTensorRT(says=(("WARNING", "careful"), ("WARNING", "careful"))), log=lines.append)
    assert lines == ["TensorRT warns: careful"]
    assert built.report["warnings"] == ["careful"]


def test_progress_tells_the_outermost_steps_and_the_phase():
    steps = []
    build(FakeTensorRT(), progress=lambda *step: steps.append(step))
    assert steps == [(0, 2, "Tactics"), (1, 2, "Tactics"), (2, 2, "Tactics")]


def test_an_interrupt_stops_the_build_and_comes_out():
    steps = []

    def interrupt(*step):
        steps.append(step)
        raise KeyboardInterrupt

    tensorrt = FakeTensorRT().tensorrt()
    with pytest.raises(KeyboardInterrupt):
        build_engine(b"model", SETTINGS, tensorrt=tensorrt, progress=interrupt)
    assert (
        build_engine(b"model", SETTINGS, tensorrt=tensorrt).engine == b"engine"
    )  # and leaves nothing behind


# --- deep learning accelerators ---------------------------------------------------------------------------------------


def test_what_a_dla_cannot_run_is_told_and_kept():
    fake, lines = FakeTensorRT(cores=2, says=(("WARNING", "DLA: Switching this layer"),)), []
    built = build(fake, BuildSettings((FIXED,), dla_core=1), log=lines.append)
    assert fake.called("DLA_core") == [(1,)]
    assert fake.called("default_device_type") == [(fake.module.DeviceType.DLA,)]
    assert fake.called("set_flag") == [(fake.module.BuilderFlag.GPU_FALLBACK,)]
    assert built.report["dla"] == {
        "core": 1,
        "on_gpu": ["node_softmax (SOFTMAX)"],
        "messages": ["DLA: Switching this layer"],
    }
    assert lines[0] == "the DLA does not run node_softmax (SOFTMAX): it falls back to the GPU"


def test_a_dla_that_is_not_there_is_refused():
    with pytest.raises(EnvironmentFault, match=r"there is no DLA core 1: TensorRT 10\.3\.0 finds 1"):
        build(FakeTensorRT(cores=1), BuildSettings((FIXED,), dla_core=1))


# --- timing caches ----------------------------------------------------------------------------------------------------


def test_timings_go_in_and_come_out():
    fake = FakeTensorRT()
    assert build(fake, timings=b"earlier").timings == b"timings"
    assert fake.called("create_timing_cache") == [(b"earlier",)]


def test_timings_of_another_tensorrt_are_replaced():
    fake = FakeTensorRT(takes_timings=False)
    assert build(fake, timings=b"foreign").timings == b"timings"
    assert fake.called("create_timing_cache") == [(b"foreign",), (b"",)]


def test_tensorrt_for_rtx_keeps_no_timings():
    fake = FakeTensorRT("1.7.1.116", rtx=True)
    assert build(fake, timings=b"x").timings is None
    assert not fake.called("create_timing_cache")


# --- targets ----------------------------------------------------------------------------------------------------------


def test_tensorrt_for_rtx_builds_for_a_named_capability_or_for_the_gpu_that_is_here():
    fake = FakeTensorRT("1.7.1.116", rtx=True)
    build(fake, target="sm_120")
    build(fake)
    capabilities = fake.module.ComputeCapability
    assert fake.called("set_compute_capability") == [(capabilities.SM120,), (capabilities.CURRENT,)]


def test_a_target_that_it_does_not_know_is_refused_with_those_that_it_knows():
    with pytest.raises(UsageError, match="does not build for sm_90") as refusal:
        build(FakeTensorRT("1.7.1.116", rtx=True), target="sm_90")
    assert refusal.value.hint == "it builds for sm_86, sm_120"


def test_tensorrt_builds_for_the_gpu_that_is_here_alone():
    with pytest.raises(UsageError, match="for the GPU that is here, and for no other"):
        build(FakeTensorRT(), target="sm_86")


def test_without_the_gpu_the_layers_come_from_the_log():
    text = (
        "Layers:\nName: node_conv2d_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,4,8,8], "
        "Strides: [256,1,32,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], "
        "Constants: [], Outputs: [ { Name: y, Dimensions: [-1,8,4,4], Strides: [128,1,32,8], StrideOrder: [3,0,2,1], "
        "Datatype: Float, Format: (NHWC) Channel major format }], TacticName: t, StreamId: 0, Metadata: "
        "[ONNX Layer: node_conv2d]\n\nI/O Tensors:\n Name: face"
    )
    fake = FakeTensorRT("1.7.1.116", rtx=True, says=(("VERBOSE", "noise"), ("VERBOSE", text)))
    report = build(fake, target="sm_86").report
    assert (report["source"], report["counts"]["int8_convolutions"]) == ("log", 1)


def test_an_engine_whose_layers_nobody_tells_is_built_and_says_so():
    report = build(FakeTensorRT("1.7.1.116", rtx=True), target="sm_86").report
    assert (report["source"], report["counts"], report["layers"]) == ("none", None, [])


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"workspace_mib": 0},
        {"optimization_level": 6},
        {"dla_core": -1},
        {"inputs": ()},
        {"inputs": (FACE, FACE)},
    ],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(UsageError):
        BuildSettings(**{"inputs": (FIXED,), **change})


def test_a_dla_needs_fixed_shapes():
    with pytest.raises(UsageError, match="fixed shapes"):
        BuildSettings((FACE,), dla_core=0)


@pytest.mark.parametrize(
    "shapes", [((2, 4), (1, 4), (3, 4)), ((0, 4), (1, 4), (3, 4)), ((1,), (1, 4), (3, 4)), ((),) * 3]
)
def test_shapes_that_do_not_rise_are_refused(shapes):
    with pytest.raises(UsageError, match="x"):
        InputRange("x", *shapes)


def test_the_settings_say_what_always_holds():
    assert {**SETTINGS.to_json(), "strongly_typed": True, "tf32": False} == SETTINGS.to_json()


def test_the_digest_is_of_every_setting():
    others = [
        BuildSettings((FIXED,)),
        BuildSettings((FACE,), workspace_mib=256),
        BuildSettings((FACE,), optimization_level=5),
        BuildSettings((FIXED,), dla_core=0),
    ]
    assert len({SETTINGS.digest, *(other.digest for other in others)}) == 5
    assert BuildSettings((InputRange("face", *[(1, 8, 8, 3)] * 2, (4, 8, 8, 3)),)).digest == SETTINGS.digest
