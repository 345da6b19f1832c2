"""`edgepin compile`: what it builds, what it keeps, and what it says, on an imitation of TensorRT."""

from __future__ import annotations

import json

import pytest

from edgepin._bundle.bundle import Bundle, write_bundle
from edgepin._errors import EnvironmentFault, UsageError
from edgepin._runtime import engine_jobs as _engine_jobs
from edgepin._runtime import tensorrt_api as _tensorrt_api
from edgepin._runtime.engine_cache import EngineCache
from edgepin._runtime.tensorrt_api import Gpu

from .commands import ENVIRONMENT, INTEGRITY, USAGE, YES, invoke
from .engine_fakes import FakeTensorRT
from .tiny_onnx import encoder

ORIN = Gpu("Orin (nvgpu)", "sm_87")


@pytest.fixture
def bundle(pins, device, tmp_path):
    """All that a bundle may hold: three precisions of two encoders, and the portable voice."""
    opened = Bundle.open(pins.site)
    face, voice = opened.model("face"), opened.model("voice")
    members = {"card.md": opened.card.encode()}
    for precision in ("fp32", "fp16", "int8"):
        members[f"face.{precision}.onnx"] = face
        members[f"voice.{precision}.onnx"] = voice
    members["voice.portable.onnx"] = encoder("portable")
    path = tmp_path / "full.pin"
    write_bundle(path, opened.manifest, members, None)
    return path


@pytest.fixture
def use(monkeypatch):
    """Puts an imitation, and a GPU, into the place of this machine's."""

    def put(fake, gpu=ORIN):
        def find():
            if gpu is None:
                raise EnvironmentFault("there is no GPU to use")
            return gpu

        loaded = fake.tensorrt()
        monkeypatch.setattr(_tensorrt_api, "load_tensorrt", lambda: loaded)
        monkeypatch.setattr(_engine_jobs, "this_gpu", find)
        return fake

    return put


def compile_(bundle, *options):
    return invoke("compile", bundle, "--allow-unsigned", *options)


def states(result):
    assert result.exit_code == YES, result.output
    found = json.loads(result.stdout)
    assert found["schema"] == "edgepin.compile/1"
    return {(engine["form"], engine["precision"]): engine["state"] for engine in found["engines"]}


EVERYTHING = [
    *((form, precision) for form in ("face", "voice") for precision in ("fp32", "fp16", "int8")),
    ("voice.portable", "fp32"),
]


def test_everything_is_built_once_and_then_kept(bundle, use):
    fake = use(FakeTensorRT())
    fake.by_model = True
    assert states(compile_(bundle, "--json")) == dict.fromkeys(EVERYTHING, "built")
    assert states(compile_(bundle, "--json", "--precision", "all")) == dict.fromkeys(EVERYTHING, "kept")
    assert len(fake.called("build")) == len(EVERYTHING)
    assert EngineCache().folder.is_dir()


def test_of_a_bundle_without_fp32_what_is_there_is_built(bundle, use, tmp_path):
    use(FakeTensorRT()).by_model = True
    slim = ("bundle", "slim", bundle, "--allow-unsigned", "--precision", "int8", "--out")
    assert invoke(*slim, tmp_path / "small.pin").exit_code == YES
    result = compile_(tmp_path / "small.pin", "--json")
    assert states(result) == {("face", "int8"): "built", ("voice", "int8"): "built"}
    # Engines belong to an encoder's bytes, which are the source's.
    kept = states(compile_(bundle, "--precision", "int8", "--json"))
    assert set(kept.values()) == {"kept"}
    refused = compile_(tmp_path / "small.pin", "--precision", "fp32")
    assert refused.exit_code == USAGE
    assert "it has int8" in refused.stderr
    assert invoke(*slim, tmp_path / "portable.pin", "--portable").exit_code == YES
    made = states(compile_(tmp_path / "portable.pin", "--json"))
    assert set(made) == {("face", "int8"), ("voice", "int8"), ("voice.portable", "fp32")}


def test_it_says_what_is_there_and_what_was_built_with_size_time_and_layers(bundle, use):
    use(FakeTensorRT(says=(("WARNING", "careful"),)))
    first, second = compile_(bundle, "--precision", "int8"), compile_(bundle, "--precision", "int8")
    assert "TensorRT 10.3.0, Orin (nvgpu) sm_87" in first.stderr
    assert "face int8: built in 0.0 s, 0.0 MiB; there is no int8 engine of face" in first.stderr
    assert "2 kernels, 1 of them reformats; 1 convolutions, 1 read INT8" in first.stderr
    assert "face int8: TensorRT warns: careful" in first.stderr
    assert "face int8: there already, 0.0 MiB" in second.stderr
    assert (first.stdout, second.stdout) == ("", "")


@pytest.mark.parametrize(
    ("fake", "gpu", "says"),
    [
        (FakeTensorRT("10.16.2"), ORIN, "it was built by tensorrt 10.3.0, and here is 10.16.2"),
        (
            FakeTensorRT(),
            Gpu("Thor", "sm_110"),
            "it was built on Orin (nvgpu), and here is Thor; it was built for sm_87",
        ),
    ],
)
def test_a_stale_or_foreign_engine_is_rebuilt_and_it_is_said_what_differs(bundle, use, fake, gpu, says):
    use(FakeTensorRT())
    compile_(bundle, "--precision", "fp32")
    use(fake, gpu)
    result = compile_(bundle, "--precision", "fp32", "--json")
    assert set(states(result).values()) == {"built"}
    assert all(says in engine["reason"] for engine in json.loads(result.stdout)["engines"])


def test_other_settings_are_another_engine(bundle, use):
    use(FakeTensorRT())
    compile_(bundle, "--precision", "fp32")
    for options in (["--max-batch", 4], ["--workspace", 64], ["--max-seconds", 5]):
        result = compile_(bundle, "--precision", "fp32", *options, "--json")
        reasons = [engine["reason"] for engine in json.loads(result.stdout)["engines"] if engine["reason"]]
        assert reasons
        assert all("built with other settings" in reason for reason in reasons)


def test_an_altered_engine_is_rebuilt(bundle, use):
    use(FakeTensorRT())
    compile_(bundle, "--precision", "int8")
    file = next(EngineCache().folder.glob("face.int8.*.engine"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    result = compile_(bundle, "--precision", "int8", "--json")
    assert states(result) == {("face", "int8"): "built", ("voice", "int8"): "kept"}
    assert "its seal is not this device's" in json.loads(result.stdout)["engines"][0]["reason"]


def test_an_altered_timing_cache_is_dropped_and_said(bundle, use):
    fake = use(FakeTensorRT())
    compile_(bundle, "--precision", "int8")
    for path in EngineCache().folder.glob("*.timings"):
        path.write_bytes(b"altered")
    result = compile_(bundle, "--precision", "int8", "--force")
    assert "timed anew" in result.stderr
    assert fake.called("create_timing_cache")[-2:] == [(b"",), (b"timings",)]


def test_force_builds_what_is_there(bundle, use):
    fake = use(FakeTensorRT())
    compile_(bundle, "--precision", "int8")
    assert set(states(compile_(bundle, "--precision", "int8", "--force", "--json")).values()) == {"built"}
    assert len(fake.called("build")) == 4


def test_a_dry_run_builds_nothing_and_leaves_nothing(bundle, use):
    fake = use(FakeTensorRT())
    assert states(compile_(bundle, "--dry-run", "--json")) == dict.fromkeys(EVERYTHING, "wanted")
    assert not fake.called("build")
    assert not EngineCache().folder.exists()


def test_shapes_follow_the_bundle_and_the_options(bundle, use):
    fake = use(FakeTensorRT())
    compile_(bundle, "--precision", "fp32", "--max-batch", 2)
    spec = Bundle.open(bundle, allow_unsigned=True).manifest
    size, mels, frames = spec.face.size, spec.log_mel.num_mels, spec.log_mel.num_frames
    assert fake.called("set_shape") == [
        ("face", (1, size, size, 3), (1, size, size, 3), (2, size, size, 3)),
        ("log_mel", (1, frames(8000), mels), (1, frames(48000), mels), (2, frames(160000), mels)),
        ("pcm", (1, 8000), (1, 48000), (2, 160000)),
    ]


def test_a_short_longest_voice_is_the_optimum_too(bundle, use):
    fake = use(FakeTensorRT())
    compile_(bundle, "--precision", "fp32", "--max-seconds", 2)
    assert fake.called("set_shape")[-1] == ("pcm", (1, 8000), (1, 32000), (1, 32000))


def test_a_dla_gets_fixed_shapes_and_no_fp32(bundle, use):
    fake = use(FakeTensorRT(cores=2))
    result = compile_(bundle, "--dla", 0, "--json")
    assert {precision for _, precision in states(result)} == {"fp16", "int8"}
    assert all(low == middle == high for _, low, middle, high in fake.called("set_shape"))
    assert "the DLA does not run node_softmax (SOFTMAX)" in result.stderr
    assert "1 layers fall back to the GPU" in result.stderr
    assert json.loads(result.stdout)["engines"][0]["dla"]["on_gpu"] == ["node_softmax (SOFTMAX)"]
    assert compile_(bundle, "--dla", 0, "--precision", "fp32").exit_code == USAGE


def test_the_report_has_every_layer(bundle, use, tmp_path):
    use(FakeTensorRT())
    compile_(bundle, "--precision", "int8")
    for _ in range(2):  # also of what was kept
        assert compile_(bundle, "--precision", "int8", "--report", tmp_path / "r.json").exit_code == YES
        found = json.loads((tmp_path / "r.json").read_text())
        assert found["schema"] == "edgepin.engine_report/1"
        assert [len(engine["report"]["layers"]) for engine in found["engines"]] == [2, 2]
        assert found["engines"][0]["key"]["gpu"] == ORIN.name


def test_a_folder_may_be_given(bundle, use, tmp_path):
    use(FakeTensorRT())
    compile_(bundle, "--precision", "int8", "--cache", tmp_path / "elsewhere")
    assert len(list((tmp_path / "elsewhere").glob("*.engine"))) == 2
    assert not EngineCache().folder.exists()


def test_one_that_fails_keeps_none_of_the_others_from_being_built(bundle, use):
    fake = use(FakeTensorRT())
    parse = fake.module.OnnxParser.parse

    def refuse_voices(self, model):
        fake.parser_errors = (("node_x", "Foo", "Unsupported"),) if b"log_mel" in model else ()
        return parse(self, model)

    fake.module.OnnxParser.parse = refuse_voices
    result = compile_(bundle, "--precision", "int8", "--json")
    assert (result.exit_code, result.stdout) == (ENVIRONMENT, "")
    assert "face int8: built" in result.stderr
    assert "1 of 2 engines could not be built" in result.stderr
    assert (
        "error: TensorRT 10.3.0 does not read this model: node 'node_x' (Foo): Unsupported" in result.stderr
    )


def test_a_model_that_is_no_encoder_is_an_integrity_error(bundle, use):
    use(FakeTensorRT(outputs=("logits",)))
    assert compile_(bundle, "--precision", "int8").exit_code == INTEGRITY


@pytest.mark.parametrize(
    "options",
    [
        ["--max-batch", 0],
        ["--max-seconds", 0.1],
        ["--workspace", 0],
        ["--precision", "int4"],
        ["--target", "sm_86"],
    ],
)
def test_what_cannot_be_is_a_usage_error(bundle, use, options):
    use(FakeTensorRT())
    assert compile_(bundle, *options).exit_code == USAGE


def test_a_precision_that_the_bundle_lacks_is_a_usage_error(pins, device, use):
    use(FakeTensorRT())
    result = invoke("compile", pins.site, "--precision", "int8")
    assert result.exit_code == USAGE
    assert "no encoder in int8" in result.stderr


def test_without_a_gpu_only_a_named_target_is_built(bundle, use):
    use(FakeTensorRT("1.7.1.116", rtx=True), gpu=None)
    assert compile_(bundle).exit_code == ENVIRONMENT
    result = compile_(bundle, "--target", "sm_86", "--json")
    assert set(states(result).values()) == {"built"}
    assert (json.loads(result.stdout)["gpu"], json.loads(result.stdout)["capability"]) == (None, "sm_86")
    assert "TensorRT, as on a Jetson, does not read them" in result.stderr
    assert compile_(bundle, "--target", "sm_90").exit_code == USAGE


def test_this_machines_own_capability_is_this_machine(bundle, use):
    fake = use(FakeTensorRT())
    compile_(bundle, "--target", "sm_87", "--precision", "int8")
    assert set(states(compile_(bundle, "--precision", "int8", "--json")).values()) == {"kept"}
    assert len(fake.called("build")) == 2


def test_without_tensorrt_it_says_how_to_get_it(bundle, monkeypatch):
    monkeypatch.setattr(_tensorrt_api, "_MODULES", ())
    _tensorrt_api.load_tensorrt.cache_clear()
    result = compile_(bundle)
    assert result.exit_code == ENVIRONMENT
    assert "hint: on a Jetson" in result.stderr


@pytest.mark.parametrize("change", [{"precisions": ("int4",)}, {"max_batch": 257}, {"max_seconds": 61.0}])
def test_options_out_of_range_are_refused(change):
    with pytest.raises(UsageError):
        _engine_jobs.CompileOptions(**change)
