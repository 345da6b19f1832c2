"""Knowing a copy of an earlier sample again, and nothing else."""

from __future__ import annotations

import timeit

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin._capture.audio import prepare
from edgepin._capture.crop import Face
from edgepin._capture.fingerprint import (
    MAX_BYTES,
    face_fingerprint,
    face_region,
    is_replay,
    voice_fingerprint,
)
from edgepin._errors import UsageError

from ..synthetic_captures import jpeg, voice

RNG = np.random.default_rng(3)


def babbling(seed: int, seconds: float = 4.0) -> np.ndarray:
    """Noise whose spectrum changes every 0.15 s, as that of speech does: int16 at 16 kHz."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(round(seconds / 0.15)):
        pole = 0.95 * np.exp(2j * np.pi * rng.uniform(200, 3500, 3) / 16_000)
        poly = np.real(np.poly(np.concatenate([pole, pole.conj()])))
        spectrum = np.fft.rfft(rng.normal(size=2_400)) / np.fft.rfft(poly, 2_400)
        part = np.fft.irfft(spectrum, 2_400)
        parts.append(part / np.abs(part).max() * rng.uniform(0.2, 1.0))
    return np.rint(np.concatenate(parts) * 12_000).astype(np.int16)


def textured(seed: int, size: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.zeros((64, 64, 3), dtype=np.float32)
    for cells in (4, 9, 20, 40):
        coarse = rng.uniform(-1, 1, (cells, cells, 1)).astype(np.float32)
        image += cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC)[..., None] / cells**0.5
    image = 128 + 90 * image / np.abs(image).max()
    return (
        np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC))
        .clip(0, 255)
        .astype(np.uint8)
    )


VOICE_COPIES = {
    "itself": lambda pcm: pcm,
    "quieter": lambda pcm: (pcm * 0.2).astype(np.int16),
    "through 8 kHz": lambda pcm: prepare(pcm[::2].copy(), 8_000),
    "20 ms cut off": lambda pcm: pcm[320:],
    "0.5 s cut off": lambda pcm: pcm[8_000:],
    "0.5 s put before": lambda pcm: np.concatenate([np.zeros(8_000, dtype=np.int16), pcm]),
    "the end cut off": lambda pcm: pcm[:-16_000],
    "noise 20 dB under it": lambda pcm: (pcm + RNG.normal(0, 0.1 * pcm.std(), len(pcm))).astype(np.int16),
}


@pytest.mark.parametrize("change", VOICE_COPIES.values(), ids=VOICE_COPIES.keys())
def test_a_copy_of_a_sound_is_known_again(change: object) -> None:
    for seed in range(5):
        pcm = babbling(seed)
        one, other = voice_fingerprint(pcm), voice_fingerprint(change(pcm))  # type: ignore[operator]
        assert is_replay(one, other)
        assert is_replay(other, one)


def test_other_sounds_are_no_copies() -> None:
    prints = [voice_fingerprint(babbling(seed, seconds)) for seed in range(20) for seconds in (1.2, 4.0)]
    assert [
        (i, j) for i in range(len(prints)) for j in range(i) if is_replay(prints[i], prints[j]) and i - j > 1
    ] == []


def test_two_captures_of_one_synthetic_person_are_no_copies() -> None:
    assert not is_replay(voice_fingerprint(voice(1, 0)), voice_fingerprint(voice(1, 1)))


def test_a_sound_under_a_second_is_like_no_other() -> None:
    short = voice_fingerprint(babbling(1)[:12_000])
    assert not is_replay(short, short)
    assert voice_fingerprint(np.zeros(0, dtype=np.int16)) == b"v"


FACE_COPIES = {
    "itself": lambda crop: crop,
    "JPEG": lambda crop: np.asarray(cv2.imdecode(np.frombuffer(jpeg(crop), np.uint8), 1))[..., ::-1].copy(),
    "gamma": lambda crop: np.rint(255 * (crop / 255) ** 0.8).astype(np.uint8),
    "brighter": lambda crop: np.rint(crop * 1.1).clip(0, 255).astype(np.uint8),
    "twice the size": lambda crop: np.asarray(cv2.resize(crop, (128, 128), interpolation=cv2.INTER_CUBIC)),
}


@pytest.mark.parametrize("change", FACE_COPIES.values(), ids=FACE_COPIES.keys())
def test_a_copy_of_a_crop_is_known_again(change: object) -> None:
    for seed in range(5):
        crop = textured(seed)
        assert is_replay(face_fingerprint(crop), face_fingerprint(change(crop)))  # type: ignore[operator]


def test_a_crop_moved_by_half_a_pixel_is_no_copy() -> None:
    for seed in range(10):
        crop = textured(seed, 80)
        moved = np.asarray(
            cv2.warpAffine(crop, np.array([[1, 0, 0.5], [0, 1, 0]]), (80, 80), flags=cv2.INTER_CUBIC)
        )
        assert not is_replay(face_fingerprint(crop[8:72, 8:72]), face_fingerprint(moved[8:72, 8:72]))


@pytest.mark.parametrize("change", ["JPEG", "0.6 times the size", "jitter"])
def test_the_region_of_a_found_face_is_the_same_in_a_copy_of_the_image(change: str) -> None:
    image = textured(7, 400)
    face = Face((168.0, 180.0), (232.0, 182.0), (140.0, 140.0, 120.0, 120.0), 1.0)
    copy, found = image, face
    if change == "JPEG":
        copy = FACE_COPIES["JPEG"](image)[..., ::-1]
    elif change == "jitter":
        found = Face((169.5, 179.0), (231.0, 182.5), face.box, 1.0)
    else:
        copy = np.asarray(cv2.resize(image, (240, 240), interpolation=cv2.INTER_AREA))
        found = Face((100.6, 107.8), (139.0, 109.0), face.box, 1.0)
    region = face_region(image, face)
    assert (region.shape, region.dtype) == ((64, 64, 3), np.uint8)
    assert is_replay(
        face_fingerprint(region), face_fingerprint(face_region(np.ascontiguousarray(copy), found))
    )


def test_the_region_of_a_face_at_the_images_edge_is_there() -> None:
    face = Face((2.0, 3.0), (60.0, 3.0), (0.0, 0.0, 70.0, 70.0), 1.0)
    assert face_region(textured(1, 100), face).shape == (64, 64, 3)


def test_other_crops_are_no_copies() -> None:
    prints = [face_fingerprint(textured(seed)) for seed in range(40)]
    assert not any(is_replay(prints[i], prints[j]) for i in range(40) for j in range(i))


def test_a_face_and_a_voice_are_never_copies_of_each_other() -> None:
    assert not is_replay(face_fingerprint(textured(0)), voice_fingerprint(babbling(0)))


def test_a_crop_of_one_value_is_like_no_other() -> None:
    flat = face_fingerprint(np.full((64, 64, 3), 9, dtype=np.uint8))
    assert not is_replay(flat, flat)


def test_fingerprints_are_small() -> None:
    assert len(face_fingerprint(textured(0, 112))) <= MAX_BYTES
    assert len(voice_fingerprint(babbling(0, 12.0))) <= MAX_BYTES
    assert MAX_BYTES <= 256


FACE = face_fingerprint(textured(0))


@given(st.binary(max_size=300), st.sampled_from([b"", b"v", b"f"]))
@settings(max_examples=100, deadline=None)
def test_other_bytes_are_refused_or_compared(data: bytes, start: bytes) -> None:
    try:
        answer = is_replay(start + data, FACE)
    except UsageError:
        return
    assert answer is False


@pytest.mark.parametrize("bad", [b"", b"x", b"vv", b"f" * 10, None, "v"])
def test_what_is_no_fingerprint_is_a_usage_error(bad: object) -> None:
    with pytest.raises(UsageError):
        is_replay(bad, b"v")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        is_replay(b"v", bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("pcm", [np.zeros(9), np.zeros((9, 1), dtype=np.int16), [0]])
def test_another_sound_is_a_usage_error(pcm: object) -> None:
    with pytest.raises(UsageError):
        voice_fingerprint(pcm)  # type: ignore[arg-type]


def test_comparing_takes_microseconds() -> None:
    voices = [voice_fingerprint(babbling(seed, 6.0)) for seed in (0, 1)]
    faces = [face_fingerprint(textured(seed)) for seed in (0, 1)]
    for pair in (voices, faces):
        is_replay(*pair)
        assert min(timeit.repeat(lambda pair=pair: is_replay(*pair), number=20, repeat=20)) / 20 < 100e-6
