"""Sound files and microphone samples: what is decoded, how it is prepared, what is refused."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepin._capture.audio import MAX_AUDIO_BYTES, decode_audio, load_voice, prepare, trim_silence
from edgepin._errors import CaptureError, UsageError

from .mutations import mutated


def tone(seconds: float, rate: int, hz: float = 440.0, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def encoded(pcm: np.ndarray, rate: int, format: str = "WAV", subtype: str | None = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, pcm, rate, format=format, subtype=subtype)
    return file.getvalue()


def refused(source: object, **options: float) -> str:
    with pytest.raises(CaptureError) as caught:
        decode_audio(source, **options)  # type: ignore[arg-type]
    assert caught.value.hint
    return caught.value.code


def peak_hz(pcm: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(pcm.astype(float)))) * 16_000 / len(pcm))


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "PCM_32"),
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("WAV", "ULAW"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("RF64", "PCM_16"),
    ],
)
def test_every_common_format_decodes_to_the_same_tone(format: str, subtype: str) -> None:
    pcm, rate = decode_audio(encoded(tone(1.0, 16_000), 16_000, format, subtype))
    assert (pcm.dtype, pcm.ndim, rate) == (np.float32, 1, 16_000)
    assert len(pcm) == 16_000
    assert np.sqrt(np.mean(pcm**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_rate_and_channel_count_becomes_16_khz_mono(rate: int, channels: int) -> None:
    both = np.repeat(tone(1.0, rate)[:, None], channels, axis=1)
    pcm = prepare(*decode_audio(encoded(both, rate)))
    assert (pcm.dtype, pcm.shape) == (np.int16, (16_000,))
    assert peak_hz(pcm) == pytest.approx(440, abs=1)


def test_a_path_and_its_bytes_decode_alike(tmp_path: Path) -> None:
    data = encoded(tone(0.5, 16_000), 16_000)
    path = tmp_path / "voice.wav"
    path.write_bytes(data)
    for source in (path, str(path)):
        np.testing.assert_array_equal(decode_audio(source)[0], decode_audio(data)[0])


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "voice.raw"
    path.write_bytes(encoded(tone(0.5, 16_000), 16_000, "FLAC"))
    assert decode_audio(path)[1] == 16_000


def test_seconds_takes_the_beginning_even_of_a_long_file() -> None:
    data = encoded(tone(70.0, 8_000), 8_000)
    assert refused(data) == "too_long"
    pcm, _ = decode_audio(data, seconds=2.5)
    assert len(pcm) == 20_000


@pytest.mark.parametrize("seconds", [0.0, -1.0, 61.0, float("nan")])
def test_impossible_seconds_are_a_usage_error(seconds: float) -> None:
    with pytest.raises(UsageError):
        decode_audio(encoded(tone(0.5, 16_000), 16_000), seconds=seconds)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello, this is text\n" * 100,
        b"RIFF",
        b"RIFF\0\0\0\0WAVE",
        b"fLaC" + b"\0" * 100,
        b"OggS" * 30,
    ],
    ids=["empty", "one byte", "text", "riff only", "no data chunk", "flac of zeros", "ogg of magic"],
)
def test_what_is_no_sound_file_is_damaged(data: bytes) -> None:
    assert refused(data) == "damaged"


def test_a_missing_file_and_a_folder_are_usage_errors(tmp_path: Path) -> None:
    for source in (tmp_path / "none.wav", tmp_path, "nul\0byte.wav", 7):
        with pytest.raises(UsageError):
            decode_audio(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFF, 40_000])
def test_a_wav_header_that_promises_more_than_there_is_is_damaged(length: int) -> None:
    data = bytearray(encoded(tone(1.0, 16_000), 16_000))
    struct.pack_into("<I", data, data.index(b"data") + 4, length)
    assert refused(bytes(data)) == "damaged"


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_a_file_cut_short_is_damaged(format: str) -> None:
    data = encoded(np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), 16_000, format)
    assert refused(data[: len(data) // 2]) == "damaged"


def piped_flac(seconds: float) -> bytes:
    """A FLAC file whose header says no length, as encoders write it to a pipe."""
    data = bytearray(encoded(tone(seconds, 8_000), 8_000, "FLAC"))
    data[21] &= 0xF0  # the 36 bits of STREAMINFO's sample count
    data[22:26] = bytes(4)
    return bytes(data)


def test_a_flac_of_unstated_length_is_damaged() -> None:
    assert refused(piped_flac(3.0)) == "damaged"
    assert refused(piped_flac(3.0), seconds=1.0) == "damaged"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_float_wav_with_a_sample_that_is_not_finite_is_refused(value: float, channels: int) -> None:
    pcm = np.repeat(tone(1.0, 16_000)[:, None], channels, axis=1)
    pcm[8_000, channels - 1] = value
    assert refused(encoded(pcm, 16_000, subtype="FLOAT")) == "not_finite"


def test_a_file_with_no_samples_is_too_short() -> None:
    assert refused(encoded(np.zeros(0), 16_000)) == "too_short"


@pytest.mark.parametrize("rate", [0, 1, 7_999, 192_001, 4_000_000_000])
def test_a_header_with_an_impossible_rate_is_refused(rate: int) -> None:
    data = bytearray(encoded(tone(0.5, 16_000), 16_000))
    struct.pack_into("<I", data, 24, rate)
    assert refused(bytes(data)) in ("unsupported", "damaged")


def test_more_channels_than_any_microphone_array_are_refused() -> None:
    assert refused(encoded(np.zeros((100, 33)), 16_000)) == "unsupported"


def test_a_file_over_the_byte_cap_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    with path.open("wb") as file:
        file.write(encoded(tone(0.5, 16_000), 16_000))
        file.truncate(MAX_AUDIO_BYTES * 100)  # sparse
    started = time.perf_counter()
    assert refused(path) == "too_large"
    assert time.perf_counter() - started < 2.0


def test_float_samples_beyond_full_scale_are_clipped() -> None:
    pcm, _ = decode_audio(encoded(tone(0.5, 16_000, level=3.0), 16_000, subtype="FLOAT"))
    assert np.abs(pcm).max() == 1.0


class TestPrepare:
    def test_int16_mono_at_16_khz_comes_back_unchanged(self) -> None:
        pcm = np.array([-32768, -1, 0, 1, 32767], dtype=np.int16)
        np.testing.assert_array_equal(prepare(pcm, 16_000), pcm)

    @pytest.mark.parametrize(("dtype", "scale"), [(np.int32, 2**31), (np.float32, 1.0), (np.float64, 1.0)])
    def test_every_dtype_lands_on_the_same_int16_values(self, dtype: type, scale: float) -> None:
        wanted = np.array([-32768, -16384, -1, 0, 1, 16384, 32767], dtype=np.int16)
        given = (wanted.astype(np.float64) / 32768 * scale).astype(dtype)
        np.testing.assert_array_equal(prepare(given, 16_000), wanted)

    def test_a_wav_of_int16_survives_decoding_exactly(self) -> None:
        pcm = np.random.default_rng(1).integers(-32768, 32768, 4_000).astype(np.int16)
        np.testing.assert_array_equal(prepare(*decode_audio(encoded(pcm, 16_000))), pcm)

    def test_channels_are_averaged(self) -> None:
        both = np.array([[100, 300], [-20_000, -30_000], [32767, 32767]], dtype=np.int16)
        np.testing.assert_array_equal(prepare(both, 16_000), [200, -25_000, 32767])

    def test_what_lies_over_the_new_band_is_gone_after_resampling(self) -> None:
        pcm = prepare(tone(1.0, 48_000, hz=12_000.0), 48_000)
        assert np.abs(pcm[1_000:-1_000].astype(int)).max() < 33  # 0.1 % of full scale

    def test_huge_floats_clip_and_do_not_overflow(self) -> None:
        pcm = prepare(np.array([1e300, -1e300, 0.0] * 100), 44_100)
        assert pcm.dtype == np.int16

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_samples_that_are_not_finite_are_refused(self, value: float) -> None:
        pcm = np.zeros(100)
        pcm[7] = value
        with pytest.raises(CaptureError) as caught:
            prepare(pcm, 16_000)
        assert caught.value.code == "not_finite"

    def test_no_samples_are_too_short(self) -> None:
        with pytest.raises(CaptureError) as caught:
            prepare(np.zeros(0, dtype=np.int16), 16_000)
        assert caught.value.code == "too_short"

    @pytest.mark.parametrize(
        "pcm",
        [
            np.zeros(9, dtype=np.uint8),
            np.zeros(9, dtype=np.complex64),
            np.zeros(9, dtype=bool),
            np.zeros(9, dtype=object),
            np.zeros((2, 16_000)),
            np.zeros((9, 0)),
            np.zeros((3, 3, 3)),
            np.float32(1.0),
            [0.0, 1.0],
        ],
    )
    def test_another_dtype_or_shape_is_a_usage_error(self, pcm: object) -> None:
        with pytest.raises(UsageError):
            prepare(pcm, 16_000)  # type: ignore[arg-type]

    def test_a_whole_rate_may_be_a_float(self) -> None:
        assert len(prepare(np.zeros(441, dtype=np.int16), 44_100.0)) == 160

    @pytest.mark.parametrize(
        "rate", [0, -16_000, 7_999, 192_001, 16_000.5, True, "16000", None, float("nan")]
    )
    def test_an_impossible_rate_is_a_usage_error(self, rate: object) -> None:
        with pytest.raises(UsageError):
            prepare(np.zeros(100, dtype=np.int16), rate)  # type: ignore[arg-type]


class TestTrimSilence:
    speech = (tone(1.0, 16_000) * 32768).astype(np.int16)

    def test_silence_at_both_ends_goes_but_for_the_margin(self) -> None:
        quiet = np.zeros(16_000, dtype=np.int16)
        trimmed = trim_silence(np.concatenate([quiet, self.speech, quiet]))
        assert len(trimmed) == pytest.approx(16_000 + 2 * 1_600, abs=320)

    def test_a_pause_between_words_stays(self) -> None:
        pause = np.zeros(8_000, dtype=np.int16)
        assert len(trim_silence(np.concatenate([self.speech, pause, self.speech]))) == 40_000

    def test_faint_noise_around_speech_is_silence(self) -> None:
        noise = np.random.default_rng(0).normal(0, 20, 16_000).astype(np.int16)
        assert len(trim_silence(np.concatenate([noise, self.speech, noise]))) < 20_000

    def test_a_click_is_no_onset(self) -> None:
        quiet = np.zeros(16_000, dtype=np.int16)
        click = quiet.copy()
        click[1_000] = 30_000
        assert len(trim_silence(np.concatenate([click, self.speech, quiet]))) < 20_000

    @pytest.mark.parametrize("length", [1, 159, 160, 161, 799, 16_000])
    @pytest.mark.parametrize("value", [0, 9_000])
    def test_silence_comes_back_whole_even_with_an_offset(self, length: int, value: int) -> None:
        assert len(trim_silence(np.full(length, value, dtype=np.int16))) == length

    def test_five_seconds_take_about_a_tenth_of_a_millisecond(self) -> None:
        pcm = np.random.default_rng(0).normal(0, 3_000, 80_000).astype(np.int16)
        trim_silence(pcm)
        best = min(self._timed(pcm) for _ in range(20))
        assert best < 1e-3

    @staticmethod
    def _timed(pcm: np.ndarray) -> float:
        started = time.perf_counter()
        trim_silence(pcm)
        return time.perf_counter() - started

    @given(st.integers(0, 5_000), st.integers(0, 2**32 - 1), st.sampled_from([0, 3, 300, 30_000]))
    @settings(max_examples=60, deadline=None)
    def test_something_never_becomes_nothing(self, length: int, seed: int, level: int) -> None:
        pcm = np.random.default_rng(seed).integers(-level, level + 1, length).astype(np.int16)
        assert (len(trim_silence(pcm)) > 0) == (length > 0)


def test_load_voice_decodes_prepares_and_trims() -> None:
    quiet = np.zeros(48_000)
    voice = load_voice(encoded(np.concatenate([quiet, tone(2.0, 48_000), quiet]), 48_000, "FLAC"))
    assert voice.dtype == np.int16
    assert len(voice) == pytest.approx(2.2 * 16_000, abs=480)
    assert len(load_voice(encoded(tone(3.0, 16_000), 16_000), seconds=1.5)) == 24_000


VALID = [
    encoded(tone(0.1, 16_000), 16_000, format, subtype)
    for format, subtype in [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAV", "IMA_ADPCM"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
    ]
]


def decodes_or_refuses(data: bytes) -> None:
    try:
        pcm, rate = decode_audio(data)
    except CaptureError:
        return
    assert pcm.dtype == np.float32
    assert pcm.size > 0
    assert np.isfinite(pcm).all()
    assert np.abs(pcm).max() <= 1.0
    assert 8_000 <= rate <= 192_000


@given(st.sampled_from([b"", b"RIFF\xff\0\0\0WAVEfmt ", b"fLaC", b"OggS"]), st.binary(max_size=400))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes_are_refused_and_never_crash(start: bytes, rest: bytes) -> None:
    decodes_or_refuses(start + rest)


@given(mutated(VALID))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_files_decode_or_are_refused(data: bytes) -> None:
    decodes_or_refuses(data)
