"""The CUDA kernel on a GPU: against the float64 definition, beside torch, from threads, and in a CUDA graph.

They have passed on an H200 (sm_90), but for the one that needs pycuda, which was not there; no other GPU has run them.
For memory errors and races (none found there), on a GPU machine:

    compute-sanitizer --tool memcheck  --error-exitcode 1 python -m pytest tests/gpu -k "definition or ragged or silence"
    compute-sanitizer --tool racecheck --error-exitcode 1 python -m pytest tests/gpu -k "definition or ragged or silence"
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgepin_kernels import LogMelSpec, reference_log_mel
from edgepin_kernels._cuda import CudaLogMel, CudaUnavailableError
from edgepin_kernels._cuda_driver import Driver
from edgepin_kernels._presets import PRESETS
from edgepin_kernels._tables import log_of_floor

from .device_memory import Gpu

pytestmark = pytest.mark.gpu

# Fresh in every run; a failure prints it.
SEED = secrets.randbits(32)
END_TO_END = 2e-3
ENERGIES = 1e-5


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    try:
        driver = Driver()
        if driver.device_count() == 0:
            pytest.skip("the CUDA driver finds no GPU")
        return Gpu(driver)
    except CudaUnavailableError as error:
        pytest.skip(f"no GPU: {error}")


def plan_of(spec: LogMelSpec, dtype: Any = "float32") -> CudaLogMel:
    """In the user's cache, as a user's would be."""
    try:
        return CudaLogMel(spec, dtype=dtype)
    except CudaUnavailableError as error:
        pytest.skip(f"the kernel cannot be compiled here: {error}")


def sounds(batch: int, samples: int) -> npt.NDArray[np.int16]:
    """Noise of any level on any offset, with silent stretches."""
    rng = np.random.default_rng(SEED)
    level = 10.0 ** rng.uniform(1.0, 4.0, (batch, 1))
    pcm = rng.normal(rng.uniform(-300, 300, (batch, 1)), level, (batch, samples))
    for row, start in zip(pcm, rng.integers(0, samples, batch), strict=True):
        row[start : start + 500] = 0
    return np.clip(pcm, -32768, 32767).astype(np.int16)


def run(
    gpu: Gpu, plan: CudaLogMel, pcm: npt.NDArray[np.int16], lengths: list[int] | None = None
) -> npt.NDArray[Any]:
    out = gpu.array(np.full(plan.out_shape(pcm.shape), np.nan, plan.dtype))
    plan(gpu.array(pcm), out, lengths=None if lengths is None else gpu.array(np.array(lengths, np.int32)))
    return out.fetch()


def reference(spec: LogMelSpec, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    return np.stack([reference_log_mel(spec, row) for row in pcm])


@pytest.mark.parametrize("samples", [16_000, 48_000, 12_345])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_equal_the_definition(gpu: Gpu, name: str, samples: int) -> None:
    spec, pcm = PRESETS[name], sounds(3, samples)
    result, expected = run(gpu, plan_of(spec), pcm), reference(spec, pcm)
    np.testing.assert_allclose(result, expected, rtol=0, atol=END_TO_END, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("name", PRESETS)
def test_energies_equal_the_definition(gpu: Gpu, name: str) -> None:
    spec = dataclasses.replace(
        PRESETS[name], log="none", dynamic_range=None, output_offset=0.0, output_scale=1.0, normalize="none"
    )
    pcm = sounds(4, 16_000)
    pcm[0] = np.where(np.arange(16_000) // 400 % 2 == 0, 32767, -32768)
    pcm[1] = 0
    pcm[1, 8_000] = 32767
    result, expected = run(gpu, plan_of(spec), pcm), reference(spec, pcm)
    heard = expected > spec.log_floor
    allowed = ENERGIES * np.broadcast_to(expected.max(axis=2, keepdims=True), expected.shape)
    assert np.all(np.abs(result - expected)[heard] <= allowed[heard]), f"seed {SEED}"


@pytest.mark.parametrize("name", PRESETS)
def test_digital_silence_is_the_floor(gpu: Gpu, name: str) -> None:
    spec = PRESETS[name]
    value = (np.float32(log_of_floor(spec)) + np.float32(spec.output_offset)) * np.float32(spec.output_scale)
    result = run(gpu, plan_of(spec), np.zeros((2, 8_000), np.int16))
    np.testing.assert_array_equal(result, np.float32(0.0) if spec.normalize != "none" else value)


@pytest.mark.parametrize("name", ["kaldi", "wespeaker", "whisper", "nemo"])
def test_a_ragged_batch_has_the_bits_of_each_utterance_alone(gpu: Gpu, name: str) -> None:
    # Alone, an utterance has as many blocks as the GPU holds; in the batch it has one.
    spec, plan = PRESETS[name], plan_of(PRESETS[name])
    batch = 1_500
    pcm = np.tile(sounds(30, 16_000), (batch // 30, 1))
    lengths = np.random.default_rng(SEED).integers(0, 16_001, batch).tolist()
    result = run(gpu, plan, pcm, lengths)
    for index in range(0, batch, 113):
        frames = spec.num_frames(lengths[index])
        if frames:
            alone = run(gpu, plan, pcm[index : index + 1, : lengths[index]])
            np.testing.assert_array_equal(result[index, :frames], alone[0], err_msg=f"seed {SEED}")
        np.testing.assert_array_equal(result[index, frames:], 0.0)


@pytest.mark.parametrize("name", ["kaldi", "nemo", "speechbrain"])
def test_repeated_calls_have_the_same_bits(gpu: Gpu, name: str) -> None:
    plan, pcm = plan_of(PRESETS[name]), sounds(2, 48_000)
    first = run(gpu, plan, pcm)
    for _ in range(50):
        np.testing.assert_array_equal(run(gpu, plan, pcm), first)


@pytest.mark.parametrize("name", PRESETS)
def test_half_is_the_rounded_float(gpu: Gpu, name: str) -> None:
    pcm = sounds(2, 9_999)
    single, half = (run(gpu, plan_of(PRESETS[name], dtype), pcm) for dtype in ("float32", "float16"))
    largest = np.finfo(np.float16).max
    np.testing.assert_array_equal(half, np.clip(single, -largest, largest).astype(np.float16))


def test_threads_with_streams_of_their_own(gpu: Gpu) -> None:
    plan = plan_of(PRESETS["wespeaker"])
    pcm = [sounds(2, 8_000 + 160 * index) for index in range(6)]
    expected = [run(gpu, plan, samples) for samples in pcm]
    failures: list[str] = []

    def work(index: int) -> None:
        stream, samples = gpu.stream(), gpu.array(pcm[index])
        out = gpu.array(np.full_like(expected[index], np.nan))
        for _ in range(100):
            plan(samples, out, stream=stream)
        if not np.array_equal(out.fetch(stream), expected[index]):
            failures.append(f"thread {index}")

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_cubin_is_kept_in_the_cache(gpu: Gpu, tmp_path: Path) -> None:
    try:
        CudaLogMel(PRESETS["kaldi"], cache=tmp_path / "kernels").close()
    except CudaUnavailableError as error:
        pytest.skip(f"the kernel cannot be compiled here: {error}")
    (entry,) = (tmp_path / "kernels").iterdir()
    made = entry.stat().st_mtime_ns
    CudaLogMel(PRESETS["kaldi"], cache=tmp_path / "kernels").close()
    assert entry.stat().st_mtime_ns == made


@pytest.fixture
def torch_on_gpu(gpu: Gpu) -> Any:
    torch = pytest.importorskip("torch", reason="torch is not here")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return torch


def test_beside_torch_on_its_stream(torch_on_gpu: Any) -> None:
    torch, spec = torch_on_gpu, PRESETS["wespeaker"]
    plan, samples = plan_of(spec), sounds(4, 16_000)
    pcm = torch.from_numpy(samples).cuda()
    out = torch.empty(plan.out_shape(tuple(pcm.shape)), device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        # What torch has enqueued before and what it enqueues after are in order with the kernel.
        reversed_pcm = pcm.flip(1).flip(1)
        plan(reversed_pcm, out, stream=stream)
        doubled = out * 2.0
    stream.synchronize()
    np.testing.assert_allclose(doubled.cpu().numpy() / 2.0, reference(spec, samples), rtol=0, atol=END_TO_END)
    assert float(torch.ones(3, device="cuda").sum()) == 3.0


@pytest.mark.parametrize("name", ["kaldi", "wespeaker", "whisper"])
def test_inside_a_cuda_graph(torch_on_gpu: Any, name: str) -> None:
    torch, spec = torch_on_gpu, PRESETS[name]
    plan = plan_of(spec)
    pcm = torch.zeros((2, 16_000), dtype=torch.int16, device="cuda")
    out = torch.empty(plan.out_shape((2, 16_000)), device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        plan(pcm, out, stream=stream)  # the first call on a stream allocates
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        plan(pcm, out, stream=stream)
    for seed in range(3):
        samples = np.random.default_rng(seed).normal(0, 2_000, (2, 16_000)).astype(np.int16)
        pcm.copy_(torch.from_numpy(samples))
        graph.replay()
        torch.cuda.synchronize()
        np.testing.assert_allclose(out.cpu().numpy(), reference(spec, samples), rtol=0, atol=END_TO_END)


def test_arrays_and_streams_of_pycuda(gpu: Gpu) -> None:
    driver = pytest.importorskip("pycuda.driver", reason="pycuda is not here")
    gpuarray = pytest.importorskip("pycuda.gpuarray", reason="pycuda is not here")
    driver.init()
    context = driver.Device(0).retain_primary_context()
    context.push()
    try:
        spec, samples = PRESETS["kaldi"], sounds(2, 8_000)
        plan = plan_of(spec)
        pcm = gpuarray.to_gpu(samples)
        out = gpuarray.empty(plan.out_shape(samples.shape), np.float32)
        stream = driver.Stream()
        plan(pcm, out, stream=stream)
        stream.synchronize()
        np.testing.assert_allclose(out.get(), reference(spec, samples), rtol=0, atol=END_TO_END)
        del pcm, out, stream
    finally:
        driver.Context.pop()


def test_arrays_and_streams_of_cupy(gpu: Gpu) -> None:
    cupy = pytest.importorskip("cupy", reason="cupy is not here")
    spec, samples = PRESETS["kaldi"], sounds(2, 8_000)
    plan, stream = plan_of(spec), cupy.cuda.Stream(non_blocking=True)
    with stream:
        pcm = cupy.asarray(samples)
        out = cupy.empty(plan.out_shape(samples.shape), cupy.float32)
        plan(pcm, out, stream=stream)
    stream.synchronize()
    np.testing.assert_allclose(cupy.asnumpy(out), reference(spec, samples), rtol=0, atol=END_TO_END)
