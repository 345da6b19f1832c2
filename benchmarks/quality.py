"""What the quality gate, the replay fingerprints and the motion check do with real captures: `python -m benchmarks.quality`.

Thresholds are set and measured on people that the evaluation never sees. Besides what is rejected it counts what a
degradation does to recognition (EER of clean against degraded captures) by a bundle's encoders.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepin._bundle.bundle import Bundle
from edgepin._capture.audio import load_voice, trim_silence
from edgepin._capture.faces import (
    FaceFinder,
    FaceSpec,
    HaarFinder,
    YuNetFinder,
    align,
    find_face,
    resize_crop,
)
from edgepin._capture.fingerprint import face_fingerprint, face_region, is_replay, voice_fingerprint
from edgepin._capture.image import decode_image
from edgepin._capture.liveness import FrameMotion
from edgepin._capture.quality import face_quality, voice_quality
from edgepin._errors import CaptureError
from edgepin._pipeline import make_pipeline
from edgepin._runtime.backends import open_runtime
from edgepin.metrics import eer

from .quality_by_dlib import equal_error, measure_by_dlib
from .quality_changes import (
    Image,
    Sound,
    babble,
    face_changes,
    gain,
    gamma,
    jpeg,
    noisy,
    opus,
    resampled,
    rotated,
    scaled,
    shaken,
    turned,
    with_noise,
)

SPEC = FaceSpec()
PARTS = ("voice", "face", "dlib", "replay", "motion")


def rejected(codes: Iterable[str | None]) -> dict[str, Any]:
    """How many captures, which part of them was rejected, and why."""
    counts = Counter(codes)
    total = sum(counts.values())
    why = {str(code): count for code, count in sorted(counts.items(), key=str) if code is not None}
    return {"captures": total, "rejected": round(1.0 - counts[None] / max(total, 1), 4), "codes": why}


def measure_voices(data: Path, pipeline: Any, every: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sets = {
        "librispeech/train": "librispeech/train/*/*.flac",
        "librispeech/calibration": "librispeech/calibration/*/*.flac",
        "speech_unlabelled": "speech_unlabelled/*.ogg",
    }
    clips = {
        name: [load_voice(path) for path in sorted(data.glob(pattern))[::every]]
        for name, pattern in sets.items()
    }
    result: dict[str, Any] = {"as they are": {}, "degraded": {}}
    for name, sounds in clips.items():
        result["as they are"][name] = rejected(voice_quality(pcm).code for pcm in sounds)
    others, own = clips["librispeech/train"], clips["librispeech/calibration"][::2]  # encoding takes long
    people = [path.parent.name for path in sorted(data.glob(sets["librispeech/calibration"]))[:: 2 * every]]

    def embed(sounds: list[Sound]) -> NDArray[np.float32]:
        return np.stack([pipeline.voice(pcm, sample_rate=16_000, gate=False).identity for pcm in sounds])

    changes: dict[str, Callable[[Sound], Sound]] = {"none": lambda pcm: pcm}
    for snr in (20, 15, 10, 5, 0):
        changes[f"white noise at {snr} dB"] = lambda pcm, snr=snr: with_noise(
            pcm, snr, rng.normal(size=len(pcm))
        )
        changes[f"babble at {snr} dB"] = lambda pcm, snr=snr: with_noise(
            pcm, snr, babble(others, len(pcm), rng)
        )
    for factor in (4, 16, 64):
        changes[f"overdriven {factor} times"] = lambda pcm, factor=factor: np.clip(
            pcm.astype(np.int32) * factor, -32768, 32767
        ).astype(np.int16)
    for seconds in (2.0, 1.5, 1.0, 0.75):
        changes[f"first {seconds:g} s"] = lambda pcm, seconds=seconds: pcm[: int(seconds * 16_000)]
    clean = embed(own)
    for name, change in changes.items():
        changed = [trim_silence(change(pcm)) for pcm in own]
        codes = [voice_quality(pcm).code for pcm in changed]
        degraded = embed(changed)
        passed = degraded.copy()
        passed[[code is not None for code in codes]] = np.nan
        result["degraded"][name] = rejected(codes) | {
            "eer": equal_error(clean, degraded, people),
            "eer_of_passed": equal_error(clean, passed, people),
        }
        print(f"voice, {name}: {result['degraded'][name]}", file=sys.stderr)
    return result


def found_code(image: Image, finder: FaceFinder) -> str | None:
    try:
        face = find_face(image, finder)
        return face_quality(align(image, face, SPEC), image.shape[:2], face=face).code
    except CaptureError as error:
        return error.code


def measure_faces(data: Path, pipeline: Any, yunet: FaceFinder, every: int) -> dict[str, Any]:
    sets = {
        "lfwcrop/train": ("lfwcrop/train/*/*", 8),
        "lfwcrop/calibration": ("lfwcrop/calibration/*/*", 1),
        "aligned112": ("aligned112/*/*", 1),
    }
    paths = {name: sorted(data.glob(pattern))[:: step * every] for name, (pattern, step) in sets.items()}
    images = {name: [decode_image(path) for path in found] for name, found in paths.items()}
    result: dict[str, Any] = {"as crops": {}, "found by YuNet": {}, "found by Haar": {}, "degraded": {}}
    for name, faces in images.items():
        codes = [face_quality(resize_crop(face, SPEC), face.shape[:2]).code for face in faces]
        result["as crops"][name] = rejected(codes)
    for label, finder in (("found by YuNet", yunet), ("found by Haar", HaarFinder())):
        result[label]["aligned112"] = rejected(found_code(face, finder) for face in images["aligned112"][::2])
    own = images["lfwcrop/calibration"]
    people = [path.parent.name for path in paths["lfwcrop/calibration"]]

    def embed(faces: list[Image]) -> NDArray[np.float32]:
        return np.stack([pipeline.face(face, cropped=True, gate=False).identity for face in faces])

    changes = face_changes()
    clean = embed(own)
    for name, change in changes.items():
        changed = [change(face) for face in own]
        codes = [face_quality(resize_crop(face, SPEC), face.shape[:2]).code for face in changed]
        degraded = embed(changed)
        passed = degraded.copy()
        passed[[code is not None for code in codes]] = np.nan
        result["degraded"][name] = rejected(codes) | {
            "eer": equal_error(clean, degraded, people),
            "eer_of_passed": equal_error(clean, passed, people),
        }
        print(f"face, {name}: {result['degraded'][name]}", file=sys.stderr)
    result["rotated, found by YuNet"] = {
        f"{degrees} degrees": rejected(
            found_code(rotated(face, degrees), yunet) for face in images["aligned112"][::6]
        )
        for degrees in (0, 15, 30, 45, 60)
    }
    result["by yaw, found by YuNet"] = by_yaw(images["aligned112"], paths["aligned112"], pipeline, yunet)
    return result


def by_yaw(faces: list[Image], paths: list[Path], pipeline: Any, yunet: FaceFinder) -> dict[str, Any]:
    """How well turned faces are told apart from others', against nearly frontal ones of the same people."""
    rows, yaws, people = [], [], []
    for face, path in zip(faces, paths, strict=True):
        found = yunet.find(face)
        if not found:
            continue
        crop = align(face, found[0], SPEC)
        yaw = face_quality(crop, face=found[0]).measurements.get("yaw")
        rows.append(pipeline.face(crop, cropped=True, gate=False).identity)
        yaws.append(abs(yaw or 0.0))
        people.append(path.parent.name)
    embeddings, turn, names = np.stack(rows), np.array(yaws), np.array(people)
    frontal = np.flatnonzero(turn < 10.0)
    result = {}
    for low, high in ((0, 10), (10, 20), (20, 30), (30, 40), (40, 90)):
        probes = np.flatnonzero((turn >= low) & (turn < high))
        scores = embeddings[frontal] @ embeddings[probes].T
        same = names[frontal][:, None] == names[probes][None, :]
        other = frontal[:, None] != probes[None, :]
        use = other.ravel()
        enough = (same & other).any() and (~same).any()
        rate = round(eer(scores.ravel()[use], same.ravel()[use]), 4) if enough else None
        result[f"{low}-{high} degrees"] = {"captures": len(probes), "eer": rate}
    return result


def measure_replays(data: Path, yunet: FaceFinder, every: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    result: dict[str, Any] = {"voice": {}, "face": {}}
    voices = [load_voice(path) for path in sorted(data.glob("librispeech/calibration/*/*.flac"))[::every]]
    commands = [load_voice(path) for path in sorted(data.glob("speech_unlabelled/*.ogg"))[::every]]
    for name, sounds in (("librispeech/calibration", voices), ("speech_unlabelled", commands)):
        prints = [voice_fingerprint(pcm) for pcm in sounds]
        matched = sum(is_replay(one, other) for one, other in itertools.combinations(prints, 2))
        result["voice"][f"pairs of {name}"] = {
            "pairs": len(prints) * (len(prints) - 1) // 2,
            "matched": matched,
        }

    def with_start(pcm: Sound) -> Sound:
        return np.concatenate([rng.normal(0.0, 20.0, 4_800).astype(np.int16), pcm])

    voice_changes: dict[str, Callable[[Sound], Sound]] = {
        "0.3 times the level": lambda pcm: (pcm * 0.3).astype(np.int16),
        "through 8 kHz": lambda pcm: resampled(pcm, 8_000),
        "through Opus": opus,
        "20 ms cut off": lambda pcm: pcm[320:],
        "0.4 s cut off": lambda pcm: pcm[6_400:],
        "0.3 s of noise before": with_start,
        "white noise at 20 dB": lambda pcm: with_noise(pcm, 20.0, rng.normal(size=len(pcm))),
        "cut, Opus, noise": lambda pcm: with_noise(
            opus(pcm[3_000:]), 20.0, rng.normal(size=len(pcm) - 3_000)
        ),
    }
    for name, change in voice_changes.items():
        known = [
            is_replay(voice_fingerprint(pcm), voice_fingerprint(change(pcm)))
            for pcm in (*voices[::4], *commands[::8])
        ]
        result["voice"][f"copy, {name}"] = {"copies": len(known), "matched": sum(known)}
    faces = [decode_image(path) for path in sorted(data.glob("aligned112/*/*"))[::every]]
    prints = [face_fingerprint(resize_crop(face, SPEC)) for face in faces]
    matched = sum(is_replay(one, other) for one, other in itertools.combinations(prints, 2))
    result["face"]["pairs of aligned112"] = {
        "pairs": len(prints) * (len(prints) - 1) // 2,
        "matched": matched,
    }
    face_changes: dict[str, Callable[[Image], Image]] = {
        "JPEG at 90": lambda face: jpeg(face, 90),
        "JPEG at 50": lambda face: jpeg(face, 50),
        "1.5 times the size": lambda face: scaled(face, 1.5),
        "0.75 times the size": lambda face: scaled(face, 0.75),
        "1.2 times the light": lambda face: gain(face, 1.2),
        "gamma 0.8": lambda face: gamma(face, 0.8),
        "smaller, gamma, JPEG at 70": lambda face: jpeg(gamma(scaled(face, 0.8), 0.9), 70),
    }
    for name, change in face_changes.items():
        known = [
            is_replay(
                face_fingerprint(resize_crop(change(face), SPEC)), face_fingerprint(resize_crop(face, SPEC))
            )
            for face in faces[::3]
        ]
        result["face"][f"copy, {name}"] = {"copies": len(known), "matched": sum(known)}
        for label, finder in (("YuNet", yunet), ("Haar", HaarFinder())):
            known = refound(faces[::6], change, finder)
            result["face"][f"copy, {name}, found by {label}"] = {"copies": len(known), "matched": sum(known)}
    moves: dict[str, tuple[float, float]] = {
        "1 degree": (1.0, 0.0),
        "2 degrees": (2.0, 0.0),
        "4 degrees": (4.0, 0.0),
        "the mouth": (0.0, 3.0),
    }
    for name, (yaw, mouth) in moves.items():
        known = [
            is_replay(
                face_fingerprint(
                    resize_crop(noisy(turned(face, yaw, 0.5 * yaw * rng.normal(), mouth), 3.0, rng), SPEC)
                ),
                face_fingerprint(resize_crop(face, SPEC)),
            )
            for face in faces[::3]
        ]
        result["face"][f"moved (a model), {name}"] = {"captures": len(known), "matched": sum(known)}
        for label, finder in (("YuNet", yunet), ("Haar", HaarFinder())):
            known = refound(
                faces[::6],
                lambda face, yaw=yaw, mouth=mouth: noisy(
                    turned(face, yaw, 0.5 * yaw * rng.normal(), mouth), 3.0, rng
                ),
                finder,
            )
            result["face"][f"moved (a model), {name}, found by {label}"] = {
                "captures": len(known),
                "matched": sum(known),
            }
    return result


def refound(faces: list[Image], change: Callable[[Image], Image], finder: FaceFinder) -> list[bool]:
    """Whether a copy of an image is known again after the face was found in it anew."""
    known = []
    for face in faces:
        scene = np.asarray(cv2.copyMakeBorder(face, 40, 40, 40, 40, cv2.BORDER_REPLICATE))
        try:
            prints = [
                face_fingerprint(face_region(each, find_face(each, finder)))
                for each in (scene, change(scene))
            ]
        except CaptureError:
            continue
        known.append(is_replay(*prints))
    return known


def measure_motion(data: Path, every: int) -> dict[str, Any]:
    """`FrameMotion` on five frames that are modelled from one photograph: there are no videos in the data."""
    rng = np.random.default_rng(2)
    faces = [decode_image(path) for path in sorted(data.glob("aligned112/*/*"))[:: 12 * every]]

    def living(face: Image, degrees: float, mouth: float) -> Image:
        return turned(face, rng.normal(0.0, degrees), rng.normal(0.0, degrees / 2), rng.uniform(0.0, mouth))

    frames: dict[str, Callable[[Image], Image]] = {
        "flat, still": lambda face: face,
        "flat, corners moved by 2 px": lambda face: shaken(face, 2.0, rng),
        "flat, corners moved by 5 px": lambda face: shaken(face, 5.0, rng),
        "flat, corners moved by 10 px": lambda face: shaken(face, 10.0, rng),
        "living, turned by 2 degrees": lambda face: living(face, 2.0, 0.0),
        "living, turned by 4 degrees": lambda face: living(face, 4.0, 0.0),
        "living, turned by 8 degrees": lambda face: living(face, 8.0, 0.0),
        "living, turned by 4 degrees and speaking": lambda face: living(face, 4.0, 5.0),
    }
    check, result = FrameMotion(), {}
    for name, frame in frames.items():
        verdicts = [
            check.check([resize_crop(noisy(frame(face), 3.0, rng), SPEC) for _ in range(5)]) for face in faces
        ]
        result[name] = {"sequences": len(faces), "passed": sum(verdict.live for verdict in verdicts)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of real faces and voices")
    parser.add_argument("--bundle", type=Path, required=True, help="whose encoders tell what harms")
    parser.add_argument("--every", type=int, default=1, help="take each N-th capture only")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure these parts")
    parser.add_argument(
        "--json", type=Path, help="where to write the result; parts that are not measured stay"
    )
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle, allow_unsigned=True)
    pipeline = make_pipeline(bundle, open_runtime(bundle, precision="fp32").runtime)
    yunet = YuNetFinder(options.data / "models" / "yunet_n_320_320.onnx")
    result: dict[str, Any] = {}
    if options.json and options.json.exists():
        result = json.loads(options.json.read_text("utf-8"))
    result |= {
        "command": f"python -m benchmarks.quality --data DIR --bundle {options.bundle.name}",
        "machine": f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}",
        "bundle": {"name": bundle.manifest.name, "digest": bundle.digest},
    }
    if "voice" in options.only:
        result["voice"] = measure_voices(options.data, pipeline, options.every)
    if "face" in options.only:
        result["face"] = measure_faces(options.data, pipeline, yunet, options.every)
    if "dlib" in options.only:
        try:
            result["face by dlib"] = measure_by_dlib(options.data, options.every)
        except ImportError as error:
            result["face by dlib"] = {"skipped": str(error)}
    if "replay" in options.only:
        result["replay"] = measure_replays(options.data, yunet, options.every)
    if "motion" in options.only:
        result["motion"] = measure_motion(options.data, options.every)
    text = json.dumps(result, indent=1) + "\n"
    if options.json:
        options.json.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
