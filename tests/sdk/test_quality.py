"""The gate before the encoders: which captures pass, and what is said of the others."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from edgepin._capture.crop import Face
from edgepin._capture.quality import QualityLimits, check_face_crop, check_voice, face_quality, voice_quality
from edgepin._errors import CaptureError, UsageError


def speechlike(seconds: float = 3.0, level: float = 0.1) -> np.ndarray:
    """Noise in syllables of 0.2 s with pauses of 0.1 s, of the RMS `level` (1 is full scale)."""
    rng = np.random.default_rng(0)
    pcm = rng.normal(0, level * 32768, round(seconds * 16_000))
    pcm[np.arange(len(pcm)) % 4_800 > 3_200] *= 0.001
    return np.clip(pcm, -32768, 32767).astype(np.int16)


def textured_crop(size: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(40, 220, (9, 9, 3)).astype(np.float32)
    fine = rng.normal(0, 12, (64, 64, 3)).astype(np.float32)
    image = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC) + fine
    return np.asarray(cv2.resize(np.clip(image, 0, 255), (size, size)), dtype=np.uint8)


def voice_code(pcm: np.ndarray) -> str:
    with pytest.raises(CaptureError) as caught:
        check_voice(pcm)
    assert caught.value.hint
    assert voice_quality(pcm).code == caught.value.code
    return caught.value.code


def face_code(crop: np.ndarray, source_size: tuple[int, int] | None = None) -> str:
    with pytest.raises(CaptureError) as caught:
        check_face_crop(crop, source_size)
    assert caught.value.hint
    assert face_quality(crop, source_size).code == caught.value.code
    return caught.value.code


def test_the_default_limits() -> None:
    assert dataclasses.asdict(QualityLimits()) == {
        "min_seconds": 1.0,
        "min_active_seconds": 0.5,
        "min_level": -55.0,
        "max_clipped": 0.01,
        "min_snr": 11.0,
        "min_source_side": 40,
        "min_eye_distance": 16.0,
        "min_contrast": 8.0,
        "min_sharpness": 0.02,
        "min_brightness": 45.0,
        "max_overexposed": 0.4,
        "max_yaw": 50.0,
        "max_roll": 40.0,
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, True])
def test_a_limit_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="min_level"):
        QualityLimits(min_level=value)  # type: ignore[arg-type]


def test_a_verdict_cannot_be_changed() -> None:
    verdict = voice_quality(speechlike())
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.ok = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        verdict.measurements["level"] = 0.0  # type: ignore[index]


class TestVoice:
    @pytest.mark.parametrize("level", [0.003, 0.01, 0.1, 0.2])
    def test_speech_of_any_usual_level_passes(self, level: float) -> None:
        verdict = check_voice(speechlike(level=level))
        assert verdict.ok
        assert verdict.code is None
        assert verdict.measurements["level"] == pytest.approx(20 * np.log10(level), abs=1)
        assert verdict.measurements["seconds"] == 3.0
        assert verdict.measurements["active_seconds"] == pytest.approx(2.0, abs=0.2)

    @pytest.mark.parametrize("seconds", [0.001, 0.1, 0.99])
    def test_under_a_second_is_too_short(self, seconds: float) -> None:
        assert voice_code(speechlike(seconds)) == "too_short"

    def test_no_samples_are_too_short(self) -> None:
        assert voice_code(np.zeros(0, dtype=np.int16)) == "too_short"

    def test_two_blips_apart_are_too_short(self) -> None:
        pcm = np.zeros(48_000, dtype=np.int16)
        pcm[:1_600], pcm[-1_600:] = speechlike()[:1_600], speechlike()[:1_600]
        assert voice_code(pcm) == "too_short"

    @pytest.mark.parametrize("value", [0, 5_000, -32768])
    def test_digital_silence_is_silent_with_any_offset(self, value: int) -> None:
        assert voice_code(np.full(48_000, value, dtype=np.int16)) == "silent"

    def test_the_noise_of_an_open_input_is_silent(self) -> None:
        assert voice_code(speechlike(level=0.001)) == "silent"

    def test_overdriven_sound_is_clipped(self) -> None:
        hum = 3.0 * np.sin(2 * np.pi * 200 * np.arange(48_000) / 16_000)
        assert voice_code((np.clip(hum, -1, 1) * 32767).astype(np.int16)) == "clipped"

    def test_full_scale_peaks_alone_are_not_clipping(self) -> None:
        pcm = speechlike()
        pcm[: len(pcm) // 2 : 40] = 32767
        assert voice_quality(pcm).measurements["clipped"] == 0.0
        assert check_voice(pcm).ok

    @pytest.mark.parametrize(("snr", "ok"), [(30, True), (15, True), (5, False), (0, False)])
    def test_speech_in_noise_is_noisy(self, snr: float, ok: bool) -> None:
        pcm = speechlike()
        noise = np.random.default_rng(1).normal(0, 3276.8 * 10 ** (-snr / 20), len(pcm))
        verdict = voice_quality((pcm + noise).astype(np.int16))
        assert (verdict.ok, verdict.code) == ((True, None) if ok else (False, "noisy"))
        assert verdict.measurements["snr"] == pytest.approx(snr, abs=3)

    def test_noise_alone_is_noisy(self) -> None:
        assert voice_code(np.random.default_rng(1).normal(0, 2000, 48_000).astype(np.int16)) == "noisy"

    @pytest.mark.parametrize("pcm", [np.zeros(9), np.zeros((9, 1), dtype=np.int16), [0, 1]])
    def test_another_dtype_or_shape_is_a_usage_error(self, pcm: object) -> None:
        with pytest.raises(UsageError):
            check_voice(pcm)  # type: ignore[arg-type]

    def test_limits_can_be_set(self) -> None:
        assert voice_quality(speechlike(3.0), QualityLimits(min_seconds=4.0)).code == "too_short"


class TestFaceCrop:
    @pytest.mark.parametrize("size", [64, 112, 224])
    def test_a_sharp_crop_passes_at_any_size(self, size: int) -> None:
        assert check_face_crop(textured_crop(size), (480, 640)).ok

    def test_the_source_size_need_not_be_known(self) -> None:
        assert check_face_crop(textured_crop()).measurements["source_side"] == 64

    def test_dim_light_is_not_blur(self) -> None:
        dim = (textured_crop() * 0.4).astype(np.uint8)
        assert check_face_crop(dim).ok

    @pytest.mark.parametrize("size", [(30, 30), (39, 500), (500, 39)])
    def test_a_small_source_is_too_small(self, size: tuple[int, int]) -> None:
        assert face_code(textured_crop(), size) == "too_small"

    @pytest.mark.parametrize("value", [0, 128, 255])
    def test_one_flat_color_is_blank(self, value: int) -> None:
        assert face_code(np.full((64, 64, 3), value, dtype=np.uint8)) == "blank"

    def test_almost_black_is_blank(self) -> None:
        assert face_code(np.random.default_rng(0).integers(0, 12, (64, 64, 3)).astype(np.uint8)) == "blank"

    @pytest.mark.parametrize("size", [64, 128])
    def test_a_crop_out_of_focus_is_blurred(self, size: int) -> None:
        soft = cv2.GaussianBlur(textured_crop(size), (0, 0), 3 * size / 64)
        assert face_code(np.asarray(soft)) == "blurred"

    def test_too_little_light_is_too_dark(self) -> None:
        dark = (textured_crop() * 0.32).astype(np.uint8)
        assert face_code(dark) == "too_dark"

    def test_too_much_light_is_too_bright(self) -> None:
        assert (
            face_code((textured_crop().astype(np.float32) * 3).clip(0, 255).astype(np.uint8)) == "too_bright"
        )

    @pytest.mark.parametrize(
        ("apart", "turn", "nose", "code"),
        [
            (60.0, 0.0, None, None),
            (60.0, 0.0, 0.0, None),
            (60.0, 0.3, 0.1, None),
            (15.9, 0.0, 0.0, "too_small"),
            (60.0, 0.0, 0.8, "turned"),
            (60.0, 0.0, -0.8, "turned"),
            (60.0, 0.9, 0.0, "tilted"),
            (60.0, -0.9, None, "tilted"),
        ],
    )
    def test_the_found_face_counts(
        self, apart: float, turn: float, nose: float | None, code: str | None
    ) -> None:
        along = np.array([math.cos(turn), math.sin(turn)]) * apart
        left = np.array([100.0, 100.0])
        tip = None if nose is None else tuple(left + (0.5 + nose) * along + 0.6 * along[::-1] * [-1, 1])
        found = Face(tuple(left), tuple(left + along), (80.0, 80.0, 100.0, 100.0), 1.0, nose=tip)
        verdict = face_quality(textured_crop(), (300, 300), face=found)
        assert verdict.code == code
        assert verdict.measurements["roll"] == pytest.approx(math.degrees(turn))
        assert ("yaw" in verdict.measurements) == (nose is not None)
        if nose is not None:
            assert verdict.measurements["yaw"] == pytest.approx(math.degrees(math.atan(nose / 0.55)))

    def test_symmetry_is_of_left_and_right(self) -> None:
        crop = textured_crop()
        both = np.concatenate([crop[:, :32], crop[:, 31::-1]], axis=1)
        assert face_quality(both).measurements["symmetry"] == pytest.approx(1.0)
        assert face_quality(crop).measurements["symmetry"] < 0.6

    @pytest.mark.parametrize("crop", [np.zeros((64, 64), dtype=np.uint8), np.zeros((64, 64, 3)), None])
    def test_another_dtype_or_shape_is_a_usage_error(self, crop: object) -> None:
        with pytest.raises(UsageError):
            check_face_crop(crop)  # type: ignore[arg-type]
