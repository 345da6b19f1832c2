"""Sounds, images and arrays: what a person in front of the device can hand to it."""

from __future__ import annotations

import atexit
import base64
import functools
import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgepin import EdgePinError, LockedOutError, MemoryKey, Verifier
from edgepin._capture.audio import MAX_SAMPLE_RATE, decode_audio, load_voice, prepare, trim_silence
from edgepin._capture.image import decode_image
from edgepin._capture.quality import voice_quality
from edgepin._loop import read_lines, serve

from ..sdk.synthetic_captures import jpeg, picture, png, voice
from .bytes_mutations import damage, damage_text, mixed
from .image_mutations import damage_bmp, damage_jpeg, damage_png, damage_ppm, damage_webp
from .sound_mutations import damage_flac, damage_ogg, damage_wav
from .structure_mutations import damage_json
from .target import Target, expect


def _sounds(kind: str, subtypes: dict[str, int]) -> list[bytes]:
    import soundfile

    made = []
    samples = voice(1, seconds=0.3).astype(np.float32) / 32768
    for subtype, channels in subtypes.items():
        target = io.BytesIO()
        frames = np.repeat(samples[:, None], channels, axis=1)
        soundfile.write(target, frames, 16_000, format=kind, subtype=subtype)
        made.append(target.getvalue())
    return made


@functools.lru_cache(maxsize=16)
def _images(kind: str) -> list[bytes]:
    from PIL import Image

    whole = Image.fromarray(np.array(picture(1, side=24)))
    modes = {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "L", "P", "RGBA", "LA", "1", "I;16"),
        "WEBP": ("RGB", "RGBA"),
        "BMP": ("RGB", "L", "P", "1"),
        "PPM": ("RGB", "L", "1"),
    }[kind]
    made = []
    for mode in modes:
        image = (
            Image.fromarray(np.array(picture(1, side=24))[:, :, 0].astype(np.uint16) * 257)
            if mode == "I;16"
            else whole.convert(mode)
        )
        target = io.BytesIO()
        image.save(target, kind)
        made.append(target.getvalue())
        if kind == "JPEG" and mode == "RGB":
            exif = Image.Exif()
            exif[0x112] = 6
            for options in ({"progressive": True}, {"exif": exif}):
                target = io.BytesIO()
                image.save(target, kind, **options)
                made.append(target.getvalue())
        if kind == "WEBP":
            target = io.BytesIO()
            image.save(target, kind, lossless=True)
            made.append(target.getvalue())
    return made


def _sound(data: bytes) -> None:
    pcm, rate = decode_audio(data)
    expect(pcm.dtype == np.float32 and pcm.ndim == 1 and len(pcm) > 0, "samples of another kind")
    expect(np.isfinite(pcm).all() and np.abs(pcm).max() <= 1.0, "samples beyond [-1, 1]")
    expect(len(pcm) <= 60 * rate <= 60 * MAX_SAMPLE_RATE, "longer than 60 s")
    ready = trim_silence(prepare(pcm, rate))
    expect(ready.dtype == np.int16 and ready.ndim == 1 and len(ready) > 0, "speech of another kind")
    voice_quality(ready)
    beginning = load_voice(data, seconds=0.1)
    expect(0 < len(beginning) <= 1602, "more than the beginning")


def _image(data: bytes) -> None:
    rgb = decode_image(data, max_pixels=4e6)
    expect(rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3, "pixels of another kind")
    expect(0 < rgb.size <= 12e6, "more pixels than allowed")


# A header in our own words: which type, how many channels, which rate, and the samples.
_TYPES = ("int16", "int32", "float32", "float64", "uint8", "complex64", "float16", ">i2", "bool", "S1")


def _arrays() -> list[bytes]:
    return [
        bytes([i, channels, 62, 128]) + voice(1, seconds=0.05).tobytes()
        for i in range(4)
        for channels in (0, 1, 2)
    ]


def _array(data: bytes) -> None:
    head, content = data[:4].ljust(4, b"\0"), data[4:]
    kind = np.dtype(_TYPES[head[0] % len(_TYPES)])
    pcm: npt.NDArray[np.generic] = np.frombuffer(
        content[: len(content) // kind.itemsize * kind.itemsize], kind
    )
    if head[1]:
        pcm = pcm[: len(pcm) // head[1] * head[1]].reshape(-1, head[1])
    with np.errstate(all="ignore"):
        ready = prepare(pcm, int.from_bytes(head[2:4], "big") * (8 if head[1] & 1 else 1))
        expect(ready.dtype == np.int16 and ready.ndim == 1 and len(ready) > 0, "speech of another kind")
        voice_quality(trim_silence(ready))


# --- A whole verification, of which a damaged capture is a part


@functools.lru_cache(maxsize=1)
def _site() -> Path:
    """A bundle of tiny encoders, and a store with one person in it."""
    from edgepin._bundle.bundle import write_bundle

    from ..sdk.golden.make_golden import MINIMAL, manifest
    from .target import folder

    path = folder() / "verify.pin"
    write_bundle(path, manifest("fuzz"), MINIMAL, None)
    options = {"key": MemoryKey(bytes(32)), "allow_unsigned": True}
    with Verifier.open(path, path.with_suffix(".db"), **options) as made, made.enroll("a") as session:
        session.add_face(np.array(picture(1)), cropped=True)
        session.add_voice(voice(1), sample_rate=16_000)
    return path


@functools.lru_cache(maxsize=1)
def _verifier() -> Verifier:
    site = _site()
    atexit.register(_verifier.cache_clear)  # its kernel's plan must go before the interpreter does
    return Verifier.open(site, site.with_suffix(".db"), key=MemoryKey(bytes(32)), allow_unsigned=True)


def _pairs() -> list[bytes]:
    """A face and a voice in one file, the face's length before them."""
    import soundfile

    made = []
    for face in (png(picture(1, side=64)), jpeg(picture(2, side=64))):
        target = io.BytesIO()
        soundfile.write(target, voice(1), 16_000, format="FLAC")
        made.append(len(face).to_bytes(4, "big") + face + target.getvalue())
    return made


def _split(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length], data[4 + length :]


def _damage_pair(random: object, data: bytes) -> bytes:
    from random import Random

    assert isinstance(random, Random)
    face, sound = _split(data)
    kind = random.randrange(3)
    if kind != 1:
        face = (damage_png if face[:4] == b"\x89PNG" else damage_jpeg)(random, face)
    if kind:
        sound = (damage_flac if random.random() < 0.5 else damage)(random, sound)
    return len(face).to_bytes(4, "big") + face + sound


def _verify(data: bytes) -> None:
    """An acceptance needs captures that decode, and an LLR at the threshold: no error may turn into a yes."""
    face, sound = _split(data)
    try:
        decision = _verifier().verify("a", face=face, voice=sound, cropped=True)
    except LockedOutError:  # as it should be, after so many of them
        _verifier().guard.unlock("a", by="fuzz", why="the next case")
        return
    if decision.accepted:
        expect(decision.llr is not None and decision.threshold is not None, "accepted without a threshold")
        expect(
            np.isfinite(decision.llr) and decision.llr >= decision.threshold, "accepted below the threshold"
        )
        expect([reason.code for reason in decision.reasons] == ["accepted"], "accepted with another reason")
    for decode, part in ((decode_image, face), (load_voice, sound)):
        try:
            decode(part)
        except EdgePinError:
            expect(False, "decided on a capture that cannot be decoded")


# --- `edgepin verify --loop`


def _requests() -> list[bytes]:
    face = base64.b64encode(_images("JPEG")[0]).decode()
    sound = base64.b64encode(voice(1, seconds=0.2).tobytes()).decode()
    lines: list[dict[str, object]] = [
        {
            "op": "verify",
            "request": 1,
            "id": "a",
            "face": {"base64": face},
            "voice": {"pcm16": sound, "sample_rate": 16000},
        },
        {
            "op": "attempt",
            "request": "x",
            "id": "a",
            "face": [{"base64": face}],
            "session": "s",
            "door": "d",
            "face_cropped": True,
        },
        {"op": "verify", "id": "nobody", "face": "missing.jpg", "voice": "missing.wav"},
        {"op": "status"},
        {"op": "ping", "request": None},
    ]
    return [json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines]


def _loop(data: bytes) -> None:
    """Each line gets one answer, in JSON; what is no request is told so, and nothing that cannot be read is accepted."""
    answers: list[dict[str, object]] = []
    lines = list(read_lines(io.BytesIO(data)))
    serve(_verifier(), lines, lambda answer: answers.append(json.loads(json.dumps(answer, allow_nan=False))))
    quit_at = next((i for i, answer in enumerate(answers[1:]) if answer.get("op") == "quit"), len(lines) - 1)
    expect(len(answers) == 1 + min(len(lines), quit_at + 1), "a line without an answer, or with two")
    for answer in answers[1:]:
        if answer["ok"]:
            decision = answer.get("decision")
            expect(
                not (isinstance(decision, dict) and decision["accepted"] and decision["llr"] is None),
                "accepted without scores",
            )
        else:
            error = answer["error"]
            if isinstance(error, dict) and error["exit_code"] == 4:
                _verifier().guard.unlock("a", by="fuzz", why="the next case")
            expect(
                isinstance(error, dict) and error["exit_code"] in (1, 2, 3, 4, 5, 6),
                "an error without a code",
            )


TARGETS = (
    Target("wav", "`decode_audio` to the quality check on WAV",
           lambda: _sounds("WAV", {"PCM_16": 1, "PCM_24": 2, "PCM_U8": 1, "FLOAT": 2, "DOUBLE": 1, "ULAW": 1, "IMA_ADPCM": 1,
                                   "MS_ADPCM": 2, "GSM610": 1})
           + _sounds("WAVEX", {"PCM_16": 3}) + _sounds("RF64", {"PCM_16": 1}),
           damage_wav, _sound, share=2.0),
    Target("flac", "`decode_audio` to the quality check on FLAC",
           lambda: _sounds("FLAC", {"PCM_16": 1, "PCM_24": 2, "PCM_S8": 1}), damage_flac, _sound, share=1.0),
    Target("ogg", "`decode_audio` to the quality check on Ogg",
           lambda: _sounds("OGG", {"VORBIS": 1, "OPUS": 2}), damage_ogg, _sound, share=0.3),
    Target("pcm", "`prepare` on arrays of any type, shape and rate", _arrays, damage, _array, share=1.0),
    Target("jpeg", "`decode_image` on JPEG", lambda: _images("JPEG"), damage_jpeg, _image, share=2.0),
    Target("png", "`decode_image` on PNG", lambda: _images("PNG"), damage_png, _image, share=1.0),
    Target("webp", "`decode_image` on WebP", lambda: _images("WEBP"), damage_webp, _image),
    Target("bmp", "`decode_image` on BMP", lambda: _images("BMP"), damage_bmp, _image),
    Target("ppm", "`decode_image` on PPM", lambda: _images("PPM"), damage_ppm, _image),
    Target("loop", "the JSON lines of `edgepin verify --loop`", _requests, mixed(damage_json, damage_text), _loop,
           mebibytes=512, share=0.2),
    Target("verify", "`Verifier.verify` on a face and a voice of which one or both are damaged", _pairs, _damage_pair, _verify,
           share=0.1, mebibytes=512),
)  # fmt: skip
