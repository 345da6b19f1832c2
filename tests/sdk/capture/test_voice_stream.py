"""A voice pushed in chunks: what comes out, when it is enough, when it gives up."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepin._capture.activity import EnergyDetector
from edgepin._capture.voice_stream import VoiceStream, VoiceStreamLimits
from edgepin._errors import CaptureError, UsageError


def speech(seconds: float, rate: int = 16_000, *, level: float = 0.1, quiet: float = 0.5) -> np.ndarray:
    """`quiet` s of a still room, then noise in syllables of 0.2 s with pauses of 0.1 s: int16."""
    rng = np.random.default_rng(5)
    count, start = round(seconds * rate), round(quiet * rate)
    sound = rng.normal(0.0, level, count)
    sound[np.arange(count) % round(0.3 * rate) > 0.2 * rate] *= 0.003
    sound = np.concatenate([rng.normal(0.0, 0.0003, start), sound])
    return np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)


def pushed(
    pcm: np.ndarray, rate: int, cuts: list[int], limits: VoiceStreamLimits
) -> tuple[np.ndarray, object]:
    """What a stream gives of `pcm` in chunks that end at `cuts`, and its last state."""
    stream = VoiceStream(rate, limits=limits)
    for part in np.split(pcm, sorted(cuts)):
        stream.push(part)
    state = stream.finish()
    heard = stream._pcm[: stream._heard].copy()
    return heard, state


@given(
    st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]),
    st.sampled_from(["int16", "float32", "stereo"]),
    st.lists(st.integers(0, 40_000), max_size=12),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_however_the_sound_is_cut_the_same_comes_out(rate: int, kind: str, cuts: list[int]) -> None:
    pcm = speech(0.6, rate, quiet=0.1)
    if kind == "float32":
        pcm = (pcm / 32768.0).astype(np.float32)
    elif kind == "stereo":
        pcm = np.stack([pcm, pcm[::-1]], axis=1)
    limits = VoiceStreamLimits(speech_seconds=0.3, max_seconds=2.0)
    whole, state = pushed(pcm, rate, [], limits)
    parts, other = pushed(pcm, rate, cuts, limits)
    np.testing.assert_array_equal(parts, whole)
    assert other == state


def test_16_khz_passes_through_unchanged() -> None:
    pcm = speech(1.0)
    heard, _ = pushed(pcm, 16_000, [100, 101, 5_000], VoiceStreamLimits())
    np.testing.assert_array_equal(heard, pcm)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_another_rate_is_resampled_as_a_whole_file_is(rate: int) -> None:
    pcm = speech(1.0, rate)
    heard, _ = pushed(pcm, rate, [777, 12_345], VoiceStreamLimits())
    whole = soxr.resample(pcm.astype(np.float32) / 32768, rate, 16_000, quality="HQ") * 32768
    assert abs(len(heard) - len(whole)) <= 1
    count = min(len(heard), len(whole))
    assert np.abs(heard[:count] - whole[:count]).max() <= 1.5


class TestEnough:
    def test_it_says_when_three_seconds_of_speech_were_heard(self) -> None:
        with VoiceStream(16_000) as stream:
            states = [stream.push(part) for part in np.array_split(speech(8.0), 80)]
            assert states[0].code == "listening"
            assert any(state.code == "speaking" for state in states)
            assert states[-1].enough
            assert states[-1].finished
            assert states[-1].speech_seconds == pytest.approx(3.0, abs=0.05)
            assert states[-1].seconds < 5.5
            pcm = stream.take()
        assert pcm.dtype == np.int16
        assert 3.0 < len(pcm) / 16_000 < 5.5

    def test_the_wait_before_the_first_word_is_cut_off(self) -> None:
        stream = VoiceStream(16_000)
        stream.push(speech(5.0, quiet=4.0))
        assert len(stream.take()) / 16_000 == pytest.approx(3.4, abs=0.5)

    def test_what_comes_after_enough_is_let_go(self) -> None:
        stream = VoiceStream(16_000)
        first = stream.push(speech(6.0))
        assert stream.push(speech(6.0)) == first

    def test_silence_gives_up_with_its_reason(self) -> None:
        stream = VoiceStream(16_000, limits=VoiceStreamLimits(max_seconds=4.0))
        state = stream.push(np.zeros(16_000 * 5, dtype=np.int16))
        assert (state.code, state.finished, state.enough) == ("no_speech", True, False)
        assert state.level == pytest.approx(-120.0)
        with pytest.raises(CaptureError) as caught:
            stream.take()
        assert caught.value.code == "no_speech"
        assert caught.value.hint

    @pytest.mark.parametrize("level", [0.003, 0.03, 0.3])
    def test_a_steady_noise_is_no_speech(self, level: float) -> None:
        noise = np.random.default_rng(0).normal(0, level, 16_000 * 6).astype(np.float32)
        stream = VoiceStream(16_000, limits=VoiceStreamLimits(max_seconds=6.0))
        assert stream.push(noise).code == "no_speech"

    def test_clicks_are_no_speech(self) -> None:
        pcm = np.random.default_rng(0).normal(0, 10, 16_000 * 5).astype(np.int16)
        pcm[8_000::8_000] = 20_000
        stream = VoiceStream(16_000, limits=VoiceStreamLimits(max_seconds=5.0))
        assert stream.push(pcm).code == "no_speech"

    def test_too_little_speech_gives_up_with_its_reason(self) -> None:
        stream = VoiceStream(16_000, limits=VoiceStreamLimits(max_seconds=5.0))
        state = stream.push(np.concatenate([speech(1.0), np.zeros(16_000 * 5, dtype=np.int16)]))
        assert state.code == "too_short"
        with pytest.raises(CaptureError, match=r"of 3 s"):
            stream.take()

    def test_the_person_is_told_to_speak_up(self) -> None:
        assert VoiceStream(16_000).push(speech(1.5, level=0.003, quiet=0.5)).code == "quiet"
        assert VoiceStream(16_000).push(speech(1.5, level=0.9)).code == "loud"


class TestUse:
    def test_the_buffers_are_zeroed_by_closing(self) -> None:
        stream = VoiceStream(16_000)
        stream.push(speech(2.0)[:-100])
        kept, waiting = stream._pcm, stream._waiting
        assert kept.any()
        stream.close()
        assert not kept.any()
        assert not waiting.any()
        assert stream.push(speech(1.0)).code == "closed"
        with pytest.raises(UsageError):
            stream.take()

    def test_taking_closes(self) -> None:
        stream = VoiceStream(16_000)
        stream.push(speech(6.0))
        kept = stream._pcm
        assert stream.take().any()
        assert not kept.any()

    def test_it_holds_no_more_than_its_maximum(self) -> None:
        stream = VoiceStream(192_000, limits=VoiceStreamLimits(max_seconds=3.0))
        stream.push(np.zeros((192_000 * 5, 2), dtype=np.float32))
        assert stream._pcm.nbytes == 3 * 16_000 * 2
        assert stream.state.seconds == 3.0

    def test_a_bad_chunk_takes_nothing(self) -> None:
        stream = VoiceStream(16_000)
        before = stream.push(speech(1.0))
        with pytest.raises(CaptureError) as caught:
            stream.push(np.array([0.0, np.nan], dtype=np.float32))
        assert caught.value.code == "not_finite"
        for chunk in (
            np.zeros(5, dtype=np.uint8),
            np.zeros((5, 40), dtype=np.int16),
            [0, 1],
            np.zeros((9, 2), dtype=np.int16),
        ):
            with pytest.raises(UsageError):
                stream.push(chunk)  # type: ignore[arg-type]
        assert stream.state == before

    @pytest.mark.parametrize("rate", [7_999, 200_000, 16_000.5, True, "16000"])
    def test_another_rate_is_a_usage_error(self, rate: object) -> None:
        with pytest.raises(UsageError):
            VoiceStream(rate)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "change",
        [
            {"speech_seconds": 0.0},
            {"speech_seconds": 16.0},
            {"max_seconds": 61.0},
            {"max_seconds": float("nan")},
        ],
    )
    def test_impossible_limits_are_refused(self, change: dict[str, float]) -> None:
        with pytest.raises(ValueError):
            VoiceStreamLimits(**change)

    def test_the_default_limits(self) -> None:
        assert dataclasses.asdict(VoiceStreamLimits()) == {"speech_seconds": 3.0, "max_seconds": 15.0}

    def test_threads_push_everything(self) -> None:
        stream = VoiceStream(16_000, limits=VoiceStreamLimits(max_seconds=10.0))
        chunk = np.full(160, 7, dtype=np.int16)

        def work() -> None:
            for _ in range(100):
                stream.push(chunk)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stream.state.seconds == pytest.approx(4.0, abs=0.02)

    def test_a_detector_of_ones_own_decides(self) -> None:
        class Always:
            window = 512

            def is_speech(self, pcm: np.ndarray) -> bool:
                assert pcm.shape == (512,)
                return True

        stream = VoiceStream(16_000, limits=VoiceStreamLimits(speech_seconds=1.0), detector=Always())
        assert stream.push(np.zeros(17_000, dtype=np.int16)).enough

    def test_listening_takes_a_hundredth_of_the_time_at_most(self) -> None:
        stream = VoiceStream(48_000, limits=VoiceStreamLimits(speech_seconds=10.0, max_seconds=10.0))
        chunks = np.array_split(speech(9.0, 48_000), 90)
        start = time.process_time()
        for chunk in chunks:
            stream.push(chunk)
        assert time.process_time() - start < 0.01 * 9.5


def test_the_floor_follows_a_room_that_becomes_louder() -> None:
    detector, rng = EnergyDetector(), np.random.default_rng(0)

    def heard(level: float, frames: int) -> int:
        return sum(detector.is_speech(rng.normal(0, level, 160).astype(np.int16)) for _ in range(frames))

    assert heard(10, 300) == 0
    heard(300, 300)
    assert heard(300, 300) == 0
    assert detector.floor == pytest.approx(20 * np.log10(300 / 32768), abs=1.5)
