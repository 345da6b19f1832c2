"""The launcher: what it asks of the driver and of nvcc, and what it says when something is not there or not right."""

from __future__ import annotations

import ctypes
import dataclasses
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from edgepin_kernels import LogMelSpec, _cuda_driver
from edgepin_kernels import _cuda_params as cuda
from edgepin_kernels._cuda import CudaError, CudaUnavailableError, DeviceArray
from edgepin_kernels._cuda_arrays import stream_handle, view
from edgepin_kernels._presets import PRESETS

from .emulated_gpu import Array, EmulatedGpu
from .sounds import noise

KALDI, WESPEAKER = PRESETS["kaldi"], PRESETS["wespeaker"]
OUT_OF_MEMORY, NO_DEVICE, LAUNCH_FAILED = 2, 100, 719


def buffers(
    gpu: EmulatedGpu, spec: LogMelSpec, batch: int = 2, samples: int = 1_200, dtype: Any = "float32"
) -> tuple[Array, Array]:
    out = np.full((batch, spec.num_frames(samples), spec.num_mels), np.nan, dtype)
    return gpu.array(noise(batch, samples)), gpu.array(out)


def names(calls: list[str]) -> list[str]:
    return [call.split()[0] for call in calls]


# ---- what is asked of the driver ----


def test_the_mirror_of_the_parameters_agrees_with_the_kernel(gpu: EmulatedGpu) -> None:
    params = cuda.LogMelParams
    fields = (
        params.pcm_stride,
        params.samples,
        params.keep,
        params.mel_taps,
        params.log_of_floor,
        params.workspace_words,
    )
    expected = [ctypes.sizeof(params), *(field.offset for field in fields)]
    assert [gpu.library.emu_params_layout(index) for index in range(len(expected))] == expected


@pytest.mark.parametrize(("normalize", "code"), [("none", 0), ("mean", 1), ("mean_std", 2)])
@pytest.mark.parametrize("mels", [1, 40, 80, 256])
def test_sizes_agree_with_the_kernel(gpu: EmulatedGpu, normalize: Any, code: int, mels: int) -> None:
    spec = LogMelSpec(num_mels=mels, normalize=normalize, low_hz=0.0)
    padded = cuda.padded_mels(spec)
    assert gpu.library.emu_shared_bytes(code, padded) == cuda.shared_bytes(spec)
    assert gpu.library.emu_workspace_words(code, padded) == cuda.workspace_words(spec)


def test_a_call_is_one_launch_on_the_callers_stream_in_the_primary_context(gpu: EmulatedGpu) -> None:
    gpu.device(blocks=12)
    plan = gpu.plan(KALDI)
    built = names(gpu.calls())
    assert built.count("cuDevicePrimaryCtxRetain") == 1
    assert built.count("cuCtxPushCurrent") == built.count("cuCtxPopCurrent") == 1
    pcm, out = buffers(gpu, KALDI)
    assert plan(pcm, out, stream=7) is out
    assert gpu.calls() == [
        "cuCtxPushCurrent",
        "cuLaunchKernel grid=2,2,1 block=128 shared=0 stream=7",
        "cuCtxPopCurrent",
    ]
    plan.close()
    assert names(gpu.calls())[-3:] == ["cuModuleUnload", "cuCtxPopCurrent", "cuDevicePrimaryCtxRelease"]


def test_blocks_that_wait_for_each_other_are_launched_cooperatively_or_not_at_all(gpu: EmulatedGpu) -> None:
    gpu.device(blocks=5)
    plan = gpu.plan(WESPEAKER)
    for batch, launch in ((1, "cuLaunchCooperativeKernel grid=2,1,1"), (2, "cuLaunchCooperativeKernel grid=2,2,1"),
                          (3, "cuLaunchKernel grid=1,3,1"), (9, "cuLaunchKernel grid=1,9,1")):  # fmt: skip
        gpu.calls()
        plan(*buffers(gpu, WESPEAKER, batch))
        assert next(call for call in gpu.calls() if "Launch" in call).startswith(launch)
    gpu.device(blocks=5, cooperative=False)
    alone = gpu.plan(WESPEAKER)
    alone(*buffers(gpu, WESPEAKER, 1))
    assert "cuLaunchKernel grid=1,1,1" in "\n".join(gpu.calls())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_after_the_first_call_on_a_stream_nothing_is_allocated(gpu: EmulatedGpu, dtype: Any) -> None:
    gpu.device(blocks=12)
    plan = gpu.plan(WESPEAKER, dtype)
    small, large = (buffers(gpu, WESPEAKER, 2, samples, dtype) for samples in (900, 1_200))
    gpu.calls()
    plan(*large, stream=1)
    assert names(gpu.calls()).count("cuMemAlloc") == (2 if dtype == "float16" else 1)
    for _ in range(2):
        plan(*large, stream=1)
        plan(*small, stream=1)
    assert not set(names(gpu.calls())) & {
        "cuMemAlloc",
        "cuMemFree",
        "cuMemsetD32Async",
        "cuStreamSynchronize",
    }
    plan(*large, stream=5)
    calls = gpu.calls()
    assert "cuMemAlloc" in names(calls)
    assert "cuMemsetD32Async stream=5" in calls


def test_a_growing_batch_brings_room_for_more(gpu: EmulatedGpu) -> None:
    plan = gpu.plan(WESPEAKER, "float16")
    sizes = [buffers(gpu, WESPEAKER, batch, dtype="float16") for batch in (4, 5, 6)]
    allocations = []
    for arrays in sizes:
        gpu.calls()
        plan(*arrays)
        calls = names(gpu.calls())
        allocations.append(calls.count("cuMemAlloc"))
        assert "cuMemFree" not in calls  # what is enqueued may still use the old one
    assert allocations == [2, 1, 0]


def test_the_default_stream_of_each_thread_is_a_stream_of_its_own(gpu: EmulatedGpu) -> None:
    gpu.device(blocks=12)
    plan = gpu.plan(WESPEAKER)
    arrays = buffers(gpu, WESPEAKER)
    plan(*arrays, stream=2)
    gpu.calls()
    thread = threading.Thread(target=plan, args=arrays, kwargs={"stream": 2})
    thread.start()
    thread.join()
    assert names(gpu.calls()).count("cuMemAlloc") == 1


def test_threads_may_share_a_plan(gpu: EmulatedGpu) -> None:
    gpu.device(blocks=12)
    plan = gpu.plan(WESPEAKER)
    arrays = [buffers(gpu, WESPEAKER, batch) for batch in (1, 2, 3, 4)]
    contexts: list[int] = []

    def work(index: int) -> None:
        for _ in range(3):
            plan(*arrays[index], stream=index + 1)
        contexts.append(gpu.library.emu_contexts())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contexts == [0, 0, 0, 0]
    for pcm, out in arrays:
        np.testing.assert_array_equal(out.values, gpu.log_mel(WESPEAKER, pcm.values))


def test_a_plan_that_is_dropped_gives_everything_back(gpu: EmulatedGpu) -> None:
    before = gpu.library.emu_allocations()
    plan = gpu.plan(WESPEAKER, "float16")
    plan(*buffers(gpu, WESPEAKER, dtype="float16"))
    del plan
    assert gpu.library.emu_allocations() == before
    assert names(gpu.calls()).count("cuDevicePrimaryCtxRelease") == 1


# ---- failures of the driver ----


@pytest.mark.parametrize(
    "function", ["cuModuleLoadData", "cuModuleGetFunction", "cuMemAlloc", "cuMemcpyHtoD", "cuOccupancy"]
)
def test_a_failure_while_building_leaves_nothing_behind(gpu: EmulatedGpu, function: str) -> None:
    before = gpu.library.emu_allocations()
    gpu.fail(function, OUT_OF_MEMORY)
    with pytest.raises(CudaError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        gpu.plan(KALDI)
    calls = names(gpu.calls())
    assert calls.count("cuCtxPushCurrent") == calls.count("cuCtxPopCurrent")
    assert calls.count("cuDevicePrimaryCtxRetain") == calls.count("cuDevicePrimaryCtxRelease") == 1
    assert gpu.library.emu_contexts() == 0
    assert gpu.library.emu_allocations() == before


def test_a_kernel_that_the_driver_does_not_take_names_its_version(gpu: EmulatedGpu) -> None:
    gpu.fail("cuModuleLoadData", 209)
    with pytest.raises(CudaError, match=r"cuModuleLoadData.*for CUDA 13\.0.*CUDA_HOME"):
        gpu.plan(KALDI)


@pytest.mark.parametrize(
    "function", ["cuLaunchKernel", "cuLaunchCooperativeKernel", "cuMemAlloc", "cuMemsetD32Async"]
)
def test_a_failure_in_a_call_is_an_error_and_the_context_is_popped(gpu: EmulatedGpu, function: str) -> None:
    gpu.device(blocks=1 if function == "cuLaunchKernel" else 12)
    plan, arrays = gpu.plan(WESPEAKER), buffers(gpu, WESPEAKER)
    gpu.fail(function, LAUNCH_FAILED)
    with pytest.raises(CudaError, match=f"{function}.*CUDA_ERROR_LAUNCH_FAILED"):
        plan(*arrays)
    assert gpu.library.emu_contexts() == 0
    plan(*arrays)  # the next one works
    np.testing.assert_array_equal(arrays[1].values, gpu.log_mel(WESPEAKER, arrays[0].values))


def test_a_first_call_while_capturing_says_what_to_do(gpu: EmulatedGpu) -> None:
    gpu.device(blocks=12, capturing=True)
    plan, arrays = gpu.plan(WESPEAKER), buffers(gpu, WESPEAKER)
    with pytest.raises(CudaError, match="call the plan once on it before the capture"):
        plan(*arrays)
    gpu.device(blocks=12)
    plan(*arrays)
    gpu.device(blocks=12, capturing=True)
    plan(*arrays)


def test_a_closed_plan_is_refused(gpu: EmulatedGpu) -> None:
    plan = gpu.plan(KALDI)
    plan.close()
    plan.close()
    with pytest.raises(CudaError, match="closed"):
        plan(*buffers(gpu, KALDI))


def test_without_a_driver_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CudaUnavailableError, match=r"libnothing.*install NVIDIA's driver"):
        _cuda_driver.Driver("libnothing.so.1")


def test_a_library_that_is_no_driver_is_refused(gpu: EmulatedGpu) -> None:
    with pytest.raises(CudaUnavailableError, match="has no cuInit"):
        _cuda_driver.Driver("libm.so.6")


def test_without_a_gpu_the_error_says_so(gpu: EmulatedGpu) -> None:
    gpu.fail("cuInit", NO_DEVICE)
    with pytest.raises(CudaUnavailableError, match=r"CUDA_ERROR_NO_DEVICE.*nvidia-smi"):
        _cuda_driver.Driver(str(gpu.library_path))
    with pytest.raises(CudaUnavailableError, match="there is no GPU 3; the driver finds 1"):
        gpu.plan(KALDI, device=3)


def test_what_the_driver_tells_of_the_gpu(gpu: EmulatedGpu) -> None:
    driver = gpu.driver
    assert (driver.version(), driver.device_count(), driver.device_name(0)) == (13_000, 1, "emulated")
    assert driver.compute_capability(0) == (8, 7)


# ---- what a plan and a call take ----


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"spec": "kaldi"}, TypeError, "spec must be a LogMelSpec"),
        ({"spec": LogMelSpec(fft_length=1_024)}, ValueError, "400 and 512 points, not of 1024"),
        ({"dtype": "float64"}, ValueError, "dtype must be one of float32, float16"),
        ({"device": -1}, ValueError, "device must be"),
        ({"device": True}, ValueError, "device must be"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    gpu: EmulatedGpu, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        gpu.plan(**{"spec": KALDI, **options})


def call(gpu: EmulatedGpu, **changes: Any) -> Any:
    plan = gpu.plan(KALDI)
    pcm, out = buffers(gpu, KALDI)
    arguments = {"pcm": pcm, "out": out, **{name: make(gpu) for name, make in changes.items()}}
    return plan(**arguments)


def on_gpu(*shape: int, dtype: Any) -> Any:
    return lambda gpu: gpu.array(np.zeros(shape, dtype))


REFUSED = {
    "samples of the host": ({"pcm": lambda gpu: np.zeros((2, 1_200), np.int16)}, TypeError, "pcm must be an array on the GPU"),
    "float samples": ({"pcm": on_gpu(2, 1_200, dtype=np.float32)}, TypeError, "pcm must be int16, not float32"),
    "too many axes": ({"pcm": on_gpu(1, 2, 1_200, dtype=np.int16)}, ValueError, "pcm must be"),
    "too few samples": ({"pcm": on_gpu(2, 399, dtype=np.int16)}, ValueError, "399 samples are too few.*at least 400"),
    "too many utterances": (
        {"pcm": lambda gpu: DeviceArray(2, (65_536, 1_200), "int16"),
         "out": lambda gpu: DeviceArray(4, (65_536, 6, 80), "float32")},
        ValueError, "at most 65535"),
    "a transposed batch": (
        {"pcm": lambda gpu: DeviceArray(2, (2, 1_200), "int16", (2, 4))}, ValueError, "contiguous along its last axis"),
    "a null pointer": ({"pcm": lambda gpu: DeviceArray(0, (2, 1_200), "int16")}, ValueError, "pcm is a null pointer"),
    "an odd address": ({"pcm": lambda gpu: DeviceArray(4097, (2, 1_200), "int16")}, ValueError, "pcm is not aligned"),
    "an address of the host": (
        {"pcm": lambda gpu: DeviceArray(4096, (2, 1_200), "int16")}, ValueError, "pcm must lie on GPU 0; 0x1000 is not in"),
    "an array that is longer than its memory": (
        {"pcm": lambda gpu: DeviceArray(gpu.array(np.zeros(1_200, np.int16)).address, (2, 1_200), "int16")},
        ValueError, "pcm must lie on GPU 0"),
    "a result of another type": ({"out": on_gpu(2, 6, 80, dtype=np.float16)}, TypeError, "out must be float32, not float16"),
    "a result of another shape": (
        {"out": on_gpu(2, 7, 80, dtype=np.float32)}, ValueError, r"out must have the shape \(2, 6, 80\)"),
    "a strided result": (
        {"out": lambda gpu: DeviceArray(4, (2, 6, 80), "float32", (8_000, 320, 4))}, ValueError, "out must be contiguous"),
    "a result over the samples": (
        {"out": lambda gpu: DeviceArray(4, (2, 6, 80), "float32"), "pcm": lambda gpu: DeviceArray(3_800, (2, 1_200), "int16")},
        ValueError, "out must not share memory with pcm"),
    "a result over the lengths": (
        {"out": lambda gpu: DeviceArray(8, (2, 6, 80), "float32"), "lengths": lambda gpu: DeviceArray(4, (2,), "int32"),
         "pcm": lambda gpu: DeviceArray(1 << 20, (2, 1_200), "int16")},
        ValueError, "out must not share memory with lengths"),
    "lengths of another type": ({"lengths": on_gpu(2, dtype=np.float32)}, TypeError, "lengths must be int32"),
    "lengths of another number": ({"lengths": on_gpu(3, dtype=np.int32)}, ValueError, r"lengths must have the shape \(2,\)"),
    "a stream that is none": ({"stream": lambda gpu: "main"}, TypeError, "stream must be a CUDA stream"),
    "a negative stream": ({"stream": lambda gpu: -1}, TypeError, "stream must be a CUDA stream"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_will_not_do_is_refused_before_a_launch(gpu: EmulatedGpu, name: str) -> None:
    changes, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call(gpu, **changes)
    assert "cuLaunch" not in "\n".join(gpu.calls())
    assert gpu.library.emu_contexts() == 0


def test_a_read_only_result_is_refused() -> None:
    @dataclasses.dataclass
    class ReadOnly:
        __cuda_array_interface__: dict[str, Any]

    interface = {"shape": (2,), "typestr": "<f4", "data": (64, True), "version": 3}
    assert view("pcm", ReadOnly(interface), "float32").size == 8
    with pytest.raises(ValueError, match="out is read-only"):
        view("out", ReadOnly(interface), "float32", writable=True)
    with pytest.raises(TypeError, match="mask"):
        view("out", ReadOnly({**interface, "mask": ReadOnly(interface)}), "float32")


def test_one_utterance_and_raw_addresses(gpu: EmulatedGpu) -> None:
    pcm, out = buffers(gpu, KALDI, 1)
    plan = gpu.plan(KALDI)
    plan(DeviceArray(pcm.address, (1_200,), "int16"), DeviceArray(out.address, (6, 80), "float32"))
    np.testing.assert_array_equal(out.values, gpu.log_mel(KALDI, pcm.values))
    assert plan.out_shape((1_200,)) == (6, 80)
    assert plan.out_shape((3, 1_200)) == (3, 6, 80)
    with pytest.raises(TypeError, match="dtype must be one of"):
        _ = DeviceArray(64, (2,), "float64").__cuda_array_interface__


def test_an_empty_batch_launches_nothing(gpu: EmulatedGpu) -> None:
    plan = gpu.plan(KALDI)
    gpu.calls()
    plan(DeviceArray(0, (0, 1_200), "int16"), DeviceArray(0, (0, 6, 80), "float32"))
    assert gpu.calls() == []


def test_streams_of_other_packages_are_understood() -> None:
    class Torch:
        cuda_stream = 11

    class Cupy:
        ptr = 12

    class Pycuda:
        handle = 13

    class Cuda:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 14

    given = (None, 10, np.int64(9), Torch(), Cupy(), Pycuda(), Cuda())
    assert [stream_handle(stream) for stream in given] == [0, 10, 9, 11, 12, 13, 14]


def test_importing_the_launcher_loads_no_driver_and_no_other_package() -> None:
    code = """
import ctypes, sys
ctypes.CDLL = None
import edgepin_kernels._cuda
print(sorted({"pycuda", "torch", "cupy"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ("[]\n", 0), result.stderr
