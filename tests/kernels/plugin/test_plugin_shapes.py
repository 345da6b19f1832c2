"""What the plugin tells TensorRT while an engine is built: shapes, types, formats, memory, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest

from edgepin_kernels import LogMelSpec
from edgepin_kernels._presets import PRESETS

from ..cuda.test_cuda_log_mel import OTHERS
from .trt_harness import CHW4, FLOAT, HALF, INT8, INT32, LINEAR, PluginHarness

SPECS = {**PRESETS, **OTHERS}


def lengths(spec: LogMelSpec) -> list[int]:
    least, hop = spec.min_samples, spec.hop_length
    near = {least + more for more in (0, 1, hop - 1, hop, hop + 1, 2 * hop)}
    return sorted(near | {spec.frame_length + more for more in (0, 1, hop)} | {16_000, 48_037})


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", SPECS)
def test_shapes_equal_the_definition(trt: PluginHarness, name: str, known: bool) -> None:
    spec = SPECS[name]
    plugin = trt.plugin(spec)
    for samples in lengths(spec):
        if samples >= spec.min_samples:
            expected = (3, spec.num_frames(samples), spec.num_mels)
            assert plugin.shape(3, samples, known=known) == expected, samples
    assert trt.library.test_outputs(plugin.handle) == 1


@pytest.mark.parametrize("name", SPECS)
def test_a_network_of_too_few_samples_is_refused(trt: PluginHarness, name: str) -> None:
    least = SPECS[name].min_samples
    plugin = trt.plugin(SPECS[name])
    assert plugin.shape(1, least, known=True) is not None
    assert plugin.shape(1, least - 1, known=True) is None
    assert f"{least - 1} samples are too few for one frame; at least {least} are needed" in trt.log()


@pytest.mark.parametrize("rank", [1, 3])
def test_samples_of_another_rank_are_refused(trt: PluginHarness, rank: int) -> None:
    assert trt.plugin(LogMelSpec()).shape(1, 16_000, rank=rank) is None
    assert "pcm must be (N, samples)" in trt.log()


def test_samples_are_float32_and_so_is_the_log_mel(trt: PluginHarness) -> None:
    plugin = trt.plugin(LogMelSpec())
    assert trt.library.test_output_type(plugin.handle, FLOAT) == FLOAT
    for other in (HALF, INT8, INT32):
        assert trt.library.test_output_type(plugin.handle, other) < 0
        assert 'pcm must be float32 of full scale 1; write the graph with samples="float32"' in trt.log()


def test_formats_are_linear_float_in_and_float_or_half_out(trt: PluginHarness) -> None:
    plugin = trt.plugin(LogMelSpec())
    taken = {
        (at, kind, layout)
        for at in (0, 1)
        for kind in (FLOAT, HALF, INT8, INT32)
        for layout in (LINEAR, CHW4)
        if trt.library.test_supports(
            plugin.handle,
            at,
            *((kind, layout, FLOAT, LINEAR) if at == 0 else (FLOAT, LINEAR, kind, layout)),
        )
    }
    assert taken == {(0, FLOAT, LINEAR), (1, FLOAT, LINEAR), (1, HALF, LINEAR)}
    assert not trt.library.test_supports(plugin.handle, 2, FLOAT, LINEAR, FLOAT, LINEAR)


MOST_SAMPLES = 2**31 - 2**18


@pytest.mark.parametrize(
    ("least", "most", "message"),
    [
        ((1, 400), (65_535, 48_000), None),
        ((1, 400), (1, MOST_SAMPLES), None),
        ((1, 399), (1, 48_000), "399 samples are too few for one frame; at least 400"),
        ((0, 400), (1, 48_000), "a batch of 0; 1 to 65535"),
        ((1, 400), (65_536, 48_000), "a batch of 65536; 1 to 65535"),
        ((1, 400), (1, MOST_SAMPLES + 1), f"at most {MOST_SAMPLES} go into a call"),
    ],
)
def test_a_profile_that_lets_in_what_the_kernel_cannot_take_is_refused(
    trt: PluginHarness, least: tuple[int, int], most: tuple[int, int], message: str | None
) -> None:
    plugin = trt.plugin(LogMelSpec())
    assert plugin.configure(least, (1, 16_000), most) == (message is None)
    assert (message or "") in trt.log()


def test_a_network_without_a_profile_is_not_refused_for_its_free_axes(trt: PluginHarness) -> None:
    assert trt.plugin(LogMelSpec()).configure((-1, -1), (-1, -1), (-1, -1))


def test_a_profile_with_more_frames_than_can_be_normalized_is_refused(trt: PluginHarness) -> None:
    samples = 400 + 160 * 2**20
    normalized = trt.plugin(LogMelSpec(normalize="mean"))
    assert normalized.configure((1, 400), (1, 16_000), (1, samples - 1))
    assert not normalized.configure((1, 400), (1, 16_000), (1, samples))
    assert "1048577 frames cannot be normalized together; at most 1048576 can" in trt.log()
    assert trt.plugin(LogMelSpec()).configure((1, 400), (1, 16_000), (1, samples))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", PRESETS)
def test_memory_is_asked_for_where_half_values_wait_for_their_utterance(
    trt: PluginHarness, name: str, known: bool
) -> None:
    spec = PRESETS[name]
    plugin = trt.plugin(spec)
    waits = spec.normalize != "none" or spec.dynamic_range is not None
    values = 5 * spec.num_frames(48_000) * spec.num_mels
    assert plugin.workspace(5, 48_000, FLOAT, known=known) == 0
    assert plugin.workspace(5, 48_000, HALF, known=known) == (4 * values if waits else 0)


def test_the_largest_call_does_not_overflow_what_is_asked_for(trt: PluginHarness) -> None:
    spec = dataclasses.replace(PRESETS["whisper"], hop_length=1, num_mels=200)
    plugin = trt.plugin(spec)
    assert plugin.workspace(65_535, MOST_SAMPLES, HALF) == 4 * 65_535 * MOST_SAMPLES * 200
