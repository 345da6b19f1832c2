"""Files that are small and would swell, or lie about their size: memory stays bounded, and so does time.

Each is read in a process of its own, whose highest memory is asked for afterwards.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import wave
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ..sdk.synthetic_captures import picture, png
from .image_mutations import png as png_of
from .image_mutations import png_chunks
from .sound_mutations import riff, riff_chunks

RUN = """
import json, resource, sys, time
from pathlib import Path
path = Path(sys.argv[1])
from edgepin import EdgePinError
{setup}
started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    {call}
    said = "taken"
except EdgePinError as error:
    said = getattr(error, "code", type(error).__name__)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([said, grown / 1024, time.process_time() - started]))
"""
IMAGE = (
    "from edgepin._capture.image import decode_image; from PIL import PngImagePlugin, JpegImagePlugin",
    "decode_image(path)",
)
SOUND = (
    "from edgepin._capture.audio import load_voice, decode_audio; import soundfile",
    "decode_audio(path)",
)
NPZ = (
    "from edgepin.evaluation import evaluate_embeddings",
    "evaluate_embeddings(path, path.with_suffix('.txt'))",
)
JOURNAL = (
    "from edgepin._store.tombstones import ErasureJournal",
    "ErasureJournal(path.with_suffix(''), bytes(32)).read()",
)
KEY = ("from edgepin import KeyFile", "KeyFile(path, create=False)")


def declared(width: int, height: int) -> bytes:
    """A PNG of one color that says how large it is, with as many pixels as it says or a few."""
    rows = bytes(min((width * 3 + 1) * height, 150 << 20))
    return png_of(
        [
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows, 1)),
            (b"IEND", b""),
        ]
    )


def with_chunk(name: bytes, head: bytes, size: int) -> bytes:
    """A small picture with a text or a profile that swells to `size`."""
    chunks = png_chunks(png(picture(1, side=32)))
    return png_of([*chunks[:1], (name, head + zlib.compress(bytes(size), 1)), *chunks[1:]])


def wav(channels: int, rate: int, frames: int) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(1)
        file.setframerate(rate)
        file.writeframes(bytes(channels * frames))
    return target.getvalue()


def flac(channels: int, rate: int, seconds: int) -> bytes:
    import soundfile

    target = io.BytesIO()
    soundfile.write(target, np.zeros((rate * seconds, channels), np.int16), rate, format="FLAC")
    return target.getvalue()


def lying_wav() -> bytes:
    data = wav(1, 16_000, 1000)
    return riff(b"WAVE", riff_chunks(data), {-1: 0xFFFFFFFF, 1: 0xFFFFFFF0})


def npz(size: int, shape: tuple[int, ...]) -> bytes:
    """An archive whose embeddings are said, by its directory, to have `size` bytes, and by their own header a shape."""
    target = io.BytesIO()
    header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    with zipfile.ZipFile(target, "w") as archive:
        names = io.BytesIO()
        np.save(names, np.array(["a", "b"]))
        archive.writestr("names.npy", names.getvalue())
        archive.writestr("embeddings.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    data = bytearray(target.getvalue())
    if size:
        entry = data.rindex(b"PK\1\2")
        data[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "read", "verdict", "mebibytes"),
    [
        pytest.param(lambda: declared(60_000, 60_000), IMAGE, "too_large", 48, id="a PNG that declares 3.6 billion pixels"),
        pytest.param(lambda: declared(7_000, 7_000), IMAGE, "taken", 700, id="a PNG of 49 million pixels"),
        pytest.param(lambda: with_chunk(b"zTXt", b"k\0\0", 96 << 20), IMAGE, "damaged", 64, id="a PNG whose text swells"),
        pytest.param(lambda: with_chunk(b"iCCP", b"k\0\0", 96 << 20), IMAGE, "damaged", 64, id="a PNG whose profile swells"),
        pytest.param(lying_wav, SOUND, "damaged", 16, id="a WAV that promises 4 GB"),
        pytest.param(lambda: wav(32, 16_000, 16_000 * 60), SOUND, "taken", 160, id="a WAV of 32 channels"),
        pytest.param(lambda: flac(4, 96_000, 60), SOUND, "taken", 160, id="a FLAC of a minute of silence in 4 channels"),
        pytest.param(lambda: flac(1, 48_000, 70), SOUND, "too_long", 16, id="a FLAC of more than a minute"),
        pytest.param(lambda: npz(3 << 30, (2, 3 << 27)), NPZ, "UsageError", 64, id="an archive that declares 3 GiB"),
        pytest.param(lambda: npz(0, (2, 1 << 40)), NPZ, "UsageError", 64, id="embeddings that declare 8 TiB"),
        pytest.param(lambda: b"\n" * (8 << 20), JOURNAL, "taken", 32, id="a journal of 8 million empty lines"),
        pytest.param(lambda: bytes(64 << 20), KEY, "IntegrityError", 16, id="a key file of 64 MiB"),
    ],
)  # fmt: skip
def test_what_swells_or_lies_takes_bounded_memory(
    make: Callable[[], bytes], read: tuple[str, str], verdict: str, mebibytes: int, tmp_path: Path
) -> None:
    path = tmp_path / "file.erased"
    path.write_bytes(make())
    path.chmod(0o600)
    path.with_suffix(".txt").write_text("1 a b\n0 a b\n")
    script = RUN.format(setup=read[0], call=read[1])
    run = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True, timeout=120
    )
    said, grown, seconds = json.loads(run.stdout)
    assert (said, grown < mebibytes) == (verdict, True), f"{said}, {grown:.0f} MiB more"
    assert seconds < 20.0
