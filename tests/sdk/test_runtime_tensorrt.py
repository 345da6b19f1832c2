"""The TensorRT runtime on a GPU of dictionaries: what is called, in what order, on which thread, and what never is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from edgepin import EdgePinError, EnvironmentFault
from edgepin._runtime.cuda_device import CudaDevice
from edgepin._runtime.runtime import PcmRuntime
from edgepin._runtime.tensorrt_engine import TENSORRT_ATTRIBUTES
from edgepin._runtime.tensorrt_runtime import TensorRtRuntime
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_kernels import _cuda as kernel

from .fake_gpu import FakeGpu, cached, expected

SPEC = LogMelSpec()
ALLOCATING = {"mem_alloc", "pagelocked_empty", "create_execution_context", "cuStreamBeginCapture"}
REPLAY = ["push", "cuGraphLaunch", "synchronize", "pop"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu()
    gpu.install(monkeypatch)
    return gpu


def opened(gpu: FakeGpu, spec: LogMelSpec | None = SPEC, **options: Any) -> TensorRtRuntime:
    engines = {"face": cached("face"), "voice": cached("voice")}
    return TensorRtRuntime(engines, gpu.tensorrt(), spec, device=CudaDevice(), **options)


def face(seed: int = 0, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, 64, 64, 3), np.uint8)


def log_mel(seed: int = 0, frames: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, frames, 80), np.float32)


def pcm(seed: int = 0, samples: int = 16_000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, (1, samples), np.int16)


def same(found: tuple[np.ndarray, np.ndarray], batch: np.ndarray) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, expected(batch), strict=True))


def test_both_encoders_give_what_their_engines_give_whichever_way_they_run(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    assert isinstance(runtime, PcmRuntime)
    for turn in range(4):  # plain, recorded, replayed, replayed: each with other values
        assert same(runtime.encode("face", face(turn, batch=3)), face(turn, batch=3))
        assert same(runtime.encode("voice", log_mel(turn)), log_mel(turn))
        assert same(runtime.encode_pcm(pcm(turn)), LogMel(SPEC)(pcm(turn)))


def test_what_it_returns_is_not_overwritten_by_the_next_call(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    first = runtime.encode("face", face(1))
    runtime.encode("face", face(2))
    assert same(first, face(1))


def test_a_shape_is_enqueued_once_recorded_once_and_replayed_from_then_on(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    plain = ["push", "set_input_shape", "memcpy_htod_async", "log_mel", "execute", "memcpy_dtoh_async",
             "memcpy_dtoh_async", "synchronize", "pop"]  # fmt: skip
    taken: list[list[str]] = []
    for turn in range(5):
        gpu.calls.clear()
        runtime.encode_pcm(pcm(turn))
        taken.append(list(gpu.calls))
    assert taken[0] == plain
    assert taken[1].count("cuStreamBeginCapture") == taken[1].count("cuStreamEndCapture") == 1
    assert taken[1][-3:] == REPLAY[1:]
    assert taken[2:] == [REPLAY] * 3


def test_the_usual_shapes_are_recorded_at_opening_and_their_calls_allocate_nothing(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    assert runtime.graphs == 2
    gpu.calls.clear()
    for turn in range(3):
        runtime.encode("face", face(turn))
        runtime.encode_pcm(pcm(turn, 400 + 297 * 160))
    assert gpu.calls == REPLAY * 6


def test_a_new_shape_allocates_nothing_on_the_device(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    gpu.calls.clear()
    for frames in range(20, 60):
        runtime.encode("voice", log_mel(frames=frames))
    assert not ALLOCATING & set(gpu.calls)


def test_samples_that_fill_no_frame_make_no_shape_of_their_own(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    frames = LogMel(SPEC)(pcm(3, 16_000))
    for rest in (0, 1, 79):
        assert same(runtime.encode_pcm(pcm(3, 16_000 + 80)[:, : 16_000 + rest]), frames)
    assert runtime.graphs == 3


def test_a_padded_front_end_keeps_every_sample(gpu: FakeGpu) -> None:
    spec = LogMelSpec.preset("librosa")
    runtime = TensorRtRuntime(
        {"face": cached("face"), "voice": cached("voice", profile=[[1, 1, spec.num_mels], [1, 101, spec.num_mels],
                                                                  [1, 998, spec.num_mels]])},
        gpu.tensorrt(),
        spec,
    )  # fmt: skip
    for samples in (16_000, 16_079, 998 * spec.hop_length - 1):
        assert same(runtime.encode_pcm(pcm(1, samples)), LogMel(spec)(pcm(1, samples)))


def test_graphs_are_bounded_and_the_longest_unused_one_goes(gpu: FakeGpu) -> None:
    runtime = opened(gpu, max_graphs=3)
    for frames in (20, 30, 40, 50):
        for turn in range(2):
            assert same(runtime.encode("voice", log_mel(turn, frames)), log_mel(turn, frames))
    assert runtime.graphs == gpu.graphs == 3
    gpu.calls.clear()
    assert same(runtime.encode("voice", log_mel(7, 30)), log_mel(7, 30))
    assert gpu.calls == REPLAY
    assert same(runtime.encode("voice", log_mel(7, 20)), log_mel(7, 20))  # gone, and recorded again
    assert "destroy" in gpu.calls
    assert runtime.graphs == gpu.graphs == 3
    gpu.calls.clear()
    runtime.encode("voice", log_mel(8, 30))  # used since 40 was, so 40 went
    assert gpu.calls == REPLAY


def test_without_cuda_bindings_every_run_is_enqueued_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    gpu.install(monkeypatch, bindings=False)
    runtime = opened(gpu)
    (note,) = runtime.notes
    assert "cuda-bindings" in note
    assert "pip install" in note
    for turn in range(3):
        assert same(runtime.encode("face", face(turn)), face(turn))
        assert same(runtime.encode("voice", log_mel(turn, 30 + turn)), log_mel(turn, 30 + turn))
    assert not any(call.startswith("cuGraph") for call in gpu.calls)


@pytest.mark.parametrize("failing", ["capture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch"])
def test_an_engine_that_cannot_be_captured_is_enqueued_plainly_and_it_is_said(
    gpu: FakeGpu, failing: str
) -> None:
    gpu.fail = {failing}
    runtime = opened(gpu)
    assert len(runtime.notes) == 1
    assert runtime.notes[0].startswith("no CUDA graphs")
    assert same(runtime.encode("face", face()), face())
    assert same(runtime.encode_pcm(pcm()), LogMel(SPEC)(pcm()))
    assert gpu.graphs == runtime.graphs == 0
    assert gpu.capture is None


def test_without_the_kernel_it_takes_no_pcm_and_says_why(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu
) -> None:
    def unavailable(spec: LogMelSpec, device: int) -> None:
        raise kernel.CudaUnavailableError("nvcc is not here; sudo apt install it")

    monkeypatch.setattr(kernel, "CudaLogMel", unavailable)
    runtime = opened(gpu)
    assert not runtime.takes_pcm
    assert any("nvcc is not here" in note for note in runtime.notes)
    with pytest.raises(EdgePinError, match="no log-mel kernel"):
        runtime.encode_pcm(pcm())
    assert same(runtime.encode("voice", log_mel()), log_mel())


# --- Errors


@pytest.mark.parametrize("turn", [0, 1, 2])
@pytest.mark.parametrize(
    "failing",
    ["memcpy_htod_async", "execute", "memcpy_dtoh_async", "synchronize", "cuGraphLaunch", "refuse_shape"],
)
def test_a_failing_call_raises_and_neither_falls_back_nor_breaks_the_next(
    gpu: FakeGpu, failing: str, turn: int
) -> None:
    runtime = opened(gpu)
    for number in range(turn):
        runtime.encode("voice", log_mel(number))
    gpu.fail = {failing}
    gpu.calls.clear()
    replayed = turn == 2 and failing not in ("synchronize", "cuGraphLaunch")
    if replayed or (turn == 0 and failing == "cuGraphLaunch"):
        runtime.encode("voice", log_mel(turn))  # the call that would fail is not made
    else:
        with pytest.raises(EdgePinError) as raised:
            runtime.encode("voice", log_mel(turn))
        assert "second line" not in str(raised.value)
    assert gpu.calls.count("push") == gpu.calls.count("pop")
    assert not gpu.stack
    gpu.fail = set()
    assert gpu.capture is None
    for number in range(3):
        assert same(runtime.encode("voice", log_mel(number)), log_mel(number))


def test_a_failed_call_waits_for_what_it_had_enqueued(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    gpu.fail = {"execute"}
    with pytest.raises(EdgePinError):
        runtime.encode("voice", log_mel())
    assert gpu.calls[-2:] == ["synchronize", "pop"]


@pytest.mark.parametrize(
    "failing", ["deserialize", "mem_alloc", "pagelocked_empty", "execute", "synchronize", "refuse_shape"]
)
def test_an_opening_that_fails_gives_everything_back(gpu: FakeGpu, failing: str) -> None:
    gpu.fail = {failing}
    with pytest.raises(EdgePinError):
        opened(gpu)
    assert (gpu.memory, gpu.pinned, gpu.graphs, gpu.stack) == ({}, 0, 0, [])
    assert gpu.calls.count("push") == gpu.calls.count("pop")


@pytest.mark.parametrize("name", ["mem_alloc", "pagelocked_empty", "create_execution_context"])
def test_an_opening_that_fails_in_the_middle_gives_everything_back(gpu: FakeGpu, name: str) -> None:
    opened(gpu).close()
    for number in range(1, gpu.calls.count(name) + 1):
        gpu.calls.clear()
        gpu.fail_at = (name, number)
        try:
            runtime = opened(gpu)  # without graphs, where it was the context of one
        except EdgePinError:
            pass
        else:
            assert name == "create_execution_context"
            runtime.close()
        assert (gpu.memory, gpu.pinned, gpu.graphs, gpu.stack) == ({}, 0, 0, [])


def test_an_engine_that_does_not_load_is_an_environment_fault_with_its_reason(gpu: FakeGpu) -> None:
    gpu.fail = {"deserialize"}
    with pytest.raises(EnvironmentFault, match="magicTag differs") as raised:
        opened(gpu)
    assert raised.value.hint == "edgepin compile B.pin"


@pytest.mark.parametrize("changes", [{"dtype": "HALF"}, {"input": "pixels"}, {"width": 128}])
def test_an_engine_that_is_not_such_an_encoder_is_refused(gpu: FakeGpu, changes: dict[str, Any]) -> None:
    with pytest.raises(EdgePinError, match="face engine"):
        TensorRtRuntime({"face": cached("face", **changes), "voice": cached("voice")}, gpu.tensorrt())
    assert gpu.memory == {}


def test_shapes_and_types_that_the_engine_does_not_take_are_refused_before_the_gpu_is_touched(
    gpu: FakeGpu,
) -> None:
    runtime = opened(gpu)
    gpu.calls.clear()
    for modality, batch in (
        ("voice", log_mel(frames=999)),
        ("voice", log_mel(frames=9)),
        ("face", face(batch=5)),
    ):
        with pytest.raises(EnvironmentFault, match="engine takes"):
            runtime.encode(modality, batch)
    with pytest.raises(EnvironmentFault, match="engine takes"):
        runtime.encode_pcm(pcm(samples=400))
    with pytest.raises(EdgePinError, match="float64"):
        runtime.encode("voice", log_mel().astype(np.float64))
    with pytest.raises(EdgePinError, match="float32"):
        runtime.encode_pcm(pcm().astype(np.float32))
    assert gpu.calls == []


def test_a_tensorrt_without_something_that_is_used_is_refused_by_its_name(gpu: FakeGpu) -> None:
    tensorrt = gpu.tensorrt()
    del tensorrt.module.IExecutionContext.set_device_memory
    with pytest.raises(EnvironmentFault, match=r"lacks IExecutionContext\.set_device_memory"):
        TensorRtRuntime({"face": cached("face"), "voice": cached("voice")}, tensorrt)
    assert "deserialize" not in gpu.calls


def test_every_tensorrt_attribute_that_is_used_is_in_the_bindings_of_tensorrt_for_rtx() -> None:
    module = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not here")
    missing = []
    for path in TENSORRT_ATTRIBUTES:
        kind, name = path.split(".")
        if not hasattr(getattr(module, kind, None), name):
            missing.append(path)
    assert missing == []


# --- Threads, and the end


def test_threads_take_turns_and_each_leaves_its_context_stack_as_it_was(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    threads, left = set(), []

    def work(number: int) -> bool:
        threads.add(threading.get_ident())
        if number % 7 == 3:
            with pytest.raises(EnvironmentFault):
                runtime.encode("voice", log_mel(frames=999))
        right = same(runtime.encode("face", face(number)), face(number))
        right &= same(runtime.encode_pcm(pcm(number)), LogMel(SPEC)(pcm(number)))
        left.append(len(gpu.stack))
        return right

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))
    assert len(threads) > 1
    assert set(left) == {0}
    assert gpu.calls.count("push") == gpu.calls.count("pop")


def test_a_context_that_was_current_is_so_again(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    gpu.stack.append("somebody's")
    runtime.encode("face", face())
    assert gpu.stack == ["somebody's"]


def test_closing_gives_everything_back_once_and_ends_the_runtime(gpu: FakeGpu) -> None:
    runtime = opened(gpu)
    runtime.encode("voice", log_mel())
    for _ in range(2):
        runtime.close()
        assert (gpu.memory, gpu.pinned, gpu.graphs, gpu.stack) == ({}, 0, 0, [])
    assert gpu.calls.count("log_mel_close") == 1
    for call in (lambda: runtime.encode("face", face()), lambda: runtime.encode_pcm(pcm())):
        with pytest.raises(EdgePinError, match="closed"):
            call()
