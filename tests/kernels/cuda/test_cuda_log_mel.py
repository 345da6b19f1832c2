"""The CUDA kernel, emulated, against the float64 definition."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from edgepin_kernels import LogMelSpec, reference_log_mel
from edgepin_kernels._presets import PRESETS
from edgepin_kernels._tables import log_of_floor

from ..parity import linear
from .emulated_gpu import EmulatedGpu
from .sounds import SOUNDS, Pcm, noise

NAMES = sorted(PRESETS)
END_TO_END = 1e-3
ENERGIES = 1e-5

# Options that no preset has, or has not together.
OTHERS = {
    "one mel": LogMelSpec(num_mels=1),
    "the most mels": LogMelSpec(num_mels=256, low_hz=0.0),
    "the most mels, 400 points": LogMelSpec(fft_length=400, num_mels=200, normalize="mean_std"),
    "a frame as long as the transform": LogMelSpec(frame_length=512),
    "an odd frame": LogMelSpec(frame_length=399, hop_length=161),
    "the shortest frame": LogMelSpec(frame_length=2, hop_length=3, window="rectangular", num_mels=8),
    "gaps between frames": LogMelSpec(hop_length=777, normalize="mean"),
    "an odd centered frame": LogMelSpec(frame_length=257, hop_length=99, padding="zeros"),
    "centers on bins": LogMelSpec(triangles="bins", num_mels=23),
    "8 kHz": LogMelSpec(sample_rate=8_000, frame_length=200, hop_length=80, high_hz=4_000.0, num_mels=40),
    "mean removed, emphasized, reflected": LogMelSpec(padding="reflect", preemphasis_over="utterance"),
    "mean removed, emphasized, zeros": LogMelSpec(
        padding="zeros", preemphasis_over="utterance", fft_length=400, drop_last_frame=True
    ),
    "mean removed, emphasized, snipped": LogMelSpec(preemphasis_over="utterance", frame_length=320),
    "mean removed, not emphasized": LogMelSpec(preemphasis=0.0, padding="reflect"),
    "emphasized wholly": LogMelSpec(preemphasis=1.0, remove_dc=False),
    "frames emphasized over padding": LogMelSpec(padding="reflect", fft_length=400, remove_dc=False),
    "decibels, added floor, limited, mean": LogMelSpec(
        log="db", floor_mode="add", dynamic_range=30.0, normalize="mean", output_scale=-0.5
    ),
    "limited, standardized, moved": LogMelSpec(
        log="log10", dynamic_range=2.0, output_offset=3.0, output_scale=4.0, normalize="mean_std"
    ),
    "energies, mean": LogMelSpec(amplitude="unit", log="none", normalize="mean"),
    "energies, limited, standardized": LogMelSpec(
        amplitude="unit", log="none", dynamic_range=50.0, normalize="mean_std", output_scale=0.1
    ),
    "energies, limited": LogMelSpec(amplitude="unit", log="none", dynamic_range=50.0, output_offset=1.0),
}


def reference(spec: LogMelSpec, pcm: Pcm) -> npt.NDArray[np.float64]:
    return np.stack([reference_log_mel(spec, row) for row in pcm])


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("name", NAMES)
def test_energies_are_exact_to_a_hundred_thousandth_of_the_frame(
    gpu: EmulatedGpu, name: str, sound: str
) -> None:
    spec, pcm = linear(PRESETS[name]), SOUNDS[sound][np.newaxis]
    result, expected = gpu.log_mel(spec, pcm), reference(spec, pcm)
    heard = expected > spec.log_floor
    allowed = ENERGIES * np.broadcast_to(expected.max(axis=2, keepdims=True), expected.shape)
    assert heard.any()
    assert np.all(np.abs(result - expected)[heard] <= allowed[heard])


@pytest.mark.parametrize("name", NAMES)
def test_presets_equal_the_definition(gpu: EmulatedGpu, name: str) -> None:
    spec, pcm = PRESETS[name], np.stack([SOUNDS["noise"], noise(8_000, seed=5, level=200.0)])
    np.testing.assert_allclose(gpu.log_mel(spec, pcm), reference(spec, pcm), rtol=0, atol=END_TO_END)


@pytest.mark.parametrize("resident", [1, 12])
@pytest.mark.parametrize("name", OTHERS)
def test_other_options_equal_the_definition(gpu: EmulatedGpu, name: str, resident: int) -> None:
    spec, pcm = OTHERS[name], noise(2, 2_501, seed=3)
    expected = reference(spec, pcm)
    result = gpu.log_mel(spec, pcm, resident=resident)
    rtol = 1e-4 if spec.log == "none" else 0.0
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=END_TO_END)


@pytest.mark.parametrize("name", NAMES)
def test_digital_silence_is_the_floor_exactly(gpu: EmulatedGpu, name: str) -> None:
    spec = PRESETS[name]
    result = gpu.log_mel(spec, np.zeros((1, 2_000), np.int16))
    floor = np.float32(log_of_floor(spec))
    value = (floor + np.float32(spec.output_offset)) * np.float32(spec.output_scale)
    np.testing.assert_array_equal(result, np.float32(0.0) if spec.normalize != "none" else value)


@pytest.mark.parametrize("offset", [1, -777, 32767])
def test_a_constant_is_silence_where_the_mean_is_removed(gpu: EmulatedGpu, offset: int) -> None:
    result = gpu.log_mel(PRESETS["kaldi"], np.full((1, 1_000), offset, np.int16))
    np.testing.assert_array_equal(result, np.float32(np.log(LogMelSpec().log_floor)))


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_short_and_odd_lengths_equal_the_definition_and_read_nothing_beyond(
    gpu: EmulatedGpu, name: str, at_end: bool
) -> None:
    spec = PRESETS.get(name) or OTHERS[name]
    least, hop = spec.min_samples, spec.hop_length
    lengths = {least, least + 1, least + hop - 1, least + hop, least + 3 * hop + 7}
    # Where a frame ends with the utterance, and one and two samples behind it.
    whole = 2 * hop + spec.frame_length - spec.frame_lead
    lengths |= {max(whole - beyond, least) for beyond in range(3)}
    for samples in sorted(lengths):
        pcm = noise(1, samples, seed=samples)
        expected = reference(spec, pcm)
        assert expected.shape[1] == spec.num_frames(samples) > 0
        rtol = 1e-4 if spec.log == "none" else 0.0
        # With few frames a standard deviation may be small, and then divides the same errors by little.
        atol = END_TO_END if spec.normalize != "mean_std" else 1e-2
        np.testing.assert_allclose(gpu.log_mel(spec, pcm, at_end=at_end), expected, rtol=rtol, atol=atol)


def test_a_single_frame_has_no_deviation(gpu: EmulatedGpu) -> None:
    spec = dataclasses.replace(PRESETS["nemo"], padding="none", drop_last_frame=False)
    np.testing.assert_array_equal(gpu.log_mel(spec, noise(1, 400)), np.zeros((1, 1, 80), np.float32))


def test_a_small_deviation_is_exact(gpu: EmulatedGpu) -> None:
    # One quiet stretch in a loud constant tone: deviations far below the mean, where a float sum would cancel.
    spec = dataclasses.replace(PRESETS["nemo"], preemphasis=0.0)
    pcm = (8_000 * np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000)).astype(np.int16)[np.newaxis]
    expected = reference(spec, pcm)
    result = gpu.log_mel(spec, pcm)
    loud = reference(dataclasses.replace(spec, normalize="none"), pcm).mean(axis=1) > -5.0
    assert loud.any()
    np.testing.assert_allclose(
        np.moveaxis(result, 2, 1)[loud], np.moveaxis(expected, 2, 1)[loud], rtol=1e-3, atol=1e-2
    )


RAGGED = [4_000, 0, 399, -5, 400, 401, 3_999, 70_000, 1, 2_345]


@pytest.mark.parametrize("resident", [1, 40])
@pytest.mark.parametrize(
    "name", [*NAMES, "energies, limited, standardized", "mean removed, emphasized, reflected"]
)
def test_each_of_a_ragged_batch_is_as_if_alone(gpu: EmulatedGpu, name: str, resident: int) -> None:
    spec = PRESETS.get(name) or OTHERS[name]
    pcm = noise(len(RAGGED), 4_000, seed=9)
    result = gpu.log_mel(spec, pcm, lengths=RAGGED, resident=resident)
    for row, samples, length in zip(result, pcm, RAGGED, strict=True):
        length = min(max(length, 0), 4_000)
        frames = spec.num_frames(length)
        if frames:
            alone = gpu.log_mel(spec, samples[np.newaxis, :length], resident=1)
            np.testing.assert_array_equal(row[:frames], alone[0])
        np.testing.assert_array_equal(row[frames:], 0.0)


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_the_bits_are_the_same_on_every_grid_and_schedule(gpu: EmulatedGpu, name: str) -> None:
    spec, pcm = PRESETS.get(name) or OTHERS[name], noise(2, 3_333, seed=4)
    if spec.hop_length < 10:
        pcm = pcm[:, :300]
    first = gpu.log_mel(spec, pcm, resident=1)
    for resident, seed in ((2, 1), (4, 0), (7, 2), (23, 3), (12, 4)):
        with gpu.schedule(seed):
            np.testing.assert_array_equal(gpu.log_mel(spec, pcm, resident=resident), first)


@pytest.mark.parametrize("name", NAMES)
def test_half_is_the_rounded_float(gpu: EmulatedGpu, name: str) -> None:
    spec, pcm = PRESETS[name], noise(3, 2_000, seed=6)
    single = gpu.log_mel(spec, pcm)
    for resident in (1, 12):
        half = gpu.log_mel(spec, pcm, dtype="float16", resident=resident, lengths=[2_000] * 3)
        np.testing.assert_array_equal(half, single.astype(np.float16))


def test_half_holds_what_is_too_large_for_it(gpu: EmulatedGpu) -> None:
    result = gpu.log_mel(LogMelSpec(log="none"), noise(1, 800, level=20_000.0), dtype="float16")
    assert result.max() == np.finfo(np.float16).max


@pytest.mark.parametrize("batch", [1, 2, 13])
def test_rows_may_lie_apart_and_on_odd_addresses(gpu: EmulatedGpu, batch: int) -> None:
    spec, pcm = PRESETS["wespeaker"], noise(batch, 1_201, seed=8)
    gpu.resident(12)
    plan = gpu.plan(spec)
    for apart, first in ((0, 0), (3, 1), (8, 0)):
        wide = np.full((batch, 1_201 + apart), 32_767, np.int16)
        wide[:, first : first + 1_201] = pcm
        array = gpu.array(wide)
        out = gpu.array(np.full((batch, spec.num_frames(1_201), 80), np.nan, np.float32))
        array.values = array.values[:, first : first + 1_201]
        plan(array, out)
        np.testing.assert_array_equal(out.values, gpu.log_mel(spec, pcm))


def test_many_utterances_and_many_frames(gpu: EmulatedGpu) -> None:
    spec = PRESETS["wespeaker"]
    pcm = noise(301, 560, seed=10)
    result = gpu.log_mel(spec, pcm, resident=80)
    for row in (0, 150, 300):
        np.testing.assert_array_equal(result[row], gpu.log_mel(spec, pcm[row : row + 1])[0])
