"""VoxCeleb2's sounds: AAC in MP4, decoded where PyAV is, named as an extra where it is not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from edgepin._errors import CaptureError, MissingExtraError
from edgepin_training.data.layouts import find_layout
from edgepin_training.data.media import decode_voice
from edgepin_training.data.scan import scan

from .voxceleb import image, put


def m4a(seed: int, seconds: float = 1.0, rate: int = 16000) -> bytes:
    """A tone of 100 Hz times the seed, on and off, as VoxCeleb2's files are coded."""
    av = pytest.importorskip("av", reason="AAC needs the `aac` extra (av)")
    time = np.arange(int(rate * seconds)) / rate
    tone = (6000 * np.sin(2 * np.pi * 100 * seed * time) * (np.sin(40 * time) > -0.5)).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize("rate", [16000, 44100])
def test_aac_becomes_16_khz_of_the_same_tone(rate: int) -> None:
    pcm, found, seconds = decode_voice(m4a(5, rate=rate))
    assert (pcm.dtype, found) == (np.int16, rate)
    assert seconds == pytest.approx(1.0, abs=0.2)
    assert len(pcm) == pytest.approx(16000, abs=3200)
    spectrum = np.abs(np.fft.rfft(pcm))
    assert np.argmax(spectrum) * 16000 / len(pcm) == pytest.approx(500, abs=10)


def test_a_cut_or_foreign_mp4_is_damaged() -> None:
    data = m4a(5)
    for broken in (
        data[:200],
        data[:4] + b"ftyp" + bytes(500),
        b"\0\0\0\x18ftypM4A \0\0\0\0" + b"\xff" * 900,
    ):
        with pytest.raises(CaptureError) as raised:
            decode_voice(broken)
        assert raised.value.code == "damaged"


def test_voxceleb2_is_indexed_from_its_aac(tmp_path: Path) -> None:
    for number, person in enumerate(("id00012", "id00015"), start=1):
        put(tmp_path / "dev" / "aac" / person / "21Uxsk56VDQ" / "00001.m4a", m4a(number))
        put(tmp_path / "dev" / "faces" / person / "21Uxsk56VDQ" / "0000025.jpg", image(number))
    put(tmp_path / "dev" / "aac" / "id00015" / "21Uxsk56VDQ" / "00002.m4a", b"")
    index = scan(find_layout(tmp_path), cropped=True)
    assert index.layout == "voxceleb2"
    assert index.report["usable"]["voice"]["captures"] == 2
    assert index.report["joint_recordings"] == 2
    assert index.speakers == {"id00012": "id00012", "id00015": "id00015"}
    assert list(index.report["broken"]) == ["empty"]


def test_without_pyav_the_extra_is_named_and_nothing_is_left_out_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    put(tmp_path / "dev" / "aac" / "id00012" / "v" / "00001.m4a", b"\0\0\0\x18ftypM4A ")
    with pytest.raises(MissingExtraError, match="`aac` extra") as raised:
        scan(find_layout(tmp_path), cropped=True)
    assert "ffmpeg" in (raised.value.hint or "")
