"""Which backend runs, that it is said why no better one does, and that nothing less ever takes its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepin import Bundle, EdgePinError, EnvironmentFault, IntegrityError, MemoryKey, UsageError, Verifier
from edgepin._runtime import backends
from edgepin._runtime.backends import open_runtime
from edgepin._runtime.engine_cache import EngineCache
from edgepin._runtime.engine_jobs import engine_key
from edgepin._runtime.precision import MeasuredFor, PrecisionCache
from edgepin._runtime.runtime import PROVIDERS, OnnxRuntime
from edgepin._runtime.tensorrt_api import Gpu
from edgepin._runtime.tensorrt_runtime import TensorRtRuntime

from .conftest import DATA, Pins
from .fake_gpu import FakeGpu, engine_bytes, expected
from .synthetic_captures import RATE, picture, voice

pytestmark = pytest.mark.usefixtures("device")
ORIN = Gpu("Orin", "sm_87")
BOTH = ("face", "voice")


@pytest.fixture
def bundle(pins: Pins) -> Bundle:
    return Bundle.open(pins.site)


@pytest.fixture
def two(pins: Pins) -> Bundle:
    """A bundle of two precisions (of the same encoders)."""
    opened = Bundle.open(pins.site)
    members = dict(opened._members)
    for modality in BOTH:
        members[f"{modality}.int8.onnx"] = members[f"{modality}.fp32.onnx"]
    return dataclasses.replace(opened, _members=members)


@pytest.fixture
def int8(two: Bundle) -> Bundle:
    """A bundle without FP32."""
    kept = {name: data for name, data in two._members.items() if "fp32" not in name}
    return dataclasses.replace(two, _members=kept)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> Gpu:
        raise EnvironmentFault("there is no GPU to use: no driver", hint="install NVIDIA's driver")

    monkeypatch.setattr(backends, "this_gpu", nothing)


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A device with a GPU, TensorRT, pycuda and cuda-bindings, all of them fakes, and no engine."""
    gpu = FakeGpu()
    gpu.install(monkeypatch)
    tensorrt = gpu.tensorrt()
    monkeypatch.setattr(backends, "this_gpu", lambda: ORIN)
    monkeypatch.setattr(backends, "load_tensorrt", lambda: tensorrt)
    return gpu


def compile_engines(bundle: Bundle, gpu: FakeGpu, precision: str = "fp32", here: Gpu = ORIN) -> list[Path]:
    """What `edgepin compile` leaves in the cache."""
    cache, made = EngineCache(), []
    for modality in BOTH:
        model = bundle.model(modality, precision)
        key = engine_key(model, modality, precision, here, gpu.tensorrt(), "1" * 64)
        made.append(cache.put(key, engine_bytes(modality), {}))
    return made


def passed_over(opened: Any) -> dict[str, tuple[str, str | None]]:
    return {one.name: (one.why, one.mend) for one in opened.passed_over}


# --- Choosing


def test_on_a_bare_processor_it_is_onnxruntime_and_each_better_one_has_its_reason(
    bundle: Bundle, no_gpu: None
) -> None:
    opened = open_runtime(bundle)
    assert (opened.backend, opened.precision, opened.measured) == ("onnxruntime-cpu", "fp32", None)
    reasons = passed_over(opened)
    assert list(reasons) == ["tensorrt", "onnxruntime-cuda"]
    assert set(reasons.values()) == {("there is no GPU to use: no driver", None)}
    for part in ("onnxruntime-cpu on ", "fp32", "not tensorrt, onnxruntime-cuda: there is no GPU to use"):
        assert part in opened.about


def test_without_an_engine_the_command_that_builds_one_is_the_reason(bundle: Bundle, orin: FakeGpu) -> None:
    opened = open_runtime(bundle)
    assert opened.backend == "onnxruntime-cpu"
    why, mend = passed_over(opened)["tensorrt"]
    assert "no fp32 engine of face" in why
    assert mend is not None
    assert mend.startswith("edgepin compile")
    assert "CUDAExecutionProvider" in passed_over(opened)["onnxruntime-cuda"][0]


def test_engines_in_the_cache_are_taken_and_give_what_they_give(bundle: Bundle, orin: FakeGpu) -> None:
    compile_engines(bundle, orin)
    opened = open_runtime(bundle)
    assert (opened.backend, opened.passed_over) == ("tensorrt", ())
    assert "Orin" in opened.device
    assert "TensorRT 10.3.0" in opened.device
    face = np.zeros((1, 64, 64, 3), np.uint8)
    assert np.array_equal(opened.runtime.encode("face", face)[0], expected(face)[0])


@pytest.mark.parametrize(
    ("lacking", "what"),
    [("load_tensorrt", "TensorRT is not installed"), ("import_pycuda", "pycuda is not installed")],
)
def test_a_missing_package_is_the_reason_and_nothing_is_deserialized(
    bundle: Bundle, orin: FakeGpu, monkeypatch: pytest.MonkeyPatch, lacking: str, what: str
) -> None:
    from edgepin._runtime import cuda_device as _cuda_device

    def missing() -> None:
        raise EnvironmentFault(what, hint="install it")

    compile_engines(bundle, orin)
    monkeypatch.setattr(backends if lacking == "load_tensorrt" else _cuda_device, lacking, missing)
    opened = open_runtime(bundle)
    assert opened.backend == "onnxruntime-cpu"
    assert passed_over(opened)["tensorrt"] == (what, "install it")
    assert "deserialize" not in orin.calls


def test_engines_of_another_gpu_or_tensorrt_are_not_deserialized(bundle: Bundle, orin: FakeGpu) -> None:
    compile_engines(bundle, orin, here=Gpu("Thor", "sm_110"))
    why, mend = passed_over(open_runtime(bundle))["tensorrt"]
    assert "Thor" in why or "no fp32 engine" in why
    assert mend
    assert "deserialize" not in orin.calls


@pytest.mark.parametrize("options", [{}, {"backend": "tensorrt"}, {"require": "tensorrt"}])
@pytest.mark.parametrize("which", [0, 1])
def test_an_altered_engine_is_an_error_and_not_a_byte_of_any_is_deserialized(
    bundle: Bundle, orin: FakeGpu, which: int, options: dict[str, str]
) -> None:
    path = compile_engines(bundle, orin)[which]
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        open_runtime(bundle, **options)
    assert "deserialize" not in orin.calls


def test_an_engine_that_fails_at_opening_is_a_reason_and_later_an_error(
    bundle: Bundle, orin: FakeGpu
) -> None:
    compile_engines(bundle, orin)
    orin.fail = {"execute"}
    opened = open_runtime(bundle)
    assert opened.backend == "onnxruntime-cpu"
    assert "encoder" in passed_over(opened)["tensorrt"][0]
    orin.fail = set()
    runtime = open_runtime(bundle).runtime
    assert isinstance(runtime, TensorRtRuntime)
    orin.fail = {"memcpy_htod_async", "cuGraphLaunch"}
    with pytest.raises(EdgePinError):
        runtime.encode("face", np.zeros((1, 64, 64, 3), np.uint8))


# --- Naming and requiring


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_backend_that_is_named_runs_or_raises(bundle: Bundle, no_gpu: None, backend: str) -> None:
    with pytest.raises(EnvironmentFault, match="no GPU"):
        open_runtime(bundle, backend=backend)


@pytest.mark.parametrize("require", ["tensorrt", "gpu"])
def test_what_is_required_forbids_the_processor(
    bundle: Bundle, orin: FakeGpu, require: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **options: Any) -> None:
        assert options["name"] != "onnxruntime-cpu"
        raise EnvironmentFault("no CUDA provider")

    monkeypatch.setattr(backends, "OnnxRuntime", never)
    with pytest.raises(EnvironmentFault, match=f"^{require} is required: not tensorrt: ") as raised:
        open_runtime(bundle, require=require)
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("edgepin compile")
    compile_engines(bundle, orin)
    assert open_runtime(bundle, require=require).backend == "tensorrt"


def test_a_contradiction_and_names_that_there_are_not_are_usage_errors(bundle: Bundle) -> None:
    for options in (
        {"backend": "onnxruntime-cpu", "require": "gpu"},
        {"backend": "onnxruntime-cuda", "require": "tensorrt"},
        {"backend": "vulkan"},
        {"require": "cpu"},
        {"precision": "fp64"},
        {"precision": "int8"},
    ):
        with pytest.raises(UsageError):
            open_runtime(bundle, **options)


# --- ONNX Runtime's providers


class FakeSession:
    """What ONNX Runtime makes of it: `loaded` are the providers that it could load."""

    made: list[dict[str, Any]]
    loaded: tuple[str, ...]

    def __init__(self, model: bytes, options: Any, *, providers: list[Any], enable_fallback: int) -> None:
        strict = options.entries.get("session.disable_cpu_ep_fallback") == "1"
        self.made.append({"providers": providers, "fallback": enable_fallback, "strict": strict})
        if strict and self.on_cpu:
            raise RuntimeError("nodes that are assigned to the default CPU EP, but fallback is disabled")

    on_cpu = 0

    def get_providers(self) -> list[str]:
        return [*self.loaded, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        class Part:
            ep_name = "CPUExecutionProvider"

            def get_nodes(part) -> list[int]:
                return [0] * self.on_cpu

        return [Part()]


@pytest.fixture
def onnxruntime_gpu(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    class Options:
        def __init__(self) -> None:
            self.entries: dict[str, str] = {}

        def add_session_config_entry(self, key: str, value: str) -> None:
            self.entries[key] = value

    class Session(FakeSession):
        made: list[dict[str, Any]] = []  # noqa: RUF012
        loaded = ("TensorrtExecutionProvider", "CUDAExecutionProvider")

    class Module:
        __version__ = "1.99"
        SessionOptions, InferenceSession = Options, Session

        @staticmethod
        def get_available_providers() -> list[str]:
            return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    for place in (
        "edgepin._runtime.runtime.import_onnxruntime",
        "edgepin._runtime.backends.import_onnxruntime",
    ):
        monkeypatch.setattr(place, lambda: Module)
    monkeypatch.setattr(backends, "this_gpu", lambda: ORIN)
    return Session


def test_auto_prefers_onnxruntime_on_cuda_to_the_processor(
    bundle: Bundle, onnxruntime_gpu: type[FakeSession]
) -> None:
    opened = open_runtime(bundle)
    assert opened.backend == "onnxruntime-cuda"
    assert "Orin" in opened.device
    assert [one["fallback"] for one in onnxruntime_gpu.made] == [0, 0]
    assert not any(one["strict"] for one in onnxruntime_gpu.made)


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_did_not_load_is_an_error_though_onnxruntime_goes_on(
    bundle: Bundle, onnxruntime_gpu: type[FakeSession], name: str
) -> None:
    onnxruntime_gpu.loaded = ()
    with pytest.raises(EnvironmentFault, match="could not load"):
        open_runtime(bundle, backend=name)
    assert open_runtime(bundle).backend != name


def test_nodes_on_the_processor_are_an_error_where_it_is_forbidden_and_said_where_not(
    bundle: Bundle, onnxruntime_gpu: type[FakeSession]
) -> None:
    onnxruntime_gpu.on_cpu = 3
    opened = open_runtime(bundle, backend="onnxruntime-cuda")
    assert any("3" in note and "processor" in note for note in opened.notes)
    with pytest.raises(EnvironmentFault, match="forbidden"):
        open_runtime(bundle, backend="onnxruntime-cuda", require="gpu")


def test_onnxruntimes_own_engine_cache_stays_off_since_nobody_authenticates_it() -> None:
    options = dict(PROVIDERS["onnxruntime-tensorrt"])["TensorrtExecutionProvider"]
    assert options["trt_engine_cache_enable"] == "0"


def test_the_processor_alone_is_never_in_the_list_of_a_gpu_provider() -> None:
    for name, providers in PROVIDERS.items():
        assert ("CPUExecutionProvider" in dict(providers)) == (name == "onnxruntime-cpu")


def test_a_real_onnxruntime_without_the_provider_says_which_package_has_it() -> None:
    models = {modality: (DATA / f"{modality}.onnx").read_bytes() for modality in BOTH}
    with pytest.raises(EnvironmentFault, match="CUDAExecutionProvider") as raised:
        OnnxRuntime(models, name="onnxruntime-cuda")
    assert "onnxruntime-gpu" in (raised.value.hint or "")


# --- Precisions


def test_the_fastest_precision_is_taken_measured_once_and_said(
    two: Bundle, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = []
    real: Callable[..., Any] = backends.measure

    def counted(runtimes: Any, *options: Any, on_processor: bool) -> Any:
        rounds.append(sorted(runtimes))
        assert on_processor
        measured = real(runtimes, *options, on_processor=on_processor)
        return dataclasses.replace(measured, ms={"fp32": 5.0, "int8": 2.0})

    monkeypatch.setattr(backends, "measure", counted)
    first, second = open_runtime(two), open_runtime(two)
    assert rounds == [["fp32", "int8"]]
    assert first.precision == second.precision == "int8"
    assert first.measured == second.measured
    assert "fp32 5.00 ms, int8 2.00 ms" in second.about


def test_a_precision_that_is_named_runs_and_is_not_measured(
    two: Bundle, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "measure", lambda *_, **__: pytest.fail("measured"))
    for precision in ("fp32", "int8"):
        opened = open_runtime(two, precision=precision)
        assert (opened.precision, opened.measured) == (precision, None)


def test_highest_is_the_highest_of_the_bundle_and_is_not_measured(
    two: Bundle, int8: Bundle, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "measure", lambda *_, **__: pytest.fail("measured"))
    assert open_runtime(two, precision="highest").precision == "fp32"
    opened = open_runtime(int8, precision="highest")
    assert opened.precision == "int8"
    assert ", int8" in opened.about


def test_highest_never_falls_to_a_lower_one_that_has_engines(two: Bundle, orin: FakeGpu) -> None:
    compile_engines(two, orin, "int8")
    with pytest.raises(EnvironmentFault, match="no fp32 engine"):
        open_runtime(two, backend="tensorrt", precision="highest")
    assert open_runtime(two, precision="highest").backend == "onnxruntime-cpu"


def test_a_bundle_without_fp32_runs_what_it_has_and_names_it_for_what_it_lacks(
    int8: Bundle, no_gpu: None
) -> None:
    opened = open_runtime(int8)
    assert (opened.precision, opened.measured) == ("int8", None)
    with pytest.raises(UsageError, match="the bundle has no fp32 encoders") as caught:
        open_runtime(int8, precision="fp32")
    assert (caught.value.hint or "").startswith("there is int8; ")


def test_what_cannot_be_kept_is_measured_and_said(two: Bundle, no_gpu: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    opened = open_runtime(two, measurements=PrecisionCache(tmp_path / "file" / "precision"))
    assert opened.measured is not None
    assert any("cannot be kept" in note for note in opened.notes)


def test_only_precisions_with_engines_come_into_question(
    two: Bundle, orin: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The two precisions share their bytes here, so their keys differ in the precision alone.
    compile_engines(two, orin, "int8")
    opened = open_runtime(two)
    assert (opened.backend, opened.precision) == ("tensorrt", "int8")
    why, mend = passed_over(opened)["fp32"]
    assert "no fp32 engine" in why
    assert mend
    with pytest.raises(EnvironmentFault, match="no fp32 engine"):
        open_runtime(two, backend="tensorrt", precision="fp32")
    compile_engines(two, orin, "fp32")
    again = open_runtime(two)
    assert again.measured is not None
    assert set(again.measured.ms) == {"fp32", "int8"}


def test_the_losers_of_a_measurement_are_closed(two: Bundle, orin: FakeGpu) -> None:
    for precision in ("fp32", "int8"):
        compile_engines(two, orin, precision)
    opened = open_runtime(two)
    kept = len(orin.memory)
    opened.runtime.close()  # type: ignore[attr-defined]
    assert orin.memory == {}
    alone = open_runtime(two, precision="fp32")
    assert len(orin.memory) == kept
    alone.runtime.close()  # type: ignore[attr-defined]


def test_measurements_are_kept_by_bundle_backend_and_device(two: Bundle, no_gpu: None) -> None:
    opened = open_runtime(two)
    key = MeasuredFor(two.digest, "onnxruntime-cpu", opened.device)
    assert PrecisionCache().get(key, ("fp32", "int8")) == opened.measured
    assert PrecisionCache().get(dataclasses.replace(key, bundle="0" * 64), ("fp32", "int8")) is None


# --- The verifier


def test_a_verifier_runs_on_the_gpu_gives_pcm_to_it_and_closes_it(
    pins: Pins, bundle: Bundle, orin: FakeGpu, tmp_path: Path
) -> None:
    compile_engines(bundle, orin)
    with Verifier.open(
        pins.site, tmp_path / "e.db", key=MemoryKey(bytes(32)), require="tensorrt"
    ) as verifier:
        assert verifier.about.startswith("tensorrt on Orin")
        with verifier.enroll("ada", consent="form 7") as session:
            session.add_face(picture(1, 0), cropped=True)
            session.add_voice(voice(1, 0), sample_rate=RATE)
        decision = verifier.verify("ada", voice=voice(1, 0), sample_rate=RATE)
        assert decision.scores.voice == pytest.approx(1.0)
        assert "log_mel" not in decision.timings
        assert orin.calls.count("log_mel") > 0
    assert orin.memory == {}


def test_templates_of_one_precision_are_verified_by_another(
    two: Bundle, no_gpu: None, tmp_path: Path
) -> None:
    key = MemoryKey(bytes(32))
    with (
        Verifier.open(two, tmp_path / "e.db", key=key, precision="int8") as verifier,
        verifier.enroll("ada", consent="form 7") as session,
    ):
        session.add_face(picture(1, 0), cropped=True)
        session.add_voice(voice(1, 0), sample_rate=RATE)
    with Verifier.open(two, tmp_path / "e.db", key=key, precision="fp32") as verifier:
        assert "fp32" in verifier.about
        decision = verifier.verify(
            "ada", face=picture(1, 9), voice=voice(1, 9), sample_rate=RATE, cropped=True
        )
        assert decision.accepted


def test_a_verifier_that_cannot_open_its_store_gives_the_gpu_back(
    pins: Pins, bundle: Bundle, orin: FakeGpu, tmp_path: Path
) -> None:
    compile_engines(bundle, orin)
    (tmp_path / "e.db").write_bytes(b"not a store" * 100)
    with pytest.raises(EdgePinError):
        Verifier.open(pins.site, tmp_path / "e.db", key=MemoryKey(bytes(32)))
    assert orin.memory == {}
