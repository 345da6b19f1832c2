"""Augmentations keep what they augment, and are drawn from the given generator alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgepin_training.augment import (
    augment_face,
    augment_voice,
    compress,
    cover,
    crop_voice,
    light,
    mask_log_mel,
    move,
    shrink,
)

STRENGTHS = [0.0, 0.5, 1.0]
SEEDS = range(20)  # enough for every branch, the rarest of which has a chance of 0.1 at half strength


def crop(size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def speech(samples: int = 8000) -> np.ndarray:
    return (3000 * np.random.default_rng(1).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("size", [32, 64, 112])
def test_face_keeps_shape_and_dtype(size: int, strength: float) -> None:
    face = crop(size)
    for seed in SEEDS:
        out = augment_face(face, np.random.default_rng(seed), strength)
        assert (out.shape, out.dtype) == (face.shape, np.uint8)
        assert out.flags.c_contiguous
    assert np.array_equal(face, crop(size)), "the corpus must not be written to"


def test_face_depends_on_the_generator_alone() -> None:
    for seed in SEEDS:
        once, again = (augment_face(crop(), np.random.default_rng(seed), 1.0) for _ in range(2))
        assert np.array_equal(once, again)
    assert not np.array_equal(
        augment_face(crop(), np.random.default_rng(0), 1.0),
        augment_face(crop(), np.random.default_rng(1), 1.0),
    )


def test_face_at_strength_0_is_only_flipped() -> None:
    face = crop()
    seen = set()
    for seed in SEEDS:
        out = augment_face(face, np.random.default_rng(seed), 0.0)
        flipped = np.array_equal(out, face[:, ::-1])
        assert flipped or np.array_equal(out, face)
        seen.add(flipped)
    assert seen == {False, True}


def test_face_changes_more_at_more_strength() -> None:
    face = np.full((64, 64, 3), 120, np.uint8)
    change = [
        np.mean(
            [np.abs(augment_face(face, np.random.default_rng(s), strength) - 120.0).mean() for s in SEEDS]
        )
        for strength in STRENGTHS
    ]
    assert change[0] == 0 < change[1] < change[2]


@pytest.mark.parametrize("length", [1, 700, 8000, 20000])
def test_crop_is_a_stretch_of_the_voice_repeated_where_short(length: int) -> None:
    pcm = np.arange(length, dtype=np.int16)
    for seed in SEEDS:
        out = crop_voice(pcm, 8000, np.random.default_rng(seed))
        assert (out.shape, out.dtype) == ((8000,), np.float32)
        assert np.array_equal(out, (out[0] + np.arange(8000)) % length)


def test_crop_reaches_both_ends() -> None:
    starts = {
        int(crop_voice(np.arange(102, dtype=np.int16), 100, np.random.default_rng(s))[0]) for s in SEEDS
    }
    assert starts == {0, 1, 2}


@pytest.mark.parametrize("strength", STRENGTHS)
def test_voice_keeps_its_length_and_is_int16(strength: float) -> None:
    voice, other = speech(), speech()[::-1].copy()
    for seed in SEEDS:
        out = augment_voice(voice, other, np.random.default_rng(seed), strength)
        assert (out.shape, out.dtype) == (voice.shape, np.int16)
        assert out.any()
    assert np.array_equal(voice, speech()), "the corpus must not be written to"


def test_voice_depends_on_the_generator_alone() -> None:
    for seed in SEEDS:
        once, again = (
            augment_voice(speech(), speech()[::-1].copy(), np.random.default_rng(seed), 1.0) for _ in range(2)
        )
        assert np.array_equal(once, again)


def test_voice_at_strength_0_is_only_louder_or_softer() -> None:
    voice = speech()
    for seed in SEEDS:
        out = augment_voice(voice, voice, np.random.default_rng(seed), 0.0).astype(np.float64)
        inside = np.abs(out) < 32767
        gain = (out @ voice) / (voice @ voice) if inside.all() else np.median(out[inside] / voice[inside])
        assert np.abs(out - gain * voice)[inside].max() < 2 + 2e-3 * np.abs(out).max()


def test_silence_stays_finite() -> None:
    silence = np.zeros(8000, np.float32)
    for seed in SEEDS:
        out = augment_voice(silence, silence, np.random.default_rng(seed), 1.0)
        assert np.abs(out.astype(np.int32)).max() < 100


@pytest.mark.parametrize("frames", [13, 98, 198])
def test_mask_covers_whole_bands_and_stretches_with_the_mean(frames: int) -> None:
    touched = 0
    for seed in SEEDS:
        features = np.random.default_rng(2).standard_normal((3, frames, 80)).astype(np.float32)
        before = features.copy()
        mask_log_mel(features, np.random.default_rng(seed), 1.0)
        assert (features.shape, features.dtype) == (before.shape, np.float32)
        for row, old in zip(features, before, strict=True):
            changed = row != old
            times, bands = changed.all(axis=1), changed.all(axis=0)
            assert not changed[~times][:, ~bands].any()
            assert bands.sum() <= 12
            assert times.sum() <= 20
            touched += int(changed.any())
        again = before.copy()
        mask_log_mel(again, np.random.default_rng(seed), 1.0)
        assert np.array_equal(features, again)
    assert touched > len(SEEDS)


def test_mask_at_strength_0_leaves_the_features() -> None:
    features = np.random.default_rng(2).standard_normal((3, 98, 80)).astype(np.float32)
    before = features.copy()
    mask_log_mel(features, np.random.default_rng(0), 0.0)
    assert np.array_equal(features, before)


def test_light_keeps_shape_and_dtype() -> None:
    face = crop().astype(np.float32)
    for seed in SEEDS:
        lit = light(face.copy(), np.random.default_rng(seed), 1.0)
        assert (lit.shape, lit.dtype) == (face.shape, np.float32)
        assert np.isfinite(lit).all()


def test_a_covered_box_has_one_color_and_the_rest_stays() -> None:
    for seed in SEEDS:
        face = crop().astype(np.float32)
        cover(face, np.random.default_rng(seed))
        changed = (face != crop()).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = face[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert np.ptp(box.reshape(-1, 3), axis=0).max() < 1e-3
        assert 0.01 < changed.mean() < 0.2


def test_shrunk_and_compressed_faces_are_still_the_faces() -> None:
    smooth = cv2.GaussianBlur(crop(), (0, 0), 4)
    assert np.abs(shrink(smooth.astype(np.float32), 0.5) - smooth).mean() < 3
    assert np.abs(compress(smooth, 50).astype(float) - smooth).mean() < 5


def test_moved_faces_repeat_their_edges() -> None:
    face = np.full((64, 64, 3), 77, np.uint8)
    for seed in SEEDS:
        assert np.array_equal(move(face, np.random.default_rng(seed), 3.0), face)
