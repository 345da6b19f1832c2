"""What the plugin computes, on the emulated GPU, and how it behaves as a runtime calls it."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from edgepin_kernels import LogMelSpec, reference_log_mel
from edgepin_kernels import _cuda_params as cuda
from edgepin_kernels._presets import PRESETS
from edgepin_kernels._tables import log_of_floor

from ..cuda.emulated_gpu import EmulatedGpu
from ..cuda.sounds import SOUNDS, noise
from ..cuda.test_cuda_log_mel import END_TO_END, ENERGIES, OTHERS
from ..parity import linear
from .trt_harness import PluginHarness

SPECS = {**PRESETS, **OTHERS}
Floats = npt.NDArray[np.float32]


def unit(pcm: npt.NDArray[np.int16]) -> Floats:
    """The same samples with full scale 1, exactly."""
    return pcm.astype(np.float32) / np.float32(32_768)


def between_steps(*shape: int, seed: int = 0, level: float = 0.1) -> Floats:
    """Samples that no 16 bits hold."""
    return np.random.default_rng(seed).normal(0.0, level, shape).astype(np.float32)


def reference(spec: LogMelSpec, pcm: Floats) -> npt.NDArray[np.float64]:
    return np.stack([reference_log_mel(spec, row) for row in pcm])


def kernel(
    gpu: EmulatedGpu, library: ctypes.CDLL, spec: LogMelSpec, pcm: Floats, blocks: int
) -> npt.NDArray[np.float32]:
    """The float kernel with the very tables and parameters that the launcher gives the kernel of 16 bits."""
    where = cuda.tables(spec)
    tables = gpu.array(np.frombuffer(where.data, np.uint8))
    samples = gpu.array(pcm)
    frames = spec.num_frames(pcm.shape[1])
    out = gpu.array(np.full((len(pcm), frames, spec.num_mels), np.nan, np.float32))
    sums = gpu.array(np.zeros(len(pcm) * cuda.workspace_words(spec), np.uint32))
    params = cuda.params(spec, tables.address, where)
    params.pcm, params.pcm_stride = samples.address, pcm.shape[1]
    params.samples, params.out_frames = pcm.shape[1], frames
    params.out = params.staging = out.address
    params.workspace = sums.address
    together = blocks > 1 and cuda.over_utterance(spec)
    failure = library.test_float_kernel(
        spec.fft_length, 0, ctypes.byref(params), blocks, len(pcm), cuda.shared_bytes(spec), int(together)
    )
    assert failure == b""
    assert not sums.values.any()
    return out.values.copy()


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("name", SPECS)
def test_samples_of_16_bits_have_the_bits_of_the_kernel_for_them(
    trt: PluginHarness, name: str, sound: str
) -> None:
    spec, pcm = SPECS[name], np.stack([SOUNDS[sound][:2_501], SOUNDS[sound][-2_501:]])
    if spec.hop_length < 10:
        pcm = pcm[:, :300]
    expected = trt.gpu.log_mel(spec, pcm)
    np.testing.assert_array_equal(kernel(trt.gpu, trt.library, spec, unit(pcm), 1), expected)


def test_the_loudest_samples_of_16_bits_are_rounded_once_too(trt: PluginHarness) -> None:
    # frame_length times a difference needs 26 bits here, and the means of samples and of those before them differ.
    spec = LogMelSpec(frame_length=511, preemphasis_over="utterance", preemphasis=0.97)
    pcm = np.random.default_rng(2).choice([-32_768, -32_767, 32_766, 32_767], (1, 4_001)).astype(np.int16)
    expected = trt.gpu.log_mel(spec, pcm)
    np.testing.assert_array_equal(kernel(trt.gpu, trt.library, spec, unit(pcm), 1), expected)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_equal_the_definition(trt: PluginHarness, name: str) -> None:
    spec, pcm = PRESETS[name], unit(np.stack([SOUNDS["noise"], noise(8_000, seed=5, level=200.0)]))
    np.testing.assert_allclose(trt.log_mel(spec, pcm), reference(spec, pcm), rtol=0, atol=END_TO_END)


@pytest.mark.parametrize("name", PRESETS)
def test_the_plugin_equals_the_launcher(trt: PluginHarness, name: str) -> None:
    # Not to the bit: the window comes to the plugin as floats, and is rounded once more when it is scaled.
    spec, pcm = PRESETS[name], SOUNDS["noise"][np.newaxis]
    result, expected = trt.log_mel(spec, unit(pcm)), trt.gpu.log_mel(spec, pcm)
    np.testing.assert_allclose(result, expected, rtol=2e-6, atol=2e-4)


@pytest.mark.parametrize("level", [1e-5, 0.1, 3.0], ids=["below 16 bits", "usual", "beyond full scale"])
@pytest.mark.parametrize("name", PRESETS)
def test_samples_in_between_are_taken_as_they_are(trt: PluginHarness, name: str, level: float) -> None:
    spec, pcm = linear(PRESETS[name]), between_steps(2, 4_001, level=level)
    result, expected = trt.log_mel(spec, pcm), reference(spec, pcm)
    assert np.all(np.abs(result - expected) <= ENERGIES * expected.max(axis=2, keepdims=True))


def test_a_mean_between_steps_leaves_to_the_rounding_of_floats(trt: PluginHarness) -> None:
    spec = linear(LogMelSpec())
    pcm = between_steps(1, 4_000, level=0.01)
    result = trt.log_mel(spec, pcm + np.float32(0.3))
    expected = reference(spec, pcm + np.float32(0.3))
    assert np.all(np.abs(result - expected) <= ENERGIES * expected.max(axis=2, keepdims=True))


@pytest.mark.parametrize("resident", [1, 12])
@pytest.mark.parametrize("name", OTHERS)
def test_other_options_equal_the_definition(trt: PluginHarness, name: str, resident: int) -> None:
    spec, pcm = OTHERS[name], unit(noise(2, 2_501, seed=3))
    rtol = 1e-4 if spec.log == "none" else 0.0
    result = trt.log_mel(spec, pcm, resident=resident)
    np.testing.assert_allclose(result, reference(spec, pcm), rtol=rtol, atol=END_TO_END)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_short_and_odd_lengths_equal_the_definition_and_read_nothing_beyond(
    trt: PluginHarness, name: str, at_end: bool
) -> None:
    spec = SPECS[name]
    whole = 2 * spec.hop_length + spec.frame_length - spec.frame_lead
    least = spec.min_samples
    for samples in sorted(
        {least, least + 1, least + spec.hop_length, max(whole - 1, least), max(whole, least)}
    ):
        pcm = unit(noise(1, samples, seed=samples))
        rtol = 1e-4 if spec.log == "none" else 0.0
        atol = END_TO_END if spec.normalize != "mean_std" else 1e-2
        result = trt.log_mel(spec, pcm, at_end=at_end)
        np.testing.assert_allclose(result, reference(spec, pcm), rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", PRESETS)
def test_digital_silence_is_the_floor_exactly(trt: PluginHarness, name: str) -> None:
    spec = PRESETS[name]
    floor = np.float32(log_of_floor(spec))
    value = (floor + np.float32(spec.output_offset)) * np.float32(spec.output_scale)
    expected = np.float32(0.0) if spec.normalize != "none" else value
    np.testing.assert_array_equal(trt.log_mel(spec, np.zeros((1, 2_000), np.float32)), expected)


@pytest.mark.parametrize("level", [1, -777, 32_767])
def test_a_constant_of_16_bits_is_silence_where_the_mean_is_removed(trt: PluginHarness, level: int) -> None:
    result = trt.log_mel(LogMelSpec(), unit(np.full((1, 1_000), level, np.int16)))
    np.testing.assert_array_equal(result, np.float32(np.log(LogMelSpec().log_floor)))


@pytest.mark.parametrize("name", SPECS)
def test_the_bits_are_the_same_on_every_grid_and_schedule(trt: PluginHarness, name: str) -> None:
    spec, pcm = SPECS[name], between_steps(2, 3_333, seed=4)
    if spec.hop_length < 10:
        pcm = pcm[:, :300]
    first = trt.log_mel(spec, pcm, resident=1)
    for resident, seed in ((4, 0), (7, 2), (23, 3)):
        trt.library.test_set(seed, 0)
        np.testing.assert_array_equal(trt.log_mel(spec, pcm, resident=resident), first)


@pytest.mark.parametrize("name", PRESETS)
def test_half_is_the_rounded_float(trt: PluginHarness, name: str) -> None:
    spec, pcm = PRESETS[name], between_steps(3, 2_000, seed=6)
    single = trt.log_mel(spec, pcm)
    half = trt.log_mel(spec, pcm, dtype=np.float16)
    np.testing.assert_array_equal(half, np.clip(single, -65_504, 65_504).astype(np.float16))


LAUNCHES = {
    # 48 frames of each of two utterances; 12 blocks run at the same time.
    ("kaldi", 12): "plain 12x2",
    ("wespeaker", 12): "cooperative 6x2",
    ("whisper", 12): "cooperative 6x2",
    ("wespeaker", 3): "plain 1x2",
    ("wespeaker", 1): "plain 1x2",
    ("energies, mean", 12): "plain 1x2",
}


@pytest.mark.parametrize(("name", "resident"), LAUNCHES)
def test_a_call_is_one_launch_on_the_given_stream(trt: PluginHarness, name: str, resident: int) -> None:
    spec = SPECS[name]
    trt.log_mel(spec, between_steps(2, 400 + 47 * 160), resident=resident)
    assert trt.launches() == [f"{LAUNCHES[name, resident]} stream=7"]


def test_without_cooperative_launches_one_block_has_an_utterance(trt: PluginHarness) -> None:
    pcm = between_steps(1, 8_000)
    expected = trt.log_mel(PRESETS["nemo"], pcm)
    trt.launches()
    trt.gpu.device(blocks=12, cooperative=False)
    plugin = trt.plugin(PRESETS["nemo"]).attach()
    assert plugin is not None
    np.testing.assert_array_equal(trt.enqueue(plugin, PRESETS["nemo"], pcm), expected)
    assert trt.launches() == ["plain 1x1 stream=7"]


def test_a_call_allocates_nothing_and_leaves_the_plan_as_it_was(trt: PluginHarness) -> None:
    spec = PRESETS["nemo"]
    trt.gpu.resident(12)
    plugin = trt.plugin(spec).attach()
    assert plugin is not None
    expected = trt.enqueue(plugin, spec, between_steps(1, 8_000))
    trt.gpu.calls()
    for batch, samples in ((3, 4_000), (1, 16_000), (12, 560)):
        assert trt.enqueue(plugin, spec, between_steps(batch, samples)) is not None
    np.testing.assert_array_equal(trt.enqueue(plugin, spec, between_steps(1, 8_000)), expected)
    # What a captured stream forbids: memory, copies, waits.
    asked = {call.split()[0] for call in trt.gpu.calls()}
    assert asked <= {"cuOccupancy", "cuDeviceGetAttribute", "cuMemFree"}  # the test's own arrays are freed


def test_a_plugin_gives_back_its_memory(trt: PluginHarness) -> None:
    before = trt.library.emu_allocations()
    plugin = trt.plugin(PRESETS["nemo"])
    assert trt.library.emu_allocations() == before
    attached = plugin.attach()
    assert trt.library.emu_allocations() == before + 1
    del attached
    assert trt.library.emu_allocations() == before


def test_contexts_share_nothing(trt: PluginHarness) -> None:
    spec, pcm = PRESETS["nemo"], between_steps(1, 8_000)
    engine = trt.plugin(spec)
    first, second = engine.attach(), engine.attach()
    assert first is not None
    assert second is not None
    expected = trt.enqueue(second, spec, pcm)
    del engine, first
    np.testing.assert_array_equal(trt.enqueue(second, spec, pcm), expected)


def test_a_builder_that_attaches_nothing_prepares_by_the_shape(trt: PluginHarness) -> None:
    spec, pcm = PRESETS["wespeaker"], between_steps(1, 4_000)
    plugin = trt.plugin(spec)
    assert trt.enqueue(plugin, spec, pcm) is None
    assert "enqueue: it was attached to no execution context" in trt.log()
    assert plugin.shape_change(spec, 1, 4_000)
    trt.gpu.calls()
    assert plugin.shape_change(spec, 2, 8_000)
    assert trt.gpu.calls() == []
    np.testing.assert_array_equal(trt.enqueue(plugin, spec, pcm), trt.log_mel(spec, pcm))


def test_a_call_of_another_shape_is_refused(trt: PluginHarness) -> None:
    spec = PRESETS["wespeaker"]
    plugin = trt.plugin(spec).attach()
    assert plugin is not None
    assert trt.enqueue(plugin, spec, between_steps(1, 4_000), frames=24) is None
    assert "enqueue: log_mel has another shape" in trt.log()
    assert trt.enqueue(plugin, spec, between_steps(1, 399), frames=0) is None
    assert "399 samples are too few" in trt.log()
    assert not plugin.shape_change(spec, 1, 399)
    assert "onShapeChange: 399 samples are too few" in trt.log()
    assert trt.enqueue(plugin, spec, between_steps(1, 4_000), dtype=np.float16, lend=False) is None
    assert "the memory that the plugin asked for is missing" in trt.log()
    assert trt.launches() == []


@pytest.mark.parametrize(
    "function", ["cuMemAlloc", "cuMemcpyHtoD", "cuMemsetD32Async", "cuStreamSynchronize"]
)
def test_a_context_that_gets_no_memory_is_refused_with_cuda_s_word_for_it(
    trt: PluginHarness, function: str
) -> None:
    plugin, before = trt.plugin(PRESETS["nemo"]), trt.library.emu_allocations()
    trt.gpu.fail(function, 2)
    assert plugin.attach() is None
    assert "edgepin LogMel, attachToContext: cuda" in (log := trt.log())
    assert "cudaErrorMemoryAllocation" in log
    assert trt.library.emu_allocations() == before


def test_a_launch_that_fails_is_an_error_of_the_call(trt: PluginHarness) -> None:
    spec = PRESETS["wespeaker"]
    trt.gpu.resident(12)
    plugin = trt.plugin(spec).attach()
    assert plugin is not None
    trt.library.test_set(0, 2)
    assert trt.enqueue(plugin, spec, between_steps(1, 4_000)) is None
    assert "enqueue: cudaLaunchCooperativeKernel: cudaErrorMemoryAllocation" in trt.log()


def test_samples_that_are_no_numbers_stay_in_their_frames(trt: PluginHarness) -> None:
    spec, pcm = dataclasses.replace(LogMelSpec(), log="none"), between_steps(1, 8_000)
    expected = trt.log_mel(spec, pcm)[0]
    pcm[0, 4_000] = np.nan
    result = trt.log_mel(spec, pcm)[0]
    touched = np.array([160 * t <= 4_000 < 160 * t + 400 for t in range(len(result))])
    assert np.isnan(result[touched]).all()
    np.testing.assert_array_equal(result[~touched], expected[~touched])
