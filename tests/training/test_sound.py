"""What is done to voices: each operation does what it says, keeps the length, and leaves its input alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgepin_training.sound import (
    add_noise,
    change_speed,
    colored_noise,
    level,
    lossy_codec,
    reverberate,
    room_impulse,
    shift_formants,
    telephone,
)

SAMPLES = 16_000


def tone(frequency: float, samples: int = SAMPLES) -> np.ndarray:
    return 6000 * np.sin(2 * np.pi * frequency * np.arange(samples) / 16_000)


def vowel(pitch: float = 125.0, formant: float = 1000.0) -> np.ndarray:
    """A pulse train through one resonance of 100 Hz: int16."""
    pulses = np.zeros(SAMPLES)
    pulses[:: round(16_000 / pitch)] = 1
    time = np.arange(800) / 16_000
    made = np.convolve(pulses, np.exp(-np.pi * 100 * time) * np.cos(2 * np.pi * formant * time))[:SAMPLES]
    return np.rint(8000 * made).astype(np.int16)


def peak(pcm: np.ndarray) -> float:
    """Hz where the spectrum, smoothed over 200 Hz, is strongest."""
    spectrum = np.abs(np.fft.rfft(pcm.astype(np.float64))) ** 2
    width = 200 * len(pcm) // 16_000
    return float(np.argmax(np.convolve(spectrum, np.ones(width), "same"))) * 16_000 / len(pcm)


def pitch(pcm: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(pcm.astype(np.float64))) ** 2
    autocorrelation = np.fft.irfft(spectrum)[:190]  # less than two periods
    return 16_000 / (60 + int(np.argmax(autocorrelation[60:])))


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_speed_changes_pitch_formant_and_length_alike(speed: float) -> None:
    fast = change_speed(vowel(), speed)
    assert (fast.dtype, len(fast)) == (np.int16, pytest.approx(SAMPLES / speed, abs=2))
    assert pitch(fast) == pytest.approx(125 * speed, rel=0.02)
    assert peak(fast) == pytest.approx(1000 * speed, rel=0.06)


@pytest.mark.parametrize("ratio", [0.85, 1.15])
def test_formants_move_and_the_pitch_stays(ratio: float) -> None:
    made = shift_formants(vowel(), ratio)
    assert (made.dtype, made.shape) == (np.int16, (SAMPLES,))
    assert pitch(made) == pytest.approx(125, rel=0.01)
    assert peak(made) == pytest.approx(1000 * ratio, rel=0.06)


def test_formants_shifted_by_next_to_nothing_are_the_voice() -> None:
    voice = vowel()
    error = shift_formants(voice, 1.0001).astype(np.float64) - voice
    assert level(error) < 0.01 * level(voice.astype(np.float64))
    assert shift_formants(voice, 1.0) is voice


@pytest.mark.parametrize("length", [0, 1, 127, 513])
def test_formants_of_short_voices_keep_the_length(length: int) -> None:
    assert len(shift_formants(vowel()[:length], 1.1)) == length


@pytest.mark.parametrize(
    ("function", "value"), [(change_speed, 0.4), (change_speed, 2.1), (shift_formants, 0.5)]
)
def test_what_is_no_voice_any_more_is_refused(function, value: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        function(vowel(), value)


@pytest.mark.parametrize("snr", [0.0, 10.0, 25.0])
def test_noise_is_as_far_below_as_told(snr: float) -> None:
    voice = tone(440).astype(np.float32)
    noise = colored_noise(SAMPLES, np.random.default_rng(0))
    added = add_noise(voice, noise, snr) - voice
    assert 20 * np.log10(level(voice) / level(added)) == pytest.approx(snr, abs=0.1)


def test_rooms_begin_with_the_direct_path_and_fade() -> None:
    wet = []
    for seed in range(40):
        impulse = room_impulse(np.random.default_rng(seed))
        assert impulse[0] == 1.0
        assert np.isfinite(impulse).all()
        assert 800 <= len(impulse) <= 12_800
        quarter = len(impulse) // 4
        assert level(impulse[-quarter:]) < 0.3 * level(impulse[1 : quarter + 1])
        wet.append(10 * np.log10(np.sum(impulse[1:] ** 2)))
        assert np.array_equal(impulse, room_impulse(np.random.default_rng(seed)))
    assert -12 < np.median(wet) < 12, "dB of what is reflected against what is direct"


def test_reverberation_is_the_convolution() -> None:
    rng = np.random.default_rng(1)
    voice, impulse = rng.standard_normal(3001).astype(np.float32), rng.standard_normal(700).astype(np.float32)
    expected = np.convolve(voice.astype(np.float64), impulse.astype(np.float64))[:3001]
    np.testing.assert_allclose(reverberate(voice, impulse), expected, atol=1e-3)


@pytest.mark.parametrize(("frequency", "kept"), [(80, False), (1000, True), (3000, True), (6000, False)])
def test_the_telephone_passes_its_band_alone(frequency: float, kept: bool) -> None:
    voice = (tone(frequency) + 0.3 * tone(1500)).astype(np.float32)
    heard = telephone(voice)
    spectrum = np.abs(np.fft.rfft(heard)) / np.abs(np.fft.rfft(voice)).max()
    assert (spectrum[frequency] > 0.7) == kept


def test_the_codec_keeps_length_and_most_of_the_voice() -> None:
    voice = vowel().astype(np.float32)[:12_345]
    for quality in (0.0, 0.5, 1.0):
        heard = lossy_codec(voice, quality)
        assert heard.shape == voice.shape
        assert np.corrcoef(heard, voice)[0, 1] > 0.8
    assert not np.array_equal(lossy_codec(voice, 0.0), lossy_codec(voice, 1.0))
